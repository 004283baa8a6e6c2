"""From scores on the harmonised grid to labels on the scan's own grid, without a volume of scores there.

Linear interpolation is a convex combination of the eight surrounding voxels. Where these eight share their
best class, that class is also the best of every combination of them, so only the voxels near a boundary need
their scores interpolated: a per cent or two of a scan. The result is the label of "interpolate every channel,
then argmax" (``method.md`` 6), in the time of reading the scores once.

The word *cell* below is the box between eight neighbouring harmonised voxels; it is named by its lowest corner.
"""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.types import Label

MIXED = 255
"""Mark of a cell whose corners disagree; classes are 0..254."""

SLAB = 16
"""Harmonised slices converted at a time where the scores are not float32."""


def restore_labels(scores: NDArray[Any], shape: tuple[int, int, int], step: NDArray[np.float64]) -> Label:
    """Return the labels that interpolating all scores linearly and taking the best class would give.

    Parameters
    ----------
    scores
        float32 or float16 ``(C, X, Y, Z)`` on the harmonised grid, RAS+, finite; C at most 255. float32 in C
        order is read where it lies; anything else is converted a few slices at a time.
    shape
        ``(X', Y', Z')``: the scan's own grid in RAS+ order.
    step
        ``(3,)``: the scan's spacing over the harmonised spacing; voxel ``i`` of the scan lies at ``i * step``,
        positions beyond the last harmonised centre take that centre.

    Returns
    -------
    ndarray
        uint8 ``(X', Y', Z')``; equal best scores give the lowest class.

    Raises
    ------
    ValueError
        If ``scores`` has another number of axes or classes, or an empty axis.
    """
    _require_scores(scores)
    restored = RestoredLabels(shape, step, scores.shape[1:])
    for first, block in _blocks(scores):
        restored.fill((first, 0, 0), block)
    return restored.labels


class RestoredLabels:
    """Labels on the scan's own grid, filled block by block of the harmonised grid.

    Parameters
    ----------
    shape, step
        As in :func:`restore_labels`.
    source
        ``(X, Y, Z)`` of the harmonised grid.
    """

    def __init__(self, shape: tuple[int, int, int], step: NDArray[np.float64], source: tuple[int, ...]) -> None:
        self.labels: Label = np.empty(shape, dtype=np.uint8)
        self._source = source
        axes = [_axis(n, float(s), m) for n, s, m in zip(shape, step, source, strict=True)]
        self._starts, self._fracs = zip(*axes, strict=True)

    def fill(self, first: tuple[int, int, int], scores: NDArray[np.float32]) -> None:
        """Fill the target voxels between the voxels of a block.

        Parameters
        ----------
        first
            The block's first voxel on the harmonised grid. What lies between two blocks is filled by the one that
            has the voxels of both sides: blocks have to overlap by one voxel.
        scores
            float32 ``(C, x, y, z)`` in C order.
        """
        # An axis of one voxel has one cell all the same; a block of one voxel of a longer axis has none.
        x, y, z = (max(n - 1, int(m == 1)) for n, m in zip(scores.shape[1:], self._source, strict=True))
        if min(x, y, z) > 0:
            _restore(scores, _best(scores), first, (x, y, z), self._starts, self._fracs, self.labels)


def argmax_labels(scores: NDArray[Any]) -> Label:
    """Return the best class of each voxel, uint8 ``(X, Y, Z)``; equal scores give the lowest class.

    Parameters
    ----------
    scores
        float ``(C, X, Y, Z)``, finite, C at most 255.

    Raises
    ------
    ValueError
        If ``scores`` has another number of axes or classes, or an empty axis.
    """
    _require_scores(scores)
    out = np.empty(scores.shape[1:], dtype=np.uint8)
    for first, block in _blocks(scores):
        out[first : first + block.shape[1]] = _best(block)
    return out


def _require_scores(scores: NDArray[Any]) -> None:
    if scores.ndim != 4 or scores.dtype.kind != "f" or not 1 <= len(scores) < MIXED or 0 in scores.shape:
        msg = f"scores: found {scores.dtype} {scores.shape}; expected floats (C, X, Y, Z) with 1 <= C < {MIXED}"
        raise ValueError(msg)


