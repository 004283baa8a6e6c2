"""A case as the page shows it: small volumes that the browser cuts slices from."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.geometry import axis_positions
from abdoseg.kernels.label_resample import resample_nearest
from abdoseg.kernels.resample import resample_window
from abdoseg.types import Label

MOST_VOXELS = 2_500_000
"""Of a case on the page: about 1 to 2 MB of it."""


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A case to scroll through.

    Parameters
    ----------
    title, caption
        What it is, and what to know of it.
    image
        float32 ``(X, Y, Z)``, RAS+, in [0, 1].
    reference, prediction
        uint8 ``(X, Y, Z)``, structure ids; 255 where nobody knows.
    spacing_mm
        Voxel side.
    """

    title: str
    caption: str
    image: NDArray[np.float32]
    reference: Label
    prediction: Label
    spacing_mm: float

    def packed(self) -> dict[str, Any]:
        """Return it for the page: coarser where it would be large, deflated, base64."""
        spacing = max(self.spacing_mm, self.spacing_mm * (self.image.size / MOST_VOXELS) ** (1 / 3))
        step = spacing / self.spacing_mm
        shape = tuple(max(1, int((n - 1) / step) + 1) for n in self.image.shape)
        positions = axis_positions(shape, (step, step, step), self.image.shape)
        levels = resample_window(self.image, positions, (0.0, 1.0), 255)
        return {
            "title": self.title,
            "caption": self.caption,
            "shape": list(shape),
            "spacing": round(spacing, 2),
            "image": _packed(levels.astype(np.uint8)),
            "reference": _packed(resample_nearest(self.reference, positions)),
            "prediction": _packed(resample_nearest(self.prediction, positions)),
        }


def _packed(array: NDArray[np.uint8]) -> str:
    # Fortran order: X runs fastest, as the page's script has it.
    return base64.b64encode(zlib.compress(array.tobytes(order="F"), 6)).decode()
