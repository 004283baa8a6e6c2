"""What has no score, and why: a mean over the others would look better than it is, and the n differ by it."""

from collections.abc import Iterable, Iterator, Sequence

from abdoseg.metrics import Outcome, Score

_OF_ALL = {
    Outcome.NOT_ANNOTATED: "not annotated",
    Outcome.ABSENT: "absent from the reference",
    Outcome.TOO_SMALL: "too small in the reference",
}
"""Reasons that hold for every metric."""

_OF_SOME = {
    Outcome.KNOWN_IN_PART: "their references are known in part, so their surfaces are not known",
    Outcome.NOT_PREDICTED: "they were not predicted (abdoseg eval --one-sided diagonal counts them)",
}
"""Reasons that hold for surfaces and distances, in the words of ``abdoseg eval``."""


def left_out(scores: Sequence[Score]) -> list[str]:
    """Return a sentence for each reason why structures have no score, with how many they are.

    Parameters
    ----------
    scores
        Of all metrics, one for each case and structure.

    Returns
    -------
    list of str
        First what every metric leaves out, then what some metrics do; empty where everything is scored.
    """
    metrics = list(dict.fromkeys(score.metric for score in scores))
    first = [score for score in scores if score.metric == metrics[0]]
    counts = [f"{n} {what}" for outcome, what in _OF_ALL.items() if (n := _count(first, outcome))]
    notes = [f"Left out: {', '.join(counts)} (structures, summed over cases)."] if counts else []
    return [*notes, *_of_some(scores, metrics)]


def _of_some(scores: Sequence[Score], metrics: Iterable[str]) -> Iterator[str]:
    for metric in metrics:
        of_metric = [score for score in scores if score.metric == metric]
        for outcome, why in _OF_SOME.items():
            n = _count(of_metric, outcome)
            if n:
                structures = "1 structure" if n == 1 else f"{n} structures"
                yield f"{metric.upper()}: {structures} (summed over cases) left out: {why}."


def _count(scores: Iterable[Score], outcome: Outcome) -> int:
    return sum(score.outcome is outcome for score in scores)
