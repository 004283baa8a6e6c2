"""Implicit shapes in the body frame: approximate signed distance in mm, negative inside.

A shape is evaluated on sub-boxes only, so a long tube is cut into short parts with small boxes of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation

from abdoseg.phantom.arrays import Float64Array, FloatArray, Triple


class Shape(Protocol):
    """Anything that can be painted."""

    def bounds(self) -> Float64Array:
        """Return the corners ``(2, 3)`` of a box around the shape, mm."""

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the approximate signed distance, mm, at body coordinates of any equal shape."""

    def parts(self) -> Iterator["Shape"]:
        """Yield shapes whose union is this shape, each with a tight box."""


def smooth_max(a: FloatArray, b: FloatArray, radius: float) -> FloatArray:
    """Return the maximum of two distances with edges rounded over ``radius`` mm (an intersection)."""
    gap = np.maximum(radius - np.abs(a - b), 0.0)
    return np.asarray(np.maximum(a, b) + gap * gap * (0.25 / radius), dtype=np.float32)


def rotation(tilt: Triple) -> Float64Array:
    """Return the matrix ``(3, 3)`` that turns by ``tilt`` degrees about x, then y, then z."""
    return np.asarray(Rotation.from_euler("xyz", tilt, degrees=True).as_matrix())


def _local(center: Triple, tilt: Triple, xyz: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return coordinates in the frame of a turned shape."""
    u, v, w = (axis - np.float32(c) for axis, c in zip(xyz, center, strict=True))
    if not any(tilt):
        return u, v, w
    m = rotation(tilt).T.astype(np.float32)
    a, b, c = (row[0] * u + row[1] * v + row[2] * w for row in m)
    return a, b, c


def _turned_box(center: Triple, half: Triple, tilt: Triple) -> Float64Array:
    reach = np.abs(rotation(tilt)) @ np.asarray(half)
    return np.stack([np.asarray(center) - reach, np.asarray(center) + reach])


@dataclass(frozen=True)
class Whole:
    """A shape that is its own only part."""

    def parts(self) -> Iterator["Shape"]:
        """Yield the shape itself."""
        yield self  # type: ignore[misc]


@dataclass(frozen=True)
class Ellipsoid(Whole):
    """An ellipsoid with ``semi`` axes in mm, turned by ``tilt`` degrees."""

    center: Triple
    semi: Triple
    tilt: Triple = (0.0, 0.0, 0.0)

    def bounds(self) -> Float64Array:
        """Return the corners of the box."""
        return _turned_box(self.center, self.semi, self.tilt)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the first-order distance, exact on the surface."""
        local = _local(self.center, self.tilt, (x, y, z))
        scaled = [axis / np.float32(s) for axis, s in zip(local, self.semi, strict=True)]
        # The floors give the exact middle, where both vanish, the depth of the shortest axis.
        k0 = np.maximum(np.sqrt(sum(s * s for s in scaled)), 1e-5)
        k1 = np.sqrt(sum((s / np.float32(a)) ** 2 for s, a in zip(scaled, self.semi, strict=True)))
        return np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, 1e-5 / min(self.semi)), dtype=np.float32)


@dataclass(frozen=True)
class Slab(Whole):
    """A box with ``half`` lengths in mm and all edges rounded over ``edge`` mm (thin sheets, processes)."""

    center: Triple
    half: Triple
    tilt: Triple = (0.0, 0.0, 0.0)
    edge: float = 1.5

    def bounds(self) -> Float64Array:
        """Return the corners of the box."""
        return _turned_box(self.center, self.half, self.tilt)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance to the rounded box."""
        local = _local(self.center, self.tilt, (x, y, z))
        over = [np.abs(axis) - np.float32(h - self.edge) for axis, h in zip(local, self.half, strict=True)]
        outside = np.sqrt(sum(np.maximum(o, 0.0) ** 2 for o in over))
        inside = np.minimum(np.maximum(np.maximum(over[0], over[1]), over[2]), 0.0)
        return np.asarray(outside + inside - self.edge, dtype=np.float32)


@dataclass(frozen=True)
class Puck(Whole):
    """A short upright cylinder with an elliptic section: ``semi`` is (x, y, half height) in mm (vertebrae)."""

    center: Triple
    semi: Triple
    tilt: Triple = (0.0, 0.0, 0.0)

    def bounds(self) -> Float64Array:
        """Return the corners of the box."""
        return _turned_box(self.center, self.semi, self.tilt)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance with the rims rounded."""
        u, v, w = _local(self.center, self.tilt, (x, y, z))
        a, b, h = self.semi
        radial = np.asarray((np.hypot(u / a, v / b) - 1.0) * min(a, b), dtype=np.float32)
        return smooth_max(radial, np.abs(w) - np.float32(h), 4.0)


