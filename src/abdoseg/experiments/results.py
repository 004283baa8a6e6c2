"""From scores to the cells of a table: the paper's numbers and what came out here."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from abdoseg.config import TrainConfig
from abdoseg.experiments.model import Column, Experiment, Printed, Study
from abdoseg.metrics import Row, Score, summarise
from abdoseg.metrics.aggregate import AVERAGE


@dataclass(frozen=True)
class Figure:
    """One number of a table; DSC in per cent.

    Parameters
    ----------
    mean
        Over subjects, images or structures, as the column says, and over seeds.
    std
        Sample standard deviation over the same; of several seeds the root mean square of theirs, which is what one
        model spreads. For the average of structures the mean of their standard deviations (as in the paper's Tables
        4 and 6, whose printed values agree with it). ``None`` for a single value.
    ci95
        95 % bootstrap interval of ``mean``: subjects drawn anew, each with its mean over the seeds; ``None`` for
        fewer than two.
    n
        Number of subjects, images or structures.
    by_seed
        The mean of each seed's model.
    """

    mean: float
    std: float | None
    ci95: tuple[float, float] | None
    n: int
    by_seed: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON facts."""
        ci95 = None if self.ci95 is None else list(self.ci95)
        return {"mean": self.mean, "std": self.std, "ci95": ci95, "n": self.n, "by_seed": list(self.by_seed)}


@dataclass(frozen=True)
class RowResult:
    """What became of an experiment.

    Parameters
    ----------
    experiment
        The experiment.
    configs, runs, scores
        Configuration, name of the run and scores of each seed; empty where there are none.
    cases
        How many cases it learnt from.
    reason
        Why there are no scores; empty where there are.
    """

    experiment: Experiment
    configs: tuple[TrainConfig, ...] = ()
    runs: tuple[str, ...] = ()
    scores: tuple[Sequence[Score], ...] = ()
    cases: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what the paper prints, if it does, and what came out here, if anything did."""

    row: tuple[str, ...]
    column: str
    result: RowResult
    paper: Printed | None
    here: Figure | None


@dataclass(frozen=True)
class Page:
    """A table, filled as far as it is.

    Parameters
    ----------
    study
        The table and its experiments.
    cells
        In the order of rows, then columns.
    notes
        What stands under it, a line each.
    options
        How it was run, as JSON facts.
    """

    study: Study
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    options: dict[str, Any]


def cells_of(study: Study, results: Sequence[RowResult]) -> tuple[Cell, ...]:
    """Return the cells of a study's table; experiments without a result have empty ones."""
    by_id = {result.experiment.id: result for result in results}
    columns = study.table.columns
    figures = {name: figures_of(result.scores, columns) for name, result in by_id.items()}
    cells = []
    for row in study.table.rows:
        for column in columns:
            experiment, fill = study.experiment_at(row, column.title)
            result = by_id.get(experiment.id, RowResult(experiment, reason="not run yet"))
            here = figures.get(experiment.id, {}).get(column.title)
            cells.append(Cell(row, column.title, result, fill.cells.get(column.title), here))
    return tuple(cells)


def figures_of(scores: Sequence[Sequence[Score]], columns: Sequence[Column]) -> dict[str, Figure | None]:
    """Return the number of each column, by its title; ``scores`` are those of each seed."""
    if not scores:
        return {}
    joint = _Summary(mean_scores(scores))
    each = [_Summary(of_seed) for of_seed in scores]
    return {column.title: _figure(joint, each, column) for column in columns}


def figure_of(scores: Sequence[Sequence[Score]], column: Column) -> Figure | None:
    """Return the number of one column; ``None`` where no case has a score for it."""
    return figures_of(scores, [column]).get(column.title)


def mean_scores(scores: Sequence[Sequence[Score]]) -> list[Score]:
    """Return the scores of each subject and structure averaged over the seeds.

    Raises
    ------
    ValueError
        If the seeds were not scored on the same cases and structures.
    """
    values = defaultdict(list)
    for of_seed in scores:
        for score in of_seed:
            values[score.subject, score.structure].append(score.value)
    joint = []
    for score in scores[0]:
        found = values[score.subject, score.structure]
        numbers = [value for value in found if value is not None]
        if len(found) != len(scores) or len(numbers) not in (0, len(scores)):
            msg = f"{score.structure} of {score.subject}: scored for some seeds only"
            raise ValueError(msg)
        joint.append(replace(score, value=float(np.mean(numbers)) if numbers else None))
    return joint


class _Summary:
    """Rows of one set of scores, summarised once for each grouping."""

    def __init__(self, scores: Sequence[Score]) -> None:
        self._scores = scores
        self._rows: dict[str, list[Row]] = {}

    def row(self, column: Column) -> Row | None:
        """Return the row that a column shows."""
        by, name = ("structure", column.structure) if column.structure else ("dataset", column.dataset)
        if name is None:
            return next(iter(self._by("")), None)
        return next((row for row in self._by(by) if row.keys[by] == name), None)

    def std(self, column: Column) -> float | None:
        """Return the standard deviation that a column shows."""
        row = self.row(column)
        if row is None or column.structure != AVERAGE:
            return None if row is None else row.std
        stds = [row.std for row in self._by("structure") if not row.overall and row.std is not None]
        return float(np.mean(stds)) if stds else None

    def _by(self, by: str) -> list[Row]:
        if by not in self._rows:
            self._rows[by] = summarise(self._scores, [by] if by else [])
        return self._rows[by]


def _figure(joint: _Summary, each: Sequence[_Summary], column: Column) -> Figure | None:
    row = joint.row(column)
    if row is None:
        return None
    means = [found.mean for summary in each if (found := summary.row(column)) is not None]
    stds = [std for summary in each if (std := summary.std(column)) is not None]
    std = float(np.sqrt(np.mean(np.square(stds)))) if stds else None
    return Figure(row.mean, std, row.ci95, row.n, tuple(means))
