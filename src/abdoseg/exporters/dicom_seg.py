"""Label maps as DICOM Segmentation objects (PS3.3, A.51) on the images of the scan's own series, by highdicom.

BINARY, one bit a voxel, is what every viewer opens: a frame for each slice in which a structure is found. LABELMAP, the
newer kind (Label Map Segmentation Storage, DICOM 2024d), holds one number a voxel, compressed without loss, and is
much smaller; not every viewer knows it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.errors import CaseError, ConfigError
from abdoseg.exporters.codes import Coded, coded, short
from abdoseg.exporters.dicom_source import (
    LOGGERS,
    SourceSlice,
    deriving,
    image_geometry,
    require_series,
    require_usable_series,
    source_slices,
)
from abdoseg.exporters.parts import Algorithm, requested_ids, require_label_map, rgb_of
from abdoseg.files import whole_files
from abdoseg.kernels.values import count_values, translated
from abdoseg.quiet import quiet
from abdoseg.types import Affine, Label

SUFFIX = ".seg.dcm"
LABELMAP_SUFFIX = ".labelmap.dcm"

Kind = Literal["BINARY", "LABELMAP"]

SERIES_NUMBER = 9100
"""Series number of the object: beyond those that scanners give."""

_SYNTAX = {"BINARY": ExplicitVRLittleEndian, "LABELMAP": JPEGLSLossless}
"""One bit a voxel is stored as it is: only JPEG 2000 may encode bits, and few read it. Numbers are not stored as RLE:
pydicom gives that to GDCM first, which ends the whole program on some small images."""

_CATEGORY = Code("91723000", "SCT", "Anatomical Structure")
_FAMILY = Code("123110", "DCM", "Artificial Intelligence")


def require_highdicom(path: Path, reference: Path | None) -> None:
    """Check before hours of work that a segmentation object can be written.

    Raises
    ------
    ConfigError
        If highdicom is not installed, or ``reference`` is no folder of a series.
    CaseError
        If an image of the series is damaged or lacks what the object must repeat.
    """
    require_usable_series(path, reference)
    _highdicom(path)


def write_segmentation(
    label: Label,
    affine: Affine,
    path: Path,
    anatomy: Anatomy,
    structures: tuple[str, ...] | None = None,
    reference: Path | None = None,
    *,
    algorithm: Algorithm | None = None,
    kind: Kind = "BINARY",
) -> tuple[Path, ...]:
    """Write a label map as one DICOM Segmentation object, whole or not at all.

    Segments are the structures that were found, numbered from 1 in the order of their ids; a structure that is absent
    has none, since viewers stumble over segments without a frame. The number of a BINARY segment is therefore not the
    structure's id, its code and label say which it is; LABELMAP keeps the ids.

    Parameters
    ----------
    label
        uint8 ``(columns, rows, slices)``.
    affine
        ``(4, 4)``, voxel index to mm, RAS+.
    path
        File to write.
    anatomy, structures
        What the ids mean, and which may become segments; all when None.
    reference
        Folder of the series, as it was read.
    algorithm
        What made the label map; this version of abdoseg when None.
    kind
        ``BINARY`` or ``LABELMAP``.

    Raises
    ------
    ConfigError
        If ``reference`` is no folder, or highdicom is not installed.
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
    _highdicom(path)
    ids = present_ids(label, anatomy, structures, path)
    slices = source_slices(folder, (label.shape[0], label.shape[1], label.shape[2]), affine)
    numbers = {i: i if kind == "LABELMAP" else n for n, i in enumerate(ids, start=1)}
    with deriving(folder):
        made = _segmentation(label, slices, anatomy, numbers, (algorithm or Algorithm(), kind))
    with quiet(LOGGERS), whole_files(path) as (draft,):
        made.save_as(draft)
    return (path,)


