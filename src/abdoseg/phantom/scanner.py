"""Scan a person: choose the field of view, lay the voxel grid, paint, turn tissues into intensities."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from abdoseg.phantom.arrays import Float64Array, FloatArray, Triple, UInt8Array
from abdoseg.phantom.body import Key, Phase, Sex, Subject, draw_subject
from abdoseg.phantom.bowel import paint_bowel
from abdoseg.phantom.canvas import Canvas, Grid
from abdoseg.phantom.contrast import Noise, ct_table, mr_table, render_ct, render_mr
from abdoseg.phantom.organs import paint_organs
from abdoseg.phantom.shapes import rotation
from abdoseg.phantom.tissues import structure_table, tissue_id
from abdoseg.phantom.torso import paint_torso

Modality = Literal["CT", "MR"]
Range = tuple[float, float]


@dataclass(frozen=True)
class View:
    """A field of view: where its top and bottom lie in the body frame (mm), and how the sides are cut.

    Parameters
    ----------
    weight
        How often it is chosen, relative to the protocol's other views.
    top, bottom
        Ranges to draw from.
    margin
        Air left around the body, mm; negative cuts into it.
    """

    weight: float
    top: Range
    bottom: Range
    margin: Range = (6.0, 22.0)


@dataclass(frozen=True)
class Protocol:
    """How a source's scans are made.

    Parameters
    ----------
    modality
        ``CT`` or ``MR``.
    spacing
        Voxel size along world x, y, z in mm at ``spacing_scale`` 1.
    codes
        Direction of the array axes (nibabel's codes), one choice per tuple.
    views
        Fields of view.
    phases
        Contrast phases to draw from.
    sigma
        Range of the noise's standard deviation.
    coronal
        Share of scans with the slice axis front to back.
    oblique
        Standard deviation of the turn of the scanner's axes, degrees.
    table
        Whether the patient lies on a table.
    """

    modality: Modality
    spacing: Triple
    codes: str
    views: tuple[View, ...]
    phases: tuple[Phase, ...] = ("portal",)
    sigma: Range = (8.0, 14.0)
    coronal: float = 0.0
    oblique: float = 0.0
    table: bool = True


@dataclass(frozen=True)
class Scan:
    """A finished phantom scan.

    Parameters
    ----------
    image
        HU, or MR signal in arbitrary units.
    tissue
        Tissue of every voxel, on the same grid.
    affine
        Voxel index to world RAS+ mm.
    """

    image: FloatArray
    tissue: UInt8Array
    affine: Float64Array
    modality: Modality
    sex: Sex

    @property
    def truth(self) -> UInt8Array:
        """Structure id of every voxel, 0 for background; all 16 structures."""
        return structure_table()[self.tissue]


def scan_person(key: Key, protocol: Protocol, spacing_scale: float) -> Scan:
    """Make the scan of a case; the same key and protocol always give the same voxels."""
    rng = key.rng("scan")
    subject = draw_subject(key, protocol.phases[int(rng.integers(len(protocol.phases)))])
    canvas = Canvas(lay_grid(subject, protocol, spacing_scale, rng), subject.warp)
    if protocol.table:
        _paint_table(canvas, _back_mm(subject))
    paint_torso(canvas, subject)
    paint_organs(canvas, subject)
    paint_bowel(canvas, subject)
    sigma = float(rng.uniform(*protocol.sigma))
    grain = key.rng("noise")
    if protocol.modality == "CT":
        image = render_ct(canvas.tissue, ct_table(key, subject.phase), Noise(sigma), grain)
    else:
        noise = Noise(sigma, bias=0.12)
        image = render_mr(canvas.tissue, mr_table(key), noise, grain, canvas.grid)
    return Scan(image, canvas.tissue, canvas.grid.affine, protocol.modality, subject.sex)


def lay_grid(subject: Subject, protocol: Protocol, spacing_scale: float, rng: np.random.Generator) -> Grid:
    """Return the voxel grid of a scan: a drawn field of view in the source's orientation."""
    weights = np.array([view.weight for view in protocol.views])
    view = protocol.views[int(rng.choice(len(weights), p=weights / weights.sum()))]
    margin = rng.uniform(*view.margin)
    half_x = 168.0 + subject.subcutaneous_mm + margin
    front = 122.0 + subject.subcutaneous_mm + 26.0 * subject.visceral + margin
    back = _back_mm(subject) + (16.0 if protocol.table else 4.0) + margin
    low = np.array([-half_x, -back, rng.uniform(*view.bottom)])
    high = np.array([half_x, front, rng.uniform(*view.top)])
    scale, origin = subject.warp.scale, subject.warp.origin
    spacing = np.asarray(protocol.spacing) * spacing_scale
    codes = protocol.codes
    if rng.random() < protocol.coronal:
        spacing, codes = spacing[[0, 2, 1]], codes[0] + codes[2] + "A"
    turn = rotation(tuple(rng.normal(0.0, protocol.oblique, size=3)))
    return _grid(low * scale + origin, high * scale + origin, spacing, codes, turn)


def _grid(low: Float64Array, high: Float64Array, spacing: Float64Array, codes: str, turn: Float64Array) -> Grid:
    """Return a grid over a world box, its array axes pointing as ``codes`` say, turned about the middle."""
    directions = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    columns, shape = np.zeros((3, 3)), [0, 0, 0]
    for array_axis, code in enumerate(codes):
        axis, sign = directions[code]
        columns[axis, array_axis] = sign * spacing[axis]
        shape[array_axis] = max(8, round(float(high[axis] - low[axis]) / float(spacing[axis])))
    affine = np.eye(4)
    affine[:3, :3] = turn @ columns
    affine[:3, 3] = 0.5 * (low + high) - affine[:3, :3] @ (np.asarray(shape) - 1.0) / 2.0
    return Grid(affine, (shape[0], shape[1], shape[2]))


def _back_mm(subject: Subject) -> float:
    """Return how far the back lies behind the body frame's origin, mm."""
    return 70.0 + 0.85 * subject.subcutaneous_mm


def _paint_table(canvas: Canvas, back_mm: float) -> None:
    """Paint a curved table top under the back, before the person covers part of it."""
    depth = canvas.y + (back_mm + 9.0) - np.square(canvas.x / 190.0) * 30.0
    canvas.tissue[np.abs(depth) < 4.0] = tissue_id("table")
