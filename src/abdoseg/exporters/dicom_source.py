"""The images of a DICOM series that a label map belongs to: found again, in its order, and checked against it.

Objects made from a series point at its images by their identifiers and lie on them. So the folder is read once more,
headers only, and each slice of the label finds its image by the place it has in space: whatever order a reader stacked
the slices in, and whichever way rows and columns run, the affine says it.

Of the patient nothing is kept but what every object of a study must repeat.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from abdoseg.errors import CaseError, ConfigError
from abdoseg.geometry import spacing_of
from abdoseg.quiet import quiet
from abdoseg.types import Affine

REPEATED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
"""What every object of a study repeats, empty where it is not known (type 2 of PS3.3, C.7.1.1 and C.7.2.1)."""

_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")

_GEOMETRY = (
    *("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"),
)

_OPTIONAL = (
    *("SpecificCharacterSet", "StudyDescription", "PatientIdentityRemoved", "PositionReferenceIndicator"),
    *("SliceThickness", "InstanceNumber"),
)

_MACROS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")

OFF_SLICES = 0.11
"""An image may lie this share of the slice spacing off its place: readers move uneven slices by up to a tenth."""

_OFF_MM = 0.02
_OFF_DIRECTION = 0.011

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

LOGGERS = ("pydicom", "highdicom")

_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError),
    *(BytesLengthException, struct.error),
)
"""What pydicom raises on damaged bytes, by where it stumbles."""


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """The image under one slice of a label map.

    Parameters
    ----------
    header
        Header of its file, reduced to what a derived object needs; slices of one file share it.
    frame
        1-based number of the frame in a multi-frame file, ``None`` in a file of one image.
    position_mm
        ``(3,)``, centre of the first pixel, LPS.
    directions
        ``(2, 3)``, LPS: unit vectors along a row (as the column index grows) and along a column.
    spacing_mm
        ``(2,)``, distance between rows, and between columns.
    """

    header: Dataset
    frame: int | None
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]


def require_series(path: Path, reference: Path | None) -> Path:
    """Return the folder of the series that an object at ``path`` is to point at.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if reference is None or not reference.is_dir():
        found = "no scan was given" if reference is None else f"{reference.name} is no folder of DICOM images"
        msg = f"{path}: {found}, and this format points at the images of a series; predict the folder of the series, "
        raise ConfigError(msg + "or write .nii.gz or .seg.nrrd")
    return reference


def require_usable_series(path: Path, reference: Path | None) -> None:
    """Refuse before hours of work what an object at ``path`` could not point at.

    Raises
    ------
    ConfigError
        If there is no series.
    CaseError
        If an image of it is damaged or lacks what a derived object must repeat.
    """
    with quiet(LOGGERS):
        for _ in _headers(require_series(path, reference)):
            pass  # read for what it raises


def source_slices(folder: Path, shape: tuple[int, int, int], affine: Affine) -> tuple[SourceSlice, ...]:
    """Return the image under each slice of a label map, along its last axis.

    Parameters
    ----------
    folder
        Folder of the series, as it was read.
    shape, affine
        Of the label map: ``(columns, rows, slices)``, and voxel index to mm, RAS+.

    Raises
    ------
    CaseError
        If the images are no longer those that the label map was made from, or lack what a derived object must repeat.
    """
    with quiet(LOGGERS):
        images = [one for header in _headers(folder) for one in _images(header, folder)]
        if not images:
            raise _changed(folder, "no image was found")
        places: dict[int, SourceSlice] = {}
        for one in images:
            # Of copies of a slice the first one stands for all.
            places.setdefault(_place(one, shape, affine, folder), one)
        missing = sorted(set(range(shape[2])) - places.keys())
        if missing:
            raise _changed(folder, f"no image lies at slice {missing[0] + 1} of {shape[2]}")
        return tuple(places[k] for k in range(shape[2]))


def image_geometry(slices: tuple[SourceSlice, ...]) -> tuple[float | None, float]:
    """Return the thickness that the series states, if any, and the distance between its slices, mm."""
    normal = np.cross(*slices[0].directions)
    steps = np.abs(np.diff([one.position_mm @ normal for one in slices]))
    thickness = slices[0].header.get("SliceThickness")
    return (float(thickness) if thickness else None), float(np.median(steps))


@contextmanager
def deriving(folder: Path) -> Iterator[None]:
    """Name the series in a refusal to derive an object from its headers, and keep warnings and logs back.

    Raises
    ------
    CaseError
        If the headers break rules that a derived object must keep.
    """
    with quiet(LOGGERS):
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # The error's own text is not shown: it may quote the header.
            msg = f"{folder.name}: its headers break rules of DICOM that a derived object must keep; "
            raise CaseError(msg + "export the original images, or write .nii.gz or .seg.nrrd") from error


