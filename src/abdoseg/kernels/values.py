"""Counting and translating the values of a label map; eight bytes of background at once."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.kernels.memory import letter_of

_PART = 2**20

Values = NDArray[np.uint8] | NDArray[np.uint16]


def count_values(array: Values) -> NDArray[np.int64]:
    """Return how often each value occurs.

    Parameters
    ----------
    array
        uint8 or uint16, any shape and strides.

    Returns
    -------
    ndarray
        int64 ``(256,)`` or ``(65536,)``.
    """
    counts = np.zeros(256 if array.dtype == np.uint8 else 65536, dtype=np.int64)
    flat = np.ascontiguousarray(array.reshape(-1, order="A"))
    _count(flat, _words(flat), counts)
    return counts


def translated(array: Values, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``table[array]``, uint8, with the array's own order of memory.

    Parameters
    ----------
    array
        uint8 or uint16, any shape and strides.
    table
        uint8; an entry for every value that occurs, 0 for 0.

    Raises
    ------
    ValueError
        If 0 does not stay 0.
    """
    if table[0] != 0:
        msg = f"translated: found {table[0]} for value 0, expected 0"
        raise ValueError(msg)
    # np.zeros_like would write every page; calloc's are zero until they are touched.
    order = letter_of(array)
    out = np.zeros(array.shape, dtype=np.uint8, order=order)
    flat = np.ascontiguousarray(array.reshape(-1, order=order))
    _translate(flat, _words(flat), table, out.reshape(-1, order=order))
    return out


def paint(mask: Values, value: int, label: NDArray[np.uint8]) -> int:
    """Write ``value`` into ``label``, in place, where ``mask`` is not 0.

    Parameters
    ----------
    mask
        uint8 or uint16, of the label's shape.
    value
        1 to 255.
    label
        uint8, C- or F-contiguous.

    Returns
    -------
    int
        How many of these voxels held another value than 0 and ``value``.
    """
    order = letter_of(label)
    flat = np.ascontiguousarray(mask.reshape(-1, order=order))
    return int(_paint(flat, _words(flat), np.uint8(value), label.reshape(-1, order=order)))


def lowest_and_highest(array: NDArray[Any]) -> tuple[float, float]:
    """Return the least and the greatest value of an array of any real type and strides.

    Whole numbers are read once, by all threads; others are numpy's, in two passes.
    """
    if array.dtype.kind not in "iu" or not array.dtype.isnative or array.size < _PART:
        return float(array.min()), float(array.max())
    flat = np.asarray(array).reshape(-1, order=letter_of(array))
    parts = np.empty((-(-flat.size // _PART), 2), dtype=array.dtype)
    _ranges(flat, parts)
    return float(parts[:, 0].min()), float(parts[:, 1].max())


def _words(flat: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the voxels eight bytes at a time, without the last few."""
    per_word = 8 // flat.itemsize
    return flat[: flat.size // per_word * per_word].view(np.uint64)


_kernel = numba.njit(cache=True, nogil=True)


@_kernel
def _count(flat, words, counts):  # type: ignore[no-untyped-def]
    n = 8 // flat.itemsize
    for w in range(words.size):
        if words[w] == 0:
            counts[0] += n
        else:
            for i in range(n * w, n * w + n):
                counts[flat[i]] += 1
    for i in range(n * words.size, flat.size):
        counts[flat[i]] += 1


@_kernel
def _translate(flat, words, table, out):  # type: ignore[no-untyped-def]
    n = 8 // flat.itemsize
    for w in range(words.size):
        if words[w] != 0:
            for i in range(n * w, n * w + n):
                out[i] = table[flat[i]]
    for i in range(n * words.size, flat.size):
        out[i] = table[flat[i]]


@_kernel
def _paint(flat, words, value, label):  # type: ignore[no-untyped-def]
    others = 0
    n = 8 // flat.itemsize
    for w in range(words.size):
        if words[w] != 0:
            for i in range(n * w, n * w + n):
                others += _paint_one(flat, i, value, label)
    for i in range(n * words.size, flat.size):
        others += _paint_one(flat, i, value, label)
    return others


@_kernel
def _paint_one(flat, i, value, label):  # type: ignore[no-untyped-def]
    if flat[i] == 0:
        return 0
    other = label[i] != 0 and label[i] != value
    label[i] = value
    return 1 if other else 0


@numba.njit(cache=True, nogil=True, parallel=True)
def _ranges(flat, parts):  # type: ignore[no-untyped-def]
    for p in numba.prange(parts.shape[0]):
        _range_of(flat[p * _PART : min((p + 1) * _PART, flat.size)], parts[p])


@_kernel
def _range_of(values, out):  # type: ignore[no-untyped-def]
    low, high = values[0], values[0]
    for i in range(values.size):
        low = min(low, values[i])
        high = max(high, values[i])
    out[0], out[1] = low, high
