"""What scans there are in a folder that a user points at."""

import os
from pathlib import Path

from abdoseg.errors import ConfigError
from abdoseg.readers import READERS

_PREAMBLE = 128
"""Bytes before a DICOM file's mark."""


def find_scans(folder: Path) -> dict[str, Path]:
    """Return name -> file, or folder of a DICOM series, of all scans below a folder, by name.

    A name is the path below the folder, with ``_`` for ``/`` and without the suffix. Hidden files are passed over.

    Parameters
    ----------
    folder
        Folder of scans in any format of ``abdoseg.readers``, at any depth.

    Raises
    ------
    ConfigError
        If there is none, or two would have one name.
    """
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        scans = [here / name for name in sorted(files) if _is_scan(name)]
        if not scans and has_dicom(here):
            scans = [here]
        for scan in scans:
            other = found.setdefault(_name(scan, folder), scan)
            if other != scan:
                raise ConfigError(f"{folder}: {other.name} and {scan.name} would have one name; rename one of them")
    if not found:
        known = ", ".join(READERS)
        raise ConfigError(f"{folder}: found no scan; expected files that end in one of {known}, or DICOM series")
    return dict(sorted(found.items()))


def has_dicom(folder: Path) -> bool:
    """Return whether a folder itself holds a file with DICOM's mark."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as file:
            file.seek(_PREAMBLE)
            if file.read(4) == b"DICM":
                return True
    return False


def _is_scan(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(tuple(READERS))


def _name(scan: Path, folder: Path) -> str:
    parts = scan.relative_to(folder).parts or (folder.resolve().name,)
    suffix = next((s for s in READERS if parts[-1].lower().endswith(s)), "") if scan.is_file() else ""
    return "_".join((*parts[:-1], parts[-1][: len(parts[-1]) - len(suffix)]))
