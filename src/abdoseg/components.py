"""The connected components of a mask: how large, where, and writing them elsewhere."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.kernels.components import Runs, find_runs, write_runs
from abdoseg.kernels.memory import MemoryOrder


@dataclass(frozen=True, eq=False)
class Components:
    """The 26-connected components of a mask ``(X, Y, Z)``, numbered 0, 1, ...

    Parameters
    ----------
    shape
        The mask's.
    runs
        Its runs along the axis whose voxels are neighbours in memory.
    """

    shape: tuple[int, int, int]
    runs: Runs
    _order: MemoryOrder

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "Components":
        """Find the components of a mask, bool ``(X, Y, Z)`` with any strides."""
        order = MemoryOrder.of(mask)
        return cls(mask.shape, find_runs(np.ascontiguousarray(order.view(mask))), order)

    @cached_property
    def voxels(self) -> NDArray[np.int64]:
        """Size of each component, ``(n,)``."""
        return self.voxels_of(self.runs)

    @cached_property
    def centroids(self) -> NDArray[np.float64]:
        """Mean voxel index of each component, ``(n, 3)``."""
        length = self.runs.stop - self.runs.start
        along = (*self._rows(), (self.runs.start + self.runs.stop - 1) / 2)
        centre = np.empty((len(self.voxels), 3))
        for axis, back, place in zip(*self._order, along, strict=True):
            mean = self._total(self.runs, place * length) / self.voxels
            centre[:, axis] = self.shape[axis] - 1 - mean if back else mean
        return centre

    def beyond(self, axis: int, index: float) -> Runs:
        """Return the parts of the runs whose index along ``axis`` is greater than ``index``."""
        runs, place = self.runs, self._order.axes.index(axis)
        # In memory an axis may run the other way: what lies beyond comes first there.
        back = self._order.backwards[place]
        beyond = int(np.floor(index)) + 1
        first, stop = (0, self.shape[axis] - beyond) if back else (beyond, self.shape[axis])
        if place == 2:
            start, end = np.maximum(runs.start, first), np.minimum(runs.stop, stop)
            kept = start < end
            return Runs(runs.row[kept], start[kept], end[kept], runs.component[kept])
        where = self._rows()[place]
        kept = (where >= first) & (where < stop)
        return Runs(*(values[kept] for values in runs))

    def voxels_of(self, runs: Runs) -> NDArray[np.int64]:
        """Return how many voxels of each component lie in ``runs``, ``(n,)``."""
        return self._total(runs, runs.stop - runs.start).astype(np.int64)

    def write(self, runs: Runs, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Write one value a component, ``(n,)``, into ``out (X, Y, Z)`` where ``runs`` lie, in place."""
        write_runs(runs, values[runs.component], self._order.view(out))

    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each run lies along the two slower axes of memory."""
        return np.divmod(self.runs.row, self.shape[self._order.axes[1]])

    def _total(self, runs: Runs, of_run: NDArray[Any]) -> NDArray[np.float64]:
        n = int(self.runs.component.max(initial=-1)) + 1
        return np.bincount(runs.component, of_run, minlength=n).astype(np.float64)
