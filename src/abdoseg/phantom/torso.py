"""The trunk: body wall, cavity, lungs, muscles and bones, all of which keep their place when organs are painted."""

from dataclasses import dataclass

import numpy as np

from abdoseg.phantom.arrays import BoolArray, Float64Array, FloatArray, Triple
from abdoseg.phantom.body import Subject
from abdoseg.phantom.canvas import Canvas
from abdoseg.phantom.shapes import Capsule, Ellipsoid, Puck, Shape, Slab, Tube
from abdoseg.phantom.tissues import RIBS, VERTEBRAE, tissue_id, tissues_where

EVERYTHING: BoolArray = np.ones(256, dtype=np.bool_)
_INSIDE = ~tissues_where(names=("air", "table", "skin", "subcutaneous_fat"))

SIDES: tuple[tuple[str, float], ...] = (("right", 1.0), ("left", -1.0))
"""Name of a side and the sign of x there."""


@dataclass(frozen=True)
class Section:
    """The oval outline at a height: half width, half depth and the middle's y, mm."""

    z: float
    width: float
    depth: float
    middle: float


MUSCLE_OUTLINE = (
    Section(-340, 166, 98, -4),
    Section(-240, 160, 95, 6),
    Section(-130, 142, 93, 22),
    Section(-50, 132, 91, 29),
    Section(50, 140, 96, 29),
    Section(150, 142, 99, 26),
    Section(280, 132, 92, 18),
)
CAVITY_OUTLINE = (
    Section(-300, 16, 22, 8),
    Section(-285, 42, 42, 8),
    Section(-245, 60, 55, 8),
    Section(-190, 76, 64, 12),
    Section(-130, 112, 76, 24),
    Section(-50, 117, 78, 33),
    Section(50, 127, 84, 31),
    Section(150, 128, 86, 28),
    Section(280, 116, 78, 22),
)
_SHOULDER_Z = 32.0
"""Height above which the diaphragm closes the cavity, mm."""


def _power(u: FloatArray) -> FloatArray:
    """Return u to the power 2.5, the exponent of the outlines: a little squarer than an ellipse."""
    return np.asarray(u * u * np.sqrt(u), dtype=np.float32)


def spine_y(z: float | Float64Array) -> float | Float64Array:
    """Return the y of the middle of the vertebral bodies: lumbar lordosis, thoracic kyphosis."""
    return np.interp(z, (-140, -70, 0, 110, 200, 320), (-14.0, 2.0, 0.0, -14.0, -26.0, -30.0))


def paint_torso(canvas: Canvas, subject: Subject) -> None:
    """Paint everything but the organs."""
    _paint_layers(canvas, subject)
    _paint_chest(canvas)
    _paint_muscles(canvas)
    _paint_spine(canvas)
    _paint_ribs(canvas)
    _paint_pelvis(canvas)


def _outline(canvas: Canvas, sections: tuple[Section, ...], grow: float, bulge: float) -> tuple[FloatArray, FloatArray]:
    """Return the oval coordinate (1 on the outline) to the power 2.5, and the mean radius, per voxel."""
    levels = np.arange(-520.0, 420.0)
    knots = [s.z for s in sections]
    width = np.interp(levels, knots, [s.width for s in sections]) + grow
    depth = np.interp(levels, knots, [s.depth for s in sections]) + grow * 0.85
    middle = np.interp(levels, knots, [s.middle for s in sections])
    # A belly bulges to the front, so the back stays where it is.
    extra = bulge * np.exp(-(((levels + 40.0) / 110.0) ** 2))
    table = np.stack([1 / width, 1 / (depth + extra), middle + extra], axis=0).astype(np.float32)
    level = np.clip(canvas.z + 520.5, 0, len(levels) - 1).astype(np.int16)
    u = np.abs(canvas.x * table[0][level])
    v = np.abs((canvas.y - table[2][level]) * table[1][level])
    return _power(u) + _power(v), (2.0 / (table[0] + table[1])).astype(np.float32)[level]


def _paint_layers(canvas: Canvas, subject: Subject) -> None:
    """Paint skin, fat under the skin, muscle wall, diaphragm, lungs and the fat that fills the cavity."""
    bulge = 14.0 * subject.visceral - 2.0
    outer, radius = _outline(canvas, MUSCLE_OUTLINE, subject.subcutaneous_mm, bulge)
    muscle, _ = _outline(canvas, MUSCLE_OUTLINE, 0.0, bulge)
    cavity, inner_radius = _outline(canvas, CAVITY_OUTLINE, 0.0, bulge)
    right = canvas.x > 0
    height = 112.0 + 7.0 * np.tanh(canvas.x / 40.0) - 7.0 * np.exp(-((canvas.x / 28.0) ** 2))
    dome = _power(np.maximum(canvas.z - _SHOULDER_Z, 0.0) / height)
    fat_rim = np.float32(0.945 - 0.04 * subject.visceral)
    layers = (
        ("skin", outer < 1.0),
        ("subcutaneous_fat", outer < 1.0 - 2.5 * 2.0 / radius),
        ("muscle", muscle < 1.0),
        # Below the crest fat lies between the muscles, which are painted one by one.
        ("wall_fat", (muscle < 1.0) & (canvas.z < -118.0) & (cavity > 1.0 + 2.5 * 11.0 / inner_radius)),
        ("lung_right", (cavity < 1.0) & right),
        ("lung_left", (cavity < 1.0) & ~right),
        ("diaphragm", (cavity < 1.0) & (cavity + dome < 1.09)),
        ("wall_fat", cavity + dome < 1.0),
        ("visceral_fat", cavity + dome < fat_rim),
    )
    for name, where in layers:
        canvas.tissue[where] = tissue_id(name)


