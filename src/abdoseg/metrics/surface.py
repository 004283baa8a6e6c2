"""Distances between the surfaces of prediction and reference: NSD and HD95.

Both are as DeepMind's ``surface-distance`` package defines them (Nikolov et al. 2018, arXiv:1809.04430): the surface
of a mask lies in the cells of 2 x 2 x 2 voxels that hold some voxels of it and some others, outside the image there
is none of it, each cell counts by the area of the surface within (marching cubes), and a cell's distance is that to
the nearest cell of the other surface. Other packages give other numbers where their surfaces are voxels that count
alike: for the ellipsoids of ``benchmarks/surface.py`` MONAI's NSD is up to 0.11 lower (with ``use_subvoxels`` it is
ours), and HD95 is up to 1.8 mm (MONAI) and 1.1 mm (MedPy) larger.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from abdoseg.metrics.surface_elements import surface_areas_mm2
from abdoseg.types import Label

TOLERANCES_MM: Mapping[str, float] = MappingProxyType(
    {
        "spleen": 3.0,
        "right_kidney": 3.0,
        "left_kidney": 3.0,
        "gallbladder": 2.0,
        "esophagus": 3.0,
        "liver": 5.0,
        "stomach": 5.0,
        "aorta": 2.0,
        "postcava": 2.0,
        "pancreas": 5.0,
        "right_adrenal_gland": 2.0,
        "left_adrenal_gland": 2.0,
        "duodenum": 7.0,
        "bladder": 3.0,
        "prostate_uterus": 4.0,
        "portal_splenic_vein": 3.0,
    }
)
"""Tolerance of the NSD by structure, mm: those of the FLARE22 challenge, and ours for the last three."""

_N_STEPS = 2000
"""How many neighbours of a cell are tried, about, before a tree is asked: some 8 voxels in every direction."""

_FEW_FAR = 1 << 16


@dataclass(frozen=True, eq=False)
class Surface:
    """How far one surface lies from another.

    Parameters
    ----------
    distances_mm
        float64 ``(K,)``, ascending.
    areas_mm2
        float64 ``(K,)``: the area that lies so far from the other surface; some may be 0.
    """

    distances_mm: NDArray[np.float64]
    areas_mm2: NDArray[np.float64]

    @property
    def area_mm2(self) -> float:
        """Area of the whole surface."""
        return float(self.areas_mm2.sum())

    def area_within(self, tolerance_mm: float) -> float:
        """Return the area that lies within a tolerance of the other surface, the tolerance included."""
        return float(self.areas_mm2[self.distances_mm <= tolerance_mm].sum())

    def percentile(self, percent: float) -> float:
        """Return the least distance, mm, within which ``percent`` of the area lie."""
        part = np.cumsum(self.areas_mm2) / self.areas_mm2.sum()
        return float(self.distances_mm[min(int(np.searchsorted(part, percent / 100.0)), len(part) - 1)])


@dataclass(frozen=True, eq=False)
class SurfacePair:
    """The surfaces of one structure, each with its distances to the other."""

    prediction: Surface
    reference: Surface


def normalised_surface_dice(pair: SurfacePair, tolerance_mm: float) -> float:
    """Return the part of both surfaces, in [0, 1], that lies within a tolerance of the other.

    Nikolov et al. 2018, "surface DSC".
    """
    within = pair.reference.area_within(tolerance_mm) + pair.prediction.area_within(tolerance_mm)
    return within / (pair.reference.area_mm2 + pair.prediction.area_mm2)


def robust_hausdorff_mm(pair: SurfacePair, percent: float = 95.0) -> float:
    """Return the larger of both surfaces' percentiles of distance, mm; areas weigh the percentiles."""
    return max(pair.reference.percentile(percent), pair.prediction.percentile(percent))


def surface_pairs(
    prediction: Label, reference: Label, spacing_mm: tuple[float, float, float], structure_ids: Collection[int]
) -> dict[int, SurfacePair]:
    """Measure the distances between the surfaces of several structures.

    Parameters
    ----------
    prediction, reference
        uint8 ``(X, Y, Z)`` on the same grid; any memory order.
    spacing_mm
        Voxel side along X, Y, Z.
    structure_ids
        Values, 1..254, each of which both volumes hold.

    Returns
    -------
    dict
        Structure id -> its surfaces. Needs about 2 bytes a voxel of the largest structure's box beyond the volumes,
        and 100 bytes a cell of its surface where surfaces lie more than some 8 voxels apart.
    """
    # Read as the voxels lie in memory; turning or mirroring a volume changes no area and no distance.
    order = tuple(sorted(range(3), key=lambda axis: -abs(reference.strides[axis])))
    measure = _Ruler.of(order, spacing_mm, reference.shape)
    predicted, known = (np.ascontiguousarray(volume.transpose(order)) for volume in (prediction, reference))
    boxes = _boxes([predicted, known])
    return {c: measure.pair(predicted, known, c, boxes[c]) for c in structure_ids}


