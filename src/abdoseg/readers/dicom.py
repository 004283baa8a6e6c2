"""DICOM: the one CT or MR series in a folder, through pydicom.

Nothing but the elements in :data:`_ELEMENTS` is looked at, and no value of a damaged header is shown (a wrong
length makes one element swallow the next): no patient data can reach a message or a store.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from abdoseg.errors import CaseError
from abdoseg.quiet import quiet
from abdoseg.readers.dicom_pixels import PARSER_ERRORS, same_pixels, volume_of
from abdoseg.readers.dicom_slices import Slice, by_number, by_position, refuse_gaps, stacked, without_copies
from abdoseg.readers.scan import Scan, checked_scan
from abdoseg.types import Modality

DIRECTION_TOLERANCE = 1e-3
"""Direction cosines of one series agree to this: 0.25 mm at the edge of a large field of view."""

_ELEMENTS = [
    *("SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]

_MACROS = (
    *("PlanePositionSequence", "PlaneOrientationSequence"),
    *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
)
"""Functional groups in which a multi-frame object states what others state at the top."""

_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR"}

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_PACKAGES = {
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pylibjpeg pylibjpeg-openjpeg"),
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(JPEGTransferSyntaxes, "python-gdcm"),
}
"""What to install for a transfer syntax."""

_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg")


def read_series(folder: Path) -> Scan:
    """Read the one series of images in a folder; its sub-folders are not looked at.

    Slices lie in the array in the order of their instance numbers where that is an order along the stack (either
    way), else by position along the normal; the affine carries the sign. Rescaled intensities are int16 where that
    loses nothing, else float32. Files that hold no image (DICOMDIR, structured reports, contours, segmentations,
    text) are passed over.

    Returns
    -------
    Scan
        ``(columns, rows, slices)``, voxel to RAS+ mm.

    Raises
    ------
    CaseError
        If there is no series, more than one, or one that is no even stack of whole, alike, grey slices.
    """
    with _reading(folder):
        slices = _the_series(_image_headers(_files_of(folder)))
        slices, warnings = without_copies(by_position(slices), same_pixels)
        slices = by_number(slices)
        refuse_gaps(slices)
        affine, uneven = stacked(slices)
        return checked_scan(volume_of(slices), affine, (*warnings, *uneven))


def modality_of(folder: Path) -> Modality | None:
    """Return what the first image in a folder was taken with, ``None`` for neither CT nor MR or no image.

    Raises
    ------
    CaseError
        If a file before it is damaged.
    """
    with _reading(folder):
        for _, header in _image_headers(_files_of(folder)):
            return _MODALITIES.get(str(header.get("Modality")))
    return None


def has_images(folder: Path) -> bool:
    """Return whether a folder itself holds an image, or a damaged file that should be one."""
    with _reading(folder):
        for path in _files_of(folder):
            try:
                if _image_header(path) is not None:
                    return True
            except CaseError:
                return True  # told when the folder itself is read
    return False


def series_in(folder: Path) -> dict[str, list[Path]]:
    """Return SeriesInstanceUID -> files with images, of a folder and all below; damaged files are passed over."""
    series: dict[str, list[Path]] = {}
    with _reading(folder):
        for base, folders, _ in os.walk(folder, followlinks=True):
            folders.sort()
            for path in _files_of(Path(base)):
                try:
                    header = _image_header(path)
                except CaseError:
                    continue  # told when the folder itself is read
                if header is not None:
                    series.setdefault(_series_uid(header), []).append(path)
    return series


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Name the folder in every refusal, and keep back what pydicom and its decoders warn and log.

    What matters of it is checked here, and it quotes elements.
    """
    try:
        with quiet(_LOGGERS):
            yield
    except CaseError as error:
        raise CaseError(f"{folder.resolve().name}: {error}") from error


# -- headers ----------------------------------------------------------------------------------------------------


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CaseError("no such folder; check the path")
    return sorted(path for path in folder.iterdir() if path.is_file())


