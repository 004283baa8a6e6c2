"""Arrays on disk, read in part: only the chunks that a box touches are decoded.

Zarr's own reader spends about half a millisecond a chunk. The files that :mod:`abdoseg.store.arrays` writes are one
shard of blosc chunks with an index at its end, so here the shard stays open, its index is read once, and chunks are
read and decoded where they are needed. Anything else (an object store, another writer's layout) is read by Zarr.

Threads may share an array: chunks are decoded without the interpreter's lock, each thread's into its own memory.
"""

import json
import struct
from collections.abc import Sequence
from itertools import product, repeat
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray

from abdoseg.errors import WorkspaceError
from abdoseg.kernels import blosc_box
from abdoseg.kernels.blosc_box import MISSING
from abdoseg.kernels.scratch import Scratch
from abdoseg.places import is_local, reason_of, storage_errors
from abdoseg.store.shard_file import ShardFile

WAY_OUT = "ingest the case again with --replace"

_DTYPES = {"int16": "<i2", "uint8": "|u1", "int32": "<i4"}
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_BLOSC_HEADER = 16


class PartlyRead(Protocol):
    """An array of which a part can be read; a numpy array has the same shape, dtype and ``[...]``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the pieces that are decoded whole."""
        ...

    def read(self, start: Sequence[int], out: NDArray[Any], wanted: NDArray[np.bool_] | None = None) -> None:
        """Fill ``out`` with the box of its shape that begins at ``start``.

        Parameters
        ----------
        start
            First element of the box along every axis.
        out
            Where the box goes; its dtype is the array's.
        wanted
            Which of the chunks that the box touches are needed, bool, one entry a chunk. The others' part of ``out``
            is left as it is. ``None``: all.

        Raises
        ------
        ValueError
            If the box does not lie within the array.
        WorkspaceError
            If what is stored is damaged.
        """
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return one element (an integer for every axis), a box (slices of step 1) or all (``...``)."""
        ...


def open_array(folder: Path, store: Any, *, holds_something: bool) -> PartlyRead:
    """Open an array for reading in part.

    Parameters
    ----------
    folder
        The array's folder.
    store
        What Zarr reads ``folder`` through.
    holds_something
        Whether there are elements other than the fill value: with none, a shard that is not there is no damage.

    Raises
    ------
    WorkspaceError
        If there is no such array, or it is damaged.
    """
    if is_local(folder):
        try:
            described = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = reason_of(error)
            raise WorkspaceError(f"{folder}: cannot be read ({reason}); {WAY_OUT}") from error
        layout = _layout_of(described)
        if layout is not None:
            return ShardedArray(folder, layout, holds_something=holds_something)
    return ZarrArray(folder, store, holds_something=holds_something)


class Layout(NamedTuple):
    """What is known of an array of one shard."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    grid: tuple[int, ...]
    file: str
    checked: bool
    """Whether every chunk ends with its own checksum."""


