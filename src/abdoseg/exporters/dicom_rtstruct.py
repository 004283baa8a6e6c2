"""Label maps as DICOM RT Structure Sets (PS3.3, A.19): outlines on the images of the scan's own series.

Written with pydicom: its elements are few, and what writes them elsewhere draws outlines through voxel centres, which
loses half a voxel all around and thin structures altogether.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.exporters.codes import Coded, coded, short
from abdoseg.exporters.contours import Polygon, outlines
from abdoseg.exporters.dicom_seg import present_ids
from abdoseg.exporters.dicom_source import (
    LOGGERS,
    REPEATED,
    SourceSlice,
    deriving,
    require_series,
    require_usable_series,
    source_slices,
)
from abdoseg.exporters.parts import Algorithm, require_label_map, rgb_of
from abdoseg.files import whole_files
from abdoseg.kernels.label_statistics import label_statistics
from abdoseg.quiet import quiet
from abdoseg.types import Affine, Label

SUFFIX = ".rtstruct.dcm"

SERIES_NUMBER = 9200

_CONTOUR_DATA = Tag("ContourData")

_UTF_8 = "ISO_IR 192"

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: long retired, and still what the element that names a study holds by custom."""


def require_folder(path: Path, reference: Path | None) -> None:
    """Check before hours of work that there is a series to point at.

    Raises
    ------
    ConfigError
        If ``reference`` is no folder.
    CaseError
        If an image of the series is damaged or lacks what the object must repeat.
    """
    require_usable_series(path, reference)


def write_structure_set(
    label: Label,
    affine: Affine,
    path: Path,
    anatomy: Anatomy,
    structures: tuple[str, ...] | None = None,
    reference: Path | None = None,
    *,
    algorithm: Algorithm | None = None,
) -> tuple[Path, ...]:
    """Write a label map as one RT Structure Set, whole or not at all.

    A region of interest has its structure's id for a number and its name for a name; a structure that was not found
    has none. Holes are joined to their outlines by keyholes (:mod:`~abdoseg.exporters.contours`). Coordinates are
    rounded to 0.0001 mm.

    Parameters
    ----------
    label
        uint8 ``(columns, rows, slices)``.
    affine
        ``(4, 4)``, voxel index to mm, RAS+.
    path
        File to write.
    anatomy, structures
        What the ids mean, and which may be drawn; all when None.
    reference
        Folder of the series, as it was read.
    algorithm
        What made the label map; this version of abdoseg when None.

    Raises
    ------
    ConfigError
        If ``reference`` is no folder.
    CaseError
        If the series has changed since it was read, lacks identifiers, or no structure was found in it.
    UnknownNameError
        If a name in ``structures`` is not in ``anatomy``.
    WorkspaceError
        If the file cannot be written.
    ValueError
        If ``label`` is not a uint8 volume.
    """
    require_label_map(label)
    folder = require_series(path, reference)
    ids = present_ids(label, anatomy, structures, path)
    slices = source_slices(folder, (label.shape[0], label.shape[1], label.shape[2]), affine)
    with deriving(folder):
        made = _header(slices, algorithm or Algorithm())
        made.ReferencedFrameOfReferenceSequence = Items([_referenced(slices)])
        made.StructureSetROISequence = Items([_roi(anatomy.structure(i), i, slices) for i in ids])
        made.ROIContourSequence = Items(_contours(label, slices, anatomy, ids))
        made.RTROIObservationsSequence = Items([_observation(anatomy.structure(i), i) for i in ids])
    with quiet(LOGGERS), whole_files(path) as (draft,):
        made.save_as(draft, enforce_file_format=True)
    return (path,)


def _header(slices: tuple[SourceSlice, ...], algorithm: Algorithm) -> Dataset:
    source, now = slices[0].header, dt.datetime.now()  # noqa: DTZ005 -- DICOM's times are local
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = _UTF_8
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    for name in REPEATED:
        setattr(made, name, source[name].value)
    for name in ("StudyDescription", "PatientIdentityRemoved"):
        if name in source:
            setattr(made, name, source[name].value)
    made.StudyInstanceUID, made.SeriesInstanceUID = source.StudyInstanceUID, generate_uid()
    made.FrameOfReferenceUID = source.FrameOfReferenceUID
    made.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    made.Modality, made.SeriesNumber, made.InstanceNumber = "RTSTRUCT", SERIES_NUMBER, 1
    made.SeriesDescription = short(f"{algorithm.title} organs")
    made.OperatorsName = None
    made.Manufacturer = algorithm.name
    made.ManufacturerModelName, made.SoftwareVersions = short(algorithm.title), algorithm.version
    made.StructureSetLabel, made.StructureSetName = "ORGANS", short(algorithm.title)
    made.InstanceCreationDate = made.StructureSetDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.StructureSetTime = now.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _referenced(slices: tuple[SourceSlice, ...]) -> Dataset:
    source = slices[0].header
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ContourImageSequence = Items([_image(one) for one in slices])
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = source.StudyInstanceUID
    study.RTReferencedSeriesSequence = Items([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = source.FrameOfReferenceUID
    frame.RTReferencedStudySequence = Items([study])
    return frame


def _image(one: SourceSlice) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID = one.header.SOPClassUID
    image.ReferencedSOPInstanceUID = one.header.SOPInstanceUID
    if one.frame is not None:
        image.ReferencedFrameNumber = one.frame
    return image


def _roi(structure: Structure, number: int, slices: tuple[SourceSlice, ...]) -> Dataset:
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = slices[0].header.FrameOfReferenceUID
    roi.ROIName = short(structure.name)
    roi.ROIDescription = short(structure.title, 1024)
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    return roi


def _observation(structure: Structure, number: int) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIIdentificationCodeSequence = Items([_code_item(coded(structure))])
    observation.RTROIInterpretedType = "ORGAN"
    observation.ROIInterpreter = None
    return observation


def _code_item(code: Coded) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    if code.side is not None:
        item.SegmentedPropertyTypeModifierCodeSequence = Items([_code_item(code.side)])
    return item


# -- outlines ---------------------------------------------------------------------------------------------------


def _contours(
    label: Label, slices: tuple[SourceSlice, ...], anatomy: Anatomy, ids: tuple[int, ...]
) -> Iterator[Dataset]:
    found = label_statistics(label)
    for i in ids:
        item = Dataset()
        item.ReferencedROINumber = i
        item.ROIDisplayColor = list(rgb_of(anatomy.structure(i).colour))
        box = tuple(slice(a, b + 1) for a, b in zip(found.first[i], found.last[i], strict=True))
        drawn = _drawn(label[box] == i, found.first[i])
        item.ContourSequence = Items(
            [_contour(polygon, slices[k], number) for number, (k, polygon) in enumerate(drawn, start=1)]
        )
        yield item


def _drawn(mask: NDArray[np.bool_], first: NDArray[np.int64]) -> Iterator[tuple[int, Polygon]]:
    for k in range(mask.shape[2]):
        for polygon in outlines(mask[:, :, k].T):
            yield int(first[2]) + k, polygon + first[:2]


def _contour(polygon: Polygon, one: SourceSlice, number: int) -> Dataset:
    steps = one.directions * one.spacing_mm[::-1, None]  # per column, per row
    points = one.position_mm + polygon @ steps
    contour = Dataset()
    contour.ContourImageSequence = Items([_image(one)])
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourNumber = number
    # Encoded here: pydicom would make an object of each number.
    text = "\\".join(f"{value:.4f}" for value in points.ravel().tolist()).encode()
    text += b" " * (len(text) % 2)
    contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, False, True)  # noqa: FBT003
    return contour
