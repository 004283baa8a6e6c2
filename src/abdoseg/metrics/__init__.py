"""Metrics: how good a predicted label map is, structure by structure.

A metric gets a :class:`Comparison` (both volumes, annotation, spacing; the voxel counts are computed once for
all metrics) and returns one number a structure, in the unit of its entry. Which of these numbers count (a
structure may be unannotated, absent or too small) is decided in ``outcomes``, the same for all metrics; how they
are averaged, in ``aggregate``; how two models compare, in ``paired``.

To add a metric, write one file in this package with a function ``(Comparison, EvalSettings) -> float64 (N,)``
and add one line to :data:`METRICS`; then test it against an independent implementation in ``tests/metrics``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.metrics.aggregate import GROUPINGS, Row, Score, summarise
from abdoseg.metrics.comparison import Comparison
from abdoseg.metrics.outcomes import DEFAULTS, EvalSettings, Outcome, outcome_of
from abdoseg.metrics.overlap import OverlapCounts, count_overlap, dice, volume_difference_ml, volume_error_ml
from abdoseg.metrics.surface import TOLERANCES_MM, normalised_surface_dice, robust_hausdorff_mm

__all__ = [
    "DEFAULTS",
    "GROUPINGS",
    "METRICS",
    "TOLERANCES_MM",
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
    "tolerance_mm",
    "volume_difference_ml",
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
        Whether high values are good, low ones, or those near zero.
    function
        ``(Comparison, EvalSettings) -> float64 (N,)``, in ``unit``; NaN where it is not defined.
    false_positive
        Value of a structure that is predicted where the reference has none; ``None``: as ``function`` computes it.
    of_surfaces
        Whether it needs the structure's whole surface, so that references known in part have no score.
    """

    title: str
    unit: str
    better: Literal["high", "low", "zero"]
    function: Callable[[Comparison, EvalSettings], NDArray[np.float64]]
    false_positive: float | None = None
    of_surfaces: bool = False


def _dsc(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:
    return 100.0 * dice(comparison.counts, settings.dsc)


def _volume_error(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:  # noqa: ARG001
    return volume_error_ml(comparison.counts, comparison.spacing_mm)


def _volume_difference(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:  # noqa: ARG001
    return volume_difference_ml(comparison.counts, comparison.spacing_mm)


def tolerance_mm(name: str, settings: EvalSettings = DEFAULTS) -> float:
    """Return the tolerance of the NSD of a structure, mm.

    Raises
    ------
    ConfigError
        If neither the settings nor :data:`TOLERANCES_MM` have one.
    """
    found = settings.tolerances_mm.get(name, TOLERANCES_MM.get(name))
    if found is None:
        msg = f"nsd: found no tolerance for {name}; expected one in mm; give --tolerance {name}=MM"
        raise ConfigError(msg)
    return found


def _nsd(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:
    tolerances = [tolerance_mm(name, settings) for name in comparison.names]
    # Where only one volume holds a structure, none of the one surface lies near the other.
    values = np.zeros(len(tolerances))
    for c, pair in comparison.surfaces.items():
        values[c - 1] = 100.0 * normalised_surface_dice(pair, tolerances[c - 1])
    return values


def _hd95(comparison: Comparison, settings: EvalSettings) -> NDArray[np.float64]:
    missed = comparison.diagonal_mm if settings.one_sided == "diagonal" else np.nan
    values = np.full(len(comparison.names), missed)
    for c, pair in comparison.surfaces.items():
        values[c - 1] = robust_hausdorff_mm(pair)
    return values


METRICS: Mapping[str, Metric] = {
    "dsc": Metric("Dice similarity coefficient", "%", "high", _dsc, false_positive=0.0),
    "nsd": Metric("normalised surface Dice", "%", "high", _nsd, of_surfaces=True),
    "hd95": Metric("95th percentile of the Hausdorff distance", "mm", "low", _hd95, of_surfaces=True),
    "volume_error": Metric("absolute volume error", "ml", "low", _volume_error),
    "volume_difference": Metric("predicted less true volume", "ml", "zero", _volume_difference),
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
