"""Axis-aligned resampling of an image to another spacing.

After reorientation the target grid shares the scan's axes, so the work is separable index arithmetic: no
coordinate volume is ever made. One pass reads the native voxels in their own type and in the order of their memory, and
applies the window.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.kernels.memory import MemoryOrder

Positions = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""For each axis, where the target voxels lie on the source grid (fractional index, inside it)."""


def resample_window(
    array: NDArray[Any], positions: Positions, window: tuple[float, float], levels: int
) -> NDArray[np.int16]:
    """Interpolate linearly, clip to a window and quantise, in one pass.

    Parameters
    ----------
    array
        ``(X, Y, Z)``, any real dtype and any strides.
    positions
        Target positions along each axis.
    window
        Intensities that become 0 and ``levels``; in between is linear, outside is clipped.
    levels
        Number of steps, at most 32767.

    Returns
    -------
    ndarray
        int16 ``(X', Y', Z')`` in 0..levels.

    Notes
    -----
    Interpolation comes before clipping, as if the whole scan had been resampled first (MONAI's order of
    ``Spacingd`` then ``ScaleIntensityRanged``).
    """
    order = MemoryOrder.of(array)
    stored = np.ascontiguousarray(order.view(array))
    tables = [
        _neighbours(positions[axis], array.shape[axis], backwards=back) for axis, back in zip(*order, strict=True)
    ]
    lows, highs, fracs = zip(*tables, strict=True)
    low, high = window
    gain = levels / (high - low) if high > low else 0.0
    out = np.empty([len(positions[axis]) for axis in order.axes], dtype=np.int16)
    _linear(stored, lows, highs, fracs, np.float32(low), np.float32(gain), np.float32(levels), out)
    return order.restored(out)


def _neighbours(
    positions: NDArray[np.float64], n: int, *, backwards: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the voxels before and after each position, as they lie in memory, and the weight of the latter."""
    low = np.minimum(np.floor(positions).astype(np.int64), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    weight = (positions - low).astype(np.float32)
    return (n - 1 - low, n - 1 - high, weight) if backwards else (low, high, weight)


@numba.njit(cache=True, parallel=True, nogil=True)
def _linear(array, lows, highs, fracs, low, gain, levels, out):  # type: ignore[no-untyped-def]
    """Blend four rows of the two slow axes, then interpolate along the blended one."""
    for i in numba.prange(out.shape[0]):
        row = np.empty(array.shape[2], dtype=np.float32)
        x0, x1, fx = lows[0][i], highs[0][i], fracs[0][i]
        for j in range(out.shape[1]):
            y0, y1, fy = lows[1][j], highs[1][j], fracs[1][j]
            _blend(row, array[x0, y0], array[x0, y1], (1 - fx) * (1 - fy), (1 - fx) * fy)
            _add_blend(row, array[x1, y0], array[x1, y1], fx * (1 - fy), fx * fy)
            _along(row, lows[2], highs[2], fracs[2], low, gain, levels, out[i, j])


# Apart, with few one-dimensional arrays each: loops that LLVM turns into vector instructions.


@numba.njit(cache=True, nogil=True)
def _blend(row, a, b, wa, wb):  # type: ignore[no-untyped-def]
    for k in range(row.size):
        row[k] = wa * np.float32(a[k]) + wb * np.float32(b[k])


@numba.njit(cache=True, nogil=True)
def _add_blend(row, a, b, wa, wb):  # type: ignore[no-untyped-def]
    for k in range(row.size):
        row[k] += wa * np.float32(a[k]) + wb * np.float32(b[k])


@numba.njit(cache=True, nogil=True)
def _along(row, lows, highs, fracs, low, gain, levels, out):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        f = fracs[k]
        value = (row[lows[k]] * (1 - f) + row[highs[k]] * f - low) * gain
        out[k] = np.int16(np.rint(min(max(value, np.float32(0)), levels)))
