"""Surfaces of labels: where they lie, and how far it is from one to another.

A surface is known by its *cells*: the 2 x 2 x 2 voxels around a voxel corner, of which some are set and some are
not, as a code of eight bits. Two surfaces of one structure mostly lie a few voxels apart, so the way from a cell to
the other surface is found by trying its neighbours, nearest first; only cells without any near one are left to a
tree by the caller.
"""

import numba
import numpy as np

_NOTHING = np.uint64(0)
_LOW_BYTE = np.uint64(0xFF)
_EACH_BYTE = np.uint64(0x0101010101010101)

_kernel = numba.njit(cache=True, nogil=True, error_model="numpy")


@_kernel
def grow_boxes(voxels, shape, boxes):  # type: ignore[no-untyped-def]
    """Grow each value's box so that it holds all voxels of that value; 0 is passed over.

    Parameters
    ----------
    voxels
        uint8 ``(A * B * C,)``, C order, aligned to 8 bytes.
    shape
        ``(A, B, C)``.
    boxes
        int64 ``(256, 3, 2)``, changed in place: first index and last index plus one along each axis.
    """
    n_words = voxels.size // 8
    words = voxels[: 8 * n_words].view(np.uint64)
    a, b, c = 0, 0, 0
    for i in range(n_words):
        word = words[i]
        if word != _NOTHING:
            one_value = word == (word & _LOW_BYTE) * _EACH_BYTE and c + 8 <= shape[2]
            if one_value:
                _grow(boxes[voxels[8 * i]], a, b, c, c + 8)
            else:
                _grow_singly(voxels, (8 * i, 8 * i + 8), (a, b, c), shape, boxes)
        c += 8
        while c >= shape[2]:
            c -= shape[2]
            b += 1
            if b == shape[1]:
                b = 0
                a += 1
    _grow_singly(voxels, (8 * n_words, voxels.size), (a, b, c), shape, boxes)


@_kernel
def _grow_singly(voxels, span, start, shape, boxes):  # type: ignore[no-untyped-def]
    """Grow the boxes by the voxels ``span[0]`` to ``span[1] - 1``, the first of which is the voxel ``start``."""
    a, b, c = start
    for i in range(span[0], span[1]):
        if c == shape[2]:
            c = 0
            b += 1
            if b == shape[1]:
                b = 0
                a += 1
        if voxels[i] != 0:
            _grow(boxes[voxels[i]], a, b, c, c + 1)
        c += 1


@_kernel
def _grow(box, a, b, c, stop):  # type: ignore[no-untyped-def]
    box[0, 0] = min(box[0, 0], a)
    box[0, 1] = max(box[0, 1], a + 1)
    box[1, 0] = min(box[1, 0], b)
    box[1, 1] = max(box[1, 1], b + 1)
    box[2, 0] = min(box[2, 0], c)
    box[2, 1] = max(box[2, 1], stop)


@_kernel
def write_codes(label, value, margin, codes):  # type: ignore[no-untyped-def]
    """Write the code of every cell that a surface of ``value`` crosses, and 0 elsewhere.

    Parameters
    ----------
    label
        uint8 ``(a, b, c)``, any strides: the part of a volume that holds all voxels of ``value``.
    value
        The structure's id.
    margin
        Width of the rim of zeros, three integers.
    codes
        uint8 ``(a + 1 + 2 m0, b + 1 + 2 m1, c + 1 + 2 m2)``, zeros, written: bit ``4 i + 2 j + k`` of a cell is the
        voxel ``(i, j, k)`` of the two along each axis.
    """
    na, nb, nc = label.shape
    m0, m1, m2 = margin
    for a in range(na + 1):
        for b in range(nb + 1):
            row = codes[m0 + a, m1 + b, m2 : m2 + nc + 1]
            for i in range(2):
                for j in range(2):
                    if 0 <= a - 1 + i < na and 0 <= b - 1 + j < nb:
                        _add_bits(label[a - 1 + i, b - 1 + j], value, np.uint8(4 * i + 2 * j), row)
            for c in range(nc + 1):
                if row[c] == 255:
                    row[c] = 0


@_kernel
def _add_bits(voxels, value, bit, row):  # type: ignore[no-untyped-def]
    """Set the bits of one row of voxels: each is the second voxel of its own cell and the first of the next."""
    first, second = np.uint8(1 << bit), np.uint8(2 << bit)
    for c in range(voxels.size):
        if voxels[c] == value:
            row[c] |= second
    for c in range(voxels.size):
        if voxels[c] == value:
            row[c + 1] |= first


@_kernel
def add_areas(codes, other, areas, steps, shells, by_shell, far):  # type: ignore[no-untyped-def]
    """Add the area of each cell of a surface to the distance at which it meets the other surface.

    Parameters
    ----------
    codes, other
        uint8 ``(V,)``, C order, V a multiple of 8, aligned to 8 bytes: the cells of two surfaces on the same grid,
        with a rim as wide as the furthest step.
    areas
        float64 ``(256,)``: area by code.
    steps, shells
        int64 ``(K,)``: where to look, nearest first, and the number of the distance of each step.
    by_shell
        float64 ``(S,)``, changed in place: grows by the areas whose nearest cell lies at distance s; 0 is no way.
    far
        int64 ``(F,)``, written: the cells that no step leads from to the other surface, as many as fit.

    Returns
    -------
    int
        Number of such cells; above F some were not written.
    """
    n_far = 0
    words = codes.view(np.uint64)
    for i in range(words.size):
        if words[i] == _NOTHING:
            continue
        for at in range(8 * i, 8 * i + 8):
            if codes[at] == 0:
                continue
            shell = _nearest(other, at, steps, shells)
            if shell >= 0:
                by_shell[shell] += areas[codes[at]]
                continue
            if n_far < far.size:
                far[n_far] = at
            n_far += 1
    return n_far


@_kernel
def _nearest(other, at, steps, shells):  # type: ignore[no-untyped-def]
    """Return the number of the distance to the nearest cell, -1 where no step leads to one."""
    if other[at] != 0:
        return 0
    for k in range(steps.size):
        if other[at + steps[k]] != 0:
            return shells[k]
    return -1


@_kernel
def list_cells(codes):  # type: ignore[no-untyped-def]
    """Return the numbers of a surface's cells, int64 ``(M,)``; ``codes`` as for :func:`add_areas`."""
    words = codes.view(np.uint64)
    found = np.empty(1024, dtype=np.int64)
    n = 0
    for i in range(words.size):
        if words[i] == _NOTHING:
            continue
        if n + 8 > found.size:
            larger = np.empty(2 * found.size, dtype=np.int64)
            larger[:n] = found[:n]
            found = larger
        for at in range(8 * i, 8 * i + 8):
            if codes[at] != 0:
                found[n] = at
                n += 1
    return found[:n].copy()