def _layout_of(described: Any) -> Layout | None:
    """Return the layout of an array by its ``zarr.json``; ``None`` if it is not one that is read directly."""
    try:
        shape, shard = tuple(described["shape"]), tuple(described["chunk_grid"]["configuration"]["chunk_shape"])
        codec = described["codecs"][0]
        inside = codec["configuration"]
        chunks = tuple(inside["chunk_shape"])
        dtype = np.dtype(_DTYPES[described["data_type"]])
        names = [each["name"] for each in inside["codecs"]]
        endian = inside["codecs"][0].get("configuration", {}).get("endian", "little")
        keys = described["chunk_key_encoding"]
        separator = keys.get("configuration", {}).get("separator", "/")
        facts: tuple[tuple[Any, Any], ...] = (
            (described["zarr_format"], 3),
            (described["node_type"], "array"),
            (described["fill_value"], 0),
            (len(described["codecs"]), 1),
            (described.get("storage_transformers", []), []),
            (described["chunk_grid"]["name"], "regular"),
            (keys["name"], "default"),
            (codec["name"], "sharding_indexed"),
            (inside.get("index_location", "end"), "end"),
            (inside["index_codecs"], _INDEX_CODECS),
            (names[:2], ["bytes", "blosc"]),
            (names[2:] in ([], ["crc32c"]), True),
            (endian, "little"),
            (len(shape) <= 3, True),
            (len(shape), len(shard)),
            (all(0 < n <= s for n, s in zip(shape, shard, strict=True)), True),
            (all(s % c == 0 for s, c in zip(shard, chunks, strict=True)), True),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None
    if any(found != expected for found, expected in facts):
        return None
    grid = tuple(s // c for s, c in zip(shard, chunks, strict=True))
    return Layout(shape, dtype, chunks, grid, separator.join(["c", *["0"] * len(shape)]), len(names) == 3)


class _Piece(NamedTuple):
    """Part of a box along one axis that lies in one chunk."""

    of_box: slice
    of_chunk: slice


def _pieces(first: int, length: int, chunk: int) -> list[_Piece]:
    """Cut ``first`` to ``first + length - 1`` of an axis where a chunk ends."""
    pieces = []
    for corner in range(first // chunk * chunk, first + length, chunk):
        low, high = max(first, corner), min(first + length, corner + chunk)
        pieces.append(_Piece(slice(low - first, high - first), slice(low - corner, high - corner)))
    return pieces


_SCRATCH, _STORED = Scratch(), Scratch()


class ShardedArray:
    """An array in one local file of blosc chunks, which stays open.

    The file stays readable after it was moved or removed: whoever opened a case reads that case to the end. It is
    closed when nobody refers to the array any more.

    Parameters
    ----------
    folder
        The array's folder.
    layout
        What its ``zarr.json`` says.
    holds_something
        See :func:`open_array`.

    Raises
    ------
    WorkspaceError
        If the shard is missing, cut off, or its index does not have its checksum.
    """

    def __init__(self, folder: Path, layout: Layout, *, holds_something: bool = True) -> None:
        self.shape, self.dtype, self.chunks = layout.shape, layout.dtype, layout.chunks
        self._file = folder / layout.file
        self._checked = layout.checked
        self._size = prod(self.chunks) * self.dtype.itemsize
        self._shard = self._open(holds_something=holds_something)
        self._index = self._read_index(layout.grid)

    def _open(self, *, holds_something: bool) -> ShardFile | None:
        """Return the open shard; ``None`` where there is nothing to hold."""
        try:
            return ShardFile(self._file)
        except FileNotFoundError:
            if holds_something:
                self._damaged("the file is not there")
            return None

    def _read_index(self, grid: tuple[int, ...]) -> NDArray[np.uint64]:
        """Return offset and length of every chunk in the shard, uint64 ``(*grid, 2)``."""
        if self._shard is None:
            return np.full((*grid, 2), MISSING, dtype=np.uint64)
        length = prod(grid) * 16
        data = self._shard.length - length - 4
        if data < 0:
            self._damaged(f"it has {self._shard.length} bytes, its index alone has {length + 4}")
        end = self._shard.read(data, length + 4)
        raw = end[:length]
        if google_crc32c.value(raw) != int.from_bytes(end[length:], "little"):
            self._damaged("its index does not have its checksum")
        index = np.frombuffer(raw, dtype="<u8").reshape(*grid, 2)
        offset, size = index[..., 0], index[..., 1]
        beyond = (offset != MISSING) & ((offset > data) | (size > data - np.minimum(offset, data)))
        if beyond.any():
            self._damaged("its index tells of chunks beyond its end")
        return index

    def _damaged(self, reason: str) -> NoReturn:
        raise WorkspaceError(f"{self._file}: damaged ({reason}); {WAY_OUT}")

    def read(self, start: Sequence[int], out: NDArray[Any], wanted: NDArray[np.bool_] | None = None) -> None:
        """Fill ``out``; see :meth:`PartlyRead.read`."""
        _require_within(start, out, self)
        if not out.size:
            return
        at_once = blosc_box.AVAILABLE and not self._checked and out.flags.c_contiguous
        # Where compiled code fails, the slow way says why, or waits for a disk that was busy.
        if not (at_once and self._read_at_once(start, out, wanted)):
            self._read_one_by_one(start, out, wanted)

    def _read_at_once(self, start: Sequence[int], out: NDArray[Any], wanted: NDArray[np.bool_] | None) -> bool:
        """Fill ``out`` by one call of compiled code, for which all arrays have three axes; return whether it could."""
        before = (1,) * (3 - len(self.shape))
        chunks, shape = before + self.chunks, before + out.shape
        first = (0,) * len(before) + tuple(int(a) for a in start)
        corner = tuple(a // c for a, c in zip(first, chunks, strict=True))
        stop = tuple(-(-(a + n) // c) for a, n, c in zip(first, shape, chunks, strict=True))
        touched = self._index.reshape(*before, *self._index.shape)[
            tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))
        ]
        needed = np.ones(touched.shape[:3], dtype=bool) if wanted is None else wanted.reshape(touched.shape[:3])
        chunk = _SCRATCH.array((prod(chunks),), self.dtype)
        memory = chunk.view(np.uint8)
        stored = _STORED.array((memory.size + blosc_box.OVERHEAD,), np.uint8)
        arguments = (corner, chunks, first, shape, stored, memory, chunk, out.reshape(-1))
        # A shard that is not there has no chunk to read.
        file = -1 if self._shard is None else self._shard.fileno()
        return bool(blosc_box.decode_box(file, touched, needed, *arguments) == blosc_box.WHOLE)

    def _read_one_by_one(self, start: Sequence[int], out: NDArray[Any], wanted: NDArray[np.bool_] | None) -> None:
        """Fill ``out`` chunk by chunk."""
        corner = tuple(first // chunk for first, chunk in zip(start, self.chunks, strict=True))
        pieces = [_pieces(int(a), n, c) for a, n, c in zip(start, out.shape, self.chunks, strict=True)]
        touched = self._index[tuple(slice(a, a + len(p)) for a, p in zip(corner, pieces, strict=True))]
        needed = repeat(object=True) if wanted is None else wanted.reshape(-1).tolist()
        chunk = _SCRATCH.array(self.chunks, self.dtype)
        memory = chunk.reshape(-1).view(np.uint8)
        # The strict zip would refuse the endless `repeat`.
        for (offset, size), piece, is_needed in zip(
            touched.reshape(-1, 2).tolist(), product(*pieces), needed, strict=False
        ):
            if not is_needed:
                continue
            of_box, of_chunk = zip(*piece, strict=True)
            if offset == MISSING:
                out[of_box] = 0
            else:
                self._decode(offset, size, memory)
                out[of_box] = chunk[of_chunk]

    def _decode(self, offset: int, size: int, memory: NDArray[np.uint8]) -> None:
        """Decode the chunk of ``size`` bytes at ``offset`` into ``memory``."""
        assert self._shard is not None  # an index tells of chunks: there is a shard
        stored = self._shard.read(offset, size)
        if len(stored) < size:
            self._damaged(f"the chunk at byte {offset} is cut off")
        if self._checked:
            stored, check = stored[:-4], stored[-4:]
            if len(check) != 4 or google_crc32c.value(stored) != int.from_bytes(check, "little"):
                self._damaged(f"the chunk at byte {offset} does not have its checksum")
        if len(stored) < _BLOSC_HEADER:
            self._damaged(f"the chunk at byte {offset} is cut off")
        decoded_size, _, stored_size = struct.unpack_from("<III", stored, 4)
        # Less would leave another chunk's voxels in the memory, and blosc believes the header.
        if decoded_size != self._size or stored_size != len(stored):
            self._damaged(f"the chunk at byte {offset} has another size than its array's chunks")
        try:
            blosc.decompress(stored, memory)
        except (RuntimeError, ValueError) as error:
            self._damaged(f"the chunk at byte {offset} cannot be decoded: {error}")

    def __getitem__(self, key: Any, /) -> Any:
        """Return one element, a box or all; see :meth:`PartlyRead.__getitem__`."""
        return _get(self, key)


class ZarrArray:
    """An array that Zarr reads: slower, but of any layout and in any store.

    Parameters
    ----------
    folder
        The array's folder, for messages.
    store
        What Zarr reads it through.
    holds_something
        See :func:`open_array`.

    Raises
    ------
    WorkspaceError
        If Zarr cannot open it, or no chunk of it is there.
    """

    def __init__(self, folder: Path, store: Any, *, holds_something: bool = True) -> None:
        self._folder = folder
        try:
            self._array = zarr.open_array(store, mode="r", zarr_format=3)
            empty = holds_something and self._array.nchunks_initialized == 0
        except _zarr_errors() as error:
            raise WorkspaceError(f"{folder}: cannot be read ({reason_of(error)}); {WAY_OUT}") from error
        if empty:
            raise WorkspaceError(f"{folder}: damaged (none of its chunks is there); {WAY_OUT}")
        self.shape = self._array.shape
        self.dtype = np.dtype(self._array.dtype)
        self.chunks = self._array.chunks

    def read(self, start: Sequence[int], out: NDArray[Any], wanted: NDArray[np.bool_] | None = None) -> None:
        """Fill ``out``, wanted or not; see :meth:`PartlyRead.read`."""
        del wanted  # Zarr reads boxes, in one go
        _require_within(start, out, self)
        box = tuple(slice(int(first), int(first) + n) for first, n in zip(start, out.shape, strict=True))
        try:
            out[...] = self._array[box]
        except _zarr_errors() as error:
            raise WorkspaceError(f"{self._folder}: damaged ({reason_of(error)}); {WAY_OUT}") from error

    def __getitem__(self, key: Any, /) -> Any:
        """Return one element, a box or all; see :meth:`PartlyRead.__getitem__`."""
        return _get(self, key)


def _zarr_errors() -> tuple[type[Exception], ...]:
    return storage_errors(ValueError, KeyError, RuntimeError, TypeError)


def _require_within(start: Sequence[int], out: NDArray[Any], array: PartlyRead) -> None:
    """Refuse a box that does not lie within an array, or has another dtype."""
    shape = array.shape
    fits = len(start) == len(out.shape) == len(shape) and out.dtype == array.dtype
    if not fits or any(a < 0 or a + n > m for a, n, m in zip(start, out.shape, shape, strict=True)):
        msg = f"read: found a {out.dtype} box {out.shape} at {tuple(start)}, expected {array.dtype} within {shape}"
        raise ValueError(msg)


def _get(array: PartlyRead, key: Any) -> Any:
    """Return ``array[key]`` for an integer or a slice of step 1 of each axis, or ``...``."""
    keys = (slice(None),) * len(array.shape) if key is Ellipsis else key if isinstance(key, tuple) else (key,)
    if len(keys) != len(array.shape):
        msg = f"found {len(keys)} indices, expected one for each of {len(array.shape)} axes"
        raise IndexError(msg)
    bounds = [_bounds(each, n) for each, n in zip(keys, array.shape, strict=True)]
    out = np.empty([stop - first for first, stop in bounds], dtype=array.dtype)
    array.read([first for first, _ in bounds], out)
    return out[tuple(slice(None) if isinstance(each, slice) else 0 for each in keys)]


def _bounds(key: Any, length: int) -> tuple[int, int]:
    """Return the first and the last-plus-one element of a key along one axis."""
    if isinstance(key, slice):
        first, stop, step = key.indices(length)
        if step != 1:
            raise IndexError(f"found a slice of step {step}, expected 1")
        return first, max(first, stop)
    at = int(key)
    if not 0 <= at < length:
        raise IndexError(f"found index {at}, expected 0 to {length - 1}")
    return at, at + 1
