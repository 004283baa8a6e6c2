"""NIfTI-1 and -2 (``.nii``, ``.nii.gz``), single file."""

import gzip
import io
import math
import warnings as python_warnings
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from abdoseg.errors import CaseError
from abdoseg.geometry import AFFINE_TOLERANCE_VOXELS, Grid, corner_distance_voxels
from abdoseg.readers.scan import Scan, checked_scan

_INFLATE_ERRORS: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error)

_HEADER_BYTES = 544  # NIfTI-2's, and the four bytes that tell whether extensions follow

SUFFIXES = (".nii.gz", ".nii")


def read_nifti(path: Path) -> Scan:
    """Read one NIfTI file.

    Scaled intensities keep the stored integer type when the file has no scale factor. The sform is taken, else
    the qform; two that disagree are a warning.

    Raises
    ------
    CaseError
        If the file is damaged, truncated, empty or not a 3-D volume of real numbers.
    """
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # NaN in an integer cast is told by the finite check, once
            image: Any = _load(path)
            array = np.asanyarray(image.dataobj)
    except _INFLATE_ERRORS as error:
        raise CaseError(
            f"{path.name}: the gzip stream is damaged or cut off ({error}); fetch the file again"
        ) from error
    except (ImageFileError, WrapStructError) as error:
        raise CaseError(f"{path.name}: not a NIfTI file ({error}); fetch the file again") from error
    except (OSError, ValueError, OverflowError, HeaderDataError) as error:
        raise CaseError(f"{path.name}: cannot be read ({_one_line(error)}); fetch the file again") from error
    try:
        return checked_scan(array, np.asarray(image.affine, dtype=np.float64), _header_warnings(image))
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error


def _load(path: Path) -> Any:
    """Return the image; a compressed file is inflated whole, so that its checksum is checked too."""
    if not path.name.lower().endswith(".gz"):
        image = nib.load(path)
        with path.open("rb") as file:
            return _checked(path, image, file.read(_HEADER_BYTES), path.stat().st_size)
    raw: bytes = igzip.decompress(path.read_bytes())
    version_2 = 540 in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big"))
    image = (nib.Nifti2Image if version_2 else nib.Nifti1Image).from_bytes(raw)
    return _checked(path, image, raw[:_HEADER_BYTES], len(raw))


def _checked(path: Path, image: Any, start: bytes, size: int) -> Any:
    """Return the image; raise CaseError where its header promises more than the file holds, or states no spacing."""
    need = int(image.dataobj.offset) + math.prod(image.shape) * image.dataobj.dtype.itemsize
    if need > size:
        raise CaseError(f"{path.name}: cut off ({size} bytes, its header promises {need}); fetch the file again")
    if isinstance(image, nib.Nifti1Pair):
        # As it is on file: nibabel takes a spacing of 0 for 1 mm without a word.
        header = type(image.header).from_fileobj(io.BytesIO(start), check=False)
        sides = header["pixdim"][1:4]
        if not header["sform_code"] and not (np.isfinite(sides).all() and (sides != 0).all()):
            raise CaseError(f"{path.name}: header: zero spacing; write the geometry again")
    return image


def _header_warnings(image: Any) -> tuple[str, ...]:
    if not isinstance(image, nib.Nifti1Pair):
        return ("the file is not NIfTI-1 or -2; its orientation may be missing",)
    qform, qcode = image.get_qform(coded=True)
    sform, scode = image.get_sform(coded=True)
    if not qcode and not scode:
        return ("the header states no orientation; the array axes were taken as they are (check left and right)",)
    if not (qcode and scode) or min(abs(np.linalg.det(form[:3, :3])) for form in (sform, qform)) < 1e-9:
        return ()  # one of them alone; a singular one is refused by the affine's own check
    grids = [Grid(image.shape[:3], form) for form in (sform, qform)]
    if corner_distance_voxels(*grids) > AFFINE_TOLERANCE_VOXELS:
        return ("qform and sform disagree; the sform was taken",)
    return ()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