def _paint_chest(canvas: Canvas) -> None:
    """Paint the heart, the great vessels' stubs and branching lung vessels."""
    lungs = tissues_where(names=("lung_right", "lung_left"))
    canvas.paint(Ellipsoid((-28, 52, 178), (58, 42, 46), (0, -22, 20)), "heart", lungs)
    mediastinum = Tube(np.array([[0.0, 12.0, 120.0], [0.0, 10.0, 200.0], [0.0, 12.0, 330.0]]), (32, 30, 34))
    canvas.paint(mediastinum, "wall_fat", lungs)
    rng = np.random.default_rng(7)  # the same tree in everybody; the warp makes it differ
    for _, sign in SIDES:
        for _ in range(14):
            start = np.array([sign * 40.0, 5.0, 200.0])
            end = np.array([sign * rng.uniform(70, 115), rng.uniform(-35, 75), rng.uniform(120, 260)])
            middle = 0.5 * (start + end) + rng.normal(0, 6, size=3)
            canvas.paint(Tube(np.stack([start, middle, end]), (4.0, 2.5, 1.4)), "lung_vessel", lungs)


_HIP_MUSCLES: tuple[tuple[tuple[Triple, ...], tuple[float, ...]], ...] = (
    (((128, 40, -120), (136, 30, -165), (134, 10, -235)), (10, 22, 16)),
    (((116, -22, -115), (122, -22, -165), (120, -22, -240)), (10, 24, 16)),
    (((106, 34, -112), (98, 34, -150), (92, 44, -200)), (12, 18, 17)),
    (((118, 74, -150), (116, 66, -220), (110, 60, -360)), (7, 17, 26)),
    (((146, 40, -170), (146, 34, -240), (140, 28, -360)), (6, 11, 18)),
    (((24, 48, -268), (50, 30, -300), (74, 20, -360)), (12, 24, 34)),
    (((50, -4, -262), (88, -12, -272), (122, -14, -276)), (12, 14, 12)),
    (((56, -24, -296), (72, -34, -320), (84, -36, -360)), (14, 22, 26)),
)
"""Middle lines and radii of the muscles around the right hip: gluteus medius, iliacus, thigh and its adductors."""


def _paint_muscles(canvas: Canvas) -> None:
    """Paint psoas, the muscles beside the spine and the buttocks."""
    for side, sign in SIDES:
        psoas = [(26, -4, 45), (36, -4, 0), (46, -2, -60), (58, 8, -120), (78, 30, -180), (92, 40, -240)]
        points = np.array([(sign * x, y, z) for x, y, z in psoas], dtype=float)
        canvas.paint(Tube(points, (7, 13, 20, 21, 18, 15)), f"psoas_{side}", _INSIDE)
        back = np.array([(sign * 34.0, float(spine_y(z)) - 46.0, z) for z in (-170, -100, 0, 120, 320)])
        canvas.paint(Tube(back, (14, 23, 25, 22, 20)), f"paraspinal_{side}", _INSIDE)
        for line, radii in _HIP_MUSCLES:
            points = np.asarray(line, dtype=float) * (sign, 1.0, 1.0)
            canvas.paint(Tube(points, radii), "muscle", tissues_where(names=("wall_fat",)))
        loin = Capsule(np.array([[sign * 74.0, -46.0, -90.0], [sign * 60.0, -47.0, 30.0]]), (12.0, 9.0))
        canvas.paint(loin, "muscle", _INSIDE)
        seat = Ellipsoid((sign * 78, -62, -222), (60, 27, 84), (0, 0, sign * -14))
        canvas.paint(seat, f"gluteus_{side}", tissues_where(names=("wall_fat", "muscle")))


