"""Readers: files to scans. One file a format.

To add a format: write ``<format>.py`` with a function ``Path -> Scan`` that raises
:class:`~abdoseg.errors.CaseError` for whatever it cannot read, and add a line to :data:`READERS`. To add a
*source* no reader is needed: write a card.
"""

from collections.abc import Callable
from pathlib import Path

from abdoseg.errors import CaseError
from abdoseg.readers import dicom, hdf5, itk, nifti
from abdoseg.readers.dicom import has_images
from abdoseg.readers.scan import Scan
from abdoseg.types import Modality

READERS: dict[str, Callable[[Path], Scan]] = {
    **dict.fromkeys(nifti.SUFFIXES, nifti.read_nifti),
    **dict.fromkeys(itk.SUFFIXES, itk.read_itk),
}
"""File suffix -> reader."""

ZIP = ".zip"
"""Suffix of an archive with one scan in it (``abdoseg.zips``)."""


def read_scan(path: Path, key: str | None = None) -> Scan:
    """Read one scan by its suffix, or the DICOM series in a folder.

    Parameters
    ----------
    path
        A file, or a folder with the files of one DICOM series.
    key
        Name of the dataset in an HDF5 file; such a file needs it, others must have none.

    Raises
    ------
    CaseError
        If the file is missing, of an unknown format or damaged.
    """
    if path.is_dir():
        return dicom.read_series(path)
    if not path.is_file():
        raise CaseError(f"{path}: no such file; check the path")
    name = path.name.lower()
    if name.endswith(hdf5.SUFFIXES):
        return hdf5.read_hdf5(path, key)
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader(path)
    known = ", ".join((*READERS, *hdf5.SUFFIXES))
    raise CaseError(f"{path}: unknown format; expected one of {known}, or the folder of a DICOM series")


def stem_of(path: Path) -> str:
    """Return a file's name without its reader's suffix or ``.zip``; a folder's whole name."""
    suffix = next((s for s in (*READERS, ZIP) if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def stated_modality(path: Path) -> Modality | None:
    """Return the modality that a scan's own header states; ``None`` for formats that state none."""
    return dicom.modality_of(path) if path.is_dir() else None


__all__ = ["READERS", "ZIP", "Scan", "has_images", "read_scan", "stated_modality", "stem_of"]
