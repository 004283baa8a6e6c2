"""Readers: files to scans. One file a format.

To add a format: write ``<format>.py`` with a function ``Path -> Scan`` that raises
:class:`~abdoseg.errors.CaseError` for whatever it cannot read, and add a line to :data:`READERS`. To add a
*source* no reader is needed: write a card.
"""

from collections.abc import Callable
from pathlib import Path

from abdoseg.errors import CaseError
from abdoseg.readers import itk, nifti
from abdoseg.readers.scan import Scan

READERS: dict[str, Callable[[Path], Scan]] = {
    **dict.fromkeys(nifti.SUFFIXES, nifti.read_nifti),
    **dict.fromkeys(itk.SUFFIXES, itk.read_itk),
}
"""File suffix -> reader."""


def read_scan(path: Path) -> Scan:
    """Read one scan by its suffix.

    Raises
    ------
    CaseError
        If the file is missing, of an unknown format or damaged.
    """
    if path.is_dir():
        raise CaseError(f"{path}: is a folder, expected one file; give a single scan")
    if not path.is_file():
        raise CaseError(f"{path}: no such file; check the path")
    for suffix, reader in READERS.items():
        if path.name.lower().endswith(suffix):
            return reader(path)
    raise CaseError(f"{path}: unknown format; expected one of {', '.join(READERS)}")


__all__ = ["READERS", "Scan", "read_scan"]
