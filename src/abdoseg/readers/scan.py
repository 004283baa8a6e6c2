"""What every reader returns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.geometry import Grid, checked_affine, spacing_of
from abdoseg.types import Affine

SMALLEST_MM, LARGEST_MM = 5.0, 5000.0
"""A scan whose longest side is outside this range states its spacing in another unit."""


@dataclass(frozen=True, eq=False)
class Scan:
    """Voxels of one file on the file's own axes.

    Parameters
    ----------
    array
        ``(X, Y, Z)``, any real dtype, native byte order; scaled intensities (HU for CT).
    affine
        ``(4, 4)``, voxel index to mm in RAS+, directions orthonormal.
    warnings
        What was odd and mended.
    """

    array: NDArray[Any]
    affine: Affine
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The file's own grid."""
        x, y, z = self.array.shape
        return Grid((x, y, z), self.affine)


def checked_scan(array: NDArray[Any], affine: Affine, warnings: tuple[str, ...] = ()) -> Scan:
    """Return a scan after the checks that hold for every format.

    Raises
    ------
    CaseError
        If the array is not a real-valued volume or the affine is not usable.
    """
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise CaseError(f"found {array.ndim}-D {array.shape}, expected 3-D; save one volume a file")
    if min(array.shape) < 2:
        raise CaseError(f"found shape {array.shape}, expected at least 2 voxels along each axis")
    if array.dtype.kind not in "iufb":
        raise CaseError(f"found voxels of type {array.dtype}, expected real numbers (no colour, no complex)")
    affine, warning = checked_affine(affine)
    extent = np.array(spacing_of(affine)) * array.shape
    if extent.max() > LARGEST_MM or extent.max() < SMALLEST_MM:
        found = " x ".join(f"{mm:.3g}" for mm in extent)
        limits = f"{SMALLEST_MM:g} to {LARGEST_MM:g} mm"
        raise CaseError(f"header: the scan spans {found} mm, expected {limits}; wrong unit of the spacing?")
    if array.dtype.itemsize > 8:
        raise CaseError(f"found voxels of type {array.dtype} (a huge slope in the header?), expected at most 64 bits")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Scan(native, affine, (*warnings, *([warning] if warning else [])))
