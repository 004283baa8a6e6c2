"""Where a workspace lies: a local folder, or a prefix of an object store such as ``s3://bucket/folder``.

Everything else handles both as :class:`pathlib.Path`: universal_pathlib gives a prefix the methods of a path, and here
is the rest. An object store has no folders, no renaming and no locks: what must appear whole is one object, or is
told by the one that is written last.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from abdoseg.errors import ConfigError, WorkspaceError, one_line

# Other processes write there too: what was listed once may be old.
_OPTIONS = {"s3": {"use_listings_cache": False}}


def open_place(place: Path | str) -> Path:
    """Return a local folder, or a prefix of an object store with the methods of one.

    Parameters
    ----------
    place
        A path, or a URL that fsspec knows; ``Path("s3://b/w")``, which has lost a slash, is understood.

    Raises
    ------
    ConfigError
        If the package for this kind of storage is not installed, or there is no such kind.
    """
    # One letter before the colon is a drive.
    url = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.*)", str(place))
    if url is None:
        return Path(place)
    protocol, rest = url.groups()
    try:
        from upath import UPath

        options: dict[str, Any] = _OPTIONS.get(protocol, {})
        found: Any = UPath(f"{protocol}://{rest.rstrip('/')}", **options)
        _ = found.fs
    except ImportError as error:
        raise ConfigError(f"{protocol}://{rest}: needs more packages; install abdoseg[{protocol}] ({error})") from error
    except ValueError as error:
        raise ConfigError(
            f"{protocol}://{rest}: {error}; give a local folder or a URL as s3://bucket/folder"
        ) from error
    # It has Path's methods without being one.
    return cast("Path", found)


def is_local(place: Path) -> bool:
    """Whether a place is a folder of this machine."""
    return isinstance(place, Path)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; an object store has none and needs none."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it; none is no error."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    system: Any = folder.fs  # type: ignore[attr-defined]
    if system.exists(str(folder)):
        system.rm(str(folder), recursive=True)


def upload(file: Path, place: Path) -> None:
    """Put a local file into an object store; the object appears whole or not at all."""
    system: Any = place.fs  # type: ignore[attr-defined]
    system.put_file(str(file), str(place))


@contextmanager
def local_copy(file: Path) -> Iterator[Path]:
    """Give a local file with the content of ``file``, for libraries that read nothing else."""
    if is_local(file):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(file.read_bytes())
        yield copy


def read_texts(files: Sequence[Path]) -> list[str]:
    """Return the texts of several files; those of an object store are fetched at the same time."""
    if not files or is_local(files[0]):
        return [file.read_text(encoding="utf-8") for file in files]
    system: Any = files[0].fs  # type: ignore[attr-defined]
    names: list[str] = [file.path for file in files]  # type: ignore[attr-defined]
    found: dict[str, bytes] = system.cat(names)
    return [found[name].decode("utf-8") for name in names]


def stamps(folder: Path, name: str) -> dict[str, str]:
    """Return, for each subfolder that holds a file ``name``, a text that changes when that file is written again."""
    if is_local(folder):
        found = {}
        for entry in os.scandir(folder) if folder.is_dir() else ():
            with suppress(FileNotFoundError, NotADirectoryError):
                told = os.stat(f"{entry.path}/{name}")  # noqa: PTH116 -- of 100,000 folders
                found[entry.name] = f"{told.st_size}-{told.st_mtime_ns}-{told.st_ino}"
        return found
    system: Any = folder.fs  # type: ignore[attr-defined]
    prefix: str = folder.path  # type: ignore[attr-defined]
    listed: dict[str, dict[str, Any]] = system.glob(f"{prefix}/*/{name}", detail=True)
    return {path.rsplit("/", 2)[-2]: _object_stamp(info) for path, info in listed.items()}


def _object_stamp(info: dict[str, Any]) -> str:
    """Return size and version of an object: clients name the latter in several ways."""
    version = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime") if info.get(key)), None)
    return f"{info.get('size')}-{version}"


def append_text(file: Path, text: str) -> None:
    """Add text to the end of a file; an object is written anew."""
    if is_local(file):
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
        return
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(before + text, encoding="utf-8")


def locked(file: Path) -> Any:
    """Return a context that raises ``filelock.Timeout`` while another process is in it; no lock on object stores."""
    return FileLock(file, timeout=0) if is_local(file) else nullcontext()


def storage_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what reading and writing may raise: the system's errors, those of clients in use, and ``others``."""
    return (OSError, *client_errors(), *others)


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors of an object store's client that are no OSError; none unless it is loaded."""
    botocore = sys.modules.get("botocore.exceptions")
    return (botocore.BotoCoreError, botocore.ClientError) if botocore else ()


def reason_of(error: Exception) -> str:
    """Return what went wrong, in one line and without the file's name."""
    return getattr(error, "strerror", None) or one_line(str(error))


def require_reachable(place: Path) -> None:
    """Ask an object store for a prefix, so that a wrong name or a lacking key is told at once.

    Raises
    ------
    WorkspaceError
        If it does not answer, refuses, or has no such bucket.
    """
    if is_local(place):
        return
    system: Any = place.fs  # type: ignore[attr-defined]
    bucket = place.path.split("/")[0]  # type: ignore[attr-defined]
    try:
        system.info(bucket)
    except FileNotFoundError as error:
        msg = f"{place}: no bucket '{bucket}', or no right to see it; make it, or check the keys"
        raise WorkspaceError(msg) from error
    except storage_errors() as error:
        msg = f"{place}: cannot be reached ({reason_of(error)}); check the address, the keys and the network"
        raise WorkspaceError(msg) from error