def _paint_spine(canvas: Canvas) -> None:
    """Paint vertebrae with their processes, discs, the canal and the sacrum."""
    pitch, z = 35.0, -122.0
    for name in VERTEBRAE:
        tissue, y = f"vertebra_{name}", float(spine_y(z))
        width = 24.0 if name.startswith("L") else 20.0
        slope = float(np.degrees(np.arctan2(float(spine_y(z + 5)) - float(spine_y(z - 5)), 10.0)))
        turn = (-slope, 0.0, 0.0)
        disc = Puck((0, y, z + pitch / 2), (width + 0.5, 16.5, 6.0), turn)
        canvas.paint(disc, "disc", _INSIDE)
        for shape in _vertebra(y, z, width, pitch, turn):
            canvas.paint(shape, tissue, _INSIDE)
        z, pitch = z + pitch, pitch - 0.9
    sacrum = np.array([[0.0, -16.0, -142.0], [0.0, -42.0, -175.0], [0.0, -56.0, -210.0], [0.0, -50.0, -240.0]])
    for offset in (-30.0, -15.0, 0.0, 15.0, 30.0):
        points = sacrum + np.array([[offset], [offset * 0.8], [offset * 0.4], [0.0]]) * np.array([[1.0, 0.0, 0.0]])
        canvas.paint(Tube(points, (18, 16, 11, 6)), "sacrum", _INSIDE)
    heights = np.linspace(-200.0, 340.0, 24)
    canal = np.stack([np.zeros(24), np.asarray(spine_y(heights)) - 26.0, heights], axis=1)
    canal[heights < -130, 1] -= 8.0
    canvas.paint(Tube(canal, (8.5,) * 24), "spinal_cord", _INSIDE)


def _vertebra(y: float, z: float, width: float, pitch: float, turn: Triple) -> list[Shape]:
    """Return the shapes of one vertebra: body, arch, spinous and transverse processes."""
    shapes: list[Shape] = [
        Puck((0, y, z), (width, 16.5, pitch / 2 - 4.0), turn),
        Slab((0, y - 50, z - 8), (3.5, 15, 10), (15, 0, 0)),
        Capsule(np.array([[-14.0, y - 34, z - 4], [14.0, y - 34, z - 4]]), (6.0, 6.0)),
    ]
    for _, sign in SIDES:
        arch = np.array([[sign * 13.0, y - 12, z + 4], [sign * 15.0, y - 34, z - 2]])
        process = np.array([[sign * 15.0, y - 26, z + 2], [sign * 42.0, y - 32, z + 4]])
        shapes += [Capsule(arch, (5.5, 6.0)), Capsule(process, (5.0, 3.5))]
    return shapes


def _paint_ribs(canvas: Canvas) -> None:
    """Paint the lower ribs: arcs in the body wall that sink towards the front; and the breastbone."""
    for number in RIBS:
        top = 58.0 + 31.0 * (12 - number)
        reach = {12: 0.32, 11: 0.5}.get(number, 0.86)
        angle = np.linspace(-0.5 * np.pi + 0.3, -0.5 * np.pi + 0.3 + reach * (np.pi - 0.45), 12)
        sink = 62.0 * np.linspace(0.0, reach, 12) ** 1.1
        for side, sign in SIDES:
            x = 131.0 * np.cos(angle) * sign
            y = 26.0 + 89.0 * np.sin(angle)
            arc = np.stack([x, y, top - sink], axis=1)
            canvas.paint(Tube(arc, (5.2,) * 12), f"rib_{side}_{number}", _INSIDE)
    canvas.paint(Slab((0, 119, 195), (16, 5, 60), edge=4.0), "sternum", _INSIDE)


_CREST: tuple[Triple, ...] = (
    (118, 74, -138),
    (128, 58, -118),
    (131, 34, -102),
    (124, 8, -94),
    (108, -20, -96),
    (86, -44, -106),
    (62, -60, -122),
)
"""The rim of the right hip bone, from the front to the back."""


def _paint_pelvis(canvas: Canvas) -> None:
    """Paint hip bones as fans of struts from socket to crest, then thigh bones with their heads."""
    for side, sign in SIDES:
        hip, flip = f"hip_{side}", np.array([sign, 1.0, 1.0])
        socket = np.array([94.0, 14.0, -212.0])
        for i in range(len(_CREST) - 1):
            for t in (0.0, 0.25, 0.5, 0.75):
                crest = np.asarray(_CREST[i]) * (1 - t) + np.asarray(_CREST[i + 1]) * t
                canvas.paint(Capsule(np.stack([socket, crest]) * flip, (8.0, 6.0)), hip, _INSIDE)
        struts = (
            [(94, 14, -215), (50, 52, -244), (7, 60, -262)],
            [(96, 4, -235), (66, -20, -285), (52, 0, -306), (22, 46, -278)],
            [(94, 14, -212), (78, -20, -175), (52, -48, -140)],
        )
        for strut, radii in zip(struts, ((13, 8, 9), (13, 12, 8, 7), (12, 11, 9)), strict=True):
            canvas.paint(Tube(np.asarray(strut, float) * flip, radii), hip, _INSIDE)
        head = (sign * 94.0, 14.0, -238.0)
        canvas.paint(Ellipsoid(head, (31, 31, 30)), hip, _INSIDE)
        canvas.paint(Ellipsoid(head, (25.5, 25.5, 25.5)), "muscle", _INSIDE)
        neck = np.array([(94, 14, -238), (118, 8, -256), (136, 4, -272), (134, 6, -310), (126, 8, -360)], float)
        canvas.paint(Tube(neck * flip, (15, 14, 19, 16, 14)), f"femur_{side}", _INSIDE)
        canvas.paint(Ellipsoid(head, (23, 23, 23)), f"femur_head_{side}", _INSIDE)
