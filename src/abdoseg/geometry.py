"""Axes, spacing and grids: pure numpy. Everything in memory and on disk is RAS+ and ``(X, Y, Z)``.

A scan is brought to its *closest* canonical axes (a permutation and flips, no interpolation) and then to the
target spacing along its own axes. Obliquity stays in the affine: nothing is ever rotated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.types import Affine

REPAIR_BELOW = 1e-3
"""Directions off orthonormal by less are repaired without a word (``sources.md`` 11 of the field's faults)."""

WARN_BELOW = 1e-2
"""Directions off by less are repaired with a warning; above, the case is quarantined."""

AFFINE_TOLERANCE_VOXELS = 0.5
"""Largest distance, in voxels at the corners, at which two affines are still the same grid."""


@dataclass(frozen=True)
class Grid:
    """A voxel grid in space.

    Parameters
    ----------
    shape
        ``(X, Y, Z)``.
    affine
        ``(4, 4)``, voxel index to mm in RAS+.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, mm."""
        return spacing_of(self.affine)


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Return the voxel spacing in mm along each array axis."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


def axis_codes(affine: Affine) -> str:
    """Return the closest anatomical axes as letters, for example ``"LPS"``."""
    return "".join(str(code) for code in nib.aff2axcodes(affine))


def checked_affine(affine: Affine) -> tuple[Affine, str | None]:
    """Return an affine with orthonormal directions, and a warning when the repair was not negligible.

    Raises
    ------
    CaseError
        If a value is not finite, an axis has no length, or the directions are further than
        :data:`WARN_BELOW` from orthonormal.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise CaseError("header: the affine is not a finite 4 x 4 matrix; write the geometry again")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths < 1e-6).any():
        raise CaseError("header: an axis of the affine has no length; write the geometry again")
    directions = affine[:3, :3] / lengths
    # The nearest orthonormal matrix (polar decomposition) changes each direction least.
    u, _, vt = np.linalg.svd(directions)
    nearest = u @ vt
    error = float(np.abs(directions - nearest).max())
    if error >= WARN_BELOW:
        msg = (
            f"header: directions are {error:.3g} off orthonormal (limit {WARN_BELOW:g}); "
            "the scan is sheared: resample it to an orthogonal grid"
        )
        raise CaseError(msg)
    if error < 1e-6:
        return affine.astype(np.float64), None
    repaired = affine.astype(np.float64).copy()
    repaired[:3, :3] = nearest * lengths
    warning = None if error < REPAIR_BELOW else f"directions were {error:.2g} off orthonormal and were repaired"
    return repaired, warning


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same shape and their corner voxels lie within half a voxel of each other."""
    return a.shape == b.shape and corner_distance_voxels(a, b) <= AFFINE_TOLERANCE_VOXELS


def corner_distance_voxels(a: Grid, b: Grid) -> float:
    """Return how far, in voxels of ``a``, the corners of ``b`` lie from those of ``a`` (same shapes)."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape], indexing="ij")).reshape(3, -1)
    corners = np.concatenate([corners, np.ones((1, corners.shape[1]))])
    moved = np.linalg.inv(a.affine) @ b.affine @ corners
    return float(np.abs(moved[:3] - corners[:3]).max())


def to_canonical(array: NDArray[Any], affine: Affine) -> tuple[NDArray[Any], Affine]:
    """Return array and affine with axes permuted and flipped to the closest RAS+; a view, no copy."""
    orientation = nib.io_orientation(affine)
    moved = nib.apply_orientation(array, orientation)
    return moved, affine @ nib.orientations.inv_ornt_aff(orientation, array.shape)


def from_canonical(array: NDArray[Any], native_affine: Affine) -> NDArray[Any]:
    """Undo :func:`to_canonical`: return ``array`` with the axes of the scan whose affine is ``native_affine``."""
    back = nib.orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), nib.io_orientation(native_affine))
    turned: NDArray[Any] = nib.apply_orientation(array, back)
    return turned


def harmonised_grid(shape: Sequence[int], affine: Affine, spacing_mm: float) -> Grid:
    """Return the isotropic grid that covers a canonical scan.

    The first voxel centre stays where it is and ``n' = round((n - 1) s / s' + 1)`` voxels follow (MONAI's
    ``Spacing`` uses the same grid), so index ``i`` of the new grid is index ``i s' / s`` of the old one.
    """
    spacing = np.array(spacing_of(affine))
    extent = (np.asarray(shape) - 1) * spacing
    n = np.round(extent / spacing_mm + 1).astype(int)
    new = affine.copy()
    new[:3, :3] = affine[:3, :3] / spacing * spacing_mm
    return Grid((int(n[0]), int(n[1]), int(n[2])), new)


def harmonised_positions(
    shape: Sequence[int], affine: Affine, grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each RAS+ axis, where the slices of ``grid`` lie among those of the scan turned to RAS+.

    Parameters
    ----------
    shape, affine
        Of the scan, on its own axes.
    grid
        The harmonised grid made from it.
    """
    orientation = nib.io_orientation(affine)
    canonical = np.empty(3, dtype=int)
    canonical[orientation[:, 0].astype(int)] = shape
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = spacing_of(affine)
    return axis_positions(grid.shape, np.array(grid.spacing_mm) / spacing, canonical.tolist())


def axis_positions(
    shape_to: Sequence[int], step: Sequence[float] | NDArray[np.float64], shape_from: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where the voxels of a grid lie on another one of the same origin and axes: ``i step``, kept inside.

    Parameters
    ----------
    shape_to
        Number of positions along each axis.
    step
        ``(3,)``: spacing of the new grid over spacing of the old.
    shape_from
        Voxels of the old grid; positions beyond its last centre take that centre.
    """
    x, y, z = (
        np.clip(np.arange(to) * float(s), 0.0, n - 1.0) for to, s, n in zip(shape_to, step, shape_from, strict=True)
    )
    return x, y, z
