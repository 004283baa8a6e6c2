"""Pictures: slices with structures over them, in the colours that a structure has everywhere."""

import math
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

TITLE, GAP, LEGEND_ROW, LEGEND_COLUMN = 0.2, 0.06, 0.17, 1.55
"""Inches: over a slice, between slices, and of a name in the legend."""

BOX = (10.0, 7.0)
"""Inches across and up that the picture of one case fills at most, titles and legend apart."""

ROW = 15.0
"""Inches across a picture of several cases, a row each."""

_DPI = 130

_SIZE, _CHARACTER = 7, 0.058
"""Points of a title, and about the inches of a character at that; longer titles than their slice are set smaller."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One case of a picture.

    Parameters
    ----------
    title
        Written over its image.
    image
        float32 ``(X, Y, Z)``, RAS+, in [0, 1]; voxels are cubes.
    labels
        Title -> uint8 ``(X, Y, Z)``, structure ids; each is drawn over the slice of each plane.
    """

    title: str
    image: NDArray[np.float32]
    labels: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Tile:
    """A slice as it is drawn: RGB ``(rows, columns, 3)`` in [0, 1], one voxel a pixel."""

    title: str
    rgb: NDArray[np.float32]

    @property
    def aspect(self) -> float:
        """Width by height."""
        rows, columns = self.rgb.shape[:2]
        return float(columns / rows)


Rows = Sequence[Sequence[Tile]]

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane -> the RAS+ axis across it."""


def save_overlays(
    path: Path, panels: Sequence[Panel], anatomy: Anatomy, planes: Sequence[str] = ("coronal", "axial")
) -> None:
    """Write a PNG with a slice of each panel in each plane: bare, then under each label map.

    The slices are those that hold most structures. The patient's right is on the left, as radiologists look. Several
    panels have a row each. One panel has its planes in columns or in rows, whichever shows the smallest plane larger.

    Parameters
    ----------
    path
        File to write.
    panels
        The cases, all with the same titles of label maps.
    anatomy
        Names and colours.
    planes
        Of :data:`PLANES`, in order.

    Raises
    ------
    WorkspaceError
        If the file cannot be written.
    """
    tiles = [_tiles(panel, anatomy, planes) for panel in panels]
    if len(tiles) == 1:
        rows, width = _of_one_case(tiles[0])
    else:
        rows, width = [[tile for plane in of_case for tile in plane] for of_case in tiles], ROW
    shown = set().union(*(np.unique(label).tolist() for panel in panels for label in panel.labels.values()))
    handles = [Patch(color=s.colour, label=s.title) for i, s in enumerate(anatomy.structures, start=1) if i in shown]
    with whole_files(path) as (draft,):
        _figure(rows, width, handles).savefig(draft, dpi=_DPI)


def _tiles(panel: Panel, anatomy: Anatomy, planes: Sequence[str]) -> list[list[Tile]]:
    """Return for each plane its slice: bare, then under each label map."""
    first = next(iter(panel.labels.values()))
    found = []
    for plane in planes:
        axis = PLANES[plane]
        index = busiest_slice(first, axis)
        bare = np.repeat(_upright(panel.image, axis, index)[..., None], 3, axis=2)
        overlays = [
            Tile(title, _blend(bare, _upright(label, axis, index), anatomy)) for title, label in panel.labels.items()
        ]
        found.append([Tile(f"{panel.title}, {plane}", bare), *overlays])
    return found


def _of_one_case(planes: list[list[Tile]]) -> tuple[list[list[Tile]], float]:
    """Return the rows of one case's picture, and their width in inches.

    Planes are columns (each row one kind: bare, then each label map) or rows. Columns suit tall scans, rows suit thin
    slabs, whose axial plane would be a stamp beside the others. A row has one height, so that nothing stays empty.
    """
    across = [list(kind) for kind in zip(*planes, strict=True)]
    choices = [(rows, _fitting_width(rows)) for rows in (across, planes)]
    return max(choices, key=lambda choice: _smallest_scale(*choice))


def _fitting_width(rows: Rows) -> float:
    """Return the width in inches at which rows fill :data:`BOX` without leaving it."""
    return min(BOX[0], BOX[1] / sum(1 / sum(tile.aspect for tile in row) for row in rows))


def _smallest_scale(rows: Rows, width: float) -> float:
    """Return the least inches a voxel of any tile."""
    return min(width / sum(tile.aspect for tile in row) / len(tile.rgb) for row in rows for tile in row)


def _figure(rows: Rows, width: float, handles: Sequence[Patch]) -> Figure:
    """Return rows under each other, each filling the width at one height, and the legend below."""
    columns = max(1, int(width / LEGEND_COLUMN))
    legend = LEGEND_ROW * math.ceil(len(handles) / columns) + GAP
    heights = [(width - GAP * (len(row) + 1)) / sum(tile.aspect for tile in row) for row in rows]
    total = sum(heights) + TITLE * len(rows) + legend
    figure = Figure(figsize=(width, total), facecolor="white")
    top = total
    for row, height in zip(rows, heights, strict=True):
        top -= TITLE + height
        left = GAP
        for tile in row:
            place = (left / width, top / total, tile.aspect * height / width, height / total)
            _draw(figure, tile, place, size=min(_SIZE, _SIZE * tile.aspect * height / _CHARACTER / len(tile.title)))
            left += tile.aspect * height + GAP
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=6.5, frameon=False, borderpad=0)
    return figure


def _draw(figure: Figure, tile: Tile, place: tuple[float, float, float, float], size: float) -> None:
    axes = figure.add_axes(place)
    axes.set_axis_off()
    axes.imshow(tile.rgb, interpolation="nearest", aspect="auto")  # the place has the slice's own aspect
    axes.set_title(tile.title, fontsize=size, pad=3)


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
