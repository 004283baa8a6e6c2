"""Exporters: predicted labels to files that other programs open. One file a format.

To add a format: write ``<format>.py`` with a function of :class:`LabelWriter`'s signature whose files go through
:func:`~abdoseg.files.whole_files`, and add a line to :data:`FORMATS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from abdoseg.anatomy import Anatomy
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.exporters import dicom_rtstruct, dicom_seg, itk, nifti
from abdoseg.exporters.parts import Algorithm
from abdoseg.files import require_writable
from abdoseg.types import Affine, Label


class LabelWriter(Protocol):
    """What writes a label map: label and affine on the scan's own axes, whole or not at all."""

    def __call__(  # noqa: D102 -- described by nifti.write_label_map
        self,
        label: Label,
        affine: Affine,
        path: Path,
        anatomy: Anatomy,
        structures: tuple[str, ...] | None = None,
        reference: Path | None = None,
        *,
        algorithm: Algorithm | None = None,
    ) -> tuple[Path, ...]: ...


def _anything(path: Path, reference: Path | None) -> None:
    """Take any scan."""


@dataclass(frozen=True)
class Exporter:
    """A format that label maps can be written in.

    Parameters
    ----------
    title
        Its name for people.
    write
        Writes one label map and returns the files it made, the label map first.
    suffixes
        What its files end in, the usual one first; none if it writes a folder.
    require
        Called with the output and the scan's own file or folder before the work: raises ConfigError if the format
        cannot be written for this scan.
    """

    title: str
    write: LabelWriter
    suffixes: tuple[str, ...] = ()
    require: Callable[[Path, Path | None], None] = _anything

    @property
    def suffix(self) -> str:
        """The usual ending of its files; empty for a folder."""
        return self.suffixes[0] if self.suffixes else ""


FORMATS: dict[str, Exporter] = {
    "nifti": Exporter("NIfTI label map", nifti.write_label_map, nifti.SUFFIXES),
    "nifti-per-structure": Exporter("folder of NIfTI masks", nifti.write_structures),
    "nrrd": Exporter("NRRD segmentation", itk.write_nrrd, itk.NRRD_SUFFIXES),
    "metaimage": Exporter("MetaImage label map", itk.write_meta_image, itk.META_SUFFIXES),
    "dicom-seg": Exporter(
        "DICOM segmentation", dicom_seg.write_segmentation, (dicom_seg.SUFFIX,), dicom_seg.require_highdicom
    ),
    "dicom-labelmap": Exporter(
        "DICOM label map segmentation",
        dicom_seg.write_label_map_segmentation,
        (dicom_seg.LABELMAP_SUFFIX,),
        dicom_seg.require_highdicom,
    ),
    "dicom-rtstruct": Exporter(
        "DICOM RT structure set",
        dicom_rtstruct.write_structure_set,
        (dicom_rtstruct.SUFFIX,),
        dicom_rtstruct.require_folder,
    ),
}
"""Name of a format -> how it is written."""

EXPORTERS: dict[str, Exporter] = {suffix: exporter for exporter in FORMATS.values() for suffix in exporter.suffixes}
"""Suffix of the output file -> how it is written."""


def exporter_for(path: Path, name: str | None = None) -> Exporter:
    """Return the exporter of an output: the named one, else by the suffix.

    Parameters
    ----------
    path
        Output file, or folder for a format that writes one.
    name
        Of :data:`FORMATS`; needed for the formats that write a folder.

    Raises
    ------
    UnknownNameError
        If no format has this name.
    ConfigError
        If no exporter has this suffix, or the named one another.
    """
    if name is not None:
        return _named(path, name)
    for suffix, exporter in EXPORTERS.items():
        if _ends_in(path, suffix):
            return exporter
    raise ConfigError(f"{path}: unknown output format; expected a file name ending in {' or '.join(EXPORTERS)}")


def _named(path: Path, name: str) -> Exporter:
    if name not in FORMATS:
        raise unknown_name("format", name, list(FORMATS))
    exporter = FORMATS[name]
    if exporter.suffixes and not any(_ends_in(path, suffix) for suffix in exporter.suffixes):
        expected = " or ".join(exporter.suffixes)
        raise ConfigError(f"{path}: not a name for the format {name}; expected a file name ending in {expected}")
    return exporter


def _ends_in(path: Path, suffix: str) -> bool:
    return path.name.lower().endswith(suffix) and len(path.name) > len(suffix)


__all__ = ["EXPORTERS", "FORMATS", "Algorithm", "Exporter", "LabelWriter", "exporter_for", "require_writable"]
