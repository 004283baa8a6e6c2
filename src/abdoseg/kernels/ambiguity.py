"""Sums of the self-disambiguation loss over voxels, and its gradient: two readings of the logits, one writing.

All terms of the loss follow from a few sums for each group and class (:func:`sum_voxels`), so its gradient in a
voxel follows from that voxel's logits and the loss's derivative by those sums (:func:`write_gradient`). Voxels are
taken in blocks that stay in the cache; within a block every loop runs along the voxels of one class
(:mod:`abdoseg.kernels.rows`). Nothing but the gradient is as large as the logits.

Slices make long runs of one slot in memory, or slots that repeat row by row. So what depends on the slot is done run by
run, where a block has few of them; and where a block has the slots of the one before, what was looked up for that one
still holds, and its sums go on. This leaves looking up and adding by slot, voxel by voxel, to groups that lie anyhow.

A *slot* is a group plus one; slot 0 are the voxels outside the image. ``merged[slot]`` has bit ``c`` set where class
``c`` counts as background: class 0 always, structures that the slot does not know.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from abdoseg.kernels import rows
from abdoseg.kernels.ambiguity_block import (
    BACKGROUND,
    BLOCK,
    COMMON,
    DICE,
    HIGHEST,
    INVERSE,
    LOG_Q,
    LOG_TOTAL,
    MAX_RUNS,
    OF_CLASS,
    OWN,
    SHARE,
    SHIFT,
    WEIGHT,
    background_exactly,
    halve,
    load,
    prepare,
    runs_of,
    scratch,
)
from abdoseg.kernels.vectorised import exp

MAX_CLASSES = 64
"""Bits of a word of ``merged``."""

_PART = 64 * BLOCK  # voxels whose sums are kept together; the order of additions depends on no number of threads
_MAX_PARTS = 64
_REPEATS = 64  # blocks whose float32 are added up: longer sums would lose digits
_ONE, _ZERO = np.float32(1), np.float32(0)


class VoxelSums(NamedTuple):
    """Sums over the voxels of one example; S slots, C classes, all float64."""

    focal: float
    """Of -(1 - p)^2 log p of the merged label, over voxels in slots that know a structure."""
    entropy: float
    """Of the entropy, nats, over voxels inside the image."""
    probability: NDArray[np.float64]
    """``(S, C)``: of each class's probability, not merged; 0 in slots that know nothing."""
    true_positive: NDArray[np.float64]
    """``(S, C)``: of the probability of the merged label, by merged label."""
    voxels: NDArray[np.float64]
    """``(S, C)``: voxels by merged label."""
    unlawful: int
    """Voxels whose label or slot is not lawful; the rest means nothing where there are any."""

    def plus(self, other: "VoxelSums") -> "VoxelSums":
        """Return the sums over both."""
        return VoxelSums(
            self.focal + other.focal,
            self.entropy + other.entropy,
            self.probability + other.probability,
            self.true_positive + other.true_positive,
            self.voxels + other.voxels,
            self.unlawful + other.unlawful,
        )


class Derivatives(NamedTuple):
    """The loss's derivatives by one example's sums."""

    focal: float
    entropy: float
    probability: NDArray[np.float32]
    """``(S, C)``."""
    true_positive: NDArray[np.float32]
    """``(S, C)``."""


class Voxels(NamedTuple):
    """One example; V voxels in memory order."""

    logits: NDArray[np.float32]
    """``(C, V)``."""
    label: NDArray[np.int16]
    """``(V,)``: 0..C-1, or 255 where the slot knows nothing."""
    group: NDArray[np.int16]
    """``(V,)``: -1 outside the image."""
    merged: NDArray[np.uint64]
    """``(S,)``: bits of the classes that count as background."""
    knows: NDArray[np.bool_]
    """``(S,)``: whether the slot knows any structure."""
    block: int
    """Voxels of a block; see :func:`block_length`."""


