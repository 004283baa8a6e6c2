"""Rotation and scaling in space: settings, and the parameters drawn for one example."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError


@dataclass(frozen=True)
class AffineSettings:
    """How far a patch may be turned and scaled.

    Parameters
    ----------
    rotation_degrees
        Angles about each axis are uniform over plus or minus this; 0: no rotation.
    scale
        Lowest and highest isotropic scale, uniform between them; ``(1, 1)``: none.

    Raises
    ------
    ConfigError
        If the range of angles is negative, or that of scales empty or not positive.

    References
    ----------
    Chen et al. 2024, section 4.1 ("random rotation and scaling"); the ranges are those of the authors' code.
    """

    rotation_degrees: float = 15.0
    scale: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_degrees <= 180:
            msg = f"rotation_degrees: found {self.rotation_degrees}, expected 0 (no rotation) to 180"
            raise ConfigError(msg)
        if not 0 < self.scale[0] <= self.scale[1] < np.inf:
            msg = f"scale: found {self.scale}, expected (lowest, highest) with 0 < lowest <= highest"
            raise ConfigError(msg)


NO_AFFINE = AffineSettings(0.0, (1.0, 1.0))
"""Neither rotation nor scaling: patches are plain crops."""


@dataclass(frozen=True)
class AffineParameters:
    """One drawn rotation and scale.

    Parameters
    ----------
    angles
        Radians about the X, Y and Z axes, right-handed.
    scale
        Above 1 structures appear larger in the patch.
    """

    angles: tuple[float, float, float]
    scale: float

    def matrix(self) -> NDArray[np.float64]:
        """Return ``(3, 3)``: offset from the centre in the patch to offset in the volume, both in voxels.

        ``Rz Ry Rx / scale``: the patch's frame is turned about X first, then Y, then Z of the volume, and covers
        less of it the larger the scale. The grid is isotropic, so the same matrix holds in mm.
        """
        (cx, cy, cz), (sx, sy, sz) = np.cos(self.angles), np.sin(self.angles)
        about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        return np.asarray(about_z @ about_y @ about_x / self.scale, dtype=np.float64)


def draw_affine(generator: np.random.Generator, settings: AffineSettings) -> AffineParameters:
    """Draw the angles about the three axes and one scale."""
    limit = np.deg2rad(settings.rotation_degrees)
    x, y, z = generator.uniform(-limit, limit, size=3)
    return AffineParameters((float(x), float(y), float(z)), float(generator.uniform(*settings.scale)))
