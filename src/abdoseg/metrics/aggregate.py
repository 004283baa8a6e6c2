"""From scores to table rows: means, spreads and confidence intervals.

The rules (Chen et al., Tables 1-9):

- without ``structure``: a subject's value is the mean over its structures; a row is the mean over subjects;
- with ``structure``: a row is the mean over the images that have the structure, and the row ``average`` is the
  mean of the structures' means;
- ``dataset``, ``modality`` and ``subject`` divide the subjects, and rows named ``all`` sum up: with several keys,
  those of the last key first (``word/all``), then everything (``all/all``).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.metrics.outcomes import Outcome

GROUPINGS = ("structure", "dataset", "subject", "modality")
"""What scores can be grouped by."""

ALL = "all"
"""Dataset, modality or subject of a row over all of them."""

AVERAGE = "average"
"""Structure of the row that averages the structures' means."""

RESAMPLES = 2000
"""Bootstrap resamples behind each confidence interval."""

_SEED = 20240601  # any fixed number: the same scores give the same interval, everywhere

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One metric of one structure of one case.

    Parameters
    ----------
    structure
        Its name.
    metric
        Name in ``METRICS``.
    value
        In the metric's unit; ``None`` where ``outcome`` says that there is no score.
    outcome
        Scored, or why not.
    dataset
        Source of the case.
    subject
        The case's key, unique over all datasets.
    modality
        ``CT``, ``MR`` or ``unknown``.
    """

    structure: str
    metric: str
    value: float | None
    outcome: Outcome
    dataset: str = ""
    subject: str = ""
    modality: str = "unknown"

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            msg = f"{self.metric} of {self.structure} in {self.subject}: {self.value} is not a finite number"
            raise ValueError(msg)

    @property
    def annotated(self) -> bool:
        """Whether the annotators looked for the structure in this case."""
        return self.outcome is not Outcome.NOT_ANNOTATED


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Parameters
    ----------
    keys
        What it is grouped by, in the order asked for, to the name of the group.
    metric
        Name in ``METRICS``; its unit is that of ``mean``, ``std``, ``median`` and ``ci95`` (DSC: per cent).
    mean, median
        Over ``n`` values.
    std
        Sample standard deviation (n - 1 below the line); ``None`` for n = 1.
    n
        Number of values: subjects; images of a structure; structures of an average or of one subject.
    cases
        Number of subjects behind the values; other than ``n`` where that counts structures.
    ci95
        95 % bootstrap interval of ``mean`` (percentiles of 2000 resamples of the subjects); ``None`` for
        fewer than two subjects.
    overall
        Whether the row sums up others (``all``, ``average``).
    """

    keys: Mapping[str, str]
    metric: str
    mean: float
    std: float | None
    median: float
    n: int
    cases: int
    ci95: tuple[float, float] | None
    overall: bool

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON facts: the keys it is grouped by, then the numbers."""
        ci95 = None if self.ci95 is None else list(self.ci95)
        numbers = {"mean": self.mean, "std": self.std, "median": self.median}
        return {**self.keys, "metric": self.metric, **numbers, "n": self.n, "cases": self.cases, "ci95": ci95}


def summarise(scores: Iterable[Score], by: Sequence[str]) -> list[Row]:
    """Summarise scores by any of ``structure``, ``dataset``, ``subject`` and ``modality``.

    Scores without a value are passed over; without any value there are no rows. The order of ``scores`` changes
    no number; rows come in the order in which ``scores`` first name metrics and structures, with a value or without:
    a first case that lacks a structure does not move its row.

    Parameters
    ----------
    scores
        Of any cases and metrics; at most one for a subject, structure and metric.
    by
        Keys to group by; none of them gives one row over everything.

    Raises
    ------
    UnknownNameError, ConfigError
        If a key is not known or named twice.
    """
    _check_keys(by)
    scores = list(scores)
    structures = list(dict.fromkeys(score.structure for score in scores))
    rows = []
    for metric in dict.fromkeys(score.metric for score in scores):
        valued = [score for score in scores if score.metric == metric and score.value is not None]
        if not valued:
            continue
        table = _Table.of(valued, structures)
        for keys, part in table.parts(_dividing_keys(by)):
            rows += [_row(by, keys | more, metric, figures) for more, figures in part.figures(by, keys)]
    return rows


def bootstrap_ci95(values: _Values) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean of the columns' means when subjects are drawn anew.

    Parameters
    ----------
    values
        float64 ``(S, C)``: subjects by structures, NaN where a subject has no score. One column: the interval of
        a plain mean.

    Returns
    -------
    tuple or None
        Lower and upper end; ``None`` for fewer than two subjects with a score.
    """
    values = values[np.isfinite(values).any(axis=1)]
    if len(values) < 2:
        return None
    has_score = np.isfinite(values)
    weights = _resamples(len(values))
    sums = weights @ np.where(has_score, values, 0.0)
    counts = weights @ has_score.astype(np.float64)
    drawn = counts > 0  # a rare structure may be missing from a resample
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=drawn)
    low, high = np.percentile(means.sum(axis=1) / drawn.sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(n_subjects: int) -> _Values:
    """Return how often each subject is in each resample, float64 ``(RESAMPLES, S)``; a function of S alone."""
    generator = np.random.Generator(np.random.Philox(key=_SEED))
    drawn = generator.integers(0, n_subjects, size=(RESAMPLES, n_subjects))
    cells = drawn + n_subjects * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=RESAMPLES * n_subjects)
    return counts.reshape(RESAMPLES, n_subjects).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Figures:
    """The values a row is about ``(n,)``, and what its interval is drawn from ``(S, C)``."""

    values: _Values
    resampled: _Values
    average: bool = False


