"""What is annotated slice by slice, on a scan's own axes, and how that follows the scan to the harmonised grid.

Sparse labels come in three ways: slices without any label were not drawn, a side-car table lists the slices, or a
structure was drawn over a limited range only. All become one thing: for some axes of the file's array, which
structures are known in each slice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import AXES, Annotation
from abdoseg.cards import Sparse
from abdoseg.errors import CaseError
from abdoseg.geometry import Grid, harmonised_positions
from abdoseg.kernels.values import translated
from abdoseg.types import UNKNOWN_LABEL, Affine

Rows = NDArray[np.bool_]
"""``(n, N)``: which structures are known in each of the n slices along an axis."""

_ARRAY_AXES = {"first": 0, "second": 1, "third": 2}


@dataclass(frozen=True, eq=False)
class SliceRows:
    """Annotation by slice, on the file's own axes.

    Parameters
    ----------
    rows
        Array axis -> rows; empty: all slices know the same structures.
    apart
        Whether each annotated slice is a group of its own, as for sparse labels; else slices that know the same
        share one.
    """

    rows: Mapping[int, Rows] = field(default_factory=dict)
    apart: bool = False


@dataclass(frozen=True)
class ListedSlice:
    """One row of a side-car table: structures drawn in a slice; ``None``: all of the card's."""

    axis: str
    slice: int
    structures: tuple[str, ...] | None


def array_axis(name: str, affine: Affine) -> int:
    """Return the array axis called ``sagittal``, ``coronal``, ``axial``, ``first``, ``second`` or ``third``."""
    if name in _ARRAY_AXES:
        return _ARRAY_AXES[name]
    return [int(axis) for axis, _ in nib.io_orientation(affine)].index(AXES[name])


def non_empty_slices(drawn: NDArray[np.bool_], axis: int, known: NDArray[np.bool_]) -> Rows:
    """Return rows in which slices of ``drawn`` ``(X, Y, Z)`` with any voxel know ``known`` ``(N,)``, others nothing."""
    others = tuple(a for a in range(3) if a != axis)
    return np.asarray(np.any(drawn, axis=others).reshape(-1, 1) & known[None])


def listed_slices(
    listed: Iterable[ListedSlice], sparse: Sparse, shape: Sequence[int], affine: Affine, known: Mapping[str, int]
) -> dict[int, Rows]:
    """Return axis -> rows that a side-car table states for one case.

    Parameters
    ----------
    known
        Name -> id of the structures this case can know.

    Raises
    ------
    CaseError
        If an axis, slice or structure of the table is not the case's.
    """
    rows: dict[int, Rows] = {}
    n_structures = max(known.values(), default=0)
    for item in listed:
        if item.axis not in (*_ARRAY_AXES, *AXES):
            msg = f"{sparse.table}: axis '{item.axis}', expected one of {', '.join((*AXES, *_ARRAY_AXES))}"
            raise CaseError(msg)
        axis = array_axis(item.axis, affine)
        index = item.slice - sparse.first
        if not 0 <= index < shape[axis]:
            last = shape[axis] - 1 + sparse.first
            raise CaseError(f"{sparse.table}: slice {item.slice} of {item.axis}, expected {sparse.first}..{last}")
        strange = [name for name in item.structures or () if name not in known]
        if strange:
            raise CaseError(f"{sparse.table}: structures {', '.join(strange)}, which the card does not annotate")
        names = known if item.structures is None else item.structures
        of_axis = rows.setdefault(axis, np.zeros((shape[axis], n_structures), dtype=bool))
        of_axis[index, [known[name] - 1 for name in names]] = True
    return rows


