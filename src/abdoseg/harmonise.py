"""From a scan as it is on file to the one grid and intensity scale that everything after it uses.

Used by ingest and by predict, so that a scan to predict is treated exactly as the scans that were learnt from.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg import geometry
from abdoseg.errors import CaseError
from abdoseg.geometry import Grid
from abdoseg.kernels.label_resample import covering, nearest, resample_labels
from abdoseg.kernels.resample import Positions, resample_window
from abdoseg.kernels.values import lowest_and_highest
from abdoseg.types import Affine, Modality
from abdoseg.windows import Windows

LARGEST_INTENSITY = 1e9
"""MR scanners scale differently, up to some millions."""

MR_LEVELS = 2000
"""Steps between 0 and 1 for MR: finer than the noise of any scanner."""


@dataclass(frozen=True, eq=False)
class HarmonisedImage:
    """An image on the harmonised grid.

    Parameters
    ----------
    image
        int16 ``(X, Y, Z)``, RAS+; intensity in [0, 1] is ``image * scale + offset``.
    grid
        Its geometry.
    scale, offset
        See ``image``.
    window
        Native intensities that became 0 and 1.
    """

    image: NDArray[np.int16]
    grid: Grid
    scale: float
    offset: float
    window: tuple[float, float]

    def intensity(self) -> NDArray[np.float32]:
        """Return float32 ``(X, Y, Z)`` in [0, 1]."""
        return self.image.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


def harmonise_image(
    array: NDArray[Any], affine: Affine, modality: Modality, windows: Windows, spacing_mm: float
) -> HarmonisedImage:
    """Reorient to RAS+, resample linearly to ``spacing_mm`` and map the window to [0, 1].

    Parameters
    ----------
    array, affine
        The scan on its own axes, ``(X, Y, Z)``, and its voxel-to-mm affine.
    modality
        CT takes the window in HU; MR its percentiles of the native voxels above 0.
    windows, spacing_mm
        The workspace's (or the run's) settings.

    Raises
    ------
    CaseError
        If voxels are not finite, or an MR scan has no voxel above 0 or no contrast.
    """
    _require_intensities(array)
    canonical, canonical_affine = geometry.to_canonical(array, affine)
    window = intensity_window(array, modality, windows)
    levels = ct_levels(window) if modality == "CT" else MR_LEVELS
    grid = geometry.harmonised_grid(canonical.shape, canonical_affine, spacing_mm)
    image = resample_window(canonical, _positions(canonical.shape, canonical_affine, grid), window, levels)
    return HarmonisedImage(image, grid, 1.0 / levels, 0.0, window)


def harmonise_label(
    label: NDArray[np.uint8], affine: Affine, grid: Grid, nearest_axes: Collection[int] = ()
) -> NDArray[np.uint8]:
    """Bring a label map ``(X, Y, Z)`` on the scan's own axes to ``grid``; each structure keeps its volume.

    Parameters
    ----------
    label, affine
        On the scan's own axes.
    grid
        The harmonised grid.
    nearest_axes
        RAS+ axes along which a slice takes the labels of its nearest native slice: those whose slices are annotated
        one by one.
    """
    canonical, canonical_affine = geometry.to_canonical(label, affine)
    positions = _positions(canonical.shape, canonical_affine, grid)
    spacing = np.array(geometry.spacing_of(canonical_affine))
    step = np.array(grid.spacing_mm) / spacing
    x, y, z = (
        nearest(positions[a]) if a in nearest_axes else covering(positions[a], step[a], canonical.shape[a])
        for a in range(3)
    )
    return resample_labels(canonical, (x, y, z), float(1 / np.prod(step)))


def intensity_window(array: NDArray[Any], modality: Modality, windows: Windows) -> tuple[float, float]:
    """Return the native intensities that become 0 and 1."""
    if modality == "CT":
        return windows.ct_hu
    positive = array[array > 0]
    if positive.size == 0:
        raise CaseError("image: no voxel above 0, expected an MR scan; check that this is the image")
    low, high = np.percentile(positive, windows.mr_percentiles)
    if not high > low:
        raise CaseError(f"image: all MR voxels between the percentiles are {low:g}; the scan has no contrast")
    return float(low), float(high)


def ct_levels(window: tuple[float, float]) -> int:
    """Return the steps between 0 and 1 for CT: one a HU keeps it to half a HU; wide windows stay within int16."""
    return int(min(32767, max(1, round(window[1] - window[0]))))


def _positions(shape: tuple[int, ...], affine: Affine, grid: Grid) -> Positions:
    step = np.array(grid.spacing_mm) / np.array(geometry.spacing_of(affine))
    return geometry.axis_positions(grid.shape, step, shape)


def _require_intensities(array: NDArray[Any]) -> None:
    """Raise CaseError unless the intensities can be those of a scan."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise CaseError(f"image: {bad} voxels are NaN or infinite; expected finite intensities, write the scan again")
    low, high = lowest_and_highest(array)
    if max(-low, high) > LARGEST_INTENSITY:
        raise CaseError(
            f"image: intensities of {low:.3g}..{high:.3g} (wrong slope in the header?); write the scan again"
        )
    if low == high:
        raise CaseError(f"image: all voxels are {low:g}; the scan has no contrast")