def _image_headers(paths: Sequence[Path]) -> Iterator[tuple[Path, Dataset]]:
    for path in paths:
        header = _image_header(path)
        if header is not None:
            yield path, header


def _image_header(path: Path) -> Dataset | None:
    """Return the header of an image, or ``None`` for any other file.

    Raises
    ------
    CaseError
        If the file is damaged: it is DICOM, or named like it, and cannot be read. (Passed over, the last slices
        of a stack would be lost without a word.)
    """
    if path.name.startswith("."):
        return None
    try:
        header = _parsed(path)
    except InvalidDicomError as error:
        if path.suffix.lower() not in _DICOM_SUFFIXES:
            return None
        raise CaseError(f"{path.name}: not a DICOM file, though named like one; fetch it again") from error
    except PARSER_ERRORS as error:
        raise _damaged(path) from error
    if not _is_image(header):
        return None
    if "Rows" not in header:
        raise _damaged(path)
    return header


def _parsed(path: Path) -> Dataset:
    header = dcmread(path, stop_before_pixels=True, specific_tags=list(_ELEMENTS))
    for name in ("SOPClassUID", "SeriesInstanceUID", "Modality"):
        header.get(name)  # pydicom parses an element on its first use: here, where a failure is known to be damage
    return header


def _damaged(path: Path) -> CaseError:
    return CaseError(f"{path.name}: the header of the image is damaged or cut off; fetch the file again")


def _is_image(header: Dataset) -> bool:
    # De-identified files may have the class in the file's own header alone.
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    name = UID(str(uid)).name
    # A class that pydicom does not know (a vendor's own) keeps its number for a name.
    return "Image Storage" in name or (name == str(uid) and "Rows" in header)


def _series_uid(header: Dataset) -> str:
    return str(header.get("SeriesInstanceUID") or "")


def _the_series(headers: Iterator[tuple[Path, Dataset]]) -> list[Slice]:
    """Return the slices of the one series, in no order.

    Raises
    ------
    CaseError
        If there is no series, or more than one, or a header that lacks what is needed or differs.
    """
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in headers:
        series.setdefault(_series_uid(header), []).append((path, header))
    if not series:
        raise CaseError("found no DICOM image; give the folder that holds the files of one series")
    if len(series) > 1:
        found = sorted(_describe(files) for files in series.values())
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise CaseError(f"found {len(found)} series ({shown}), expected one; move each to a folder of its own")
    (files,) = series.values()
    slices = [one for path, header in files for one in _slices_of(path, header)]
    if len(slices) < 2:
        raise CaseError("found 1 slice, expected a stack of at least 2; fetch the whole series")
    _refuse_differences(slices)
    return slices


def _describe(files: list[tuple[Path, Dataset]]) -> str:
    _, header = files[0]
    number = _integer(header, "SeriesNumber")
    count = len(files) if len(files) > 1 else _integer(header, "NumberOfFrames") or 1
    return f"{'without a number' if number is None else f'number {number}'}: {count} slice{'s' * (count > 1)}"


def _slices_of(path: Path, header: Dataset) -> list[Slice]:
    """Return the slices of one file.

    Raises
    ------
    CaseError
        If the image is in colour or inverted grey, its transfer syntax cannot be decoded, or an element is missing.
    """
    try:
        _refuse_unreadable(header)
        frames = _frames_of(header)
        return [_slice_of(path, index, header, frame) for index, frame in enumerate(frames)]
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error
    except PARSER_ERRORS as error:
        raise _damaged(path) from error


