"""Sparse views: which slices of which cases keep their labels.

A view is a recipe and nothing else: cases stay where they are and no voxel is copied. It applies to training
cases only; validation and test keep all labels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from abdoseg.annotation import AXES, Annotation
from abdoseg.geometry import Grid, harmonised_positions
from abdoseg.types import NAME_PATTERN

FULL_VIEW = "full"
"""Name of the view in which every case keeps all its labels."""

VIEW_OPTIONS = {"axes": "view", "fraction": "frac", "seed": "random seed", "per_structure": "per-structure"}
"""Field of a view -> what it is called where the user gives it, if that is another name."""

Runs = Sequence[tuple[int, int]]
"""Runs of neighbouring slices along an axis: (first, stop) each."""

Occupied = Mapping[int, tuple[Runs, Runs, Runs]]
"""By structure id: the slices along X, Y and Z that hold the structure."""

How = Literal["even", "random", "every"]


def percent(fraction: float) -> str:
    """Return a fraction in per cent with up to six digits, never as ``1e-07``."""
    return format(Decimal(f"{100 * fraction:g}"), "f")


def evenly_spaced_slices(n_slices: int, fraction: float) -> NDArray[np.int_]:
    """Return k = max(1, round(f n)) slice indices at floor((i + 1/2) n / k), increasing.

    Parameters
    ----------
    n_slices
        Number of slices n along the axis, at least 1.
    fraction
        Fraction f of slices to keep, in (0, 1].

    References
    ----------
    Chen et al. 2024, Table 8; rounding is half up, so that 2.5 slices are 3 for every n.
    """
    k = _count(n_slices, fraction)
    return np.floor((np.arange(k) + 0.5) * n_slices / k).astype(int)


def every_kth_slice(n_slices: int, step: int) -> NDArray[np.int_]:
    """Return the slices floor(K/2), floor(K/2) + K, ... for a ``step`` K; the middle one if none of them is there."""
    slices = np.arange(step // 2, n_slices, step)
    return slices if len(slices) else np.array([n_slices // 2])


def lowest_ranked_slices(rank: NDArray[np.uint64], fraction: float) -> NDArray[np.int_]:
    """Return the k = max(1, round(f n)) slices of lowest ``rank`` ``(n,)``, increasing."""
    return np.sort(np.argsort(rank, kind="stable")[: _count(len(rank), fraction)])


def random_ranks(n_slices: int, seed: int, key: str, axis: int) -> NDArray[np.uint64]:
    """Return a random number for each slice, uint64 ``(n,)``: a pure function of its arguments.

    The Philox generator's raw output, keyed by a hash, is the same in every version of NumPy.
    """
    name = hashlib.sha256(f"{seed}\n{axis}\n{key}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(name[:16], "little")).random_raw(n_slices)


def _count(n_slices: int, fraction: float) -> int:
    return min(n_slices, max(1, int(np.floor(fraction * n_slices + 0.5))))


class View(BaseModel):
    """One sparse view.

    A case of a source named in ``sources`` (all, when empty) keeps some slices along each of ``axes``: with a
    ``fraction`` evenly spaced ones, or random ones where there is a ``seed``; with ``every`` each K-th.

    Notes
    -----
    *Structures.* Only those of ``structures`` are thinned; the others stay annotated in every slice, so that the
    row of a hidden slice is what is left of the row it had.

    *Per structure.* A structure is thinned among the slices that hold it and, apart from these, among those that
    do not. So a structure that is there keeps at least one slice that holds it, and in about the same fraction of
    the other slices it is known to be absent. Annotated means that somebody looked: who draws every fifth slice
    of the liver opens every fifth slice beyond its ends too, and finds none; in the slices between nobody looked.
    Rows that know a structure beyond its ends everywhere would claim more looks than the view stands for; rows
    that know it nowhere else than where it is drawn would teach that an annotated slice always holds it.

    *Native.* The slices are chosen among those of the file, and a harmonised slice is annotated when its nearest
    one in the file is (the authors' way). Where the file's slices are the thinner ones, a chosen one may be
    nearest to no harmonised slice, and is then lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN, description="file name under views/")
    axes: tuple[str, ...] = Field(description="view directions: axial, coronal, sagittal")
    fraction: float | None = Field(default=None, gt=0, le=1, description="fraction of slices that keep their labels")
    every: int | None = Field(default=None, ge=1, description="instead of a fraction: each K-th slice keeps them")
    seed: int | None = Field(
        default=None, ge=0, lt=2**64, description="of random slices; without it they are evenly spaced"
    )
    structures: tuple[PositiveInt, ...] = Field(default=(), description="ids of the structures it thins; empty: all")
    per_structure: bool = Field(default=False, description="each structure's slices are spaced over those that hold it")
    native: bool = Field(default=False, description="slices of the file's grid are chosen, not of the harmonised one")
    sources: tuple[str, ...] = Field(default=(), description="cards it applies to; empty: all")

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == FULL_VIEW:
            msg = f"'{FULL_VIEW}' stands for all labels; choose another name"
            raise ValueError(msg)
        return name

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(axes) - set(AXES))
        if unknown or not axes:
            msg = f"axes: found {unknown or 'none'}, expected some of {', '.join(AXES)}"
            raise ValueError(msg)
        return axes

    @model_validator(mode="after")
    def _one_rule(self) -> "View":
        if (self.fraction is None) == (self.every is None):
            raise ValueError("expected either a fraction of the slices or every K-th slice")
        if self.every is not None and self.seed is not None:
            raise ValueError("every K-th slice leaves nothing to chance; random slices need a fraction")
        return self

    @property
    def how(self) -> How:
        """How slices are chosen."""
        if self.every is not None:
            return "every"
        return "even" if self.seed is None else "random"

    def applies_to(self, source: str) -> bool:
        """Whether the view thins the labels of this source."""
        return not self.sources or source in self.sources

    def can_thin(self, annotation: Annotation) -> bool:
        """Whether the case has no slice lists yet, or has them along the view's axes."""
        return annotation.can_thin([AXES[name] for name in self.axes])

    def apply(
        self,
        annotation: Annotation,
        key: str,
        shape: Sequence[int],
        occupied: Occupied,
        grids: tuple[Grid, Grid] | None = None,
    ) -> Annotation:
        """Return the annotation of a case as this view shows it.

        Parameters
        ----------
        annotation
            All that is known of the case.
        key
            ``source/case``.
        shape
            Harmonised ``(X, Y, Z)``.
        occupied
            Slices that hold each structure; read by a view ``per_structure`` only.
        grids
            Grid of the case's file, and the harmonised one; read by a ``native`` view only.

        Returns
        -------
        Annotation
            Every slice in which something is known is a group of its own. A case that the view does not apply to,
            or that carries slice lists along other axes than the view's, is returned as it is.
        """
        if not self.applies_to(key.partition("/")[0]) or not self.can_thin(annotation):
            return annotation
        kept = {}
        for axis in (AXES[name] for name in self.axes):
            known = annotation.known_slices(axis, shape[axis])
            kept[axis] = self._kept(
                self._line(axis, key, shape, grids), known, held_slices(occupied, axis, known.shape)
            )
        return annotation.thinned(kept)

    def _line(self, axis: int, key: str, shape: Sequence[int], grids: tuple[Grid, Grid] | None) -> "_Line":
        """Return the slices along ``axis`` among which the view chooses."""
        nearest, n = np.arange(shape[axis]), shape[axis]
        if self.native:
            if grids is None:
                raise ValueError(f"view {self.name}: chooses among the file's slices and needs the file's grid")
            file, harmonised = grids
            native_axis = nib.io_orientation(file.affine)[:, 0].tolist().index(axis)
            position = harmonised_positions(file.shape, file.affine, harmonised)[axis]
            # Ties go down, as for labels that come sparse from the source (`slice_rows`).
            nearest, n = np.ceil(position - 0.5).astype(int), file.shape[native_axis]
        rank = np.zeros(n, dtype=np.uint64) if self.seed is None else random_ranks(n, self.seed, key, axis)
        return _Line(nearest, rank)

    def _kept(self, line: "_Line", known: NDArray[np.bool_], held: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return bool ``(n, N)``: what each slice may still know.

        Parameters
        ----------
        line
            The slices to choose among.
        known, held
            bool ``(n, N)``: the structures that a slice knows, and those that it holds.
        """
        kept = np.ones(known.shape, dtype=bool)
        columns = np.array(self.structures or range(1, known.shape[1] + 1)) - 1
        if not self.per_structure:
            everywhere = np.ones(len(line.rank), dtype=bool)
            kept[:, columns] = self._chosen(everywhere, line.rank)[line.nearest, None]
            return kept
        for column in columns:
            with_it, without_it = np.zeros((2, len(line.rank)), dtype=bool)
            with_it[line.nearest[known[:, column] & held[:, column]]] = True
            without_it[line.nearest[known[:, column]]] = True
            chosen = self._chosen(with_it, line.rank) | self._chosen(without_it & ~with_it, line.rank)
            kept[:, column] = chosen[line.nearest]
        return kept

    def _chosen(self, among: NDArray[np.bool_], rank: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return bool ``(n,)``: the slices that stay of those in ``among`` ``(n,)``; ``rank`` ``(n,)`` is chance."""
        slices = np.flatnonzero(among)
        chosen = np.zeros(len(among), dtype=bool)
        if len(slices):
            chosen[slices[self._picked(rank[slices])]] = True
        return chosen

    def _picked(self, rank: NDArray[np.uint64]) -> NDArray[np.int_]:
        """Return which of ``len(rank)`` slices stay, at least one."""
        if self.fraction is None:
            return every_kth_slice(len(rank), self.every or 1)
        if self.seed is None:
            return evenly_spaced_slices(len(rank), self.fraction)
        return lowest_ranked_slices(rank, self.fraction)


@dataclass(frozen=True, eq=False)
class _Line:
    """Slices along an axis among which a view chooses: those of the harmonised grid, or of the file.

    Parameters
    ----------
    nearest
        int ``(n,)``: for each harmonised slice, the one of them that decides about it.
    rank
        uint64 ``(m,)``: a random number for each of them.
    """

    nearest: NDArray[np.int_]
    rank: NDArray[np.uint64]


def held_slices(occupied: Occupied, axis: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return bool of ``shape`` ``(n, N)``: the structures that each of the n slices along ``axis`` holds."""
    held = np.zeros(shape, dtype=bool)
    for structure, runs in occupied.items():
        for first, stop in runs[axis]:
            held[first:stop, structure - 1] = True
    return held
