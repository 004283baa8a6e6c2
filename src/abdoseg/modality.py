"""What a scan was taken with, when its file does not say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError
from abdoseg.types import Modality

SAMPLE_VOXELS = 4_000_000
"""About how many voxels are looked at."""

_ASKED: dict[str, Modality] = {"ct": "CT", "mr": "MR"}


def decide_modality(
    array: NDArray[Any], asked: str | None = None, stated: Modality | None = None
) -> tuple[Modality, str]:
    """Return the modality and a phrase that says how it was decided (``method.md`` 6).

    Parameters
    ----------
    array
        ``(X, Y, Z)``, the scan's own intensities.
    asked
        ``ct`` or ``mr``, in any case; None to look at the voxels.
    stated
        What the scan's DICOM header states.

    Raises
    ------
    ConfigError
        If the option is something else or contradicts the header, or is not given and the voxels do not make it plain.
    """
    if asked is not None and asked.lower() not in _ASKED:
        raise ConfigError(f"modality '{asked}': unknown; expected ct or mr")
    if stated is not None:
        if asked is not None and _ASKED[asked.lower()] != stated:
            raise ConfigError(f"modality '{asked}': the scan's DICOM header says {stated}; leave --modality out")
        return stated, "by its DICOM header"
    if asked is not None:
        return _ASKED[asked.lower()], "as asked"
    air = _air_percent(array)
    if air is None:
        raise ConfigError("cannot tell from its voxels whether the scan is CT or MR; say `--modality ct|mr`")
    return "CT", f"because {air:.0f} % of its voxels are air near -1000"


def modality_warning(array: NDArray[Any], modality: Modality) -> tuple[str, ...]:
    """Return a warning when the voxels speak against the modality that the scan is taken for."""
    if modality == "MR" and _air_percent(array) is not None:
        return ("taken for MR, but the voxels look like CT (air near -1000)",)
    if modality == "CT" and _sample(array).min() >= 0:
        return ("taken for CT, but no voxel is below 0; check that the values are Hounsfield units",)
    return ()


def _air_percent(array: NDArray[Any]) -> float | None:
    """Return how much of a scan is air when it is plainly CT in Hounsfield units, else None.

    Plainly CT: the lowest value is below -900, more than 2 % of the voxels are below -500, and these gather at
    air: at least 1 % of all voxels lie in [-1100, -900] or at the lowest value (scanners pad with -1024, -2000,
    -3024), and at least twice as many as in (-700, -500), where CT has only the edges of air. An MR phase image
    or a normalised MR reaches such values too, but without a peak.
    """
    sample = _sample(array)
    low = sample[sample < -500]
    if low.size <= 0.02 * sample.size or low.min() >= -900:
        return None
    air = np.count_nonzero(((low >= -1100) & (low <= -900)) | (low == low.min()))
    edges = np.count_nonzero(low > -700)
    if air < 0.01 * sample.size or air < 2 * edges:
        return None
    return 100 * air / sample.size


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    # Every n-th voxel in plane; slices stay, as there may be few.
    step = max(1, int(np.sqrt(array.size / SAMPLE_VOXELS)))
    return array[::step, ::step]