def _headers(folder: Path) -> Iterator[Dataset]:
    keep = ["SOPClassUID", "SOPInstanceUID", "Modality", *REPEATED, *_IDENTIFIERS, *_GEOMETRY, *_OPTIONAL]
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(keep))
            if "Image Storage" in _class_of(header).name and "Rows" in header:
                yield _cleaned(header, folder)
        except InvalidDicomError:
            continue
        except CaseError:
            raise
        except _DAMAGE as error:
            msg = "the header of the image is damaged or cut off; fetch the file again"
            raise CaseError(f"{path.name}: {msg}") from error


def _class_of(header: Dataset) -> UID:
    # De-identified files may have the class in the file's own header alone.
    return UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))


def _cleaned(header: Dataset, folder: Path) -> Dataset:
    """Return a header of valid values: files break rules that a new object may not.

    Raises
    ------
    CaseError
        If an identifier is missing.
    """
    clean = Dataset()
    clean.SOPClassUID = _class_of(header)
    clean.SOPInstanceUID = header.get("SOPInstanceUID") or header.file_meta.get("MediaStorageSOPInstanceUID") or ""
    for name in _IDENTIFIERS:
        setattr(clean, name, str(header.get(name) or ""))
    _require_identifiers(clean, folder)
    clean.Modality = header.get("Modality") or ""
    for name in (*REPEATED, *_OPTIONAL):
        if _is_valid(header, name):
            clean[name] = header[name]
        elif name in REPEATED:
            setattr(clean, name, None)
    for name in _GEOMETRY:
        if name in header:
            clean[name] = header[name]
    return clean


def _require_identifiers(header: Dataset, folder: Path) -> None:
    for name in ("SOPInstanceUID", *_IDENTIFIERS):
        uid = UID(str(header[name].value))
        if not uid or not uid.is_valid:
            msg = f"{folder.name}: an image has no valid {name}, which an object that points at it needs; "
            raise CaseError(msg + "export the original images, or write .nii.gz or .seg.nrrd")


def _is_valid(header: Dataset, name: str) -> bool:
    try:
        if name not in header or header[name].is_empty:
            return False
        if name == "PatientSex" and header.PatientSex not in {"M", "F", "O"}:
            return False
        tag = tag_for_keyword(name)
        DataElement(tag or 0, dictionary_VR(tag or 0), header[name].value, validation_mode=RAISE)
    except _DAMAGE:
        return False
    return True


def _images(header: Dataset, folder: Path) -> list[SourceSlice]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame:
        return [_image(header, None, header, folder)]
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    found = []
    for number, groups in enumerate(per_frame, start=1):
        frame = Dataset()
        for macro in (*(shared.get(name) for name in _MACROS), *(groups.get(name) for name in _MACROS)):
            frame.update(macro[0] if macro else {})
        found.append(_image(header, number, frame, folder))
    return found


def _image(header: Dataset, number: int | None, frame: Dataset, folder: Path) -> SourceSlice:
    try:
        position = np.array(frame.ImagePositionPatient, dtype=np.float64)
        directions = np.array(frame.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        spacing = np.array(frame.PixelSpacing, dtype=np.float64).reshape(2)
    except _DAMAGE as error:
        raise _changed(folder, "an image does not say where it lies") from error
    return SourceSlice(header, number, position, directions / np.linalg.norm(directions, axis=1)[:, None], spacing)


def _place(one: SourceSlice, shape: tuple[int, int, int], affine: Affine, folder: Path) -> int:
    """Return the slice of the label map that an image lies at.

    Raises
    ------
    CaseError
        If it lies at none, or differs.
    """
    columns, rows, _ = shape
    found = (int(one.header.Columns), int(one.header.Rows))
    if found != (columns, rows):
        what = f"an image has {found[0]} x {found[1]} pixels, the label map {columns} x {rows}"
        raise _changed(folder, what)
    spacing = np.array(spacing_of(affine))
    directions = _LPS_TO_RAS[:, None] * one.directions.T
    turned = np.abs(directions - affine[:3, :2] / spacing[:2]).max() > _OFF_DIRECTION
    if turned or not np.allclose(one.spacing_mm[::-1], spacing[:2], rtol=2e-3, atol=0):
        raise _changed(folder, "the directions or the spacing of an image differ from those of the label map")
    place = _LPS_TO_RAS * one.position_mm
    k = round(float((np.linalg.inv(affine) @ [*place, 1.0])[2]))
    off = float(np.linalg.norm(affine[:3] @ [0, 0, k, 1] - place))
    if not 0 <= k < shape[2] or off > max(OFF_SLICES * spacing[2], _OFF_MM):
        raise _changed(folder, "an image lies at no slice of the label map")
    return k


def _changed(folder: Path, what: str) -> CaseError:
    msg = f"{folder.name}: {what}; expected the series that the label map was made from, unchanged; predict it again"
    return CaseError(msg)
