"""The annotation of a case voxel by voxel, for programs that do not know slice lists."""

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.types import UNKNOWN_LABEL, Label


def voxel_groups(annotation: Annotation, label: Label) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the group of every voxel, and what is known in each group.

    Parameters
    ----------
    annotation
        Of the case.
    label
        uint8 ``(X, Y, Z)``; voxels of 255 become one more group in which nothing is known.

    Returns
    -------
    tuple
        int32 ``(X, Y, Z)`` of values 0..G-1, and bool ``(G, N)``. With slice lists along several axes, a voxel knows
        what any of its slices knows, and voxels that know the same share a group.
    """
    if len(annotation.slices) > 1:
        group, rows = _joined(annotation, label.shape)
    else:
        group, rows = np.array(annotation.group_volume(label.shape), dtype=np.int32), annotation.rows
    unknown = label == UNKNOWN_LABEL
    if unknown.any():
        group[unknown] = len(rows)
        rows = np.concatenate([rows, np.zeros((1, rows.shape[1]), dtype=bool)])
    return group, rows


def _joined(annotation: Annotation, shape: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    different, number = np.unique(annotation.rows, axis=0, return_inverse=True)
    group = np.zeros(shape, dtype=np.int64)
    rows = np.zeros((1, annotation.n_structures), dtype=bool)
    for axis in annotation.axes():
        along = number.reshape(-1)[annotation.group_volume(shape, axis)]
        every_pair = (rows[:, None] | different[None]).reshape(-1, annotation.n_structures)
        rows, joined = np.unique(every_pair, axis=0, return_inverse=True)
        group = joined.reshape(-1)[group * len(different) + along]
    return group.astype(np.int32), rows


def known_label(label: Label, group: NDArray[np.int32], rows: NDArray[np.bool_]) -> Label:
    """Return ``label`` with 0 where a voxel's group does not know its structure; 255 stays."""
    n = rows.shape[1]
    table = np.zeros((len(rows), 256), dtype=np.uint8)
    table[:, 1 : n + 1] = np.where(rows, np.arange(1, n + 1), 0)
    table[:, UNKNOWN_LABEL] = UNKNOWN_LABEL
    known: Label = table[group, label]
    return known
