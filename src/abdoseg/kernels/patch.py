"""Cut a rotated and scaled patch: image, label and group of every voxel in one pass, coordinates on the fly."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.types import OUTSIDE_GROUP, UNKNOWN_LABEL


class CutPatch(NamedTuple):
    """What :func:`cut_patch` returns; all of shape ``patch_shape``."""

    image: NDArray[np.float32]
    """Windowed intensity; 0 outside the image."""
    label: NDArray[np.uint8]
    """Structure id; 0 wherever the annotation does not vouch for it."""
    group: NDArray[np.int16]
    """Row of ``known``; -1 outside the image."""


class Cut(NamedTuple):
    """Where a patch lies in its volume."""

    centre: NDArray[np.float64]
    """``(3,)`` voxel that sits at index ``n // 2`` of the patch along each axis."""
    matrix: NDArray[np.float64]
    """``(3, 3)``: offset from the centre in the patch to offset in the volume, both in voxels."""
    shape: tuple[int, int, int]
    """Shape of the patch."""


class Frame(NamedTuple):
    """Where a box of voxels lies in its volume."""

    start: tuple[int, int, int]
    """The volume's voxel that is the box's first."""
    shape: tuple[int, int, int]
    """Shape of the volume."""


class Reach(NamedTuple):
    """The box of voxels that a cut looks at."""

    start: tuple[int, int, int]
    """First voxel along each axis."""
    stop: tuple[int, int, int]
    """Last voxel along each axis plus one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = (int(b - a) for a, b in zip(self.start, self.stop, strict=True))
        return x, y, z


_ROUNDING = 1e-6
"""Voxels. The kernel adds the terms of a position in another order than :func:`reach_of`."""


def reach_of(cut: Cut, shape: tuple[int, ...]) -> Reach:
    """Return the smallest box of a volume of ``shape`` that holds every voxel :func:`cut_patch` looks at."""
    first, last = _ends(cut)
    corners = np.stack(np.meshgrid(*zip(first, last, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.asarray(cut.centre) + corners @ np.asarray(cut.matrix).T
    n = np.array(shape)
    # The lower of two neighbours is at most the last voxel but one, see the kernel.
    start = np.maximum(np.minimum(np.floor(places.min(axis=0) - _ROUNDING), n - 2), 0).astype(int)
    stop = np.minimum(np.maximum(np.floor(places.max(axis=0) + _ROUNDING), start) + 2, n).astype(int)
    return Reach(tuple(start.tolist()), tuple(stop.tolist()))


def touched_chunks(cut: Cut, reach: Reach, chunks: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which chunks of a reach the turned patch comes near: the others lie beyond one of its faces.

    Parameters
    ----------
    cut
        Where the patch lies.
    reach
        What :func:`reach_of` gives for it.
    chunks
        Shape of a chunk; the first begins at voxel 0.

    Returns
    -------
    touched
        bool, one entry a chunk along each axis. A chunk that is left out holds no voxel the cut looks at.
    """
    first, last = _ends(cut)
    size = np.array(chunks)
    low, high = np.array(reach.start) // size, -(-np.array(reach.stop) // size)
    to_patch = np.linalg.inv(np.asarray(cut.matrix))
    # A position looks at voxels less than 2 away (beyond the border it is moved to the border first).
    half = np.abs(to_patch) @ ((size - 1) / 2 + 2)
    touched = np.ones(high - low, dtype=bool)
    for face in range(3):
        distance = -(to_patch[face] @ cut.centre) - (first[face] + last[face]) / 2
        for axis in range(3):
            view = [1, 1, 1]
            view[axis] = -1
            middle = np.arange(low[axis], high[axis]) * size[axis] + (size[axis] - 1) / 2
            distance = distance + to_patch[face, axis] * middle.reshape(view)
        touched &= np.abs(distance) <= half[face] + (last[face] - first[face]) / 2
    return touched


