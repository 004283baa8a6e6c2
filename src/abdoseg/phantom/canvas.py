"""The voxel grid of a scan, and painting shapes on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from abdoseg.phantom.arrays import BoolArray, Box, Float64Array, FloatArray, UInt8Array
from abdoseg.phantom.shapes import Shape
from abdoseg.phantom.tissues import tissue_id
from abdoseg.phantom.warp import Warp

_NODE_MM = 9.0


@dataclass(frozen=True)
class Grid:
    """A voxel grid: ``affine`` ``(4, 4)`` from voxel index to world RAS+ mm, and ``shape`` in voxels."""

    affine: Float64Array
    shape: tuple[int, int, int]

    @property
    def spacing(self) -> Float64Array:
        """Voxel size along each array axis, mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def to_index(self, world: Float64Array) -> Float64Array:
        """Return fractional voxel indices ``(n, 3)`` of world points ``(n, 3)``."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world @ inverse[:3, :3].T + inverse[:3, 3])


def _interpolation(size: int, nodes: int) -> FloatArray:
    """Return the matrix ``(size, nodes)`` of linear interpolation from nodes to voxels."""
    at = np.linspace(0.0, nodes - 1.0, size)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(nodes)[None, :])), dtype=np.float32)


def upsample(nodes: FloatArray, shape: tuple[int, int, int]) -> FloatArray:
    """Return a field on coarse nodes, the outer ones on the volume's corners, linearly interpolated to voxels."""
    fine = nodes
    for size in shape:
        # Each pass interpolates the first axis and rolls it to the back: after three the order is restored.
        fine = np.tensordot(fine, _interpolation(size, fine.shape[0]), axes=([0], [1]))
    return np.ascontiguousarray(fine, dtype=np.float32)


def node_indices(grid: Grid, step_mm: float) -> tuple[tuple[int, int, int], Float64Array]:
    """Return how many nodes about ``step_mm`` apart span the grid, and their voxel indices ``(n, 3)``."""
    counts = [int(np.ceil((n - 1) * s / step_mm)) + 1 for n, s in zip(grid.shape, grid.spacing, strict=True)]
    counts = [max(2, count) for count in counts]
    axes = [np.linspace(0.0, n - 1.0, count) for n, count in zip(grid.shape, counts, strict=True)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return (counts[0], counts[1], counts[2]), mesh


@dataclass(frozen=True)
class Coat:
    """One layer of paint: the tissue, which tissues it may replace ``(256,)``, and mm beyond the surface."""

    tissue: str
    over: BoolArray
    grow: float = 0.0


class Canvas:
    """A tissue volume that shapes are painted on.

    Attributes
    ----------
    grid
        The voxel grid.
    x, y, z
        Body coordinates of every voxel, mm, each of the grid's shape.
    tissue
        Tissue of every voxel, air at first.
    """

    def __init__(self, grid: Grid, warp: Warp) -> None:
        self.grid = grid
        self._warp = warp
        counts, index = node_indices(grid, _NODE_MM)
        world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        body = warp.to_body(world).astype(np.float32).reshape(*counts, 3)
        self.x, self.y, self.z = (upsample(body[..., axis], grid.shape) for axis in range(3))
        self.tissue: UInt8Array = np.zeros(grid.shape, dtype=np.uint8)

    def paint(self, shape: Shape, tissue: str, over: BoolArray, grow: float = 0.0) -> None:
        """Paint a shape.

        Parameters
        ----------
        shape
            What to paint.
        tissue
            Name of the tissue.
        over
            Look-up table ``(256,)``: the tissues that may be replaced.
        grow
            Paint this many mm beyond the surface (or inside it when negative).
        """
        self.paint_coats(shape, Coat(tissue, over, grow))

    def paint_coats(self, shape: Shape, *coats: Coat) -> None:
        """Paint the whole shape once a coat, in order; finding the voxels is done once for all."""
        reach = max(0.0, *(coat.grow for coat in coats))
        boxes = list(self._boxes(list(shape.parts()), reach))
        for coat in coats:
            value = tissue_id(coat.tissue)
            for part, box in boxes:
                region = self.tissue[box]
                inside = part.distance(self.x[box], self.y[box], self.z[box]) < coat.grow
                inside &= coat.over[region]
                region[inside] = value

    def _boxes(self, parts: Sequence[Shape], grow: float) -> Iterator[tuple[Shape, Box]]:
        """Yield each part that meets the grid with the voxels it may touch."""
        if not parts:
            return
        bounds = np.stack([part.bounds() for part in parts])
        low, high = bounds[:, 0] - grow, bounds[:, 1] + grow
        # Points of each box, corners and middles, sent through the warp; small boxes hardly bend.
        at = (0.0, 1.0) if float((high - low).max()) < 50.0 else (0.0, 0.5, 1.0)
        steps = np.array(list(product(at, repeat=3)))
        probes = low[:, None, :] + steps[None] * (high - low)[:, None, :]
        index = self.grid.to_index(self._warp.to_world(probes.reshape(-1, 3))).reshape(len(parts), -1, 3)
        margin = 1.0 + 4.0 / self.grid.spacing
        first = np.floor(index.min(axis=1) - margin).astype(int).clip(0)
        last = np.minimum(np.ceil(index.max(axis=1) + margin).astype(int) + 1, self.grid.shape)
        for part, a, b in zip(parts, first, last, strict=True):
            if np.all(b > a):
                yield part, (slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2]))