def _refuse_unreadable(header: Dataset) -> None:
    photometric = header.get("PhotometricInterpretation") or "MONOCHROME2"
    if photometric != "MONOCHROME2" or int(header.get("SamplesPerPixel") or 1) != 1:
        # MONOCHROME1 is not turned over: by the standard only its display is inverted, by some converters also its
        # values, and the file does not say which.
        found = "inverted grey (MONOCHROME1)" if photometric == "MONOCHROME1" else "colour"
        raise CaseError(f"found {found}, expected MONOCHROME2; export the original CT or MR images")
    if "ModalityLUTSequence" in header:
        raise CaseError("found a modality lookup table, expected RescaleSlope; export the original CT or MR images")
    _refuse_syntax(UID(str(header.file_meta.get("TransferSyntaxUID") or "")))


def _refuse_syntax(syntax: UID) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        found = syntax.name if syntax.is_valid else "none"
        msg = f"found transfer syntax '{found}', expected one of images; write the file uncompressed"
        raise CaseError(msg) from error
    if not available:
        packages = _PACKAGES.get(syntax, "pydicom")
        raise CaseError(f"compressed as {syntax.name}, and its decoder is not installed; `pip install {packages}`")


def _frames_of(header: Dataset) -> list[Dataset]:
    """Return a header for each frame, flat as that of a single-frame object."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    count = _integer(header, "NumberOfFrames") or 1
    if not per_frame and count == 1:
        return [header]
    if len(per_frame) != count:
        msg = f"found {count} frames, {len(per_frame)} with a position, expected each; export a CT or MR series"
        raise CaseError(msg)
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = []
    for groups in per_frame:
        frame = Dataset()
        for macro in (*(shared[0].get(name) for name in _MACROS), *(groups.get(name) for name in _MACROS)):
            frame.update(macro[0] if macro else {})
        frames.append(frame)
    return frames


def _slice_of(path: Path, index: int, header: Dataset, frame: Dataset) -> Slice:
    rows, columns = (int(_numbers(header, name, 1)[0]) for name in ("Rows", "Columns"))
    directions = _numbers(frame, "ImageOrientationPatient", 6).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if (np.abs(lengths - 1) > 0.1).any() or abs(directions[0] @ directions[1]) > 0.5:
        raise CaseError("ImageOrientationPatient is not two directions at right angles; export the original images")
    spacing = _numbers(frame, "PixelSpacing", 2)
    slope = float(_numbers(frame, "RescaleSlope", 1)[0]) if "RescaleSlope" in frame else 1.0
    if (spacing <= 0).any() or slope == 0:
        raise CaseError("PixelSpacing is not positive or RescaleSlope is 0; export the original images")
    return Slice(
        path=path,
        frame=index,
        syntax=header.file_meta.TransferSyntaxUID,
        number=_integer(header, "InstanceNumber"),
        shape=(rows, columns),
        position_mm=_numbers(frame, "ImagePositionPatient", 3),
        directions=directions / lengths[:, None],
        spacing_mm=spacing,
        slope=slope,
        intercept=float(_numbers(frame, "RescaleIntercept", 1)[0]) if "RescaleIntercept" in frame else 0.0,
    )


def _numbers(header: Dataset, name: str, count: int) -> NDArray[np.float64]:
    try:
        values = np.atleast_1d(np.array(header.get(name), dtype=np.float64))
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        found = "is not usable" if name in header else "is missing"
        numbers = "a number" if count == 1 else f"{count} numbers"
        raise CaseError(f"{name} {found}, expected {numbers}; export the original CT or MR images")
    return values


def _integer(header: Dataset, name: str) -> int | None:
    try:
        return int(header[name].value)
    except PARSER_ERRORS:
        return None


def _refuse_differences(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        for what, same in (
            ("size", other.shape == first.shape),
            ("pixel spacing", np.allclose(other.spacing_mm, first.spacing_mm, rtol=1e-3, atol=0)),
            ("orientation", np.allclose(other.directions, first.directions, rtol=0, atol=DIRECTION_TOLERANCE)),
        ):
            if not same:
                msg = f"{other.name} and {first.name} differ in {what}, expected one geometry; take localizers and "
                raise CaseError(msg + "reformatted slices out of the folder")
