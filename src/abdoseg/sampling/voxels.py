"""Choose the voxel at a patch's centre.

Each function also draws the axis whose slice list the patch will use, where a case has several.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.sampling.candidates import candidate_voxels

TRIES = 64
"""Voxels tried at random before all background voxels are listed."""


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
    foreground: Foreground,
    annotation: Annotation,
    shape: Sequence[int],
) -> Centre:
    """Choose uniformly among a structure's voxels in which the annotation knows it.

    The axis is uniform over those along which there is such a voxel.

    Raises
    ------
    LookupError
        If there is none.
    """
    found = {axis: candidate_voxels(foreground, annotation, structure, axis, shape) for axis in _axes(annotation)}
    found = {axis: index for axis, index in found.items() if len(index)}
    if not found:
        msg = f"no annotated voxel of structure {structure}"
        raise LookupError(msg)
    axis = _one_of(generator, tuple(found))
    return Centre(_voxel(found[axis][generator.integers(len(found[axis]))], shape), axis)


def choose_background(generator: np.random.Generator, label: NDArray[np.uint8], annotation: Annotation) -> Centre:
    """Choose uniformly among the voxels outside drawn structures, in annotated slices or not.

    Parameters
    ----------
    generator
        Source of randomness.
    label
        uint8 ``(X, Y, Z)`` as stored; what the annotation does not vouch for counts as not drawn.
    annotation
        The case's annotation as the view shows it.

    Notes
    -----
    Rejection among :data:`TRIES` voxels, then the exact list of background voxels; both are uniform. An image that
    is drawn all over has no background, and any of its voxels is taken.
    """
    axis = _one_of(generator, _axes(annotation))
    tries = generator.integers(label.size, size=TRIES)
    outside = np.flatnonzero(~_is_drawn(tries, label, annotation, axis))
    if len(outside):
        return Centre(_voxel(tries[outside[0]], label.shape), axis)
    background = np.flatnonzero(annotation.known_label(label, axis) == 0)
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
    index: NDArray[np.int64], label: NDArray[np.uint8], annotation: Annotation, axis: int | None
) -> NDArray[np.bool_]:
    """Return, for voxels by C-order index, whether the annotation vouches for a structure there."""
    where = np.unravel_index(index, label.shape)
    used_axis, groups = annotation.slice_groups(axis, label.shape)
    value = label[where].astype(int)
    structure = (value > 0) & (value <= annotation.n_structures)
    return structure & annotation.rows[groups[where[used_axis]], np.where(structure, value - 1, 0)]
