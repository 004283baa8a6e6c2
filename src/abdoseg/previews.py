"""A picture of a prediction: the scan in three planes, bare and under its label map."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abdoseg.anatomy import Anatomy
from abdoseg.geometry import axis_positions, spacing_of, to_canonical
from abdoseg.harmonise import harmonise_image
from abdoseg.kernels.label_resample import resample_nearest
from abdoseg.pictures import PLANES, Panel, save_overlays
from abdoseg.readers import Scan
from abdoseg.types import Label, Modality
from abdoseg.windows import Windows

SPACING_MM = 2.0
"""Of the picture; equal along all axes, so that thick slices look as they are."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A scan to show.

    Parameters
    ----------
    title
        What to call it.
    scan
        Its voxels.
    modality, windows
        What it was taken for, and what intensities are black and white.
    """

    title: str
    scan: Scan
    modality: Modality
    windows: Windows


def save_preview(path: Path, shown: Shown, label: Label, anatomy: Anatomy) -> Path:
    """Write a PNG of the slices that hold most structures; the patient's right is on the left.

    Parameters
    ----------
    path
        File to write.
    shown
        The scan.
    label
        uint8 ``(X, Y, Z)``, on the axes of the scan's own file.
    anatomy
        Names and colours.

    Raises
    ------
    WorkspaceError
        If the file cannot be written.
    """
    scan = shown.scan
    image = harmonise_image(scan.array, scan.affine, shown.modality, shown.windows, SPACING_MM)
    canonical, affine = to_canonical(label, scan.affine)
    step = np.array(image.grid.spacing_mm) / np.array(spacing_of(affine))
    over = resample_nearest(canonical, axis_positions(image.grid.shape, step, canonical.shape))
    panel = Panel(shown.title, image.intensity(), {"prediction": over})
    save_overlays(path, [panel], anatomy, tuple(PLANES))
    return path
