"""Arrays as what NiiVue reads: gzip NIfTI, made in memory."""

from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.types import Affine, Label

_SCANNER = 1
"""NIfTI's "scanner anatomical"."""

_STEPS = 65534
"""Levels of an image that has to be scaled into int16."""


def nifti_gz(array: NDArray[np.int16] | Label, affine: Affine, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Return a gzip NIfTI-1 of an array as it is; intensities are ``array * slope + intercept``.

    Parameters
    ----------
    array
        int16 or uint8, ``(X, Y, Z)``.
    affine
        ``(4, 4)``, voxel index to mm, RAS+.
    slope, intercept
        Go into the header.
    """
    image: Any = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=_SCANNER)
    image.set_sform(affine, code=_SCANNER)
    image.header.set_slope_inter(slope, intercept)
    # nibabel writes values through the slope, which would round; the header's bytes and the voxels' are the file.
    header: Any = image.header.copy()
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, intercept, _VOXELS_BEGIN
    head = header.binaryblock + bytes(_VOXELS_BEGIN - len(header.binaryblock))
    # Level 1: the file goes no further than this machine.
    packed: bytes = igzip.compress(head + array.tobytes(order="F"), compresslevel=1)
    return packed


_VOXELS_BEGIN = 352
"""Where a NIfTI-1 file without extensions has its voxels."""


def require_finite(array: NDArray[Any]) -> None:
    """Raise CaseError where an image has voxels that are NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CaseError("image: voxels are NaN or infinite; expected finite intensities, write the scan again")


def as_int16(array: NDArray[Any]) -> tuple[NDArray[np.int16], float, float]:
    """Return an image as int16 with slope and intercept: unchanged where its values are whole and fit.

    Parameters
    ----------
    array
        ``(X, Y, Z)``, finite.
    """
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iub" or bool((array == np.rint(array)).all())
    if whole and low >= -32768 and high <= 32767:
        return array.astype(np.int16), 1.0, 0.0
    slope = (high - low) / _STEPS or 1.0
    intercept = (high + low) / 2
    scaled = np.rint((array.astype(np.float64) - intercept) / slope)
    return scaled.astype(np.int16), slope, intercept
