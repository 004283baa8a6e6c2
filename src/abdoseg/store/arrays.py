"""One case as a Zarr v3 group: ``image``, ``label``, ``foreground``, facts in the attributes.

Chunks of 32 voxels in one shard an array: a patch reads few bytes, a case is seven files, and any Zarr reader
can open it.
"""

import errno
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from zarr.codecs import BloscCodec

from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import CaseError, WorkspaceError, one_line
from abdoseg.places import is_local, read_texts, reason_of, remove_tree, storage_errors
from abdoseg.store.chunks import PartlyRead, open_array
from abdoseg.value_errors import faults_of

FORMAT_VERSION = 1
"""Version of the case layout; written into every case, raised when a reader of the old one would misread."""

CHUNK = 32

ARRAYS = ("image", "label", "foreground")


def write_case(folder: Path, incoming: Path, case: Case, foreground: Foreground) -> None:
    """Write a case so that it appears under ``folder`` whole or not at all.

    On disk it is built elsewhere and moved. An object store cannot move: there the group's own ``zarr.json``, without
    which nobody takes the folder for a case, is the last to be written and the first to be removed.

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
    try:
        if is_local(folder):
            _write_and_move(folder, incoming, case, foreground)
        else:
            remove_case(folder, incoming)
            _write_group(folder, case, foreground)
    except storage_errors() as error:
        raise CaseError(
            f"{folder}: cannot be written ({reason_of(error)}); free space or check the permissions"
        ) from error


def _write_and_move(folder: Path, incoming: Path, case: Case, foreground: Foreground) -> None:
    building = incoming / f"{case.facts.case}-{secrets.token_hex(4)}"
    try:
        _write_group(building, case, foreground)
        _require_whole(building)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_case(folder, incoming)
        building.rename(folder)
    finally:
        remove_tree(building)


def remove_case(folder: Path, incoming: Path) -> None:
    """Take a case away in one step, so that a kill leaves either all of it or nothing; no case is no error."""
    if not is_local(folder):
        (folder / "zarr.json").unlink(missing_ok=True)
        remove_tree(folder)
    elif folder.exists():
        trash = incoming / f"{folder.name}-{secrets.token_hex(4)}"
        try:
            incoming.mkdir(parents=True, exist_ok=True)
            folder.rename(trash)
        except OSError as error:
            raise WorkspaceError(f"{folder}: cannot be removed ({reason_of(error)}); check the permissions") from error
        remove_tree(trash)


def open_source(folder: Path, facts: dict[str, str]) -> None:
    """Make the Zarr group that holds a source's cases, unless it is there."""
    zarr.open_group(_store(folder), mode="a", zarr_format=3, attributes=dict(facts))


def _store(folder: Path) -> Any:
    """Return what Zarr reads and writes a folder through."""
    if is_local(folder):
        return folder
    options: Any = folder.storage_options  # type: ignore[attr-defined]
    return zarr.storage.FsspecStore.from_url(str(folder), storage_options=dict(options))


def _require_whole(building: Path) -> None:
    """Refuse a build whose files somebody removed meanwhile: Zarr makes missing groups again, empty."""
    names = ("zarr.json", *(f"{name}/zarr.json" for name in ARRAYS))
    missing = [name for name in names if not (building / name).is_file()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, f"{missing[0]} went missing while the case was written")


def _write_group(path: Path, case: Case, foreground: Foreground) -> None:
    facts = case.facts.model_dump(mode="json")
    attributes = {"abdoseg_format": FORMAT_VERSION, "facts": facts, "foreground_start": foreground.start.tolist()}
    # Each array by its own path: under a group's, Zarr would make the group first, and with it the case.
    _write_array(path / "image", case.image)
    _write_array(path / "label", case.label)
    _write_array(path / "foreground", foreground.index)
    zarr.create_group(store=_store(path), attributes=attributes, zarr_format=3)