def present_ids(label: Label, anatomy: Anatomy, structures: tuple[str, ...] | None, path: Path) -> tuple[int, ...]:
    """Return the ids of the structures asked for that the label holds.

    Raises
    ------
    CaseError
        If there is none: neither segmentations nor structure sets may be empty.
    """
    counts = count_values(label)
    ids = tuple(i for i in requested_ids(anatomy, structures) if counts[i])
    if not ids:
        msg = f"{path}: no structure was found in the scan, and a DICOM object must hold at least one; "
        raise CaseError(msg + "write .nii.gz or .seg.nrrd to keep an empty label map")
    return ids


def _segmentation(
    label: Label,
    slices: tuple[SourceSlice, ...],
    anatomy: Anatomy,
    numbers: dict[int, int],
    how: tuple[Algorithm, Kind],
) -> Any:
    import highdicom as hd

    algorithm, kind = how
    table = np.zeros(256, dtype=np.uint8)
    table[list(numbers)] = list(numbers.values())
    images, frames = _frames(translated(label, table), slices)
    thickness, step = image_geometry(slices)
    rows, columns = slices[0].spacing_mm.tolist()
    make = partial(
        hd.seg.Segmentation,
        source_images=images,
        pixel_array=frames,
        segmentation_type=kind,
        segment_descriptions=[_described(anatomy.structure(i), n, algorithm) for i, n in numbers.items()],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=algorithm.name,
        manufacturer_model_name=short(algorithm.title),
        software_versions=algorithm.version,
        device_serial_number="none",
        pixel_measures=hd.PixelMeasuresSequence((rows, columns), thickness or step, step),
        content_label="ORGANS",
        content_description="Abdominal organs, by software",
        series_description=short(f"{algorithm.title} organs"),
        specific_character_set="ISO_IR 192",  # names of the user's own structures may need it
    )
    try:
        made = make(transfer_syntax_uid=_SYNTAX[kind])
    except RuntimeError:  # the encoder's: a frame of noise that JPEG-LS would make larger
        made = make(transfer_syntax_uid=ExplicitVRLittleEndian)
    made.ContentCreatorName = None
    return made


def _frames(label: Label, slices: tuple[SourceSlice, ...]) -> tuple[list[Dataset], NDArray[np.uint8]]:
    """Return the source images and, in their order, the label under each, ``(frames, rows, columns)``."""
    stack = np.ascontiguousarray(label.transpose(2, 1, 0))
    if slices[0].frame is None:
        return [one.header for one in slices], stack
    header = slices[0].header
    if any(one.header is not header for one in slices):
        msg = "the series has several multi-frame files, expected one; write .nii.gz or .seg.nrrd"
        raise CaseError(msg)
    ordered = np.zeros((int(header.NumberOfFrames), *stack.shape[1:]), dtype=np.uint8)
    for one, plane in zip(slices, stack, strict=True):
        ordered[(one.frame or 1) - 1] = plane
    return [header], ordered


def _described(structure: Structure, number: int, algorithm: Algorithm) -> Any:
    import highdicom as hd

    code = coded(structure)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=short(structure.title),
        segmented_property_category=_CATEGORY,
        segmented_property_type=_as_code(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=short(algorithm.title), family=_FAMILY, version=algorithm.version
        ),
        tracking_uid=hd.UID(),
        tracking_id=short(structure.name),
        display_color=hd.color.CIELabColor.from_rgb(*rgb_of(structure.colour)),
    )
    if code.side is not None:
        side = hd.sr.CodedConcept.from_code(_as_code(code.side))
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return segment


def _as_code(code: Coded) -> Code:
    return Code(code.value, code.scheme, code.meaning)


def _highdicom(path: Path) -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        msg = f"{path}: DICOM segmentations need highdicom, which is not installed; `pip install highdicom`, or write "
        raise ConfigError(msg + ".nii.gz or .seg.nrrd") from error


write_label_map_segmentation: Callable[..., tuple[Path, ...]] = partial(write_segmentation, kind="LABELMAP")
