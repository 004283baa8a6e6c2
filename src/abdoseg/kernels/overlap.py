"""Confusion counts of two label volumes in one pass over their bytes.

Organs fill a few per cent of a scan, so both volumes are read eight voxels (one 64-bit word) at a time: a word
that is 0 in both is background and passed over, and a word of one value in each counts as eight voxels at once.
What remains, the voxels near a boundary, is counted one by one. Any byte has its cell, so nothing need be
checked on the way.
"""

import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

_NOTHING = np.uint64(0)
_ONE_BYTE = np.uint64(8)
_LOW_BYTE = np.uint64(0xFF)
_EACH_BYTE = np.uint64(0x0101010101010101)

_VOLUME = types.Array(types.uint8, 1, "C", readonly=True)
_CODES = types.UniTuple(types.Array(types.int64, 1, "C", readonly=True), 3)
_COUNTS = types.Array(types.int64, 3, "C")
_COUNTS_OF_PARTS = types.Array(types.int64, 4, "C")


@njit(cache=True, nogil=True)
def _all_bytes_equal(word: np.uint64) -> bool:
    return bool(word == (word & _LOW_BYTE) * _EACH_BYTE)


@njit(cache=True, nogil=True)
def _add_word(prediction: np.uint64, reference: np.uint64, counts: NDArray[np.int64]) -> None:
    """Count the eight voxels of one word of each volume in ``counts (256, 256)``."""
    for _ in range(8):
        counts[reference & _LOW_BYTE, prediction & _LOW_BYTE] += 1
        prediction >>= _ONE_BYTE
        reference >>= _ONE_BYTE


@njit(types.void(_VOLUME, _VOLUME, types.UniTuple(types.int64, 2), _CODES, _COUNTS), cache=True, nogil=True)
def _add_singly(
    prediction: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    span: tuple[int, int],
    codes: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    counts: NDArray[np.int64],
) -> None:
    """Count the voxels ``span[0]`` to ``span[1] - 1`` one by one."""
    code_a, code_b, code_c = codes
    line, c = divmod(span[0], code_c.size)
    a, b = divmod(line, code_b.size)
    for i in range(span[0], span[1]):
        if c == code_c.size:
            c = 0
            b += 1
        if b == code_b.size:
            b = 0
            a += 1
        counts[code_a[a] + code_b[b] + code_c[c], reference[i], prediction[i]] += 1
        c += 1


@njit(types.void(_VOLUME, _VOLUME, types.UniTuple(types.int64, 2), _CODES, _COUNTS), cache=True, nogil=True)
def _add_words(
    prediction: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    span: tuple[int, int],
    codes: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    counts: NDArray[np.int64],
) -> None:
    """Count the voxels ``8 * span[0]`` to ``8 * span[1] - 1``."""
    prediction_words = prediction[8 * span[0] : 8 * span[1]].view(np.uint64)
    reference_words = reference[8 * span[0] : 8 * span[1]].view(np.uint64)
    several_groups = counts.shape[0] > 1
    for i in range(prediction_words.size):
        p, r = prediction_words[i], reference_words[i]
        if p | r == _NOTHING:
            continue
        if several_groups:
            first = 8 * (span[0] + i)
            _add_singly(prediction, reference, (first, first + 8), codes, counts)
        elif _all_bytes_equal(p) and _all_bytes_equal(r):
            counts[0, r & _LOW_BYTE, p & _LOW_BYTE] += 8
        else:
            _add_word(p, r, counts[0])


@njit(types.void(_VOLUME, _VOLUME, _CODES, _COUNTS_OF_PARTS), cache=True, nogil=True, parallel=True)
def count_confusion(
    prediction: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    codes: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    counts: NDArray[np.int64],
) -> None:
    """Add the confusion counts of two volumes to ``counts``; their sum over parts is the answer.

    Parameters
    ----------
    prediction, reference
        uint8 ``(A * B * C,)``, C order, aligned to 8 bytes.
    codes
        int64 ``(A,)``, ``(B,)``, ``(C,)``: the group of voxel ``(a, b, c)`` is ``codes[0][a] + codes[1][b] +
        codes[2][c]``, in 0..G-1.
    counts
        int64 ``(parts, G, 256, 256)``, changed in place: ``counts[:, g, r, p]`` grows by the number of voxels of
        group ``g`` with reference ``r`` and prediction ``p``. Each part of the voxels has a thread and counts of its
        own. Cells ``(0, 0)`` are left incomplete: most background is never looked at.
    """
    parts, n_words = counts.shape[0], prediction.size // 8
    for part in prange(parts):
        span = (part * n_words // parts, (part + 1) * n_words // parts)
        _add_words(prediction, reference, span, codes, counts[part])
    _add_singly(prediction, reference, (8 * n_words, prediction.size), codes, counts[0])
