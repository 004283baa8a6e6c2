"""One block of voxels of the self-disambiguation loss: merged labels, exponentials, background, log-probabilities.

The words *slot* and *merged* are those of :mod:`abdoseg.kernels.ambiguity`, which sums up and differentiates what is
prepared here.
"""

import numpy as np
from numba import njit

from abdoseg.kernels import rows
from abdoseg.kernels.vectorised import exp, log
from abdoseg.types import UNKNOWN_LABEL

BLOCK = 512
"""Most voxels of a block."""

MAX_RUNS = 8
"""Most runs of one slot in a block that are taken run by run; in shorter ones this is no faster."""

_ONE, _ZERO = np.float32(1), np.float32(0)

# Rows of a block's scratch memory.
HIGHEST, TOTAL, SHIFT, BACKGROUND, LOG_TOTAL, INVERSE, LOG_Q, OWN, SHARE, WEIGHT, COMMON, DICE, OF_CLASS = range(13)
_ROWS = 13

_kernel = njit(cache=True, nogil=True, error_model="numpy")


@_kernel
def load(label, group, merged, knows, classes, slot, target, word):  # type: ignore[no-untyped-def]
    """Fill slot, merged label and merged word of a block; return the number of unlawful voxels."""
    unlawful = 0
    for i in range(label.size):
        s = np.int32(group[i]) + np.int32(1)
        y = np.int32(label[i])
        if s < 0 or s >= merged.size:
            unlawful += 1
            s = np.int32(0)
        if y < 0 or (y >= classes and (y != UNKNOWN_LABEL or knows[s])):
            unlawful += 1
        w = merged[s]
        slot[i] = s
        word[i] = w
        hidden = y < 0 or y >= classes or (w >> np.uint64(y)) & np.uint64(1)
        target[i] = np.int32(0) if hidden else y
    return unlawful


@_kernel
def _softmax(logits, v0, n, e, highest, total, shift):  # type: ignore[no-untyped-def]
    """Fill e = exp(x - highest) ``(C, n)``, its total, and ``shift``, the sum of e (x - highest)."""
    highest[:] = logits[0, v0 : v0 + n]
    total[:] = _ZERO
    shift[:] = _ZERO
    for c in range(1, logits.shape[0]):
        rows.raise_to(highest, logits[c, v0 : v0 + n])
    for c in range(logits.shape[0]):
        x, ec = logits[c, v0 : v0 + n], e[c, :n]
        rows.exp_below(x, highest, ec, total)
        rows.add_weighted(shift, ec, x, highest)


@_kernel
def _background(e, word, bounds, half, background):  # type: ignore[no-untyped-def]
    """Fill the sum of the exponentials that count as background; ``half`` is scratch for half of every word."""
    n = background.size
    background[:] = e[0, :n]
    for c in range(1, e.shape[0]):
        for r in range(bounds.size - 1):
            if word[bounds[r]] & (np.uint64(1) << np.uint64(c)):
                rows.add(background[bounds[r] : bounds[r + 1]], e[c, bounds[r] : bounds[r + 1]])
        if bounds.size == 1:
            halve(word, c, half)
            rows.add_where(background, e[c, :n], half, np.uint32(1) << np.uint32(c & 31))


@_kernel
def halve(word, c, half):  # type: ignore[no-untyped-def]
    """Fill the half of every word that has the bit of class ``c``, where it is another than that of the class before.

    32 bits, as the numbers beside them: twice as many in one vector.
    """
    if c == 1:
        for i in range(half.size):
            half[i] = np.uint32(word[i])
    elif c == 32:
        for i in range(half.size):
            half[i] = np.uint32(word[i] >> np.uint64(32))


@_kernel
def background_exactly(logits, i, word):  # type: ignore[no-untyped-def]
    """Return the highest of one voxel's background logits, and the log of the sum of exp of them less that.

    Apart, as their sum would round away what tells them from each other beside a logit of 1e4.
    """
    highest = logits[0, i]
    for c in range(1, logits.shape[0]):
        if (word >> np.uint64(c)) & np.uint64(1):
            highest = max(highest, logits[c, i])
    total = _ZERO
    for c in range(logits.shape[0]):
        if (word >> np.uint64(c)) & np.uint64(1):
            total += exp(logits[c, i] - highest)
    return highest, log(total)


@_kernel
def _log_target(logits, v0, word, target, highest, background, log_total, log_q):  # type: ignore[no-untyped-def]
    """Fill the log probability of each voxel's merged label."""
    rows.log_of(background, log_q)
    for i in range(target.size):
        if target[i] != 0:
            log_q[i] = logits[target[i], v0 + i] - highest[i]
        elif background[i] < rows.FAINT:
            best, log_sum = background_exactly(logits, v0 + i, word[i])
            log_q[i] = (best - highest[i]) + log_sum
    for i in range(target.size):
        log_q[i] -= log_total[i]


@_kernel
def prepare(logits, v0, n, e, target, word, bounds, half, work):  # type: ignore[no-untyped-def]
    """Fill ``e`` and the rows of ``work`` that both passes need."""
    _softmax(logits, v0, n, e, work[HIGHEST, :n], work[TOTAL, :n], work[SHIFT, :n])
    _background(e, word, bounds, half[:n], work[BACKGROUND, :n])
    rows.log_of(work[TOTAL, :n], work[LOG_TOTAL, :n])
    rows.inverse_of(work[TOTAL, :n], work[INVERSE, :n])
    _log_target(logits, v0, word, target, work[HIGHEST, :n], work[BACKGROUND, :n], work[LOG_TOTAL, :n], work[LOG_Q, :n])


@_kernel
def runs_of(slot, bounds):  # type: ignore[no-untyped-def]
    """Fill where the runs of one slot begin and where the last one ends; return the part of ``bounds`` that is filled.

    Where there are more runs than fit, only the first entry is returned: the block has to be taken voxel by voxel.
    """
    runs, bounds[0] = 1, 0
    for i in range(1, slot.size):
        if slot[i] != slot[i - 1]:
            if runs == bounds.size - 1:
                return bounds[:1]
            bounds[runs] = i
            runs += 1
    bounds[runs] = slot.size
    return bounds[: runs + 1]


@_kernel
def scratch(classes):  # type: ignore[no-untyped-def]
    """Return scratch memory of a block: exponentials, rows, halves of words."""
    e, work = np.empty((classes, BLOCK), np.float32), np.empty((_ROWS, BLOCK), np.float32)
    return e, work, np.empty(BLOCK, np.uint32)