def _boxes(volumes: list[Label]) -> NDArray[np.int64]:
    """Return the box of each value in any of the volumes, int64 ``(256, 3, 2)``."""
    from abdoseg.kernels.surface import grow_boxes

    boxes = np.empty((256, 3, 2), dtype=np.int64)
    boxes[..., 0], boxes[..., 1] = np.iinfo(np.int64).max, 0
    for volume in volumes:
        flat = volume.reshape(-1)
        grow_boxes(flat if flat.ctypes.data % 8 == 0 else flat.copy(), volume.shape, boxes)
    return boxes


@dataclass(frozen=True, eq=False)
class _Ruler:
    """What measuring takes, the same for all structures of a pair of volumes turned to ``order``.

    ``steps`` int64 ``(K, 3)`` are the ways to a cell's neighbours, nearest first, ``shells`` int64 ``(K,)`` number
    their distances, ``distances_mm`` ``(S,)``, which begin with 0; ``margin`` is the longest step along each axis.
    """

    order: tuple[int, ...]
    spacing_mm: NDArray[np.float64]
    areas: NDArray[np.float64]
    steps: NDArray[np.int64]
    shells: NDArray[np.int64]
    distances_mm: NDArray[np.float64]
    margin: tuple[int, int, int]

    @classmethod
    def of(cls, order: tuple[int, ...], spacing_mm: tuple[float, float, float], shape: tuple[int, ...]) -> "_Ruler":
        spacing = np.array(spacing_mm)
        radius_mm = (3 * _N_STEPS * spacing.prod() / (4 * np.pi)) ** (1 / 3)
        longest = np.minimum(radius_mm // spacing, shape).astype(int)
        steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in longest), indexing="ij"), axis=-1).reshape(-1, 3)
        lengths = _lengths_mm(steps, spacing)
        near = np.flatnonzero((lengths > 0) & (lengths <= radius_mm))
        near = near[np.argsort(lengths[near], kind="stable")]
        distances, shells = np.unique(lengths[near], return_inverse=True)
        a, b, c = longest[list(order)].tolist()
        x, y, z = spacing[list(order)].tolist()
        return cls(
            order=order,
            spacing_mm=spacing,
            areas=surface_areas_mm2((x, y, z)),
            steps=steps[near][:, order].astype(np.int64),
            shells=shells.reshape(-1).astype(np.int64) + 1,
            distances_mm=np.concatenate([[0.0], distances]),
            margin=(a, b, c),
        )

    def pair(self, prediction: Label, reference: Label, value: int, box: NDArray[np.int64]) -> SurfacePair:
        """Return the surfaces of ``value``, which lies within ``box`` int64 ``(3, 2)``."""
        part = tuple(slice(first, stop) for first, stop in box.tolist())
        predicted, known = self._codes(prediction[part], value), self._codes(reference[part], value)
        return SurfacePair(self._surface(predicted, known), self._surface(known, predicted))

    def _codes(self, label: Label, value: int) -> Label:
        """Return the cells of a surface with a rim of zeros, uint8 ``(a, b, c)``; c is a multiple of 8."""
        from abdoseg.kernels.surface import write_codes

        a, b, c = (n + 1 + 2 * m for n, m in zip(label.shape, self.margin, strict=True))
        codes = np.zeros((a, b, -(-c // 8) * 8), dtype=np.uint8)
        write_codes(label, value, self.margin, codes)
        return codes

    def _surface(self, codes: Label, other: Label) -> Surface:
        from abdoseg.kernels.surface import add_areas

        strides = np.array(codes.strides)  # of bytes, one a cell
        flat, target = codes.reshape(-1), other.reshape(-1)
        far = np.empty(_FEW_FAR, dtype=np.int64)
        while True:
            by_shell = np.zeros(len(self.distances_mm))
            n_far = add_areas(flat, target, self.areas, self.steps @ strides, self.shells, by_shell, far)
            if n_far <= far.size:
                break
            far = np.empty(n_far, dtype=np.int64)
        distances, areas = self._far(far[:n_far], codes, other)
        return Surface(np.concatenate([self.distances_mm, distances]), np.concatenate([by_shell, areas]))

    def _far(
        self, cells: NDArray[np.int64], codes: Label, other: Label
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distances, ascending, from cells without a near neighbour to the other surface; and areas."""
        from scipy.spatial import cKDTree

        from abdoseg.kernels.surface import list_cells

        if len(cells) == 0:
            return np.empty(0), np.empty(0)
        here, there = (self._positions(found, codes.shape) for found in (cells, list_cells(other.reshape(-1))))
        # A tree that is not balanced is made three times as fast, and few cells are looked up.
        tree = cKDTree(there * self.spacing_mm, balanced_tree=False, compact_nodes=False)
        _, nearest = tree.query(here * self.spacing_mm)
        distances = _lengths_mm(here - there[nearest], self.spacing_mm)
        ascending = np.argsort(distances, kind="stable")
        return distances[ascending], self.areas[codes.reshape(-1)[cells]][ascending]

    def _positions(self, cells: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the indices along X, Y, Z, int64 ``(F, 3)``, of cells numbered in C order."""
        return np.stack(np.unravel_index(cells, shape), axis=1)[:, np.argsort(self.order)]


def _lengths_mm(steps: NDArray[np.int_], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of steps ``(K, 3)`` along X, Y, Z, summed in SciPy's order: a tolerance may lie on one."""
    x, y, z = (steps * spacing_mm).T
    return np.asarray(np.sqrt(x * x + y * y + z * z))
