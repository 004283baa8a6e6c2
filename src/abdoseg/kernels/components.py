"""Connected components of a mask, 26 neighbours, by runs of voxels: no volume of component numbers is made.

A row's voxels are joined into runs at once; runs of neighbouring rows that touch are joined by union-find. A mask of
organs has some ten thousand runs where it has some ten million voxels.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray


class Runs(NamedTuple):
    """Runs of set voxels along the last axis, in C order; R runs."""

    row: NDArray[np.int64]
    """``(R,)``: index along the first axis times the length of the second, plus the index along the second."""
    start: NDArray[np.int64]
    """``(R,)``: first index along the last axis."""
    stop: NDArray[np.int64]
    """``(R,)``: last index plus one."""
    component: NDArray[np.int64]
    """``(R,)``: 0-based, in the order of the components' first voxels."""


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Return the runs of a mask and the component of each.

    Parameters
    ----------
    mask
        bool ``(A, B, C)``, C-contiguous.
    """
    a, b, c = mask.shape
    voxels = mask.reshape(a * b, c).view(np.uint8)
    first = np.zeros(a * b + 1, dtype=np.int64)
    _count(voxels, first)
    np.cumsum(first, out=first)
    start, stop = np.empty((2, first[-1]), dtype=np.int64)
    _fill(voxels, first, start, stop)
    root = np.arange(len(start))
    _join(first, b, start, stop, root)
    return Runs(np.repeat(np.arange(a * b), np.diff(first)), start, stop, _numbered(root))


def write_runs(runs: Runs, value: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Write a value, ``(R,)``, into the voxels of each run of ``out (A, B, C)``, any strides."""
    _write(runs.row, runs.start, runs.stop, value, out)


_kernel = numba.njit(cache=True, nogil=True)


@_kernel
def _count(voxels, first):  # type: ignore[no-untyped-def]
    """Write the number of runs of row r to ``first[r + 1]``."""
    for r in range(voxels.shape[0]):
        row = voxels[r]
        runs = np.int64(row[0])
        for i in range(1, row.size):
            runs += row[i] & (row[i - 1] ^ 1)
        first[r + 1] = runs


@_kernel
def _fill(voxels, first, start, stop):  # type: ignore[no-untyped-def]
    for r in range(voxels.shape[0]):
        at, last = first[r], first[r + 1]
        row = voxels[r]
        i = 0
        while at < last:
            while row[i] == 0:
                i += 1
            start[at] = i
            while i < row.size and row[i]:
                i += 1
            stop[at] = i
            at += 1


@_kernel
def _join(first, rows_a_plane, start, stop, root):  # type: ignore[no-untyped-def]
    """Join the runs that touch, also over a corner; the first run of a component is its root."""
    for r in range(first.size - 1):
        if first[r] == first[r + 1]:
            continue
        a, b = r // rows_a_plane, r % rows_a_plane
        for da, db in ((1, 1), (1, 0), (1, -1), (0, 1)):
            if a >= da and 0 <= b - db < rows_a_plane:
                _join_rows(first, r, r - da * rows_a_plane - db, start, stop, root)


@_kernel
def _join_rows(first, r, other, start, stop, root):  # type: ignore[no-untyped-def]
    i, j = first[r], first[other]
    while i < first[r + 1] and j < first[other + 1]:
        if start[i] <= stop[j] and start[j] <= stop[i]:
            one, two = _root_of(root, i), _root_of(root, j)
            root[max(one, two)] = min(one, two)
        if stop[i] < stop[j]:
            i += 1
        else:
            j += 1


@_kernel
def _root_of(root, i):  # type: ignore[no-untyped-def]
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


@_kernel
def _numbered(root):  # type: ignore[no-untyped-def]
    """Return the number of each run's component; a root comes before the runs that lead to it."""
    number = np.empty(root.size, np.int64)
    n = 0
    for i in range(root.size):
        if root[i] == i:
            number[i] = n
            n += 1
        else:
            number[i] = number[root[i]]
    return number


@_kernel
def _write(row, start, stop, value, out):  # type: ignore[no-untyped-def]
    for r in range(row.size):
        a, b = row[r] // out.shape[1], row[r] % out.shape[1]
        for i in range(start[r], stop[r]):
            out[a, b, i] = value[r]
