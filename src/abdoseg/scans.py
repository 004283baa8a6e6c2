"""What scans there are in a folder that a user points at."""

import os
from pathlib import Path

from abdoseg.errors import ConfigError
from abdoseg.readers import READERS, ZIP, has_images, stem_of


def find_scans(folder: Path) -> dict[str, Path]:
    """Return name -> file, or folder of a DICOM series, of all scans below a folder, by name.

    A name is the path below the folder, with ``_`` for ``/`` and without the suffix. Hidden files are passed over.

    Parameters
    ----------
    folder
        Folder of scans in any format of ``abdoseg.readers``, or zipped, at any depth.

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
        if not scans and has_images(here):
            scans = [here]
        for scan in scans:
            other = found.setdefault(_name(scan, folder), scan)
            if other != scan:
                raise ConfigError(f"{folder}: {other.name} and {scan.name} would have one name; rename one of them")
    if not found:
        known = ", ".join((*READERS, ZIP))
        raise ConfigError(f"{folder}: found no scan; expected files that end in one of {known}, or DICOM series")
    return dict(sorted(found.items()))


def _is_scan(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((*READERS, ZIP))


def _name(scan: Path, folder: Path) -> str:
    parts = scan.relative_to(folder).parts or (folder.resolve().name,)
    return "_".join((*parts[:-1], stem_of(scan) if scan.is_file() else parts[-1]))