def _blocks(scores: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    # Neighbouring blocks share a slice: a cell needs both of its sides.
    if scores.dtype == np.float32 and scores.flags.c_contiguous:
        yield 0, scores
        return
    n_cells = max(scores.shape[1] - 1, 1)
    for first in range(0, n_cells, SLAB):
        last = min(first + SLAB, n_cells)
        yield first, np.ascontiguousarray(scores[:, first : last + 1], dtype=np.float32)


def _axis(n_to: int, step: float, n_from: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each cell of an axis its first target voxel, ``(n_cells + 1,)``, and each voxel's fraction."""
    positions = np.clip(np.arange(n_to) * step, 0.0, n_from - 1.0)
    low = np.minimum(np.floor(positions).astype(np.int64), max(n_from - 2, 0))
    starts = np.searchsorted(low, np.arange(max(n_from - 1, 1) + 1))
    return starts.astype(np.int64), (positions - low).astype(np.float32)


def _best(scores: NDArray[np.float32]) -> Label:
    out = np.empty(scores.shape[1:], dtype=np.uint8)
    _argmax(scores, out)
    return out


@numba.njit(cache=True, parallel=True, nogil=True)
def _argmax(scores, out):  # type: ignore[no-untyped-def]
    for x in numba.prange(scores.shape[1]):
        high = np.empty(scores.shape[3], dtype=np.float32)
        for y in range(scores.shape[2]):
            high[:] = scores[0, x, y]
            row = out[x, y]
            row[:] = 0
            for c in range(1, scores.shape[0]):
                _take_higher(scores[c, x, y], np.uint8(c), high, row)


@numba.njit(cache=True, nogil=True)
def _take_higher(values, c, high, row):  # type: ignore[no-untyped-def]
    for z in range(len(values)):
        higher = values[z] > high[z]
        row[z] = c if higher else row[z]
        high[z] = values[z] if higher else high[z]


@numba.njit(cache=True, parallel=True, nogil=True)
def _restore(scores, best, first, n_cells, starts, fracs, out):  # type: ignore[no-untyped-def]
    for x in numba.prange(n_cells[0]):
        _restore_slab(scores, best, x, first, n_cells, starts, fracs, out)


@numba.njit(cache=True, nogil=True)
def _restore_slab(scores, best, x, first, n_cells, starts, fracs, out):  # type: ignore[no-untyped-def]
    """Fill the target voxels between two neighbouring x slices of the block."""
    i = (starts[0][first[0] + x], starts[0][first[0] + x + 1])
    if i[0] == i[1]:
        return
    cells = np.empty(n_cells[2], dtype=np.uint8)
    along_z = starts[2][first[2] : first[2] + n_cells[2] + 1]
    work = np.empty((scores.shape[0], 8), dtype=np.float32), np.empty(scores.shape[0], dtype=np.int64)
    for y in range(n_cells[1]):
        j = (starts[1][first[1] + y], starts[1][first[1] + y + 1])
        if j[0] == j[1]:
            continue
        _agree(best, x, y, cells)
        _fill(cells, along_z, i, j, out)
        for z in range(n_cells[2]):
            k = (along_z[z], along_z[z + 1])
            if cells[z] == MIXED and k[0] < k[1]:
                n = _contenders(scores, (x, y, z), work[0], work[1])
                _interpolate((i, j, k), fracs, work[0], work[1][:n], out)


@numba.njit(cache=True, nogil=True)
def _agree(best, x, y, cells):  # type: ignore[no-untyped-def]
    """Write the common class of each cell along z, or MIXED."""
    x1, y1 = min(x + 1, best.shape[0] - 1), min(y + 1, best.shape[1] - 1)
    a, b, c, d = best[x, y], best[x, y1], best[x1, y], best[x1, y1]
    last = best.shape[2] - 1
    for z in range(len(cells)):
        z1 = min(z + 1, last)
        low = (a[z] == b[z]) & (a[z] == c[z]) & (a[z] == d[z])
        high = (a[z1] == b[z1]) & (a[z1] == c[z1]) & (a[z1] == d[z1])
        cells[z] = a[z] if low & high & (a[z] == a[z1]) else MIXED


@numba.njit(cache=True, nogil=True)
def _fill(cells, starts, i, j, out):  # type: ignore[no-untyped-def]
    """Spread the cells' classes along z to one target row and copy it to the others."""
    k = (starts[0], starts[-1])
    row = out[i[0], j[0]]
    for z in range(len(cells)):
        for kk in range(starts[z], starts[z + 1]):
            row[kk] = cells[z]
    for ii in range(i[0], i[1]):
        for jj in range(j[0], j[1]):
            if ii > i[0] or jj > j[0]:
                out[ii, jj, k[0] : k[1]] = row[k[0] : k[1]]


@numba.njit(cache=True, nogil=True)
def _contenders(scores, cell, corners, classes):  # type: ignore[no-untyped-def]
    """Gather the corner scores ``(C, 8)`` and list the classes that can win somewhere in the cell.

    A class below another one at all eight corners is below it everywhere between them.
    """
    x, y, z = cell
    x1, y1 = min(x + 1, scores.shape[1] - 1), min(y + 1, scores.shape[2] - 1)
    z1 = min(z + 1, scores.shape[3] - 1)
    champion = 0
    highest = np.float32(-np.inf)
    for c in range(scores.shape[0]):
        v = scores[c]
        s = corners[c]
        s[0], s[1], s[2], s[3] = v[x, y, z], v[x, y, z1], v[x, y1, z], v[x, y1, z1]
        s[4], s[5], s[6], s[7] = v[x1, y, z], v[x1, y, z1], v[x1, y1, z], v[x1, y1, z1]
        total = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7]
        if total > highest:
            champion, highest = c, total
    n = 0
    for c in range(scores.shape[0]):
        if c == champion or _reaches(corners[c], corners[champion]):
            classes[n] = c
            n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _reaches(scores, others):  # type: ignore[no-untyped-def]
    for corner in range(len(scores)):  # noqa: SIM110 -- numba knows no any() of a generator
        if scores[corner] >= others[corner]:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _interpolate(box, fracs, corners, classes, out):  # type: ignore[no-untyped-def]
    """Interpolate the contenders at the target voxels of one cell and write the best."""
    for i in range(box[0][0], box[0][1]):
        fx = fracs[0][i]
        for j in range(box[1][0], box[1][1]):
            fy = fracs[1][j]
            weights = ((1 - fx) * (1 - fy), (1 - fx) * fy, fx * (1 - fy), fx * fy)
            for k in range(box[2][0], box[2][1]):
                out[i, j, k] = _winner(corners, classes, weights, fracs[2][k])


@numba.njit(cache=True, nogil=True)
def _winner(corners, classes, weights, fz):  # type: ignore[no-untyped-def]
    winner = classes[0]
    highest = np.float32(-np.inf)
    for c in classes:
        s = corners[c]
        near = weights[0] * s[0] + weights[1] * s[2] + weights[2] * s[4] + weights[3] * s[6]
        far = weights[0] * s[1] + weights[1] * s[3] + weights[2] * s[5] + weights[3] * s[7]
        value = near * (1 - fz) + far * fz
        if value > highest:
            winner, highest = c, value
    return np.uint8(winner)
