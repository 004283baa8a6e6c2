"""Scores of overlapping windows, added where they lie; what no later window sees is handed on and forgotten.

With windows that share half of their sides, about half a patch along the longest axis, times the scan's other two
sides, is open at a time, and not the whole scan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from abdoseg.inference.windows import Part, WindowGrid

Box = tuple[slice, slice, slice]


@dataclass
class _Tile:
    """A part of the scan that still waits for windows."""

    box: Box
    scores: Tensor
    weights: Tensor


class Stitcher:
    """Weighted means of scores over the windows of a grid.

    Parameters
    ----------
    grid
        The windows; they have to be added in its order.
    device
        Where the scores are summed; main memory where that has no room.
    reach
        Voxels beyond a window's sides that its scores may reach.
    """

    def __init__(self, grid: WindowGrid, device: torch.device, reach: int = 0) -> None:
        self._grid = grid
        self._device = device
        self._open: dict[tuple[int, int], _Tile] = {}
        a, b, _ = grid.order
        self._parts = [grid.parts(axis, reach) for axis in (a, b)]

    def add(self, box: Box, scores: Tensor, weights: Tensor) -> None:
        """Add scores ``(C, x, y, z)``, times their weights ``(x, y, z)``, at a box that lies within the scan."""
        a, b, _ = self._grid.order
        for i in _met(self._parts[0], box[a]):
            for j in _met(self._parts[1], box[b]):
                tile = self._tile((i, j), len(scores))
                common = [slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(box, tile.box, strict=True)]
                there = tuple(slice(c.start - q.start, c.stop - q.start) for c, q in zip(common, tile.box, strict=True))
                here = tuple(slice(c.start - q.start, c.stop - q.start) for c, q in zip(common, box, strict=True))
                weight = weights[here].to(tile.scores.device)
                tile.scores[:, *there].addcmul_(scores[:, *here].to(tile.scores.device), weight)
                tile.weights[there] += weight

    def finished(self, column: tuple[int, int]) -> Iterator[tuple[Box, Tensor]]:
        """Give out the boxes that are complete once ``column`` was added, and their mean scores ``(C, x, y, z)``."""
        along = [
            [i for i, part in enumerate(parts) if part.last == n] for parts, n in zip(self._parts, column, strict=True)
        ]
        for number in product(*along):
            tile = self._open.pop((number[0], number[1]))
            yield tile.box, _mean(tile)

    def _tile(self, number: tuple[int, int], n_classes: int) -> _Tile:
        if number not in self._open:
            a, b, c = self._grid.order
            sides = {a: self._parts[0][number[0]].side, b: self._parts[1][number[1]].side}
            sides[c] = slice(0, self._grid.shape[c])
            box = (sides[0], sides[1], sides[2])
            shape = [side.stop - side.start for side in box]
            scores = _zeros((n_classes, *shape), self._device)
            self._open[number] = _Tile(box, scores, torch.zeros(shape, device=scores.device))
        return self._open[number]


@torch.inference_mode()
def _mean(tile: _Tile) -> Tensor:
    return tile.scores.div_(tile.weights)


def _met(parts: list[Part], side: slice) -> list[int]:
    """Return the numbers of the parts that share a voxel with ``side``."""
    return [i for i, part in enumerate(parts) if part.side.start < side.stop and side.start < part.side.stop]


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    try:
        return torch.zeros(shape, device=device)
    except torch.OutOfMemoryError:
        return torch.zeros(shape)


def open_voxels(grid: WindowGrid) -> int:
    """Return the most voxels whose scores are kept at a time, by going through the columns."""
    a, b, c = grid.order
    parts = [grid.parts(axis) for axis in (a, b)]
    kept: dict[tuple[int, int], int] = {}
    most = 0
    for column in grid.columns():
        sides = [
            slice(grid.starts[axis][n], grid.starts[axis][n] + grid.patch[axis])
            for axis, n in zip((a, b), column, strict=True)
        ]
        for m, n in product(_met(parts[0], sides[0]), _met(parts[1], sides[1])):
            area = math.prod(part.side.stop - part.side.start for part in (parts[0][m], parts[1][n]))
            kept[m, n] = area * grid.shape[c]
        most = max(most, sum(kept.values()))
        kept = {(m, n): v for (m, n), v in kept.items() if (parts[0][m].last, parts[1][n].last) != column}
    return most
