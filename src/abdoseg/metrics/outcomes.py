"""Whether a structure of a case gets a score, and by which rule: each way to end has a name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.metrics.overlap import DiceFormula

Absent = Literal["skip", "score"]
"""Annotated structures that the reference does not hold: left out, or scored where they are predicted."""


OneSided = Literal["skip", "diagonal"]
"""Distances of a structure that only one volume holds: none, or the scan's diagonal."""


class Outcome(StrEnum):
    """What became of one structure of one case."""

    SCORED = "scored"
    FALSE_POSITIVE = "false positive"
    """Annotated, absent in the reference, predicted; scored as the worst (``absent="score"`` only)."""
    NOT_ANNOTATED = "not annotated"
    """Nobody looked for it: no score, whatever is predicted."""
    ABSENT = "absent"
    """Annotated, but the reference does not hold it: left out."""
    TOO_SMALL = "too small"
    """The reference holds it in fewer voxels than ``min_voxels``: left out."""
    KNOWN_IN_PART = "known in part"
    """Surfaces only: the reference knows it in some slices or voxels, so its whole surface is not known: left out."""
    NOT_PREDICTED = "not predicted"
    """Distances only: the prediction lacks it, so there is nothing to measure to: left out (``one_sided="skip"``)."""

    @property
    def has_value(self) -> bool:
        """Whether the structure gets a score."""
        return self in (Outcome.SCORED, Outcome.FALSE_POSITIVE)


@dataclass(frozen=True)
class EvalSettings:
    """How to score.

    Parameters
    ----------
    metrics
        Names in ``abdoseg.metrics.METRICS``.
    dsc
        ``plain`` as defined, or ``authors``: ``(2 I + 1) / (P + R + 1)``.
    absent
        ``skip`` leaves annotated structures out that the reference does not hold (as the paper); ``score`` counts
        them as false positives where something is predicted, and leaves them out where nothing is.
    min_voxels
        Fewest reference voxels of a structure that is scored (the authors: 51).
    tolerances_mm
        Structure -> tolerance of the NSD, in place of that of ``TOLERANCES_MM``.
    one_sided
        Distances (HD95) of a structure that only one of both volumes holds: ``skip`` leaves them out, under a name of
        their own; ``diagonal`` counts the length of the scan's diagonal.
    """

    metrics: tuple[str, ...] = ("dsc",)
    dsc: DiceFormula = "plain"
    absent: Absent = "skip"
    min_voxels: int = 1
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)
    one_sided: OneSided = "skip"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("dsc", self.dsc, get_args(DiceFormula)),
            ("absent", self.absent, get_args(Absent)),
            ("one_sided", self.one_sided, get_args(OneSided)),
        ):
            if value not in allowed:
                raise unknown_name(f"evaluation setting {name}", value, list(allowed))
        if self.min_voxels < 1:
            raise ConfigError(f"min_voxels: found {self.min_voxels}; expected 1 or more")
        if not self.metrics:
            raise ConfigError("metrics: found none; expected at least one; give dsc")
        if len(set(self.metrics)) < len(self.metrics):
            raise ConfigError(f"metrics: found {', '.join(self.metrics)}; expected each name once")
        for name, tolerance in self.tolerances_mm.items():
            if not (math.isfinite(tolerance) and tolerance >= 0):
                raise ConfigError(f"tolerance of {name}: found {tolerance:g} mm; expected 0 or more")


DEFAULTS = EvalSettings()
"""The paper's rules: plain DSC over annotated structures that the reference holds."""


def outcome_of(*, annotated: bool, in_reference: int, in_prediction: int, settings: EvalSettings) -> Outcome:
    """Return what becomes of a structure with so many known voxels in reference and prediction."""
    if not annotated:
        return Outcome.NOT_ANNOTATED
    if in_reference == 0:
        scored = settings.absent == "score" and in_prediction > 0
        return Outcome.FALSE_POSITIVE if scored else Outcome.ABSENT
    return Outcome.SCORED if in_reference >= settings.min_voxels else Outcome.TOO_SMALL
