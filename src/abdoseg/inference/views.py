"""Test-time augmentation: a window seen again larger, smaller or shifted; never mirrored: left is not right."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from abdoseg.inference.settings import View
from abdoseg.inference.windows import Box, Window

TEST_TIME_VIEWS = (
    View(),
    View(scale=0.95),
    View(scale=1.05),
    View(shift=(0.125, 0.125, 0.125)),
    View(shift=(-0.125, -0.125, -0.125)),
)
"""What ``predict --tta`` looks at: five forward passes a window instead of one."""


@dataclass(frozen=True)
class Region:
    """What a view of a window shows.

    Parameters
    ----------
    box
        Its voxels within the scan.
    lacking
        Voxels beyond the scan's sides, before and after along X, Y, Z; shown as 0.
    """

    box: Box
    lacking: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z, those beyond the scan included."""
        x, y, z = (s.stop - s.start + sum(beyond) for s, beyond in zip(self.box, self.lacking, strict=True))
        return x, y, z


def region_of(window: Window, view: View, shape: tuple[int, ...]) -> Region:
    """Return what a view of a window shows of a scan of ``shape``; it is moved into the scan where it fits."""
    sides = [_side(*along, view) for along in zip(window, view.shift, shape, strict=True)]
    (x, a), (y, b), (z, c) = sides
    return Region((x, y, z), (a, b, c))


def _side(window: slice, shift: float, n: int, view: View) -> tuple[slice, tuple[int, int]]:
    patch = window.stop - window.start
    size = seen(patch, view.scale)
    start = window.start + (patch - size) // 2 + round(shift * patch)
    if size <= n:
        start = min(max(start, 0), n - size)
    inside = slice(max(start, 0), min(start + size, n))
    return inside, (inside.start - start, start + size - inside.stop)


def seen(patch: int, scale: float) -> int:
    """Return how many voxels of the scan a patch side shows."""
    return max(1, round(patch * scale))


def reach_of(views: tuple[View, ...], patch: tuple[int, int, int]) -> int:
    """Return how far beyond a window its views may show, voxels."""
    return max(
        abs(round(shift * p)) + max(0, math.ceil((seen(p, view.scale) - p) / 2))
        for view in views
        for shift, p in zip(view.shift, patch, strict=True)
    )


def cut(volume: Tensor, region: Region, patch: tuple[int, int, int]) -> Tensor:
    """Return what a region shows, brought to a patch, ``(X, Y, Z)``."""
    shown = volume[region.box]
    if any(any(beyond) for beyond in region.lacking):
        shown = nn.functional.pad(shown, [n for beyond in reversed(region.lacking) for n in beyond])
    return shown if shown.shape == patch else _resized(shown[None], patch)[0]


def put_back(scores: Tensor, region: Region) -> Tensor:
    """Return the scores ``(C, X, Y, Z)`` of a patch on the voxels of its region that lie within the scan."""
    whole = scores if scores.shape[1:] == region.shape else _resized(scores, region.shape)
    return whole[:, *within(region)]


def within(region: Region) -> Box:
    """Return which voxels of a region lie within the scan."""
    x, y, z = (slice(a, n - b) for (a, b), n in zip(region.lacking, region.shape, strict=True))
    return x, y, z


def _resized(volumes: Tensor, shape: tuple[int, int, int]) -> Tensor:
    resized: Tensor = torch.nn.functional.interpolate(volumes[None], size=shape, mode="trilinear", align_corners=False)
    return resized[0]