def _ends(cut: Cut) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the offsets of a patch's first and last voxel from its centre, along each of its axes."""
    n = np.array(cut.shape)
    first = -(n // 2)
    return first.astype(np.float64), (first + n - 1).astype(np.float64)


def cut_patch(
    image: NDArray[np.int16],
    label: NDArray[np.uint8],
    slices: tuple[int, NDArray[np.int32]],
    known: NDArray[np.bool_],
    cut: Cut,
    window: tuple[float, float],
    frame: Frame | None = None,
    *,
    padding_is_background: bool = False,
) -> CutPatch:
    """Cut one patch out of a case.

    Parameters
    ----------
    image
        int16 ``(X, Y, Z)``: the volume, or a box of it that holds :func:`reach_of` the cut.
    label
        uint8 ``(X, Y, Z)``; structure id, 0 background, 255 unknown.
    slices
        ``(axis, groups (n,))``: the group of every slice along ``axis``.
    known
        bool ``(G, 256)``: whether label value ``v`` may be seen in group ``g``. The last row must be empty: it is
        the group of voxels with label 255.
    cut
        Where the patch lies.
    window
        ``(scale, offset)``: intensity is ``image * scale + offset``.
    frame
        Where ``image`` and ``label`` lie in the volume; ``None``: they are the volume. The patch is the same to the
        last bit.
    padding_is_background
        Voxels outside the volume get the group of the nearest slice instead of -1 (the authors' way).

    Returns
    -------
    CutPatch
        The image is interpolated linearly; label and group come from the same nearest voxel (an interpolated
        label would carry a hidden neighbour's). A position up to half a voxel beyond the outermost voxel centres
        takes the border's value; further out the image and label are 0 and the group is -1.

    Raises
    ------
    ValueError
        If shapes do not agree, or a group has no row.
    """
    frame = frame or Frame((0, 0, 0), image.shape)
    _require_fit(image, label, slices, known, cut, frame)
    axis, groups = slices
    out = CutPatch(
        np.zeros(cut.shape, dtype=np.float32),
        np.zeros(cut.shape, dtype=np.uint8),
        np.full(cut.shape, OUTSIDE_GROUP, dtype=np.int16),
    )
    _cut(
        (np.ascontiguousarray(image).reshape(-1), np.ascontiguousarray(label).reshape(-1), image.shape),
        (tuple(frame.start), tuple(frame.shape)),
        (axis, np.ascontiguousarray(groups, dtype=np.int32), np.ascontiguousarray(known)),
        (np.asarray(cut.centre, dtype=np.float64), np.ascontiguousarray(cut.matrix, dtype=np.float64)),
        (np.float32(window[0]), np.float32(window[1])),
        (out.image, out.label, out.group),
        padding_is_background,
    )
    return out


def _require_fit(
    image: NDArray[np.int16],
    label: NDArray[np.uint8],
    slices: tuple[int, NDArray[np.int32]],
    known: NDArray[np.bool_],
    cut: Cut,
    frame: Frame,
) -> None:
    """Refuse arrays that do not fit each other: the kernel looks at no bounds."""
    axis, groups = slices
    if image.shape != label.shape or image.ndim != 3:
        msg = f"cut_patch: image {image.shape} and label {label.shape} must have one shape (X, Y, Z)"
        raise ValueError(msg)
    if image.size >= 2**31:
        msg = f"cut_patch: image {image.shape} has more voxels than 32 bits count"
        raise ValueError(msg)
    if groups.shape != (frame.shape[axis],):
        msg = f"cut_patch: {groups.shape[0]} slice groups along axis {axis}, expected {frame.shape[axis]}"
        raise ValueError(msg)
    if known.ndim != 2 or known.shape[1] != 256 or known[-1].any():
        msg = f"cut_patch: found a table of known labels {known.shape}, expected (G, 256) with an empty last row"
        raise ValueError(msg)
    if groups.min() < 0 or groups.max() >= len(known):
        msg = f"cut_patch: slice groups lie in {groups.min()}..{groups.max()}, the table has {len(known)} rows"
        raise ValueError(msg)
    reach = reach_of(cut, frame.shape)
    box = [(a, a + n) for a, n in zip(frame.start, image.shape, strict=True)]
    if any(a < low or b > high for a, b, (low, high) in zip(reach.start, reach.stop, box, strict=True)):
        msg = f"cut_patch: the patch needs voxels {reach.start} to {reach.stop}, found a box {box}"
        raise ValueError(msg)


@numba.njit(cache=True, nogil=True, inline="always")
def _reach(base: float, step: float, low: float, high: float, n: int) -> tuple[int, int]:
    """Return the first and the last-plus-one k of 0..n-1 with ``low <= base + k step <= high``."""
    if step == 0.0:
        return (0, n) if low <= base <= high else (0, 0)
    a = (low - base) / step
    b = (high - base) / step
    first = max(0.0, np.ceil(min(a, b)))
    last = min(n - 1.0, np.floor(max(a, b)))
    if last < first:
        return 0, 0
    return int(first), int(last) + 1


@numba.njit(cache=True, nogil=True, inline="always")
def _trilinear(image, at, strides, weights):  # type: ignore[no-untyped-def]
    """Interpolate the flat ``image`` between voxel ``at`` and its neighbours one stride further along each axis."""
    sx, sy, sz = strides
    wx, wy, wz = weights
    v00 = np.float32(image[np.uint64(at)])
    v01 = np.float32(image[np.uint64(at + sy)])
    v10 = np.float32(image[np.uint64(at + sx)])
    v11 = np.float32(image[np.uint64(at + sx + sy)])
    v00 += wz * (np.float32(image[np.uint64(at + sz)]) - v00)
    v01 += wz * (np.float32(image[np.uint64(at + sy + sz)]) - v01)
    v10 += wz * (np.float32(image[np.uint64(at + sx + sz)]) - v10)
    v11 += wz * (np.float32(image[np.uint64(at + sx + sy + sz)]) - v11)
    v00 += wy * (v01 - v00)
    v10 += wy * (v11 - v10)
    return v00 + wx * (v10 - v00)


@numba.njit(cache=True, nogil=True)
def _cut(boxes, frame, slices, place, window, out, padding_is_background):  # type: ignore[no-untyped-def]
    """Fill the patch row by row; a row's stretch inside the volume is found first, the rest stays padding.

    ``boxes`` are the image and the label, flat, and their shape; ``frame`` is where they begin in the volume, and its
    shape. The lower of the two voxels along an axis of n is at most n - 2, so that its neighbour is always one stride
    away (where n = 1: itself).
    """
    image, label, (_, by, bz) = boxes
    (ox, oy, oz), (nx, ny, nz) = frame
    axis, groups, known = slices
    centre, matrix = place
    scale, offset = window
    out_image, out_label, out_group = out
    px, py, pz = out_image.shape
    unknown_group = known.shape[0] - 1
    sx, sy, sz = (by * bz if nx > 1 else 0), (bz if ny > 1 else 0), (1 if nz > 1 else 0)
    origin = (ox * by + oy) * bz + oz
    last_i, last_j, last_k = np.int32(max(nx - 2, 0)), np.int32(max(ny - 2, 0)), np.int32(max(nz - 2, 0))
    # One row's places, found before its voxels are looked up: loops without lookups run on vectors.
    lower, nearest, nearest_slice = np.empty(pz, np.int32), np.empty(pz, np.int32), np.empty(pz, np.int32)
    weight = np.empty((3, pz), np.float32)
    step_x, step_y, step_z = matrix[0, 2], matrix[1, 2], matrix[2, 2]
    for a in range(px):
        for b in range(py):
            da, db, dc = a - px // 2, b - py // 2, -(pz // 2)
            x0 = centre[0] + (matrix[0, 0] * da + matrix[0, 1] * db + step_x * dc)
            y0 = centre[1] + (matrix[1, 0] * da + matrix[1, 1] * db + step_y * dc)
            z0 = centre[2] + (matrix[2, 0] * da + matrix[2, 1] * db + step_z * dc)
            first_x, stop_x = _reach(x0, step_x, -0.5, nx - 0.5, pz)
            first_y, stop_y = _reach(y0, step_y, -0.5, ny - 0.5, pz)
            first_z, stop_z = _reach(z0, step_z, -0.5, nz - 0.5, pz)
            first, stop = max(first_x, first_y, first_z), min(stop_x, stop_y, stop_z)
            if padding_is_background:
                for c in range(pz):
                    if first <= c < stop:
                        continue
                    along = x0 + c * step_x if axis == 0 else (y0 + c * step_y if axis == 1 else z0 + c * step_z)
                    out_group[a, b, c] = groups[np.uint64(min(max(np.floor(along + 0.5), 0.0), groups.size - 1.0))]
            n = stop - first
            for c in range(n):
                # Half a voxel beyond the border the outermost voxel goes on.
                x = min(max(x0 + (first + c) * step_x, 0.0), nx - 1.0)
                y = min(max(y0 + (first + c) * step_y, 0.0), ny - 1.0)
                z = min(max(z0 + (first + c) * step_z, 0.0), nz - 1.0)
                i, j, k = min(np.int32(x), last_i), min(np.int32(y), last_j), min(np.int32(z), last_k)
                x, y, z = x - i, y - j, z - k
                di, dj, dk = np.int32(x >= 0.5), np.int32(y >= 0.5), np.int32(z >= 0.5)  # steps to the nearest voxel
                lower[c] = (i * by + j) * bz + k - origin
                nearest[c] = lower[c] + di * sx + dj * sy + dk * sz
                nearest_slice[c] = i + di if axis == 0 else (j + dj if axis == 1 else k + dk)
                weight[0, c], weight[1, c], weight[2, c] = x, y, z
            for c in range(n):
                weights = weight[0, c], weight[1, c], weight[2, c]
                out_image[a, b, first + c] = _trilinear(image, lower[c], (sx, sy, sz), weights) * scale + offset
            for c in range(n):
                value = label[np.uint64(nearest[c])]
                group = groups[np.uint64(nearest_slice[c])]
                if value == UNKNOWN_LABEL:
                    group = unknown_group
                elif value != 0 and known[np.uint64(group), value]:
                    out_label[a, b, first + c] = value
                out_group[a, b, first + c] = group


def renumber_groups(group: NDArray[np.int16], n_groups: int) -> NDArray[np.int_]:
    """Renumber, in place, the groups that occur in a patch 0, 1, ... in their order; -1 stays.

    Returns
    -------
    used
        int ``(g,)``: the old number of each. A patch wholly outside the image uses the last group, so that there
        is always one.
    """
    flat = group.reshape(-1)
    seen = np.zeros(n_groups + 1, dtype=np.bool_)
    _mark(flat, seen)
    used = np.flatnonzero(seen[1:])
    if len(used) == 0:
        return np.array([n_groups - 1])
    table = np.full(n_groups + 1, OUTSIDE_GROUP, dtype=np.int16)
    table[used + 1] = np.arange(len(used))
    _translate(flat, table)
    return used


@numba.njit(cache=True, nogil=True)
def _mark(group, seen):  # type: ignore[no-untyped-def]
    """Mark entry g + 1 of ``seen`` for every group g."""
    for i in range(group.size):
        seen[np.uint64(group[i] + 1)] = True


@numba.njit(cache=True, nogil=True)
def _translate(group, table):  # type: ignore[no-untyped-def]
    """Replace every group g by entry g + 1 of ``table``."""
    for i in range(group.size):
        group[i] = table[np.uint64(group[i] + 1)]