@dataclass(frozen=True, eq=False)
class _Table:
    """The values of one metric, ``(S, C)``, NaN where there is none; subjects (one mapping each) by structures."""

    subjects: list[Mapping[str, str]]
    structures: list[str]
    values: _Values

    @classmethod
    def of(cls, scores: list[Score], structures: list[str]) -> "_Table":
        subjects = {s.subject: {"dataset": s.dataset, "modality": s.modality, "subject": s.subject} for s in scores}
        row = {name: i for i, name in enumerate(sorted(subjects))}
        column = {name: i for i, name in enumerate(structures)}
        values = np.full((len(row), len(column)), np.nan)
        for score in scores:
            cell = row[score.subject], column[score.structure]
            if np.isfinite(values[cell]):
                msg = f"two {score.metric} scores of {score.structure} in {score.subject}: subjects must be unique"
                raise ValueError(msg)
            values[cell] = score.value
        return cls([subjects[name] for name in row], structures, values)

    def parts(self, keys: tuple[str, ...]) -> Iterator[tuple[dict[str, str], "_Table"]]:
        """Yield the subjects divided by all keys, then by all but the last, ..., then all subjects."""
        for n_keys in range(len(keys), -1, -1):
            groups = [tuple(subject[key] for key in keys[:n_keys]) for subject in self.subjects]
            for group in sorted(set(groups)):
                chosen = [i for i, other in enumerate(groups) if other == group]
                names = group + (ALL,) * (len(keys) - n_keys)
                part = _Table([self.subjects[i] for i in chosen], self.structures, self.values[chosen])
                yield dict(zip(keys, names, strict=True)), part

    def figures(self, by: Sequence[str], keys: Mapping[str, str]) -> Iterator[tuple[dict[str, str], _Figures]]:
        """Yield the values of each row of this part, with the keys that the part itself does not have."""
        if "structure" in by:
            yield from self._by_structure()
        elif keys.get("subject", ALL) != ALL:
            yield {}, _Figures(_finite(self.values[0]), self.values)
        else:
            means = np.nanmean(self.values, axis=1)
            yield {}, _Figures(means, means[:, None])

    def _by_structure(self) -> Iterator[tuple[dict[str, str], _Figures]]:
        present = [i for i in range(len(self.structures)) if np.isfinite(self.values[:, i]).any()]
        for i in present:
            yield {"structure": self.structures[i]}, _Figures(_finite(self.values[:, i]), self.values[:, [i]])
        means = np.nanmean(self.values[:, present], axis=0)
        yield {"structure": AVERAGE}, _Figures(means, self.values[:, present], average=True)


def _finite(values: _Values) -> _Values:
    return values[np.isfinite(values)]


def _row(by: Sequence[str], keys: Mapping[str, str], metric: str, figures: _Figures) -> Row:
    values = figures.values
    return Row(
        keys={key: keys[key] for key in by},
        metric=metric,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if len(values) > 1 else None,
        median=float(np.median(values)),
        n=len(values),
        cases=int(np.isfinite(figures.resampled).any(axis=1).sum()),
        ci95=bootstrap_ci95(figures.resampled),
        overall=figures.average or ALL in keys.values() or not by,
    )


def _dividing_keys(by: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that divide subjects, in the order asked for, ``subject`` last: it divides finest."""
    return tuple(sorted((key for key in by if key != "structure"), key=lambda key: key == "subject"))


def _check_keys(by: Sequence[str]) -> None:
    for key in by:
        if key not in GROUPINGS:
            raise unknown_name("grouping", key, list(GROUPINGS))
    if len(set(by)) < len(by):
        raise ConfigError(f"grouping: found {', '.join(by)}; expected each name once")
