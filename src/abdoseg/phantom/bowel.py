"""Colon, rectum and small bowel: distractors that fill what fat the organs left."""

import numpy as np

from abdoseg.phantom.arrays import Float64Array
from abdoseg.phantom.body import Subject
from abdoseg.phantom.canvas import Canvas, Coat
from abdoseg.phantom.organs import FAT
from abdoseg.phantom.shapes import Cut, Tube
from abdoseg.phantom.tissues import tissues_where

_FRAME = (
    (78, 36, -118, 24),
    (92, 26, -84, 25),
    (98, 18, -50, 23),
    (92, 30, -22, 22),
    (62, 74, -34, 20),
    (10, 92, -52, 20),
    (-48, 86, -30, 19),
    (-92, 50, 4, 19),
    (-106, 14, 24, 18),
    (-104, -4, -10, 17),
    (-100, 2, -60, 16),
    (-92, 14, -108, 15),
    (-66, 30, -142, 15),
    (-28, 30, -168, 15),
    (14, 6, -176, 15),
    (4, -22, -184, 15),
)
"""The colon's middle line and radius: cecum, flexures, sigmoid; x, y, z, radius in mm."""

_RECTUM = ((4, -22, -184, 15), (0, -36, -206, 18), (0, -32, -238, 19), (0, -22, -262, 14), (0, -26, -292, 11))


def paint_bowel(canvas: Canvas, subject: Subject) -> None:
    """Paint the bowel."""
    _rectum(canvas)
    _colon(canvas, subject)
    _small_bowel(canvas, subject)


def _tube(rows: tuple[tuple[int, int, int, int], ...], haustra: float = 0.0) -> tuple[Float64Array, Tube]:
    table = np.asarray(rows, dtype=float)
    return table, Tube(table[:, :3], tuple(table[:, 3]), haustra)


def _rectum(canvas: Canvas) -> None:
    _, tube = _tube(_RECTUM)
    wall = tissues_where(names=("rectum",))
    canvas.paint_coats(tube, Coat("rectum", FAT), Coat("rectum_content", wall, -4.5))


def _colon(canvas: Canvas, subject: Subject) -> None:
    """Paint the colon frame with stool, and gas in the front of the parts that hold any."""
    place, rng = subject.places["colon"], subject.key.rng("colon")
    table, _ = _tube(_FRAME)
    points = place.points(table[:, :3] + rng.normal(0.0, 4.0, size=(len(table), 3)))
    radii = table[:, 3] * rng.uniform(0.8, 1.1)
    whole = Tube(points, tuple(radii), haustra=0.22)
    walls = tissues_where(names=("colon_wall",))
    canvas.paint_coats(whole, Coat("colon_wall", FAT), Coat("colon_stool", walls, -2.8))
    inner = tissues_where(names=("colon_stool",))
    for start in range(0, len(points) - 1, 3):
        if rng.random() < 0.5:
            piece = slice(start, start + 4)
            part = Tube(points[piece], tuple(radii[piece]), haustra=0.22)
            level = float(points[piece, 1].mean() + rng.uniform(-14, 10))
            canvas.paint(Cut(part, (0, 1, 0), level), "colon_gas", inner, grow=-2.8)


def _small_bowel(canvas: Canvas, subject: Subject) -> None:
    """Paint loops that wander through the lower cavity, each with its own wall."""
    rng = subject.key.rng("small bowel")
    bowel, wall = tissues_where(names=("bowel_wall", "bowel_content")), tissues_where(names=("bowel_wall",))
    for _ in range(int(rng.integers(15, 21))):
        center = rng.uniform((-64, 22, -190), (60, 88, -46))
        turn = np.linspace(0.0, rng.uniform(3.0, 6.0), 8)[:, None] + rng.uniform(0, 6.3, size=3)
        loop = center + np.sin(turn * rng.uniform(0.7, 1.3, size=3)) * rng.uniform(18, 36, size=3)
        radius = rng.uniform(9.5, 13.5)
        tube = Tube(loop, (radius,) * len(loop))
        canvas.paint_coats(
            tube, Coat("visceral_fat", bowel, 1.5), Coat("bowel_wall", FAT), Coat("bowel_content", wall, -3.0)
        )