def block_length(row: int) -> int:
    """Return the most voxels to take at once, in whole rows if they are not too long: so that slots may repeat."""
    return BLOCK // row * row if 0 < row <= BLOCK else BLOCK


def part_bounds(voxels: int, block: int) -> NDArray[np.int64]:
    """Return where the parts begin whose sums are kept apart, and the end: int64 ``(parts + 1,)``."""
    size = max(_PART // block, -(-voxels // (_MAX_PARTS * block))) * block
    return np.append(np.arange(0, max(voxels, 1), size), voxels)


def sum_voxels(example: Voxels, start: int, stop: int) -> VoxelSums:
    """Return the sums over voxels ``start`` to ``stop - 1``; releases Python's lock."""
    shape = (example.merged.size, example.logits.shape[0])
    tables = np.zeros((3, *shape))
    focal, entropy, unlawful = _sum(*example, start, stop, tables)
    probability, true_positive, count = tables
    probability[~example.knows] = 0.0
    return VoxelSums(focal, entropy, probability, true_positive, count, unlawful)


def write_gradient(example: Voxels, by: Derivatives, gradient: NDArray[np.float32], start: int, stop: int) -> None:
    """Write the gradient ``(C, V)`` of voxels ``start`` to ``stop - 1``; releases Python's lock."""
    scalars = np.array([by.focal, by.entropy], dtype=np.float32)
    _gradient(*example, scalars, by.probability, by.true_positive, start, stop, gradient)


_kernel = njit(cache=True, nogil=True, error_model="numpy")


@_kernel
def _focal_of(log_q, q, out):  # type: ignore[no-untyped-def]
    for i in range(log_q.size):
        q[i] = exp(log_q[i])
        out[i] = -(_ONE - q[i]) * (_ONE - q[i]) * log_q[i]


@_kernel
def _add_by_run(e, inverse, slot, bounds, strands, sums):  # type: ignore[no-untyped-def]
    """Add the probabilities of a block's runs of one slot to ``sums (C, S)``."""
    for r in range(bounds.size - 1):
        a, b = bounds[r], bounds[r + 1]
        for c in range(e.shape[0]):
            sums[c, slot[a]] += rows.dot(e[c, a:b], inverse[a:b], strands)


@_kernel
def _add_by_place(by_place, slots, n, sums):  # type: ignore[no-untyped-def]
    """Add what was added up for each place of a block to ``sums (C, S)``, and empty it."""
    for c in range(by_place.shape[0]):
        rows.add_at(sums[c], slots[:n], by_place[c, :n])
    by_place[:, :n] = _ZERO


@_kernel
def _own_of(log_q, focal, dice, out):  # type: ignore[no-untyped-def]
    """Fill q times the derivative of the loss by q, the probability of the merged label."""
    for i in range(log_q.size):
        q = exp(log_q[i])
        slope = (_ONE - q) * (q + q) * log_q[i] - (_ONE - q) * (_ONE - q)  # q d/dq -(1 - q)^2 log q
        out[i] = focal[i] * slope + q * dice[i]


@_kernel
def _share_of(own, background, target, out):  # type: ignore[no-untyped-def]
    """Fill what each background class gets of ``own``, times its exponential."""
    for i in range(own.size):
        share = own[i] / max(background[i], rows.FAINT)
        out[i] = share if target[i] == 0 and background[i] >= rows.FAINT else _ZERO


@_kernel
def _common_of(own, inverse, common):  # type: ignore[no-untyped-def]
    for i in range(own.size):
        common[i] = -(common[i] * inverse[i]) - own[i]


@_kernel
def _add_entropy(common, weight, shift, inverse):  # type: ignore[no-untyped-def]
    """Add what all classes share of d entropy / d x = -p (x - mean of x), as distances from the highest logit.

    Both come out divided by the total: to be multiplied by exponentials, not by probabilities.
    """
    for i in range(common.size):
        weight[i] *= inverse[i]
        common[i] = common[i] * inverse[i] + weight[i] * (shift[i] * inverse[i])


@_kernel
def _class_gradient(x, e, highest, weight, of_class, out):  # type: ignore[no-untyped-def]
    """Write the gradient of one class, but for what only the merged label's class gets."""
    for i in range(x.size):
        out[i] = e[i] * (of_class[i] - weight[i] * (x[i] - highest[i]))


@_kernel
def _sum(logits, label, group, merged, knows, block, start, stop, tables):  # type: ignore[no-untyped-def]
    """Add to ``tables (3, S, C)``; return the sums of focal and entropy, and the number of unlawful voxels."""
    classes = logits.shape[0]
    probability, true_positive, count = tables[0], tables[1], tables[2]
    by_class = np.zeros((classes, merged.size))  # a class's slots side by side: neighbouring slices share cache lines
    focal, entropy, unlawful = 0.0, 0.0, 0
    slots, targets, words = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.uint64)
    e, work, half = scratch(classes)
    by_place, before, n_before = np.zeros((classes, BLOCK), np.float32), np.empty(BLOCK, np.int32), 0
    repeats, strands = 0, np.empty(16, np.float32)
    every_bound = np.empty(MAX_RUNS + 1, np.int64)
    v0 = start
    while v0 < stop:
        n = min(block, stop - v0)
        slot, target, word = slots[:n], targets[:n], words[:n]
        unlawful += load(label[v0 : v0 + n], group[v0 : v0 + n], merged, knows, classes, slot, target, word)
        bounds = runs_of(slot, every_bound)
        prepare(logits, v0, n, e, target, word, bounds, half, work)
        shift, weight, q, of_voxel = work[SHIFT, :n], work[WEIGHT, :n], work[OWN, :n], work[SHARE, :n]
        for i in range(n):
            weight[i] = _ONE if slot[i] > 0 else _ZERO
        shift *= work[INVERSE, :n]
        entropy += rows.dot(work[LOG_TOTAL, :n], weight, strands) - rows.dot(shift, weight, strands)
        _focal_of(work[LOG_Q, :n], q, of_voxel)
        for i in range(n):
            true_positive[slot[i], target[i]] += q[i]
            count[slot[i], target[i]] += 1.0
            weight[i] = _ONE if knows[slot[i]] else _ZERO
        focal += rows.dot(of_voxel, weight, strands)
        if bounds.size > 2:
            _add_by_run(e, work[INVERSE, :n], slot, bounds, strands, by_class)
        else:
            if repeats == _REPEATS or not rows.equal(slot, before[:n_before]):
                _add_by_place(by_place, before, n_before, by_class)
                before[:n], n_before, repeats = slot, n, 0
            repeats += 1
            for c in range(classes):
                rows.add_product(by_place[c, :n], e[c, :n], work[INVERSE, :n])
        v0 += n
    _add_by_place(by_place, before, n_before, by_class)
    probability += by_class.T
    return focal, entropy, unlawful


