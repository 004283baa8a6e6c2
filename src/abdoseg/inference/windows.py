"""Where the windows over a scan lie, and which of them is the last to see a part of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from monai.data.utils import dense_patch_slices

from abdoseg.inference.settings import InferenceSettings

Box = tuple[slice, slice, slice]
"""Voxels of a scan, along X, Y, Z."""

Window = Box
"""Where a patch lies in the (padded) scan."""


class Part(NamedTuple):
    """Voxels along an axis that the same windows see."""

    side: slice
    first: int
    """Number of the first start whose window sees them."""
    last: int
    """Number of the last one."""


@dataclass(frozen=True)
class WindowGrid:
    """The windows over a scan: every combination of the starts along X, Y and Z.

    Parameters
    ----------
    shape
        ``(X, Y, Z)`` of the scan, padded to at least a patch; voxels.
    patch
        ``(X, Y, Z)`` of a window.
    starts
        First voxels of the windows along each axis, increasing.
    order
        The axes as they are run, the outermost first: the longest, so that the least of the scan is open at a time.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    order: tuple[int, int, int]

    @classmethod
    def over(cls, shape: Sequence[int], settings: InferenceSettings) -> "WindowGrid":
        """Return the grid over a scan of ``shape``; the windows are MONAI's ``sliding_window_inference``'s."""
        step = [max(1, int(p * (1 - settings.overlap))) for p in settings.patch_shape]
        padded = [max(n, p) for n, p in zip(shape, settings.patch_shape, strict=True)]
        x, y, z = (
            tuple(sorted({s.start for (s,) in dense_patch_slices((n,), (p,), (i,))}))
            for n, p, i in zip(padded, settings.patch_shape, step, strict=True)
        )
        first, second, third = sorted(range(3), key=lambda axis: -padded[axis])
        return cls((padded[0], padded[1], padded[2]), settings.patch_shape, (x, y, z), (first, second, third))

    def __len__(self) -> int:
        """Return the number of windows."""
        x, y, z = self.starts
        return len(x) * len(y) * len(z)

    def columns(self) -> list[tuple[int, int]]:
        """Return the numbers of the starts along the two outer axes, in the order they are run."""
        a, b, _ = self.order
        return [(i, j) for i in range(len(self.starts[a])) for j in range(len(self.starts[b]))]

    def windows_of_column(self, column: tuple[int, int]) -> list[Window]:
        """Return the windows of a column, along the inner axis."""
        a, b, c = self.order
        corner = [0, 0, 0]
        windows = []
        for start in self.starts[c]:
            corner[a], corner[b], corner[c] = self.starts[a][column[0]], self.starts[b][column[1]], start
            x, y, z = (slice(s, s + p) for s, p in zip(corner, self.patch, strict=True))
            windows.append((x, y, z))
        return windows

    def parts(self, axis: int, reach: int = 0) -> list[Part]:
        """Return the parts of an axis that the same windows see, in order; together they are the axis.

        Windows may see ``reach`` voxels beyond their sides.
        """
        n = self.shape[axis]
        seen = [(max(s - reach, 0), min(s + self.patch[axis] + reach, n)) for s in self.starts[axis]]
        cuts = sorted({cut for sides in seen for cut in sides})
        parts = []
        for a, b in pairwise(cuts):
            numbers = [i for i, (low, high) in enumerate(seen) if low <= a and b <= high]
            parts.append(Part(slice(a, b), numbers[0], numbers[-1]))
        return parts


def windows_of(shape: Sequence[int], settings: InferenceSettings) -> list[Window]:
    """Return the windows over a scan of ``shape``, padded to at least a patch, in the order they are run."""
    grid = WindowGrid.over(shape, settings)
    return [window for column in grid.columns() for window in grid.windows_of_column(column)]
