"""Choose the voxel at a patch's centre.

Each function also draws the axis whose slice list the patch will use, where a case has several. Labels and lists of
labelled voxels may be on disk: no more of them is read than the choice needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.sampling.candidates import candidate_voxels

TRIES = 64
"""Voxels tried at random before all background voxels are listed."""


class Readable(Protocol):
    """An array, or what reads one in part: by an integer for every axis, by slices, or all of it by ``...``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return that part."""
        ...


class LabelledVoxels(Protocol):
    """Where the labelled voxels of a case are, in memory (:class:`abdoseg.case.Foreground`) or on disk."""

    @property
    def index(self) -> Readable:
        """C-order voxel indices, those of structure 1 first."""
        ...

    @property
    def start(self) -> NDArray[np.int64]:
        """Structure ``c`` owns ``index[start[c - 1]:start[c]]``."""
        ...


@dataclass(frozen=True)
class Centre:
    """Where a patch is cut.

    Parameters
    ----------
    voxel
        Index of the centre voxel.
    axis
        Axis of the slice list that the patch uses; ``None`` for a case without one.
    """

    voxel: tuple[int, int, int]
    axis: int | None


def choose_foreground(
    generator: np.random.Generator,
    structure: int,
    foreground: LabelledVoxels,
    annotation: Annotation,
    shape: Sequence[int],
) -> Centre:
    """Choose uniformly among a structure's voxels in which the annotation knows it.

    The axis is uniform over those along which there is such a voxel. One entry of ``foreground`` is read, or the
    structure's part of it where the case has slice lists.

    Raises
    ------
    LookupError
        If there is none.
    """
    first, stop = (int(end) for end in foreground.start[structure - 1 : structure + 1])
    if not annotation.slices:
        if stop == first or not annotation.rows[0, structure - 1]:
            raise _none_of(structure)
        return Centre(_voxel(foreground.index[first + int(generator.integers(stop - first))], shape), None)
    start = np.where(np.arange(len(foreground.start)) < structure, 0, stop - first)
    own = Foreground(np.asarray(foreground.index[first:stop]), start)
    found = {axis: candidate_voxels(own, annotation, structure, axis, shape) for axis in annotation.axes()}
    found = {axis: index for axis, index in found.items() if len(index)}
    if not found:
        raise _none_of(structure)
    along = tuple(found)[generator.integers(len(found))]
    return Centre(_voxel(found[along][generator.integers(len(found[along]))], shape), along)


def _none_of(structure: int) -> LookupError:
    return LookupError(f"no annotated voxel of structure {structure}")


def choose_background(generator: np.random.Generator, label: Readable, annotation: Annotation) -> Centre:
    """Choose uniformly among the voxels outside drawn structures, in annotated slices or not.

    Parameters
    ----------
    generator
        Source of randomness.
    label
        uint8 ``(X, Y, Z)`` as stored; what the annotation does not vouch for counts as not drawn. It is read voxel by
        voxel; whole only if all tries fail.
    annotation
        The case's annotation as the view shows it.

    Notes
    -----
    Rejection among :data:`TRIES` voxels, then the exact list of background voxels; both are uniform. An image that
    is drawn all over has no background, and any of its voxels is taken.
    """
    axis = _one_of(generator, _axes(annotation))
    tries = generator.integers(int(np.prod(label.shape)), size=TRIES)
    for index in tries:
        voxel = _voxel(index, label.shape)
        if not _is_drawn(voxel, int(label[voxel]), annotation, axis, label.shape):
            return Centre(voxel, axis)
    background = np.flatnonzero(annotation.known_label(np.asarray(label[...]), axis) == 0)
    if len(background):
        return Centre(_voxel(background[generator.integers(len(background))], label.shape), axis)
    return Centre(_voxel(tries[0], label.shape), axis)


def choose_anywhere(generator: np.random.Generator, annotation: Annotation, shape: Sequence[int]) -> Centre:
    """Choose uniformly among all voxels of the image."""
    axis = _one_of(generator, _axes(annotation))
    return Centre(_voxel(generator.integers(int(np.prod(shape))), shape), axis)


def _axes(annotation: Annotation) -> tuple[int | None, ...]:
    """Return the axes to choose among: those with a slice list, or ``None`` alone."""
    return annotation.axes() or (None,)


def _one_of(generator: np.random.Generator, axes: tuple[int | None, ...]) -> int | None:
    """Return one of ``axes``, each as likely as the others."""
    return axes[generator.integers(len(axes))]


def _voxel(index: np.integer, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the coordinates of a C-order voxel index."""
    x, y, z = np.unravel_index(int(index), tuple(shape))
    return int(x), int(y), int(z)


def _is_drawn(
    voxel: tuple[int, int, int], value: int, annotation: Annotation, axis: int | None, shape: Sequence[int]
) -> bool:
    """Whether the annotation vouches for a structure at a voxel with label ``value``."""
    if not 0 < value <= annotation.n_structures:
        return False
    used_axis, groups = annotation.slice_groups(axis, shape)
    return bool(annotation.rows[groups[voxel[used_axis]], value - 1])