@_kernel
def _gradient(  # type: ignore[no-untyped-def]
    logits, label, group, merged, knows, block, by_scalars, by_probability, by_true_positive, start, stop, gradient
):
    """Write the gradient: that of p by the logits, times the loss's derivative by p, class by class.

    With set T the merged label's classes and q their probability: d q / d x_c = p_c ([c in T] - q), and a sum of
    probabilities with weights g_c has p_c (g_c - sum_j p_j g_j). ``own`` is what the classes of T get besides, shared
    among them as their probabilities are.
    """
    classes = logits.shape[0]
    by_class = by_probability.T.copy()
    slots, targets, words = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.uint64)
    e, work, half = scratch(classes)
    by_place, before, n_before = np.empty((classes, BLOCK), np.float32), np.empty(BLOCK, np.int32), 0
    every_bound = np.empty(MAX_RUNS + 1, np.int64)
    v0 = start
    while v0 < stop:
        n = min(block, stop - v0)
        v1 = v0 + n
        slot, target, word = slots[:n], targets[:n], words[:n]
        load(label[v0:v1], group[v0:v1], merged, knows, classes, slot, target, word)
        bounds = runs_of(slot, every_bound)
        prepare(logits, v0, n, e, target, word, bounds, half, work)
        if bounds.size == 1 and not rows.equal(slot, before[:n_before]):
            before[:n], n_before = slot, n
            for c in range(classes):
                rows.look_up(by_class[c], slot, by_place[c, :n])
        weight, dice, own, inverse = work[WEIGHT, :n], work[DICE, :n], work[OWN, :n], work[INVERSE, :n]
        common, share, of_class = work[COMMON, :n], work[SHARE, :n], work[OF_CLASS, :n]
        for i in range(n):
            weight[i] = by_scalars[0] if knows[slot[i]] else _ZERO
            dice[i] = by_true_positive[slot[i], target[i]]
        _own_of(work[LOG_Q, :n], weight, dice, own)
        _share_of(own, work[BACKGROUND, :n], target, share)
        _common_to_classes(e, by_class, by_place, slot, bounds, common)
        _common_of(own, inverse, common)
        for i in range(n):
            weight[i] = by_scalars[1] if slot[i] > 0 else _ZERO
        _add_entropy(common, weight, work[SHIFT, :n], inverse)
        for c in range(classes):
            _plus_own(common, inverse, by_class[c], by_place[c, :n], slot, bounds, of_class)
            _add_share(share, word, c, bounds, half[:n], of_class)
            _class_gradient(logits[c, v0:v1], e[c, :n], work[HIGHEST, :n], weight, of_class, gradient[c, v0:v1])
        _add_own(logits, v0, own, work[BACKGROUND, :n], target, word, gradient)
        v0 = v1


