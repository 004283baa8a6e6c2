"""Metrics: how good a predicted label map is, structure by structure.

A metric gets a :class:`Comparison` (both volumes, annotation, spacing; the voxel counts are computed once for
all metrics) and returns one number a structure, in the unit of its entry. Which of these numbers count (a
structure may be unannotated, absent or too small) is decided in ``outcomes``, the same for all metrics; how they
are averaged, in ``aggregate``.

To add a metric, write one file in this package with a function ``(Comparison, EvalSettings) -> float64 (N,)``
and add one line to :data:`METRICS`; then test it against an independent implementation in ``tests/metrics``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import unknown_name
from abdoseg.metrics.aggregate import GROUPINGS, Row, Score, summarise
from abdoseg.metrics.comparison import Comparison
from abdoseg.metrics.outcomes import DEFAULTS, EvalSettings, Outcome, outcome_of
from abdoseg.metrics.overlap import OverlapCounts, count_overlap, dice, volume_error_ml

__all__ = [
    "DEFAULTS",
    "GROUPINGS",
    "METRICS",
    "Comparison",
    "EvalSettings",
    "Metric",
    "Outcome",
    "OverlapCounts",
    "Row",
    "Score",
    "count_overlap",
    "dice",
    "get_metric",
    "outcome_of",
    "summarise",
    "volume_error_ml",
]


@dataclass(frozen=True)
class Metric:
    """One entry of :data:`METRICS`.

    Parameters
    ----------
    title
        The name for people.
    unit
        Unit of the values; ``%`` means that 1 is given as 100.
    better
        Whether high or low values are good.
    function
        ``(Comparison, EvalSettings) -> float64 (N,)``, in ``unit``; NaN where it is not defined.
    false_positive
        Value of a structure that is predicted where the reference has none; ``None``: as ``function`` computes it.
    """

    title: str
    unit: str
    better: Literal["high", "low"]
    function: Callable[[Comparison, EvalSettings], NDArray[np.float64]]
    false_positive: float | None = None


def _dsc(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:
    return 100.0 * dice(comparison.counts, settings.dsc)


def _volume_error(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:  # noqa: ARG001
    return volume_error_ml(comparison.counts, comparison.spacing_mm)


METRICS: Mapping[str, Metric] = {
    "dsc": Metric("Dice similarity coefficient", "%", "high", _dsc, false_positive=0.0),
    "volume_error": Metric("absolute volume error", "ml", "low", _volume_error),
}
"""Name -> metric; the one place where metrics are listed."""


def get_metric(name: str) -> Metric:
    """Return the metric called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none; near names are proposed.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, list(METRICS))
    return METRICS[name]