def truncated_rows(
    label: NDArray[np.uint8], affine: Affine, truncated: Sequence[int], known: NDArray[np.bool_]
) -> SliceRows:
    """Return rows along the axial axis in which truncated structures are known only between their first and last slice.

    Parameters
    ----------
    label
        ``(X, Y, Z)``, structure ids.
    truncated
        Ids of the structures that may stop early; one that is nowhere in the label is known nowhere.
    known
        ``(N,)``: structures annotated in the case.
    """
    axis = array_axis("axial", affine)
    others = tuple(a for a in range(3) if a != axis)
    rows = np.repeat(known[None], label.shape[axis], axis=0)
    for structure in truncated:
        slices = np.flatnonzero(np.any(label == structure, axis=others))
        inside = np.zeros(label.shape[axis], dtype=bool)
        if slices.size:
            inside[slices[0] : slices[-1] + 1] = True
        rows[:, structure - 1] &= inside
    return SliceRows() if np.array_equal(rows, np.broadcast_to(known, rows.shape)) else SliceRows({axis: rows})


def harmonised_annotation(
    known: NDArray[np.bool_], slices: SliceRows, affine: Affine, shape: Sequence[int], grid: Grid
) -> Annotation:
    """Return the annotation on the harmonised grid: each slice knows what its nearest native slice knows.

    Parameters
    ----------
    known
        ``(N,)``: structures annotated in the case.
    slices
        On the file's own axes.
    affine, shape
        Of the file's array.
    grid
        The harmonised grid.
    """
    if not slices.rows:
        return Annotation(known[None].copy())
    groups: list[NDArray[np.bool_]] = [np.zeros(known.size, dtype=bool)]
    lists: dict[int, NDArray[np.int32]] = {}
    for axis, along, nearest in _along_grid(slices, affine, shape, grid):
        lists[axis] = _grouped(along[nearest] & known, groups, apart=slices.apart)
    return Annotation(np.array(groups), lists)


def _along_grid(
    slices: SliceRows, affine: Affine, shape: Sequence[int], grid: Grid
) -> Iterator[tuple[int, Rows, NDArray[np.intp]]]:
    """Yield each RAS+ axis with rows, the rows along it, and the nearest of them for every slice of the grid."""
    orientation = nib.io_orientation(affine)
    positions = harmonised_positions(shape, affine, grid)
    for native_axis, rows in slices.rows.items():
        axis, flip = int(orientation[native_axis, 0]), orientation[native_axis, 1]
        yield axis, rows if flip > 0 else rows[::-1], np.ceil(positions[axis] - 0.5).astype(np.intp)


def lost_slices(slices: SliceRows, affine: Affine, shape: Sequence[int], grid: Grid) -> tuple[str, ...]:
    """Return what to say of annotated slices that are nearest to no slice of the grid: their labels are not used."""
    told = []
    for axis, along, nearest in _along_grid(slices, affine, shape, grid):
        annotated = np.flatnonzero(along.any(axis=1))
        lost = len(annotated) - len(np.intersect1d(annotated, nearest))
        if slices.apart and lost:
            told.append(
                f"{lost} of {len(annotated)} annotated {tuple(AXES)[axis]} slices are nearest to no slice of the "
                f"{grid.spacing_mm[axis]:g} mm grid: their labels are not used"
            )
    return tuple(told)


def _grouped(rows: Rows, groups: list[NDArray[np.bool_]], *, apart: bool) -> NDArray[np.int32]:
    """Return the group of every slice; new groups are added to ``groups``, of which the first is empty."""
    found = np.zeros(len(rows), dtype=np.int32)
    seen: dict[bytes, int] = {groups[0].tobytes(): 0}
    for index, row in enumerate(rows):
        if not row.any():
            continue
        if apart or row.tobytes() not in seen:
            seen[row.tobytes()] = len(groups)
            groups.append(row.copy())
        found[index] = seen[row.tobytes()]
    return found


def hide_unvouched(label: NDArray[np.uint8], annotation: Annotation) -> NDArray[np.uint8]:
    """Return a harmonised label in which what the annotation does not vouch for is 0; 255 stays.

    A case with lists along several axes keeps its labels: which of them count depends on the axis a patch uses.
    """
    if len(annotation.axes()) > 1:
        return label
    if not annotation.slices:
        table = np.zeros(256, dtype=np.uint8)
        ids = [*(np.flatnonzero(annotation.rows[0]) + 1), UNKNOWN_LABEL]
        table[ids] = ids
        return translated(label, table)
    return np.where(label == UNKNOWN_LABEL, label, annotation.known_label(label)).astype(np.uint8)
