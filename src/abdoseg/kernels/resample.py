"""Axis-aligned resampling of a scan to another spacing, image and labels.

After reorientation the target grid shares the scan's axes, so the work is separable index arithmetic: no
coordinate volume is ever made. One pass reads the native voxels in their own type and applies the window.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

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
    out = np.empty(tuple(len(p) for p in positions), dtype=np.int16)
    lows, fracs = zip(*(_split(p, n) for p, n in zip(positions, array.shape, strict=True)), strict=True)
    low, high = window
    gain = levels / (high - low) if high > low else 0.0
    _linear(array, lows, fracs, np.float32(low), np.float32(gain), np.float32(levels), out)
    return out


def resample_nearest(array: NDArray[np.uint8], positions: Positions) -> NDArray[np.uint8]:
    """Return the value of the nearest voxel, uint8 ``(X', Y', Z')``; half-way goes to the lower index."""
    index = [np.ceil(p - 0.5).astype(np.int64) for p in positions]
    return np.ascontiguousarray(array[np.ix_(*index)])


def _split(positions: NDArray[np.float64], n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    low = np.minimum(np.floor(positions).astype(np.int64), max(n - 2, 0))
    return low, (positions - low).astype(np.float32)


@numba.njit(cache=True, parallel=True, fastmath=False, nogil=True)
def _linear(array, lows, fracs, low, gain, levels, out):  # type: ignore[no-untyped-def]
    nx, ny, nz = out.shape
    sx, sy, sz = array.shape
    for i in numba.prange(nx):
        x0 = lows[0][i]
        x1 = min(x0 + 1, sx - 1)
        fx = fracs[0][i]
        row0 = np.empty(sz, dtype=np.float32)
        for j in range(ny):
            y0 = lows[1][j]
            y1 = min(y0 + 1, sy - 1)
            fy = fracs[1][j]
            w00 = (1 - fx) * (1 - fy)
            w01 = (1 - fx) * fy
            w10 = fx * (1 - fy)
            w11 = fx * fy
            for k in range(sz):
                row0[k] = (
                    w00 * np.float32(array[x0, y0, k])
                    + w01 * np.float32(array[x0, y1, k])
                    + w10 * np.float32(array[x1, y0, k])
                    + w11 * np.float32(array[x1, y1, k])
                )
            for k in range(nz):
                z0 = lows[2][k]
                z1 = min(z0 + 1, sz - 1)
                fz = fracs[2][k]
                value = (row0[z0] * (1 - fz) + row0[z1] * fz - low) * gain
                value = min(max(value, np.float32(0)), levels)
                out[i, j, k] = np.int16(np.rint(value))
