"""Evaluate: score predictions against references, and summarise the scores.

:func:`score_case` scores one pair of volumes, :func:`evaluate_cases` the cases of a workspace;
:mod:`abdoseg.steps.evaluate_folders` has plain folders; :func:`summarise` turns scores into table rows. What is
scored is settled in ``method.md`` 6: annotated structures that the reference holds, in known voxels only; a
structure that is not annotated is never scored.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts
from abdoseg.errors import CaseError
from abdoseg.geometry import spacing_of
from abdoseg.metrics import (
    DEFAULTS,
    Comparison,
    EvalSettings,
    Metric,
    Outcome,
    Row,
    Score,
    get_metric,
    outcome_of,
    summarise,
)
from abdoseg.progress import SILENT, Progress
from abdoseg.types import Label

__all__ = [
    "EvalSettings",
    "Outcome",
    "Row",
    "Score",
    "evaluate_cases",
    "score_case",
    "summarise",
]


def score_case(
    prediction: Label,
    reference: Label,
    annotation: Annotation,
    spacing_mm: tuple[float, float, float],
    anatomy: Anatomy = ABDOMEN,
    settings: EvalSettings = DEFAULTS,
) -> list[Score]:
    """Score one prediction.

    Parameters
    ----------
    prediction
        uint8 ``(X, Y, Z)``, structure ids 0..N; any memory order.
    reference
        uint8 ``(X, Y, Z)``, the same, and 255 where nobody knows.
    annotation
        Where which structure is known; other voxels count for nothing.
    spacing_mm
        Voxel side along X, Y, Z.
    anatomy
        Names of the N structures.
    settings
        Metrics and rules.

    Returns
    -------
    list of Score
        One for each metric and structure, in their orders, with the outcome and, where that has one, a value.
        ``dataset`` and ``subject`` are empty.

    Raises
    ------
    CaseError
        If the volumes do not fit together or hold other values.
    UnknownNameError
        If a metric is not known.
    """
    if annotation.n_structures != len(anatomy):
        msg = f"annotation: found {annotation.n_structures} structures; expected the anatomy's {len(anatomy)}"
        raise CaseError(msg)
    comparison = Comparison(prediction, reference, annotation, spacing_mm, anatomy.names)
    outcomes = _outcomes(comparison, settings)
    scores = []
    for name in settings.metrics:
        metric = get_metric(name)
        values = metric.function(comparison, settings)
        known = comparison.known_everywhere if metric.of_surfaces else np.ones(len(anatomy), dtype=bool)
        for i, structure in enumerate(anatomy.names):
            outcome, value = _value(metric, outcomes[i], float(values[i]), whole=bool(known[i]))
            scores.append(Score(structure, name, value, outcome))
    return scores


def _value(metric: Metric, outcome: Outcome, computed: float, *, whole: bool) -> tuple[Outcome, float | None]:
    """Return what becomes of a structure in one metric, and its value; ``whole``: the metric sees all it needs."""
    if not outcome.has_value:
        return outcome, None
    if not whole:
        return Outcome.KNOWN_IN_PART, None
    if outcome is Outcome.FALSE_POSITIVE and metric.false_positive is not None:
        return outcome, metric.false_positive
    if np.isnan(computed):
        return (Outcome.ABSENT if outcome is Outcome.FALSE_POSITIVE else Outcome.NOT_PREDICTED), None
    return outcome, computed


def evaluate_cases(
    items: Iterable[tuple[CaseFacts, Annotation, Label, Label]],
    settings: EvalSettings = DEFAULTS,
    anatomy: Anatomy = ABDOMEN,
    progress: Progress = SILENT,
) -> list[Score]:
    """Score cases on their harmonised grid, one after the other: only one case need be in memory.

    Parameters
    ----------
    items
        ``(facts, annotation, label, prediction)``; label and prediction uint8 ``(X, Y, Z)`` of ``facts.shape``.
    settings
        Metrics and rules.
    anatomy
        Names of the structures.
    progress
        Is advanced by one a case; the caller, who knows how many there are, starts it.

    Raises
    ------
    CaseError
        If a case cannot be scored; the message begins with its key.
    """
    scores = []
    for facts, annotation, label, prediction in items:
        try:
            if label.shape != facts.shape:
                msg = f"label: found shape {label.shape}; expected {facts.shape}, the case's; ingest the case again"
                raise CaseError(msg)  # noqa: TRY301 - gets its key below
            found = score_case(prediction, label, annotation, spacing_of(facts.affine_array), anatomy, settings)
        except CaseError as error:
            raise CaseError(f"{facts.key}: {error}") from error
        scores += of_case(found, facts.source, facts.key, facts.modality)
        progress.advance(note=facts.key)
    return scores


def _outcomes(comparison: Comparison, settings: EvalSettings) -> list[Outcome]:
    """Return the outcome of structures 1..N."""
    annotated = set(comparison.annotation.structure_ids)
    counts = comparison.counts
    voxels = zip(counts.reference.tolist(), counts.predicted.tolist(), strict=True)
    return [
        outcome_of(annotated=c in annotated, in_reference=reference, in_prediction=predicted, settings=settings)
        for c, (reference, predicted) in enumerate(voxels, start=1)
    ]


def of_case(scores: Iterable[Score], dataset: str, subject: str, modality: str) -> list[Score]:
    """Return scores that say whose they are."""
    return [replace(score, dataset=dataset, subject=subject, modality=modality) for score in scores]
