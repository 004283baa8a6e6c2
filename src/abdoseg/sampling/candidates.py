"""What can be drawn: which cases have a voxel of which structure that the annotation vouches for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.errors import ConfigError
from abdoseg.views import Occupied, held_slices


@dataclass(frozen=True, eq=False)
class CaseEntry:
    """One case, as a sampler sees it.

    Parameters
    ----------
    key
        ``source/case``.
    source
        Card id.
    modality
        ``"CT"`` or ``"MR"``.
    held
        bool ``(N,)``: structures 1..N of which there is a candidate voxel, as :func:`held_structures` finds them.
    kind
        How the case is annotated (:func:`kind_of`), for samplers that mix kinds.
    """

    key: str
    source: str
    modality: str
    held: NDArray[np.bool_]
    kind: str = "partial"


@dataclass(frozen=True, eq=False)
class Candidates:
    """A table of cases; row ``i`` of every field is case ``i``.

    Parameters
    ----------
    keys, sources, modalities, kinds
        Facts of each case, see :class:`CaseEntry`.
    has
        bool ``(n_cases, N + 1)``: whether the case has a candidate voxel of the structure. Column 0, background, is
        true for all.
    """

    keys: tuple[str, ...]
    sources: tuple[str, ...]
    modalities: tuple[str, ...]
    kinds: tuple[str, ...]
    has: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_structures(self) -> int:
        """Number of structures N."""
        return int(self.has.shape[1]) - 1

    @classmethod
    def of(cls, entries: Iterable[CaseEntry]) -> "Candidates":
        """Build the table.

        Raises
        ------
        ConfigError
            If there is no case, or a case occurs twice.
        """
        cases = list(entries)
        keys = tuple(case.key for case in cases)
        if not cases:
            raise ConfigError("sampler: found no case to draw from; ingest a source, or name others with --sources")
        if len(set(keys)) < len(keys):
            twice = next(key for key, count in Counter(keys).items() if count > 1)
            msg = f"sampler: case {twice} is listed twice; every case may be drawn from one entry only"
            raise ConfigError(msg)
        held = np.array([case.held for case in cases], dtype=bool)
        return cls(
            keys,
            tuple(case.source for case in cases),
            tuple(case.modality for case in cases),
            tuple(case.kind for case in cases),
            np.concatenate([np.ones((len(cases), 1), dtype=bool), held], axis=1),
        )


def candidate_voxels(
    foreground: Foreground, annotation: Annotation, structure: int, axis: int | None, shape: Sequence[int]
) -> NDArray[np.int32]:
    """Return the C-order indices of a structure's voxels in which the annotation knows it.

    Parameters
    ----------
    foreground
        Labelled voxels of the case.
    annotation
        The case's annotation as the view shows it.
    structure
        Structure id in 1..N.
    axis
        The slice list to go by; ``None`` for a case without one.
    shape
        ``(X, Y, Z)`` of the case.
    """
    index = foreground.of_structure(structure)
    used_axis, groups = annotation.slice_groups(axis, shape)
    known = annotation.rows[groups, structure - 1]
    if known.all():
        return index
    if not known.any():
        return index[:0]
    found: NDArray[np.int32] = index[known[_coordinate(index, used_axis, shape)]]
    return found


def kind_of(annotation: Annotation) -> str:
    """Return how a case is annotated: ``sparse`` with a slice list, ``unlabelled`` without structures, ``partial``."""
    if annotation.slices:
        return "sparse"
    return "partial" if annotation.rows[0].any() else "unlabelled"


def held_structures(annotation: Annotation, voxels: NDArray[np.int64], occupied: Occupied) -> NDArray[np.bool_]:
    """Return of which structures the annotation knows a voxel, without a look at the voxels: bool ``(N,)``.

    Parameters
    ----------
    annotation
        The case's annotation as the view shows it.
    voxels
        int ``(N,)``: labelled voxels of structures 1..N.
    occupied
        By structure id, the slices along X, Y and Z that hold it; needed for every structure of a case with slice
        lists.
    """
    if not annotation.slices:
        there: NDArray[np.bool_] = (voxels > 0) & annotation.rows[0]
        return there
    held = np.zeros(annotation.n_structures, dtype=bool)
    for axis, groups in annotation.slices.items():
        known = annotation.rows[groups]
        held |= (known & held_slices(occupied, axis, known.shape)).any(axis=0)
    return held


def held_by_voxels(foreground: Foreground, annotation: Annotation, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return what :func:`held_structures` does, found among the labelled voxels."""
    axes = annotation.axes() or (None,)
    structures = range(1, annotation.n_structures + 1)
    return np.array(
        [any(len(candidate_voxels(foreground, annotation, c, axis, shape)) for axis in axes) for c in structures],
        dtype=bool,
    )


def _coordinate(index: NDArray[np.int32], axis: int, shape: Sequence[int]) -> NDArray[np.int32]:
    """Return the coordinate along ``axis`` of C-order voxel indices."""
    coordinate: NDArray[np.int32] = index // int(np.prod(shape[axis + 1 :])) % shape[axis]
    return coordinate
