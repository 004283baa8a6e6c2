"""Find out how a label lies on its image when neither header can be trusted.

Some sources store images as DICOM and labels as arrays whose headers do not say how they lie on the series. Every way
in which the label's axes can be flipped is tried, and scored by the intensities under the mask: an organ is
homogeneous, within known HU, and brighter than the fat around it. Only a plain winner is taken.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.cards import OrientationTest
from abdoseg.errors import CaseError
from abdoseg.geometry import axis_codes, from_canonical, to_canonical
from abdoseg.readers import Scan

SHELL_MM = 3.0
"""How thick the surroundings are that the structure must be brighter than."""

CLEARLY = 2.0
"""The winner's spread must be smaller by this many HU than that of any other way that passes."""


@dataclass(frozen=True)
class Placement:
    """A label on its image's axes.

    Parameters
    ----------
    label
        ``(X, Y, Z)``.
    name
        Which way it lies: ``index for index``, ``by its header`` or the flipped axes.
    """

    label: NDArray[Any]
    name: str


@dataclass(frozen=True)
class _Score:
    inside: float
    spread: float
    contrast: float

    def passes(self, test: OrientationTest) -> bool:
        return self.inside >= test.inside and self.spread <= test.spread and self.contrast >= test.contrast


def placed_by_intensity(label: Scan, image: Scan, test: OrientationTest, value: int = 1) -> Placement:
    """Return the label in the one way that fits the image.

    Parameters
    ----------
    label, image
        As read; their arrays have one shape.
    test
        The card's limits.
    value
        Raw value of the structure that the limits are for.

    Raises
    ------
    CaseError
        If shapes differ, the structure is empty, or no way (or more than one) fits.
    """
    if label.array.shape != image.array.shape:
        raise CaseError(f"label of shape {label.array.shape}, expected the image's {image.array.shape}")
    if not (label.array == value).any():
        raise CaseError(f"label: value {value} is nowhere, so its orientation cannot be tested")
    ways = _ways(label, image)
    scores = {name: _score(array == value, image, test.hu) for name, array in ways.items()}
    passing = sorted((name for name in scores if scores[name].passes(test)), key=lambda name: scores[name].spread)
    if not passing:
        best = min(scores, key=lambda name: scores[name].spread)
        told = f"best: {best}, {scores[best].inside:.0%} in {test.hu[0]:g}..{test.hu[1]:g} HU"
        raise CaseError(
            f"label: no orientation puts {test.structure} on plausible voxels ({told}, spread "
            f"{scores[best].spread:.0f} HU, contrast {scores[best].contrast:.0f} HU); it belongs to another scan?"
        )
    if len(passing) > 1 and scores[passing[1]].spread - scores[passing[0]].spread < CLEARLY:
        raise CaseError(f"label: it fits {' and '.join(passing[:2])} equally well; say which by hand")
    return Placement(ways[passing[0]], passing[0])


def _ways(label: Scan, image: Scan) -> dict[str, NDArray[Any]]:
    """Return name -> label array; ways that give the same array are there once, under their first name."""
    candidates = {"index for index": label.array}
    canonical, _ = to_canonical(label.array, label.affine)
    by_header = from_canonical(canonical, image.affine)
    if by_header.shape == image.array.shape:
        candidates["by its header"] = by_header
    for flips in product((False, True), repeat=3):
        axes = [axis for axis, flip in enumerate(flips) if flip]
        codes = "".join(axis_codes(image.affine)[axis] for axis in axes)
        candidates[f"flipped along {codes}"] = np.flip(label.array, tuple(axes))
    different: dict[str, NDArray[Any]] = {}
    for name, array in candidates.items():
        if not any(np.array_equal(array, other) for other in different.values()):
            different[name] = array
    return different


def _score(mask: NDArray[np.bool_], image: Scan, hu: tuple[float, float]) -> _Score:
    """Return how plausible the voxels under the mask are; only its box, widened by the shell, is looked at."""
    steps = [max(1, round(SHELL_MM / s)) for s in image.grid.spacing_mm]
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    wide = tuple(slice(max(0, s.start - d), min(n, s.stop + d)) for s, d, n in zip(box, steps, mask.shape, strict=True))
    inside = mask[wide]
    values = image.array[wide].astype(np.float32)
    shell = _dilated(inside, steps) & ~inside
    organ = values[inside]
    surrounding = float(values[shell].mean()) if shell.any() else float("nan")
    within = float(((organ >= hu[0]) & (organ <= hu[1])).mean())
    return _Score(within, float(organ.std()), float(organ.mean()) - surrounding)


def _dilated(mask: NDArray[np.bool_], steps: list[int]) -> NDArray[np.bool_]:
    """Return the mask grown by a box of ``steps`` voxels a side."""
    grown = ndimage.maximum_filter(mask.astype(np.uint8), size=[2 * step + 1 for step in steps], mode="constant")
    return np.asarray(grown > 0)
