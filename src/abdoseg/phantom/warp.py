"""The deformation that makes one person's body out of the model's.

A smooth random displacement is added to the body coordinates of every voxel, so that all shapes bend together
and neighbours stay neighbours.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.interpolate import CubicSpline

from abdoseg.phantom.arrays import Float64Array, FloatArray, Triple

_LOW: Float64Array = np.array([-280.0, -240.0, -460.0])
_STEP = 10.0
_NODES = (57, 49, 89)


@dataclass(frozen=True)
class Bend:
    """One scale of the displacement: its wavelength (mm) and standard deviation (mm, per axis)."""

    wavelength: float
    size: Triple


BENDS = (Bend(120.0, (6.0, 5.0, 6.0)), Bend(45.0, (2.0, 2.0, 2.0)))


@dataclass(frozen=True)
class Warp:
    """Map between the scanner's world and the body frame.

    Parameters
    ----------
    scale
        Size of the person relative to the model along x, y, z.
    origin
        World position of the body frame's origin, mm.
    shift
        Displacement ``(X, Y, Z, 3)`` in mm on nodes 10 mm apart.
    """

    scale: Float64Array
    origin: Float64Array
    shift: FloatArray

    def _displacement(self, points: Float64Array) -> Float64Array:
        """Return the trilinear displacement ``(n, 3)``, mm; all three components share the weights."""
        at = np.clip((points - _LOW) / _STEP, 0.0, np.asarray(_NODES) - 1.001)
        corner = at.astype(np.intp)
        part = at - corner
        flat = (corner[:, 0] * _NODES[1] + corner[:, 1]) * _NODES[2] + corner[:, 2]
        field = self.shift.reshape(-1, 3)
        total = np.zeros_like(at)
        for i, j, k in product((0, 1), repeat=3):
            weight = np.ones(len(at))
            for axis, step in enumerate((i, j, k)):
                weight *= part[:, axis] if step else 1.0 - part[:, axis]
            total += weight[:, None] * field[flat + (i * _NODES[1] + j) * _NODES[2] + k]
        return total

    def to_body(self, world: Float64Array) -> Float64Array:
        """Return the body coordinates ``(n, 3)`` of world points ``(n, 3)``, mm."""
        sized = (world - self.origin) / self.scale
        return sized + self._displacement(sized)

    def to_world(self, body: Float64Array) -> Float64Array:
        """Return the world points ``(n, 3)`` that lie at body coordinates ``(n, 3)``, mm.

        The displacement is smooth and small, so the fixed point iteration contracts quickly.
        """
        sized = body.copy()
        for _ in range(3):
            sized = body - self._displacement(sized)
        return sized * self.scale + self.origin


def draw_warp(rng: np.random.Generator, scale: Float64Array, origin: Float64Array) -> Warp:
    """Return a random warp of a person of the given size."""
    total = np.zeros((3, *_NODES), dtype=np.float32)
    for bend in BENDS:
        coarse = [max(4, int(np.ceil(n * _STEP / bend.wavelength)) + 3) for n in _NODES]
        field = rng.standard_normal((3, *coarse)).astype(np.float32)
        for count, nodes in zip(_NODES, coarse, strict=True):
            # Each pass grows the second axis and rolls it to the back: after three the order is restored.
            field = np.tensordot(field, _cubic(count, nodes), axes=([1], [1]))
        total += np.asarray(bend.size, dtype=np.float32)[:, None, None, None] * field
    return Warp(scale, origin, np.ascontiguousarray(np.moveaxis(total, 0, -1)))


def _cubic(size: int, nodes: int) -> FloatArray:
    """Return the matrix ``(size, nodes)`` of cubic interpolation from nodes to a finer line."""
    spline = CubicSpline(np.arange(nodes), np.eye(nodes))
    return np.asarray(spline(np.linspace(0.0, nodes - 1.0, size)), dtype=np.float32)