def _write_array(path: Path, data: NDArray[Any]) -> None:
    # An empty list of voxels is an array of length 0, which Zarr cannot shard; one unused entry stands for it.
    stored = data if data.size else np.zeros(1, dtype=data.dtype)
    chunks = (CHUNK,) * 3 if stored.ndim == 3 else (min(65536, stored.size),)
    shards = tuple(-(-n // c) * c for n, c in zip(stored.shape, chunks, strict=True))
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    zarr.create_array(
        _store(path), data=stored, chunks=chunks, shards=shards, compressors=codec, fill_value=0, zarr_format=3
    )


def read_facts(folders: Sequence[Path]) -> list[CaseFacts]:
    """Return the facts of the cases stored under ``folders``, without their voxels."""
    try:
        texts = read_texts([folder / "zarr.json" for folder in folders])
    except storage_errors() as error:
        names = folders[0] if len(folders) == 1 else f"{folders[0]} and {len(folders) - 1} more"
        raise _no_case(names, reason_of(error)) from error
    return [_facts_in(folder, text) for folder, text in zip(folders, texts, strict=True)]


def _facts_in(folder: Path, text: str) -> CaseFacts:
    return _facts(folder, _attributes_in(folder, text))


def _attributes_in(folder: Path, text: str) -> dict[str, Any]:
    try:
        attributes: dict[str, Any] = dict(json.loads(text)["attributes"])
    except ValueError as error:
        raise _no_case(folder, f"zarr.json is no JSON: {one_line(str(error))}") from error
    except (KeyError, TypeError) as error:
        raise _no_case(folder, "zarr.json has no attributes") from error
    return attributes


def _no_case(place: object, reason: str) -> WorkspaceError:
    return WorkspaceError(f"{place}: not a stored case ({reason}); ingest the case again with --replace")


def read_case(folder: Path) -> Case:
    """Return the case stored under ``folder``."""
    group = _open(folder)
    return Case(_facts(folder, dict(group.attrs)), _array(folder, group, "image"), _array(folder, group, "label"))


def read_foreground(folder: Path) -> Foreground:
    """Return the labelled voxels of the case stored under ``folder``."""
    group = _open(folder)
    start = np.asarray(group.attrs["foreground_start"], dtype=np.int64)
    return Foreground(_array(folder, group, "foreground")[: int(start[-1])], start)


@dataclass(frozen=True, eq=False)
class StoredForeground:
    """Where the labelled voxels of a case are, left on disk; see :class:`abdoseg.case.Foreground`.

    Parameters
    ----------
    index
        int32 ``(M,)``: read by slice or by element.
    start
        int ``(N + 1,)``: structure ``c`` owns ``index[start[c - 1]:start[c]]``.
    """

    index: PartlyRead
    start: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OpenCase:
    """A stored case of which parts can be read; its files stay open while somebody refers to it.

    Parameters
    ----------
    digest
        Hash of the voxels and their annotation, as in the facts: another one is another case.
    image, label
        int16 and uint8 ``(X, Y, Z)``; numpy arrays where the case is in memory.
    foreground
        The labelled voxels.
    """

    digest: str
    image: PartlyRead | NDArray[np.int16]
    label: PartlyRead | NDArray[np.uint8]
    foreground: StoredForeground | Foreground


def open_case(folder: Path) -> OpenCase:
    """Open the case stored under ``folder`` for reading in part.

    Raises
    ------
    WorkspaceError
        If there is none, it is damaged, or another one took its place meanwhile.
    """
    description = _description(folder)
    attributes = _attributes_in(folder, description)
    _check_version(folder, attributes)
    try:
        digest = str(attributes["facts"]["digest"])
        start = np.asarray(attributes["foreground_start"], dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_case(folder, "zarr.json lacks facts.digest or foreground_start") from error
    # No labelled voxel: label and foreground may be all fill value. One: it may be voxel 0.
    labelled = int(start[-1])
    holds_something = {"image": True, "label": labelled > 0, "foreground": labelled > 1}
    image, label, index = (
        open_array(folder / name, _store(folder / name), holds_something=holds_something[name]) for name in ARRAYS
    )
    if image.shape != label.shape or len(image.shape) != 3 or index.shape[0] < labelled:
        msg = f"{folder}: damaged (image {image.shape}, label {label.shape}, {index.shape[0]} labelled voxels)"
        raise WorkspaceError(f"{msg}; ingest the case again with --replace")
    if _description(folder) != description:
        raise WorkspaceError(f"{folder}: was replaced while it was opened; run the command again")
    return OpenCase(digest, image, label, StoredForeground(index, start))


def _description(folder: Path) -> str:
    """Return the text of a case's own ``zarr.json``."""
    try:
        return read_texts([folder / "zarr.json"])[0]
    except storage_errors() as error:
        raise _no_case(folder, reason_of(error)) from error


def is_case(folder: Path) -> bool:
    """Whether a case stands under ``folder``."""
    return may_be_case(folder) and (folder / "zarr.json").is_file()


def may_be_case(folder: Path) -> bool:
    """Whether a folder with this name may be a case's: names with a dot in front are other programs'."""
    return not folder.name.startswith(".")


def _array(folder: Path, group: zarr.Group, name: str) -> NDArray[Any]:
    try:
        array = group.get(name)
        if isinstance(array, zarr.Array):
            return np.asarray(array[...])
    except storage_errors(ValueError, RuntimeError, KeyError, TypeError) as error:  # of codecs and descriptions
        msg = f"{folder / name}: damaged ({reason_of(error)}); ingest the case again with --replace"
        raise WorkspaceError(msg) from error
    raise WorkspaceError(f"{folder}: has no array {name}; ingest the case again with --replace")


def _open(folder: Path) -> zarr.Group:
    try:
        return zarr.open_group(_store(folder), mode="r", zarr_format=3)
    except storage_errors(ValueError, KeyError) as error:
        raise _no_case(folder, reason_of(error)) from error


def _facts(folder: Path, attributes: dict[str, Any]) -> CaseFacts:
    _check_version(folder, attributes)
    try:
        return CaseFacts.model_validate(attributes.get("facts"))
    except ValidationError as error:
        raise _no_case(folder, faults_of(error, nowhere="facts")) from error


def _check_version(folder: Path, attributes: dict[str, Any]) -> None:
    version = attributes.get("abdoseg_format")
    if version != FORMAT_VERSION:
        msg = (
            f"{folder}: case format {version}, expected {FORMAT_VERSION}; "
            "use the abdoseg that wrote it, or ingest the source again into a new workspace"
        )
        raise WorkspaceError(msg)
