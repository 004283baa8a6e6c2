"""One case as a Zarr v3 group: ``image``, ``label``, ``foreground``, facts in the attributes.

Chunks of 32 voxels in one shard an array: a patch reads few bytes, a case is seven files, and any Zarr reader
can open it.
"""

import errno
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import CaseError, WorkspaceError

FORMAT_VERSION = 1
"""Version of the case layout; written into every case, raised when a reader of the old one would misread."""

CHUNK = 32

ARRAYS = ("image", "label", "foreground")


def write_case(folder: Path, incoming: Path, case: Case, foreground: Foreground) -> None:
    """Write a case so that it appears under ``folder`` whole or not at all.

    Parameters
    ----------
    folder
        Where the case will stand.
    incoming
        A folder on the same file system to build it in.
    case, foreground
        What to write.

    Raises
    ------
    CaseError
        If it cannot be written (disk full, no permission); nothing is left behind.
    """
    if not case.facts.case or case.facts.case == "zarr.json":  # it would take the place of the source's own group
        raise CaseError(f"case id '{case.facts.case}': cannot be stored; give the case another name")
    building = incoming / f"{case.facts.case}-{secrets.token_hex(4)}"
    try:
        _write_group(building, case, foreground)
        _require_whole(building)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_case(folder, incoming)
        building.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CaseError(f"{folder}: cannot be written ({reason}); free space or check the permissions") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def remove_case(folder: Path, incoming: Path) -> None:
    """Take a case away in one move, so that a kill leaves either all of it or nothing; no case is no error."""
    if folder.exists():
        incoming.mkdir(parents=True, exist_ok=True)
        trash = incoming / f"{folder.name}-{secrets.token_hex(4)}"
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def open_source(folder: Path, facts: dict[str, str]) -> None:
    """Make the Zarr group that holds a source's cases, unless it is there."""
    zarr.open_group(folder, mode="a", zarr_format=3, attributes=dict(facts))


def _require_whole(building: Path) -> None:
    """Refuse a build whose files somebody removed meanwhile: Zarr makes missing groups again, empty."""
    names = ("zarr.json", *(f"{name}/zarr.json" for name in ARRAYS))
    missing = [name for name in names if not (building / name).is_file()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, f"{missing[0]} went missing while the case was written")


def _write_group(path: Path, case: Case, foreground: Foreground) -> None:
    facts = case.facts.model_dump(mode="json")
    attributes = {"abdoseg_format": FORMAT_VERSION, "facts": facts, "foreground_start": foreground.start.tolist()}
    group = zarr.create_group(store=path, attributes=attributes, zarr_format=3)
    _write_array(group, "image", case.image)
    _write_array(group, "label", case.label)
    _write_array(group, "foreground", foreground.index)


def _write_array(group: zarr.Group, name: str, data: NDArray[Any]) -> None:
    # An empty list of voxels is an array of length 0, which Zarr cannot shard; one unused entry stands for it.
    stored = data if data.size else np.zeros(1, dtype=data.dtype)
    chunks = (CHUNK,) * 3 if stored.ndim == 3 else (min(65536, stored.size),)
    shards = tuple(-(-n // c) * c for n, c in zip(stored.shape, chunks, strict=True))
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    array = group.create_array(
        name, shape=stored.shape, dtype=stored.dtype, chunks=chunks, shards=shards, compressors=codec, fill_value=0
    )
    array[...] = stored


def read_facts(folder: Path) -> CaseFacts:
    """Return the facts of the case stored under ``folder``, without its voxels."""
    return _facts(folder, _open(folder))


def read_case(folder: Path) -> Case:
    """Return the case stored under ``folder``."""
    group = _open(folder)
    return Case(_facts(folder, group), _array(group, "image"), _array(group, "label"))


def read_foreground(folder: Path) -> Foreground:
    """Return the labelled voxels of the case stored under ``folder``."""
    group = _open(folder)
    start = np.asarray(group.attrs["foreground_start"], dtype=np.int64)
    return Foreground(_array(group, "foreground")[: int(start[-1])], start)


def is_case(folder: Path) -> bool:
    """Whether a case stands under ``folder``."""
    return (folder / "zarr.json").is_file() and not folder.name.startswith(".")


def _array(group: zarr.Group, name: str) -> NDArray[Any]:
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise WorkspaceError(f"{group.store_path}: has no array {name}; ingest the case again with --replace")
    return np.asarray(array[...])


def _open(folder: Path) -> zarr.Group:
    try:
        return zarr.open_group(folder, mode="r", zarr_format=3)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise WorkspaceError(f"{folder}: not a stored case ({error}); ingest it again") from error


def _facts(folder: Path, group: zarr.Group) -> CaseFacts:
    version = group.attrs.get("abdoseg_format")
    if version != FORMAT_VERSION:
        msg = (
            f"{folder}: case format {version}, expected {FORMAT_VERSION}; "
            "use the abdoseg that wrote it, or ingest the source again into a new workspace"
        )
        raise WorkspaceError(msg)
    return CaseFacts.model_validate(group.attrs["facts"])
