"""Is this label likely to be right? Cheap checks that expose a wrong map, a wrong side or a wrong affine.

Nothing here refuses a case: what is odd is told, and a person looks at it. The ranges are wide on purpose: they are to
catch an adrenal called kidney or a spacing of 1 x 1 x 1 mm, not an enlarged spleen. A card may state its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.cards import Expected
from abdoseg.case import Case, Foreground, Measure
from abdoseg.types import Modality

VOLUME_ML: Mapping[str, tuple[float, float]] = {
    "spleen": (25, 1500),
    "right_kidney": (25, 600),
    "left_kidney": (25, 600),
    "gallbladder": (0.5, 250),
    "esophagus": (0.5, 100),
    "liver": (400, 4500),
    "stomach": (20, 2500),
    "aorta": (5, 600),
    "postcava": (5, 400),
    "pancreas": (8, 300),
    "right_adrenal_gland": (0.3, 40),
    "left_adrenal_gland": (0.3, 40),
    "duodenum": (5, 300),
    "bladder": (3, 1500),
    "prostate_uterus": (3, 900),
    "portal_splenic_vein": (2, 150),
}
"""Volumes of organs that lie wholly in the view; around those measured on WORD's public labels, widened."""

MEAN_HU: Mapping[str, tuple[float, float]] = dict.fromkeys(
    ("liver", "spleen", "pancreas", "right_kidney", "left_kidney"), (0.0, 280.0)
)
"""Mean HU of solid organs, with and without contrast."""

GAS_BELOW_HU = -200.0
MOST_GAS = 0.05
HOLLOW = ("stomach", "duodenum", "esophagus")
"""Organs that hold gas."""

ORDER: tuple[tuple[str, str, int, str], ...] = (
    ("left_kidney", "right_kidney", 0, "left of"),
    ("left_adrenal_gland", "right_adrenal_gland", 0, "left of"),
    ("spleen", "liver", 0, "left of"),
    ("bladder", "right_kidney", 2, "below"),
    ("bladder", "left_kidney", 2, "below"),
    ("prostate_uterus", "right_kidney", 2, "below"),
    ("prostate_uterus", "left_kidney", 2, "below"),
    ("duodenum", "esophagus", 2, "below"),
    ("aorta", "stomach", 1, "behind"),
    ("aorta", "liver", 1, "behind"),
    ("postcava", "stomach", 1, "behind"),
    ("right_kidney", "liver", 1, "behind"),
    ("right_kidney", "liver", 2, "below"),
    ("left_kidney", "pancreas", 1, "behind"),
)
"""(a, b, RAS+ axis, word): the centre of a has the smaller coordinate."""


@dataclass(frozen=True)
class Ranges:
    """What is usual in a source.

    Parameters
    ----------
    volume_ml, mean_hu
        Structure -> (low, high).
    """

    volume_ml: Mapping[str, tuple[float, float]]
    mean_hu: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, expected: Expected) -> "Ranges":
        """Return the general ranges, with a card's own in their place where it states them."""
        return cls({**VOLUME_ML, **expected.volume_ml}, {**MEAN_HU, **expected.mean_hu})


def measure(
    image: NDArray[np.int16],
    intensity: tuple[float, float],
    foreground: Foreground,
    ml_per_voxel: float,
    anatomy: Anatomy,
) -> dict[str, Measure]:
    """Return what is measured of each structure that a case holds.

    Parameters
    ----------
    image
        ``(X, Y, Z)``, harmonised.
    intensity
        ``(scale, offset)`` that bring stored values to HU (CT), or to [0, 1].
    foreground
        Labelled voxels of the case.
    ml_per_voxel
        Volume of a voxel.
    anatomy
        The structures.
    """
    flat = image.reshape(-1)
    found = {}
    for structure_id, name in enumerate(anatomy.names, start=1):
        index = foreground.of_structure(structure_id)
        if index.size:
            values = flat[index].astype(np.float64) * intensity[0] + intensity[1]
            found[name] = _measure_one(index, values, image.shape, ml_per_voxel)
    return found


def _measure_one(
    index: NDArray[np.int32], values: NDArray[np.float64], shape: tuple[int, ...], ml_per_voxel: float
) -> Measure:
    at = np.unravel_index(index, shape)
    touches = any(int(a.min()) == 0 or int(a.max()) == n - 1 for a, n in zip(at, shape, strict=True))
    x, y, z = (round(float(a.mean()), 1) for a in at)
    return Measure(
        ml=round(index.size * ml_per_voxel, 3),
        mean=round(float(values.mean()), 3),
        gas=round(float((values < GAS_BELOW_HU).mean()), 4),
        centre=(x, y, z),
        cut=touches,
    )


def hu_scale(case: Case) -> tuple[float, float]:
    """Return ``(scale, offset)`` from a case's stored values to HU (CT; within the window), or to [0, 1] (MR)."""
    facts = case.facts
    if facts.modality == "MR":
        return facts.scale, facts.offset
    low, high = facts.window
    return facts.scale * (high - low), low + facts.offset * (high - low)


def oddities(
    measures: Mapping[str, Measure], modality: Modality, ranges: Ranges, annotated: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what somebody should look at; empty for a plausible case.

    Parameters
    ----------
    measures
        By structure.
    modality
        HU are looked at in CT only.
    ranges
        What is usual in the source.
    annotated
        What the case's annotators looked for.
    """
    if annotated and not measures:
        return ("none of the annotated structures is in it (out of the field of view?)",)
    return (*_order(measures), *_volumes(measures, ranges), *_intensities(measures, modality, ranges))


def _order(measures: Mapping[str, Measure]) -> Iterator[str]:
    for first, second, axis, word in ORDER:
        if first in measures and second in measures:
            a, b = measures[first], measures[second]
            # An organ cut by the field of view has its centre elsewhere: only sides still hold.
            if a.centre[axis] >= b.centre[axis] and (axis == 0 or not (a.cut or b.cut)):
                yield f"{first} is not {word} {second}: flipped axis, or values swapped?"


def _volumes(measures: Mapping[str, Measure], ranges: Ranges) -> Iterator[str]:
    for name, found in measures.items():
        low, high = ranges.volume_ml.get(name, (0.0, np.inf))
        if found.ml > high or (found.ml < low and not found.cut):
            yield f"{name} of {found.ml:.3g} ml, expected {low:g} to {high:g}"


def _intensities(measures: Mapping[str, Measure], modality: Modality, ranges: Ranges) -> Iterator[str]:
    if modality != "CT":
        return
    for name, found in measures.items():
        low, high = ranges.mean_hu.get(name, (-np.inf, np.inf))
        if not low <= found.mean <= high:
            yield f"{name} of mean {found.mean:.0f} HU, expected {low:g} to {high:g}: misplaced label?"
        if found.gas > MOST_GAS and name not in HOLLOW:
            yield f"{found.gas:.0%} of {name} is gas: misplaced label?"