@_kernel
def _common_to_classes(e, by_class, by_place, slot, bounds, common):  # type: ignore[no-untyped-def]
    """Fill the sum over classes of exponential times the loss's derivative by that class's probability."""
    n = slot.size
    common[:] = _ZERO
    for c in range(e.shape[0]):
        for r in range(bounds.size - 1):
            a, b = bounds[r], bounds[r + 1]
            rows.add_scaled(common[a:b], e[c, a:b], by_class[c, slot[a]])
        if bounds.size == 1:
            rows.add_product(common, e[c, :n], by_place[c, :n])


@_kernel
def _plus_own(common, inverse, by_slot, by_place, slot, bounds, out):  # type: ignore[no-untyped-def]
    """Fill what all classes share plus the loss's derivative by this class's probability, divided by the total."""
    for r in range(bounds.size - 1):
        a, b = bounds[r], bounds[r + 1]
        rows.plus_scaled(common[a:b], inverse[a:b], by_slot[slot[a]], out[a:b])
    if bounds.size == 1:
        rows.plus_product(common, inverse, by_place, out)


@_kernel
def _add_share(share, word, c, bounds, half, of_class):  # type: ignore[no-untyped-def]
    """Add what class ``c`` gets as part of the background; ``half`` is scratch for half of every word."""
    for r in range(bounds.size - 1):
        a, b = bounds[r], bounds[r + 1]
        if word[a] & (np.uint64(1) << np.uint64(c)):
            rows.add(of_class[a:b], share[a:b])
    if bounds.size == 1:
        halve(word, max(c, 1), half)
        rows.add_where(of_class, share, half, np.uint32(1) << np.uint32(c & 31))


@_kernel
def _add_own(logits, v0, own, background, target, word, gradient):  # type: ignore[no-untyped-def]
    """Add ``own`` to the one class of T, or, by exact shares, to background classes that are faint."""
    for i in range(own.size):
        if target[i] != 0:
            gradient[target[i], v0 + i] += own[i]
        elif background[i] < rows.FAINT:
            best, log_sum = background_exactly(logits, v0 + i, word[i])
            for c in range(logits.shape[0]):
                if (word[i] >> np.uint64(c)) & np.uint64(1):
                    gradient[c, v0 + i] += own[i] * exp(logits[c, v0 + i] - best - log_sum)
