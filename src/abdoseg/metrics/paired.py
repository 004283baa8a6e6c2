"""Two models on the same cases: paired differences, with intervals and tests.

Wilcoxon's signed-rank test (SciPy; exact for few pairs) asks whether differences are symmetric about zero. As many
structures are tested at once, their p values are corrected by Holm 1979.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.metrics.aggregate import ALL, Score, bootstrap_ci95

FEWEST_PAIRS = 6
"""With fewer pairs that differ, even the most unequal ones give p > 0.05 (2 / 2^n): no p value is told."""


@dataclass(frozen=True)
class PairedRow:
    """One line of a comparison of A and B.

    Parameters
    ----------
    structure
        Its name, or ``all``: the subjects' means over the structures that both models have a score of.
    metric
        Name in ``METRICS``.
    mean_a, mean_b
        Over the pairs.
    difference
        Mean of A less B.
    ci95
        95 % bootstrap interval of ``difference`` over the subjects; ``None`` for one pair.
    n
        Number of pairs.
    p
        Of the signed-rank test; ``None`` for fewer than :data:`FEWEST_PAIRS` pairs that differ, 1 if none does.
    p_holm
        ``p`` corrected over the structures of the metric; ``None`` for the row ``all``, which is one test.
    """

    structure: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    ci95: tuple[float, float] | None
    n: int
    p: float | None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON facts."""
        return {**vars(self), "ci95": None if self.ci95 is None else list(self.ci95)}


def compare_scores(a: Iterable[Score], b: Iterable[Score]) -> list[PairedRow]:
    """Compare the scores of two models by structure, and over subjects in a last row ``all`` of each metric.

    Only cases and structures that have a score in both count. Rows come in the order in which the scores first name
    metrics and structures, with a value or without, as in :func:`abdoseg.metrics.summarise`.
    """
    a, b = list(a), list(b)
    of_a, of_b = _values(a), _values(b)
    structures = list(dict.fromkeys(score.structure for score in (*a, *b)))
    rows = []
    for metric in dict.fromkeys(score.metric for score in (*a, *b)):
        keys = [key for key in of_a if key in of_b and key[0] == metric]
        rows += _of_metric(metric, structures, {key[1:]: (of_a[key], of_b[key]) for key in keys})
    return rows


def _of_metric(
    metric: str, structures: Sequence[str], pairs: Mapping[tuple[str, str], tuple[float, float]]
) -> list[PairedRow]:
    """Return the rows of one metric; ``pairs``: structure and subject -> values of A and B."""
    if not pairs:
        return []
    held = {structure for structure, _ in pairs}
    by_structure = [
        _row(structure, metric, np.array([pair for key, pair in pairs.items() if key[0] == structure]))
        for structure in structures
        if structure in held
    ]
    corrected = holm([row.p for row in by_structure])
    rows = [replace(row, p_holm=p) for row, p in zip(by_structure, corrected, strict=True)]
    subjects = sorted({subject for _, subject in pairs})
    means = [np.mean([pair for key, pair in pairs.items() if key[1] == subject], axis=0) for subject in subjects]
    return [*rows, _row(ALL, metric, np.array(means))]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected by Holm's step-down method; those that are ``None`` are no tests and stay so."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected


def _values(scores: Iterable[Score]) -> dict[tuple[str, str, str], float]:
    return {(s.metric, s.structure, s.subject): s.value for s in scores if s.value is not None}


def _row(structure: str, metric: str, pairs: NDArray[np.float64]) -> PairedRow:
    """Return the row of pairs ``(n, 2)``."""
    mean_a, mean_b = pairs.mean(axis=0).tolist()
    differences = pairs[:, 0] - pairs[:, 1]
    interval = bootstrap_ci95(differences[:, None])
    mean = float(differences.mean())
    return PairedRow(structure, metric, mean_a, mean_b, mean, interval, len(pairs), _p_value(differences))


def _p_value(differences: NDArray[np.float64]) -> float | None:
    from scipy.stats import wilcoxon

    # Rounding must not make a difference of equal scores, nor break a tie.
    differing = np.round(differences[np.abs(differences) > 1e-9], 9)
    if len(differing) == 0:
        return 1.0
    return float(wilcoxon(differing).pvalue) if len(differing) >= FEWEST_PAIRS else None
