"""Pictures: slices with structures over them, in the colours that a structure has everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.files import whole_files

OPACITY = 0.55


@dataclass(frozen=True, eq=False)
class Panel:
    """One row of a picture.

    Parameters
    ----------
    title
        Written beside the row.
    image
        float32 ``(X, Y, Z)``, RAS+, in [0, 1].
    labels
        Column title -> uint8 ``(X, Y, Z)``, structure ids; each gives a column for each plane.
    """

    title: str
    image: NDArray[np.float32]
    labels: dict[str, NDArray[np.uint8]]


PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane -> the RAS+ axis across it."""


def save_overlays(
    path: Path, panels: Sequence[Panel], anatomy: Anatomy, planes: Sequence[str] = ("coronal", "axial")
) -> None:
    """Write a PNG with, for each panel, a slice in each plane: bare, then under each label map.

    The slices are those that hold most structures. The patient's right is on the left, as radiologists look.

    Raises
    ------
    WorkspaceError
        If the file cannot be written.
    """
    columns = len(planes) * (1 + max(len(panel.labels) for panel in panels))
    figure = Figure(figsize=(1.9 * columns, 2.2 * len(panels) + 0.9), facecolor="white", layout="constrained")
    axes = figure.subplots(len(panels), columns, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for axis in row:
            axis.set_axis_off()
        _draw_row(row, panel, anatomy, planes)
    shown = set().union(*(np.unique(label).tolist() for panel in panels for label in panel.labels.values()))
    handles = [Patch(color=s.colour, label=s.title) for i, s in enumerate(anatomy.structures, start=1) if i in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=6.5, frameon=False)
    with whole_files(path) as (draft,):
        figure.savefig(draft, dpi=130)


def _draw_row(row: NDArray[np.object_], panel: Panel, anatomy: Anatomy, planes: Sequence[str]) -> None:
    shown = next(iter(panel.labels.values()))
    column = 0
    for plane in planes:
        axis = PLANES[plane]
        index = busiest_slice(shown, axis)
        image = _upright(panel.image, axis, index)
        for title, label in [(panel.title, None), *panel.labels.items()]:
            rgb = np.repeat(image[..., None], 3, axis=2)
            if label is not None:
                rgb = _blend(rgb, _upright(label, axis, index), anatomy)
            row[column].imshow(rgb, interpolation="nearest", aspect="equal")
            row[column].set_title(title if label is not None else f"{title}, {plane}", fontsize=7)
            column += 1


def busiest_slice(label: NDArray[np.uint8], axis: int) -> int:
    """Return the index along ``axis`` of the slice with most structures, then most of their voxels."""
    others = tuple(a for a in range(3) if a != axis)
    kinds = sum((label == c).any(axis=others).astype(int) for c in np.unique(label[label > 0]))
    score = np.asarray(kinds) * float(label.size) + (label > 0).sum(axis=others)
    return int(np.argmax(score))


def _upright(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return a slice as radiologists see it: patient's right on the left, anterior or superior up."""
    turned: NDArray[Any] = np.take(volume, index, axis=axis).T[::-1, ::-1]
    return turned


def _blend(rgb: NDArray[np.float32], label: NDArray[Any], anatomy: Anatomy) -> NDArray[np.float32]:
    colours = np.array([(0.0, 0.0, 0.0), *(to_rgb(s.colour) for s in anatomy.structures)], dtype=np.float32)
    known = np.where(label <= len(anatomy), label, 0).astype(int)
    over = (known > 0)[..., None] * OPACITY
    blended: NDArray[np.float32] = (rgb * (1 - over) + colours[known] * over).astype(np.float32)
    return blended
