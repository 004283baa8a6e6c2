"""Labels on another grid so that thin structures survive: each structure keeps its volume.

A new voxel covers parts of several old ones. Where all of them have one label, that is the new label. Elsewhere the
parts compete, and a structure's parts count the more, the more of its volume it would lose: a factor for each structure
is found such that the number of new voxels fits the volume of the old ones. Taking the nearest old voxel instead keeps
the volume on average but tears thin structures; taking the largest part makes them thinner.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.kernels.memory import MemoryOrder
from abdoseg.kernels.resample import Positions
from abdoseg.kernels.values import count_values

_MOST_PARTS = 6  # different labels in one new voxel; further ones are the smallest, and count as background
_ROUNDS = 6
_CLOSE_ENOUGH = 0.002
_SCRAMBLE = np.uint64(2654435761)  # Knuth's multiplicative hash
_STEADY = 0.5  # exponent of each correction: a whole step swings around the goal


class AxisWeights(NamedTuple):
    """Which old voxels a new one covers along an axis, and how much of it.

    ``old (n, k)`` are old indices, ``weight (n, k)`` the parts of them, which add up to 1; a weight of 0 is no part.
    """

    old: NDArray[np.int64]
    weight: NDArray[np.float32]

    def mirrored(self, n: int) -> "AxisWeights":
        """Return the same along an axis of ``n`` that lies backwards in memory."""
        return AxisWeights(n - 1 - self.old, self.weight)


def covering(positions: NDArray[np.float64], step: float, n: int) -> AxisWeights:
    """Return the weights of new voxels at ``positions`` (old index units) that are ``step`` old voxels wide.

    New voxels smaller than the old ones (``step < 1``) are interpolated linearly between the old centres; both ways
    keep the volume.
    """
    if step <= 1:
        first = np.clip(np.floor(positions).astype(np.int64), 0, max(n - 2, 0))
        second = (positions - first).astype(np.float32)
        weight = np.stack([1 - second, second], axis=1) if n > 1 else np.ones((len(positions), 1), np.float32)
        return AxisWeights(np.minimum(first[:, None] + np.arange(weight.shape[1]), n - 1), weight.astype(np.float32))
    low = np.clip(positions - step / 2, -0.5, n - 0.5)
    high = np.clip(positions + step / 2, -0.5, n - 0.5)
    first = np.clip(np.floor(low + 0.5).astype(np.int64), 0, n - 1)
    width = int(np.ceil(step)) + 1
    index = first[:, None] + np.arange(width)
    overlap = np.minimum(high[:, None], index + 0.5) - np.maximum(low[:, None], index - 0.5)
    weight = np.where(index < n, np.clip(overlap, 0, None), 0)
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return AxisWeights(np.minimum(index, n - 1), weight)


def nearest(positions: NDArray[np.float64]) -> AxisWeights:
    """Return weights that take the nearest old voxel; half-way goes to the lower index."""
    return AxisWeights(np.ceil(positions - 0.5).astype(np.int64)[:, None], np.ones((len(positions), 1), np.float32))


def resample_labels(
    array: NDArray[np.uint8], axes: tuple[AxisWeights, AxisWeights, AxisWeights], voxel_ratio: float
) -> NDArray[np.uint8]:
    """Return labels on a new grid, uint8 ``(X', Y', Z')``.

    Parameters
    ----------
    array
        Old labels ``(X, Y, Z)``.
    axes
        From :func:`covering` or :func:`nearest`, one for each axis.
    voxel_ratio
        Volume of an old voxel over that of a new one.
    """
    order = MemoryOrder.of(array)
    if order.axes != (2, 1, 0):
        # The first axis is the fast one in files. Whatever it is in memory, it is the fast one here: among voxels with
        # equal claims the order decides.
        return resample_labels(np.asfortranarray(array), axes, voxel_ratio)
    stored = np.ascontiguousarray(order.view(array))
    along = [axes[a].mirrored(array.shape[a]) if back else axes[a] for a, back in zip(*order, strict=True)]
    return order.restored(_resampled(stored, along, voxel_ratio))


def resample_nearest(array: NDArray[np.uint8], positions: Positions) -> NDArray[np.uint8]:
    """Return the value of the nearest voxel, uint8 ``(X', Y', Z')``; half-way goes to the lower index."""
    x, y, z = positions
    return resample_labels(array, (nearest(x), nearest(y), nearest(z)), voxel_ratio=1.0)


def _resampled(old: NDArray[np.uint8], axes: Sequence[AxisWeights], voxel_ratio: float) -> NDArray[np.uint8]:
    shape = (len(axes[0].old), len(axes[1].old), len(axes[2].old))
    new = np.zeros(shape, dtype=np.uint8)
    if all(a.old.shape[1] == 1 for a in axes):  # each new voxel is one old one
        _gather(old, tuple(a.old[:, 0] for a in axes), new)
        return new
    mixed = np.zeros(shape, dtype=np.bool_)
    _fill_pure(old, tuple(a.old for a in axes), tuple(a.weight for a in axes), new, mixed)
    where = np.flatnonzero(mixed)
    if not where.size:
        return new
    names, parts = _parts(old, tuple(a.old for a in axes), tuple(a.weight for a in axes), where, shape)
    flat = new.reshape(-1)
    pure = count_values(flat).astype(np.float64)
    pure[0] = 0
    goal = count_values(old.reshape(-1)) * voxel_ratio
    flat[where] = _balanced(names, parts, goal - pure)
    return new


def _balanced(names: NDArray[np.uint8], parts: NDArray[np.float32], goal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the label of each mixed voxel such that the labels' counts are near ``goal (256,)``."""
    factor = np.full(256, 2.0, dtype=np.float64)  # a part of more than a half wins against background
    chosen = np.zeros(len(names), dtype=np.uint8)
    present = [int(c) for c in np.flatnonzero(count_values(names.reshape(-1))) if c]
    best, smallest = chosen, np.inf
    for _ in range(_ROUNDS):
        _choose(names, parts, factor, chosen)
        count = count_values(chosen)
        wanted = np.maximum(goal[present], 1.0)
        off = (count[present] - wanted) / wanted
        if np.abs(off).max(initial=0.0) < smallest:
            best, smallest = chosen.copy(), float(np.abs(off).max(initial=0.0))
        if smallest < _CLOSE_ENOUGH:
            break
        factor[present] *= np.clip(wanted / np.maximum(count[present], 0.5), 0.5, 2.0) ** _STEADY
    for structure in present:
        _even_out(names, parts, best, structure, round(goal[structure]))
    return best


def _even_out(
    names: NDArray[np.uint8], parts: NDArray[np.float32], chosen: NDArray[np.uint8], structure: int, goal: int
) -> None:
    """Move voxels between a structure and background, in place, until their number is the goal.

    In a regular shape many voxels have the same part, and all or none of them pass any threshold. The ones with most
    (or least) go first; among equals a fixed scramble of their number decides, lest one end of the shape get all.
    """
    excess = int(count_values(chosen)[structure]) - max(goal, 0)
    if excess == 0:
        return
    at, part = _movable(names, parts, chosen, np.uint8(structure), excess > 0)
    scramble = (at.astype(np.uint64) * _SCRAMBLE) % np.uint64(2**32)
    order = np.lexsort((scramble, part if excess > 0 else -part))
    chosen[at[order[: abs(excess)]]] = 0 if excess > 0 else structure


@numba.njit(cache=True, nogil=True)
def _movable(names, parts, chosen, structure, out):  # type: ignore[no-untyped-def]
    """Return the mixed voxels that may leave a structure (``out``) or join it, and its part of each."""
    at = np.empty(chosen.size, np.int64)
    part = np.empty(chosen.size, np.float32)
    n = 0
    for m in range(chosen.size):
        if chosen[m] == (structure if out else np.uint8(0)):
            for p in range(names.shape[1]):
                if names[m, p] == structure and parts[m, p] > 0:
                    at[n] = m
                    part[n] = parts[m, p]
                    n += 1
    return at[:n], part[:n]


@numba.njit(cache=True, nogil=True, parallel=True)
def _gather(old, index, new):  # type: ignore[no-untyped-def]
    for i in numba.prange(new.shape[0]):
        for j in range(new.shape[1]):
            row = old[index[0][i], index[1][j]]
            for k in range(new.shape[2]):
                new[i, j, k] = row[index[2][k]]


@numba.njit(cache=True, nogil=True, parallel=True)
def _fill_pure(old, index, weight, new, mixed):  # type: ignore[no-untyped-def]
    """Label the new voxels whose old ones are all alike; mark the others."""
    nx, ny, nz = new.shape
    for i in numba.prange(nx):
        low, high = np.empty(old.shape[2], np.uint8), np.empty(old.shape[2], np.uint8)
        for j in range(ny):
            low[:] = 255
            high[:] = 0
            for a in range(weight[0].shape[1]):
                for b in range(weight[1].shape[1]):
                    if weight[0][i, a] * weight[1][j, b] > 0:
                        _widen(low, high, old[index[0][i, a], index[1][j, b]])
            for k in range(nz):
                least, most = np.uint8(255), np.uint8(0)
                for c in range(weight[2].shape[1]):
                    if weight[2][k, c] > 0:
                        least = min(least, low[index[2][k, c]])
                        most = max(most, high[index[2][k, c]])
                new[i, j, k] = least if least == most else np.uint8(0)
                mixed[i, j, k] = least != most


@numba.njit(cache=True, nogil=True)
def _widen(low, high, row):  # type: ignore[no-untyped-def]
    """Widen the range of values at each place of a row; vector instructions, unlike a loop over one place's values."""
    for z in range(row.size):
        low[z] = min(low[z], row[z])
        high[z] = max(high[z], row[z])


@numba.njit(cache=True, nogil=True, parallel=True)
def _parts(old, index, weight, where, shape):  # type: ignore[no-untyped-def]
    """Return the labels ``(M, 6)`` in each mixed voxel and their parts of it; unused places are 0."""
    names = np.zeros((where.size, _MOST_PARTS), dtype=np.uint8)
    parts = np.zeros((where.size, _MOST_PARTS), dtype=np.float32)
    for m in numba.prange(where.size):
        k = where[m] % shape[2]
        j = where[m] // shape[2] % shape[1]
        i = where[m] // shape[2] // shape[1]
        used = 0
        for a in range(weight[0].shape[1]):
            for b in range(weight[1].shape[1]):
                for c in range(weight[2].shape[1]):
                    w = weight[0][i, a] * weight[1][j, b] * weight[2][k, c]
                    if w > 0:
                        value = old[index[0][i, a], index[1][j, b], index[2][k, c]]
                        slot = 0
                        while slot < used and names[m, slot] != value:
                            slot += 1
                        if slot < _MOST_PARTS:
                            if slot == used:
                                names[m, slot] = value
                                used += 1
                            parts[m, slot] += w
    return names, parts


@numba.njit(cache=True, nogil=True)
def _choose(names, parts, factor, chosen):  # type: ignore[no-untyped-def]
    """Choose each voxel's label: the largest part times its factor, against 1 for background unless it is little."""
    for m in range(names.shape[0]):
        background = np.float32(0)
        best, label = 0.0, np.uint8(0)
        for p in range(names.shape[1]):
            if names[m, p] == 0:
                background += parts[m, p]
            else:
                score = parts[m, p] * factor[names[m, p]]
                if score > best:
                    best, label = score, names[m, p]
        chosen[m] = label if best >= 1.0 or (background < np.float32(0.5) and best >= 0.5) else np.uint8(0)
