"""Outlines of a mask as closed polygons, holes joined to them by keyholes.

Outlines are those of marching squares at one half: they pass half-way between the centres of a voxel inside and its
neighbour outside. So every voxel centre is on its right side, whoever fills the polygons by centres gets the mask back
to the voxel, and the area is that of the mask less half a pixel for each outline, plus half a pixel for each hole.

A polygon with holes is one line: from the outline along a channel of no width to the hole, around it, and back
(PS3.3, C.8.8.6.3, the "keyhole" technique). Readers that know nothing of holes fill it right, by the even-odd rule and
by the winding number. Channels run half-way between two columns of voxels, so that no centre lies on them.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Polygon = NDArray[np.float64]
"""``(P, 2)``: column and row of the corners in voxel indices, the first one not repeated at the end."""


def outlines(mask: NDArray[Any]) -> list[Polygon]:
    """Return the polygons of a mask, each with its holes.

    Parameters
    ----------
    mask
        ``(rows, columns)``; inside where it is not 0.
    """
    padded = np.pad(np.asarray(mask != 0, dtype=np.float64), 1)  # so that outlines close at the edges
    generator = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset)
    found = []
    # Upper level: any above 1.
    for points, offsets in zip(*generator.filled(0.5, 2.0), strict=True):
        rings = [points[a : b - 1] - 1 for a, b in pairwise(offsets)]
        found.append(_without_needless(_joined(rings[0], rings[1:])))
    return found


def _joined(outer: Polygon, holes: list[Polygon]) -> Polygon:
    """Return one line around an outline and its holes.

    Each hole is entered at the left end of a run in its top row, straight up from there: no voxel of that hole lies on
    the way, and a hole that does begins higher, so it has been joined before.
    """
    line = outer
    for start, hole in sorted(((_entrance(hole), hole) for hole in holes), key=lambda pair: pair[0][1]):
        at, gate = _first_above(line, start)
        first = int(np.flatnonzero((hole == start).all(axis=1))[0])
        line = np.concatenate([line[: at + 1], [gate], np.roll(hole, -first, axis=0), [start, gate], line[at + 1 :]])
    return line


def _entrance(hole: Polygon) -> Polygon:
    sides = hole[hole[:, 1] == np.floor(hole[:, 1])]  # corners between two voxels of one row
    top = sides[sides[:, 1] == sides[:, 1].min()]
    entrance: Polygon = top[top[:, 0].argmin()]
    return entrance


def _first_above(line: Polygon, start: Polygon) -> tuple[int, Polygon]:
    """Return the first point of a line straight above ``start``, and the corner that it follows or is."""
    x, y = start
    after = np.roll(line, -1, axis=0)
    corner = (line[:, 0] == x) & (line[:, 1] < y)
    crossing = (line[:, 1] == after[:, 1]) & ((line[:, 0] - x) * (after[:, 0] - x) < 0) & (line[:, 1] < y)
    height = np.where(corner | crossing, line[:, 1], -np.inf)
    at = int(height.argmax())
    return at, np.array([x, line[at, 1]])


def _without_needless(polygon: Polygon) -> Polygon:
    """Return a polygon without the corners at which it goes straight on."""
    polygon = polygon[(polygon != np.roll(polygon, 1, axis=0)).any(axis=1)]
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]  # exact: all are multiples of one half
    kept: Polygon = polygon[turns | ((before * after).sum(axis=1) < 0)]
    return kept
