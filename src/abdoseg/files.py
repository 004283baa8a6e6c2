"""Files that appear whole or not at all."""

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from abdoseg.errors import WorkspaceError
from abdoseg.places import is_local, reason_of, storage_errors, upload

_DRAFT = re.compile(r"\.[0-9a-f]{8}\..")
"""How the name of a draft begins."""


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Give one temporary path for each file to write, and move them into place when the block ends well.

    The temporary files are local and end in the same names, so that writers see their suffix: in the same folders,
    or on their way to an object store. Folders are created. When the block fails, the temporary files are removed and
    existing files stay as they were.

    Raises
    ------
    WorkspaceError
        If a file cannot be written (no permission, disk full, the folder is a file, ...).
    """
    if not is_local(paths[0]):
        with _uploaded(*paths) as drafts:
            yield drafts
        return
    mark = secrets.token_hex(4)
    drafts = tuple(path.with_name(f".{mark}.{path.name}") for path in paths)
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield drafts
        for draft, path in zip(drafts, paths, strict=True):
            os.replace(draft, path)  # noqa: PTH105 -- the call whose promise this is
    except WorkspaceError:  # an OSError itself, which has been told already
        raise
    except OSError as error:
        raise _not_written(paths[0], error) from error
    finally:
        for draft in drafts:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


@contextmanager
def _uploaded(*paths: Path) -> Iterator[tuple[Path, ...]]:
    with tempfile.TemporaryDirectory(prefix="abdoseg-") as folder:
        drafts = tuple(Path(folder) / f"{i}.{path.name}" for i, path in enumerate(paths))
        yield drafts
        try:
            for draft, path in zip(drafts, paths, strict=True):
                upload(draft, path)
        except storage_errors() as error:
            raise _not_written(paths[0], error) from error


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left half written in a folder; nobody else may be writing there."""
    if is_local(folder) and folder.is_dir():
        for path in folder.iterdir():
            if _DRAFT.match(path.name) and path.is_file():
                with suppress(OSError):
                    path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises
    ------
    WorkspaceError
        If it cannot be written.
    """
    with whole_files(path) as (draft,):
        draft.write_text(text, encoding="utf-8")


def require_writable(path: Path) -> None:
    """Create the folder of ``path`` and try to write there, so that hours of work do not end in an error.

    Raises
    ------
    WorkspaceError
        If a file could not be written there, or ``path`` is a folder.
    """
    if path.is_dir():
        raise WorkspaceError(f"{path}: is a folder, expected a file name; choose a name inside it")
    probe = path.with_name(f".{secrets.token_hex(4)}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: Exception) -> WorkspaceError:
    return WorkspaceError(
        f"{path}: cannot be written ({reason_of(error)}); check space and permissions, or write elsewhere"
    )
