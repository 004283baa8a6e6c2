"""Changes of intensity: settings, and the parameters drawn for one example. All are off by default.

The kinds, their order and their ranges are nnU-Net's (Isensee et al. 2021, "nnU-Net", supplementary note 2); the paper
has none of them. :mod:`abdoseg.augmentation.apply` applies them.
"""

from dataclasses import dataclass

import numpy as np

from abdoseg.errors import ConfigError

_LOWEST = {
    "noise_std": 0.0,
    "blur_sigma": 0.0,
    "intensity_scale": 0.0,
    "intensity_shift": -np.inf,
    "low_resolution_zoom": 0.0,
    "gamma": 0.0,
}
"""Name of every range to the number it must lie above (or at, for standard deviations), in the order of the draws."""

_MAY_BE_LOWEST = ("noise_std", "blur_sigma", "intensity_scale")


@dataclass(frozen=True)
class IntensitySettings:
    """How often and how far intensities change; every value is uniform in its range.

    Parameters
    ----------
    noise_probability, noise_std
        Gaussian noise; standard deviation, of the window's width 1.
    blur_probability, blur_sigma
        Gaussian blur; sigma in voxels.
    intensity_scale_probability, intensity_scale
        Multiplicative brightness; factor.
    intensity_shift_probability, intensity_shift
        Additive brightness; summand, of the window's width 1.
    low_resolution_probability, low_resolution_zoom
        The patch is brought to ``zoom`` times its voxels along each axis (nearest) and back (linear).
    gamma_probability, gamma
        Intensity to the power of gamma.

    Raises
    ------
    ConfigError
        If a probability is not in [0, 1], or a range is empty or not possible.
    """

    noise_probability: float = 0.0
    noise_std: tuple[float, float] = (0.0, 0.1)
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    intensity_scale_probability: float = 0.0
    intensity_scale: tuple[float, float] = (0.75, 1.25)
    intensity_shift_probability: float = 0.0
    intensity_shift: tuple[float, float] = (-0.1, 0.1)
    low_resolution_probability: float = 0.0
    low_resolution_zoom: tuple[float, float] = (0.5, 1.0)
    gamma_probability: float = 0.0
    gamma: tuple[float, float] = (0.7, 1.5)

    def __post_init__(self) -> None:
        for name, probability in self._probabilities().items():
            if not 0 <= probability <= 1:
                raise ConfigError(f"{name}_probability: found {probability}, expected 0 (never) to 1 (always)")
        for name, lowest in _LOWEST.items():
            low, high = getattr(self, name)
            fits = low >= lowest if name in _MAY_BE_LOWEST else low > lowest
            if not (fits and low <= high < np.inf):
                bound = f"lowest {'at least' if name in _MAY_BE_LOWEST else 'above'} {lowest:g}"
                raise ConfigError(f"{name}: found {(low, high)}, expected (lowest, highest), {bound}")
        if self.low_resolution_zoom[1] > 1:
            raise ConfigError(f"low_resolution_zoom: found {self.low_resolution_zoom}, expected at most 1 (no change)")

    def _probabilities(self) -> dict[str, float]:
        return {
            "noise": self.noise_probability,
            "blur": self.blur_probability,
            "intensity_scale": self.intensity_scale_probability,
            "intensity_shift": self.intensity_shift_probability,
            "low_resolution": self.low_resolution_probability,
            "gamma": self.gamma_probability,
        }

    @property
    def enabled(self) -> bool:
        """Whether anything can change."""
        return any(self._probabilities().values())


@dataclass(frozen=True)
class IntensityParameters:
    """What one example's intensities go through, in this order; the defaults change nothing.

    Parameters
    ----------
    noise_std, noise_seed
        Standard deviation of the noise, 0 for none, and the seed of its field.
    blur_sigma
        Voxels; 0: no blur.
    scale, shift
        Intensity becomes ``intensity * scale + shift``.
    zoom
        Of the voxels along each axis; 1: no loss of resolution.
    gamma
        Exponent; 1: no change.
    """

    noise_std: float = 0.0
    noise_seed: int = 0
    blur_sigma: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    zoom: float = 1.0
    gamma: float = 1.0


def draw_intensity(generator: np.random.Generator, settings: IntensitySettings) -> IntensityParameters:
    """Draw the parameters of one example.

    Each kind always takes two numbers, so that switching one on or off leaves the others' values as they are.
    """
    probabilities = settings._probabilities()
    lucky = generator.random(len(probabilities))
    drawn = {}
    for (kind, probability), u, name in zip(probabilities.items(), lucky, _LOWEST, strict=True):
        value = float(generator.uniform(*getattr(settings, name)))
        if u < probability:
            drawn[_PARAMETER[kind]] = value
    return IntensityParameters(**drawn, noise_seed=int(generator.integers(2**63)))


_PARAMETER = {
    "noise": "noise_std",
    "blur": "blur_sigma",
    "intensity_scale": "scale",
    "intensity_shift": "shift",
    "low_resolution": "zoom",
    "gamma": "gamma",
}
