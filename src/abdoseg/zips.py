"""Scans that come as a ``.zip``: unpacked where nobody sees it, for as long as they are needed."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from abdoseg.errors import CaseError, ConfigError
from abdoseg.readers import ZIP
from abdoseg.scans import find_scans


@contextmanager
def at_hand(scan: Path) -> Iterator[Path]:
    """Give a scan as it is; of a ``.zip`` the one scan in it, a file or the folder of a DICOM series.

    Raises
    ------
    CaseError
        If the archive is damaged, encrypted, too large for the disk, or holds none or several scans.
    """
    if scan.is_dir() or scan.suffix.lower() != ZIP:
        yield scan
        return
    with tempfile.TemporaryDirectory(prefix="abdoseg-") as place:
        folder = Path(place)
        _unpack(scan, folder)
        yield _only_scan(scan, folder)


def _unpack(archive: Path, folder: Path) -> None:
    if not archive.is_file():
        raise CaseError(f"{archive}: no such file; check the path")
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            if any(entry.flag_bits & 1 for entry in entries):
                raise CaseError(f"{archive}: is encrypted; unpack it and give the folder")
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
            if size > free:
                raise CaseError(
                    f"{archive}: holds {size / 1e9:.1f} GB, {folder.parent} has {free / 1e9:.1f} GB free; set TMPDIR "
                    "to a larger disk"
                )
            file.extractall(folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise CaseError(f"{archive}: is no ZIP archive that can be unpacked ({error}); make it again") from error
    except OSError as error:
        raise CaseError(f"{archive}: cannot be unpacked into {folder.parent} ({error.strerror or error})") from error


def _only_scan(archive: Path, folder: Path) -> Path:
    try:
        scans = find_scans(folder)
    except ConfigError as error:
        raise CaseError(f"{archive}: holds no scan; expected one scan or one DICOM series in it") from error
    if len(scans) > 1:
        some = ", ".join(list(scans)[:3])
        raise CaseError(f"{archive}: holds {len(scans)} scans ({some}, ...); unpack it and give the folder")
    (found,) = scans.values()
    if found.suffix.lower() == ZIP:
        raise CaseError(f"{archive}: holds another archive, {found.name}; unpack it")
    return found
