"""NIfTI-1 and -2 (``.nii``, ``.nii.gz``), single file."""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.geometry import AFFINE_TOLERANCE_VOXELS, Grid, corner_distance_voxels
from abdoseg.readers.scan import Scan, checked_scan

_INFLATE_ERRORS: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error)

_HEADER_BYTES = 544  # NIfTI-2's, and the four bytes that tell whether extensions follow

_PIECE = 2**19

_MOST_INFLATED = 1100
"""Bytes that one byte of a gzip file can become: deflate's limit is 1032."""

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
        with np.errstate(all="ignore"):  # what a scale factor does to voxels is told by the finite check, once
            header, array = _load(path)
    except _INFLATE_ERRORS as error:
        raise CaseError(
            f"{path.name}: the gzip stream is damaged or cut off ({error}); fetch the file again"
        ) from error
    except (ImageFileError, WrapStructError) as error:
        raise CaseError(f"{path.name}: not a NIfTI file ({error}); fetch the file again") from error
    except (OSError, ValueError, OverflowError, HeaderDataError) as error:
        raise CaseError(f"{path.name}: cannot be read ({_one_line(error)}); fetch the file again") from error
    try:
        return checked_scan(array, np.asarray(header.get_best_affine(), dtype=np.float64), _header_warnings(header))
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error


def _load(path: Path) -> tuple[Any, NDArray[Any]]:
    """Return header and voxels."""
    if path.name.lower().endswith(".gz"):
        return _load_compressed(path)
    image: Any = nib.load(path)
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    header = image.header
    _require_whole(path, header, path.stat().st_size)
    _require_spacing(path, header, start)
    return header, np.asanyarray(image.dataobj)


def _load_compressed(path: Path) -> tuple[Any, NDArray[Any]]:
    """Inflate a file piece by piece into the array, and to its end, so that its checksum is checked too.

    nibabel inflates with zlib, which takes half as long again, and copies the result.
    """
    with igzip.open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
        header = _header(path, start)
        offset, n_bytes = header.get_data_offset(), _data_bytes(header)
        # No deflate stream is shorter: memory is not asked for on the word of a damaged header.
        _require_whole(path, header, path.stat().st_size * _MOST_INFLATED)
        data = np.empty(n_bytes, dtype=np.uint8)
        found = min(len(start), offset) + _read_up_to(file, offset - len(start))
        known = np.frombuffer(start[offset : offset + n_bytes], dtype=np.uint8)
        data[: len(known)] = known
        found += len(known) + _read_into(file, memoryview(data.data)[len(known) :])
        _require_whole(path, header, found)
        while file.read(_PIECE):
            pass
    _require_spacing(path, header, start)
    array = np.ndarray(header.get_data_shape(), header.get_data_dtype(), buffer=data, order="F")
    slope, intercept = header.get_slope_inter()  # None where the file states none
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    return header, apply_read_scaling(array, np.asanyarray(slope), np.asanyarray(intercept))


def _header(path: Path, start: bytes) -> Any:
    """Return the NIfTI-1 or -2 header that a file begins with."""
    version_2 = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    kind = nib.Nifti2Header if version_2 else nib.Nifti1Header
    size = kind.sizeof_hdr
    if len(start) < size:
        raise CaseError(f"{path.name}: not a NIfTI file ({len(start)} bytes); fetch the file again")
    return kind(start[:size])


def _read_into(file: Any, target: memoryview) -> int:
    """Fill ``target`` in pieces that stay in the cache while they are inflated; return the bytes found."""
    at = 0
    while at < len(target):
        n = file.readinto(target[at : at + _PIECE])
        if not n:
            break
        at += n
    return at


def _read_up_to(file: Any, n: int) -> int:
    """Pass over ``n`` bytes (extensions of the header); return how many there were."""
    return len(bytes(file.read(n))) if n > 0 else 0


def _data_bytes(header: Any) -> int:
    return int(math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize)


def _require_whole(path: Path, header: Any, size: int) -> None:
    """Raise CaseError where a header promises more than the file holds."""
    need = int(header.get_data_offset()) + _data_bytes(header)
    if need > size:
        raise CaseError(f"{path.name}: cut off ({size} bytes, its header promises {need}); fetch the file again")


def _require_spacing(path: Path, header: Any, start: bytes) -> None:
    """Raise CaseError where a header states no spacing: nibabel takes 0 for 1 mm without a word."""
    if isinstance(header, nib.Nifti1Header):
        stored = type(header).from_fileobj(io.BytesIO(start), check=False)
        sides = stored["pixdim"][1:4]
        if not stored["sform_code"] and not (np.isfinite(sides).all() and (sides != 0).all()):
            raise CaseError(f"{path.name}: header: zero spacing; write the geometry again")


def _header_warnings(header: Any) -> tuple[str, ...]:
    if not isinstance(header, nib.Nifti1Header):
        return ("the file is not NIfTI-1 or -2; its orientation may be missing",)
    qform, qcode = header.get_qform(coded=True)
    sform, scode = header.get_sform(coded=True)
    if not qcode and not scode:
        return ("the header states no orientation; the array axes were taken as they are (check left and right)",)
    if not (qcode and scode) or min(abs(np.linalg.det(form[:3, :3])) for form in (sform, qform)) < 1e-9:
        return ()  # one of them alone; a singular one is refused by the affine's own check
    grids = [Grid(header.get_data_shape()[:3], form) for form in (sform, qform)]
    if corner_distance_voxels(*grids) > AFFINE_TOLERANCE_VOXELS:
        return ("qform and sform disagree; the sform was taken",)
    return ()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
