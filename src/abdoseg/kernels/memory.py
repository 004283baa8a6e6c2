"""The order in which an array's voxels lie in memory: kernels that follow it are several times as fast."""

from typing import Any, Literal, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

_TILE = 32


def letter_of(array: NDArray[Any]) -> Literal["C", "F"]:
    """Return numpy's letter for the order of an array's memory; C where it is neither or both."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


class MemoryOrder(NamedTuple):
    """How to view a volume so that its last axis is the one whose voxels are neighbours in memory.

    ``axes`` are the volume's axes from the slowest to the fastest, ``backwards`` whether each runs against memory.
    """

    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]

    @classmethod
    def of(cls, volume: NDArray[Any]) -> "MemoryOrder":
        """Return the order of a volume ``(X, Y, Z)`` with any strides."""
        x, y, z = sorted(range(3), key=lambda axis: -abs(volume.strides[axis]))
        strides = volume.strides
        return cls((x, y, z), (strides[x] < 0, strides[y] < 0, strides[z] < 0))

    def view(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a volume's voxels in this order; a view."""
        return volume.transpose(self.axes)[tuple(slice(None, None, -1 if back else 1) for back in self.backwards)]

    def restored(self, ordered: NDArray[Any]) -> NDArray[Any]:
        """Return the volume, C-contiguous, of an array whose axes are those of ``axes``, none of them backwards."""
        a, b, c = ordered.shape
        if self.axes == (2, 1, 0) and ordered.flags.c_contiguous:
            out = np.empty((c, b, a), dtype=ordered.dtype)
            _turn(ordered, out)
            return out
        return np.ascontiguousarray(ordered.transpose(np.argsort(self.axes)))


@numba.njit(cache=True, nogil=True, parallel=True)
def _turn(ordered, out):  # type: ignore[no-untyped-def]
    """Write ``out[c, b, a] = ordered[a, b, c]``, in tiles that stay in the cache."""
    na, nb, nc = ordered.shape
    for b in numba.prange(nb):
        for a0 in range(0, na, _TILE):
            for c0 in range(0, nc, _TILE):
                for c in range(c0, min(c0 + _TILE, nc)):
                    for a in range(a0, min(a0 + _TILE, na)):
                        out[c, b, a] = ordered[a, b, c]
