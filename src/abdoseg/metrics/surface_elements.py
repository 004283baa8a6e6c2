"""The area of the surface within a cell of 2 x 2 x 2 voxels, for each of the 256 ways to fill it.

The elements are those of DeepMind's ``surface-distance`` package (``lookup_tables.py``, Copyright 2018 Google Inc.,
Apache License 2.0), made there by marching cubes. Turning or mirroring a cell turns its elements with it, so one
member of each class under the 48 symmetries of the cube is kept here and the others follow.
"""

from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

_ELEMENTS: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((1, 1, 1),),
    3: ((2, 2, 0), (2, 2, 0)),
    6: ((1, 1, 1), (1, 1, 1)),
    7: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    15: ((4, 0, 0), (4, 0, 0)),
    22: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    23: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    24: ((1, 1, 1), (1, 1, 1)),
    25: ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    27: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    30: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    31: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    60: ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    61: ((1, 1, 1), (2, 2, 0), (2, 2, 0)),
    63: ((2, 2, 0), (2, 2, 0)),
    105: ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    107: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    111: ((1, 1, 1), (1, 1, 1)),
    126: ((1, 1, 1), (1, 1, 1)),
    127: ((1, 1, 1),),
}
"""Code -> the cell's surface elements: absolute components of their normals, in eighths, of unit voxels."""


def surface_areas_mm2(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the area of the surface within a cell by its code, float64 ``(256,)``, in mm^2.

    Parameters
    ----------
    spacing_mm
        Voxel side along the cell's three axes. Bit ``4 a + 2 b + c`` of a code stands for the voxel ``(a, b, c)``
        of the cell, each 0 or 1; codes 0 and 255 have no surface.
    """
    faces = np.prod(spacing_mm) / np.array(spacing_mm)  # of a voxel, across each axis
    return np.asarray(np.linalg.norm(_normals() * faces, axis=2).sum(axis=1))


@cache
def _normals() -> NDArray[np.float64]:
    """Return the elements of all codes, ``(256, 4, 3)``; zeros where a code has fewer than four."""
    normals = np.zeros((256, 4, 3))
    cells = np.arange(8).reshape(2, 2, 2)
    for code, elements in _ELEMENTS.items():
        for axes, steps in product(permutations(range(3)), product((1, -1), repeat=3)):
            turned = cells.transpose(axes)[:: steps[0], :: steps[1], :: steps[2]].reshape(-1)
            other = sum(1 << at for at, voxel in enumerate(turned.tolist()) if code >> voxel & 1)
            normals[other, : len(elements)] = np.array(elements)[:, axes] / 8.0
    return normals