@dataclass(frozen=True)
class Capsule(Whole):
    """A round-ended cone piece between two points: the part of a tube."""

    ends: Float64Array
    radii: tuple[float, float]

    def bounds(self) -> Float64Array:
        """Return the corners of the box."""
        (a, b), (r, q) = self.ends.tolist(), self.radii
        low = [min(u - r, v - q) for u, v in zip(a, b, strict=True)]
        high = [max(u + r, v + q) for u, v in zip(a, b, strict=True)]
        return np.array([low, high])

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance to the axis less the radius there."""
        start = self.ends[0].astype(np.float32)
        axis = (self.ends[1] - self.ends[0]).astype(np.float32)
        u, v, w = x - start[0], y - start[1], z - start[2]
        along = np.clip((u * axis[0] + v * axis[1] + w * axis[2]) / max(float(axis @ axis), 1e-6), 0.0, 1.0)
        away = (u - along * axis[0]) ** 2 + (v - along * axis[1]) ** 2 + (w - along * axis[2]) ** 2
        taper = np.float32(self.radii[1] - self.radii[0])
        return np.asarray(np.sqrt(away) - (self.radii[0] + along * taper), dtype=np.float32)


@dataclass(frozen=True)
class Tube:
    """A tube of varying radius along a smooth curve through control points.

    Parameters
    ----------
    points
        Control points ``(n, 3)``, mm.
    radii
        Radius at each control point, mm.
    haustra
        Depth of ring-like narrowings as a part of the radius (the colon's look).
    """

    points: Float64Array
    radii: tuple[float, ...]
    haustra: float = 0.0
    pitch: float = field(default=28.0, repr=False)

    @cached_property
    def _samples(self) -> tuple[Float64Array, Float64Array]:
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        knots = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-3))])
        step = min(max(5.0, min(self.radii)), 0.2 * self.pitch if self.haustra else np.inf)
        at = np.linspace(0.0, knots[-1], max(2, int(np.ceil(knots[-1] / step)) + 1))
        # Tangents from the neighbours (Catmull and Rom): no system to solve, and a moved point bends only its own part.
        curve = CubicHermiteSpline(knots, self.points, np.gradient(self.points, knots, axis=0))(at)
        radii = np.interp(at, knots, self.radii) * (1.0 - self.haustra * np.cos(2 * np.pi * at / self.pitch) ** 2)
        return np.asarray(curve), np.asarray(radii)

    def axis(self) -> Float64Array:
        """Return densely sampled points ``(n, 3)`` of the curve."""
        return self._samples[0]

    def bounds(self) -> Float64Array:
        """Return the corners of the box."""
        curve, radii = self._samples
        return np.stack([(curve - radii[:, None]).min(axis=0), (curve + radii[:, None]).max(axis=0)])

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance to the nearest part."""
        nearest = np.full(x.shape, np.inf, dtype=np.float32)
        for part in self.parts():
            np.minimum(nearest, part.distance(x, y, z), out=nearest)
        return nearest

    def parts(self) -> Iterator[Shape]:
        """Yield the capsules between the samples."""
        curve, radii = self._samples
        for i in range(len(curve) - 1):
            yield Capsule(curve[i : i + 2], (float(radii[i]), float(radii[i + 1])))


@dataclass(frozen=True)
class Cut:
    """The part of a shape on the side of a plane that ``normal`` points to: ``normal . p > offset``."""

    shape: Shape
    normal: Triple
    offset: float
    edge: float = 1.0

    def bounds(self) -> Float64Array:
        """Return the box of the uncut shape."""
        return self.shape.bounds()

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance with the cut's edge rounded."""
        unit = np.asarray(self.normal, dtype=np.float32)
        unit = unit / np.linalg.norm(unit)
        plane = np.float32(self.offset) - (unit[0] * x + unit[1] * y + unit[2] * z)
        return smooth_max(self.shape.distance(x, y, z), plane, self.edge)

    def parts(self) -> Iterator[Shape]:
        """Yield the cut parts."""
        for part in self.shape.parts():
            yield Cut(part, self.normal, self.offset, self.edge)


@dataclass(frozen=True)
class Hollow(Whole):
    """A shape less another one, the rim rounded over ``edge`` mm (crescents, hila)."""

    shape: Shape
    hole: Shape
    edge: float = 6.0

    def bounds(self) -> Float64Array:
        """Return the box of the shape."""
        return self.shape.bounds()

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the distance."""
        return smooth_max(self.shape.distance(x, y, z), -self.hole.distance(x, y, z), self.edge)
