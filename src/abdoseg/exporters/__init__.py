"""Exporters: predicted labels to files that other programs open. One file a format.

To add a format: write ``<format>.py`` with a function of :class:`LabelWriter`'s signature whose files go through
:func:`~abdoseg.files.whole_files`, and add a line to :data:`EXPORTERS`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from abdoseg.anatomy import Anatomy
from abdoseg.errors import ConfigError
from abdoseg.exporters import nifti
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
    ) -> tuple[Path, ...]: ...


@dataclass(frozen=True)
class Exporter:
    """A format that label maps can be written in.

    Parameters
    ----------
    title
        Its name for people.
    write
        Writes one label map and returns the files it made, the label map first.
    """

    title: str
    write: LabelWriter


_NIFTI = Exporter("NIfTI label map", nifti.write_label_map)

EXPORTERS: dict[str, Exporter] = {".nii.gz": _NIFTI, ".nii": _NIFTI}
"""Suffix of the output file -> how it is written."""


def exporter_for(path: Path) -> Exporter:
    """Return the exporter of a file, by its suffix.

    Raises
    ------
    ConfigError
        If no exporter has this suffix.
    """
    for suffix, exporter in EXPORTERS.items():
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return exporter
    raise ConfigError(f"{path}: unknown output format; expected a file name ending in {' or '.join(EXPORTERS)}")


__all__ = ["EXPORTERS", "Exporter", "LabelWriter", "exporter_for", "require_writable"]
