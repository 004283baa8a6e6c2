"""What an experiment and a table are. Names of methods, networks and samplers are looked up when one is run."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from abdoseg.cards import expand_aliases
from abdoseg.config import TrainConfig
from abdoseg.errors import unknown_name
from abdoseg.metrics import EvalSettings
from abdoseg.metrics.outcomes import Absent
from abdoseg.metrics.overlap import DiceFormula
from abdoseg.types import NAME_PATTERN
from abdoseg.views import FULL_VIEW, View

GIVEN_ELSEWHERE = frozenset({"preset", "view", "sources", "seed"})
"""Settings that an experiment's own keys or the command's options give."""

SCALED = frozenset({"steps", "validate_every", "learning_rate_every"})
"""Settings in steps; they follow the scale, and an experiment gives its share as ``steps_factor``."""

Printed = tuple[float, float]
"""Mean and standard deviation as the paper prints them, in per cent."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _sources(names: Iterable[str]) -> tuple[str, ...]:
    return _expanded(tuple(names))


@lru_cache
def _expanded(names: tuple[str, ...]) -> tuple[str, ...]:
    # Each expansion reads the whole registry, and most experiments name the same sources.
    return tuple(dict.fromkeys(expand_aliases(names)))


class Column(_Part):
    """A column of a table: the DSC of a structure, of a dataset, or overall by subject."""

    title: str = Field(min_length=1, description="unique in its table")
    structure: str | None = Field(default=None, description="its mean over images; `average`: the mean of these means")
    dataset: str | None = Field(default=None, description="card; the mean over its subjects")

    @model_validator(mode="after")
    def _one_of_both(self) -> "Column":
        if self.structure is not None and self.dataset is not None:
            raise ValueError("found structure and dataset, expected at most one of them")
        return self


OVERALL = (Column(title="DSC [%]"),)


class Table(_Part):
    """How a table looks."""

    id: str = Field(pattern=NAME_PATTERN)
    title: str
    heads: tuple[str, ...] = Field(default=("Setting",), min_length=1, description="titles of what names a row")
    rows: tuple[tuple[str, ...], ...] = Field(min_length=1, description="names of the rows, in the order printed")
    columns: tuple[Column, ...] = Field(default=OVERALL, min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> "Table":
        for row in self.rows:
            if len(row) != len(self.heads):
                msg = f"row {list(row)}: found {len(row)} names, expected one for each of {list(self.heads)}"
                raise ValueError(msg)
        for what, names in (("row", [str(list(row)) for row in self.rows]), ("column", self.titles)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                msg = f"{what} {twice}: found twice, expected each once"
                raise ValueError(msg)
        return self

    @property
    def titles(self) -> list[str]:
        """Titles of its columns."""
        return [column.title for column in self.columns]


class Fill(_Part):
    """A row of a table that an experiment fills, wholly or in some columns."""

    table: str
    row: tuple[str, ...]
    columns: tuple[str, ...] = Field(default=(), description="which; empty: those of `cells`, or all without any")
    cells: dict[str, Printed] = Field(default={}, description="column -> what the paper prints")
    misprint: str = Field(default="", description="what is known to be wrong with the paper's numbers")

    def columns_in(self, table: Table) -> tuple[str, ...]:
        """Return the titles of the columns it fills."""
        return self.columns or tuple(self.cells) or tuple(table.titles)


class Scoring(_Part):
    """On what and how a model is scored; the same rules as ``abdoseg eval``."""

    sources: tuple[str, ...] = Field(default=(), description="sources whose test cases count; empty: all")
    min_voxels: int = Field(default=1, ge=1, description="smallest reference structure that counts")
    absent: Absent = "skip"
    dsc: DiceFormula = "plain"

    _expanded = field_validator("sources")(_sources)

    def settings(self) -> EvalSettings:
        """Return the rules for :mod:`abdoseg.steps.evaluate`."""
        return EvalSettings(dsc=self.dsc, absent=self.absent, min_voxels=self.min_voxels)


class Experiment(_Part):
    """One training: how it differs from a preset, what it learns from, how it is scored, which rows it fills."""

    id: str = Field(pattern=NAME_PATTERN, description="the file's name")
    title: str
    settings: dict[str, Any] = Field(default={}, description="settings of a training in place of the preset's")
    paper_settings: dict[str, Any] = Field(
        default={}, description="more of them, with preset `paper` and the experiment's own network only"
    )
    steps_factor: float = Field(default=1.0, gt=0, description="its steps are so many times those of the preset")
    sources: tuple[str, ...] = Field(default=(), description="sources it learns from; empty: all")
    view: View | None = Field(default=None, description="sparse view of the training cases")
    scoring: Scoring = Scoring()
    fills: tuple[Fill, ...] = Field(min_length=1)
    notes: tuple[str, ...] = Field(default=(), description="what else differs from the paper; told under the table")

    _expanded = field_validator("sources")(_sources)

    @field_validator("view")
    @classmethod
    def _view_of_cards(cls, view: View | None) -> View | None:
        return None if view is None else view.model_copy(update={"sources": _sources(view.sources)})

    @field_validator("settings", "paper_settings")
    @classmethod
    def _settings_of_a_training(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in settings:
            if key in GIVEN_ELSEWHERE | SCALED:
                msg = f"{key}: is not set here; an experiment has sources, view and steps_factor, `reproduce` the rest"
                raise ValueError(msg)
            if key not in TrainConfig.model_fields:
                # Pydantic turns only ValueErrors into faults of a field.
                raise ValueError(str(unknown_name("setting", key, list(TrainConfig.model_fields))))
        return settings

    @property
    def view_name(self) -> str:
        """Name of its view."""
        return FULL_VIEW if self.view is None else self.view.name

    def fill_of(self, table: str, row: tuple[str, ...]) -> Fill | None:
        """Return its part in a row of a table, or ``None``."""
        return next((fill for fill in self.fills if (fill.table, fill.row) == (table, row)), None)


Origin = Literal["paper", "own"]


class Study(_Part):
    """A table and the experiments that fill it, in the order of its rows."""

    table: Table
    experiments: tuple[Experiment, ...]
    origin: Origin = Field(description="a table of the paper, or a file of the user's own")

    @model_validator(mode="after")
    def _each_cell_is_filled_once(self) -> "Study":
        filled: dict[tuple[tuple[str, ...], str], str] = {}
        for experiment in self.experiments:
            for fill in (fill for fill in experiment.fills if fill.table == self.table.id):
                self._check(experiment, fill)
                for column in fill.columns_in(self.table):
                    other = filled.setdefault((fill.row, column), experiment.id)
                    if other != experiment.id:
                        msg = f"row {list(fill.row)}, column {column}: filled by {other} and {experiment.id}"
                        raise ValueError(msg)
        for row in self.table.rows:
            for title in self.table.titles:
                if (row, title) not in filled:
                    msg = f"row {list(row)}, column {title}: no experiment fills it"
                    raise ValueError(msg)
        return self

    def _check(self, experiment: Experiment, fill: Fill) -> None:
        strange = [title for title in (*fill.columns, *fill.cells) if title not in self.table.titles]
        if fill.row not in self.table.rows or strange:
            what = f"column {strange[0]}" if strange else f"row {list(fill.row)}"
            msg = f"{experiment.id}: table {self.table.id} has no {what}"
            raise ValueError(msg)

    def experiment_at(self, row: tuple[str, ...], column: str) -> tuple[Experiment, Fill]:
        """Return what fills a cell."""
        for experiment in self.experiments:
            fill = experiment.fill_of(self.table.id, row)
            if fill is not None and column in fill.columns_in(self.table):
                return experiment, fill
        raise KeyError((row, column))

    def rows_of(self, experiment: Experiment) -> list[str]:
        """Return the names of the rows that an experiment fills, for people; with the columns where it fills some."""
        names = []
        for fill in (fill for fill in experiment.fills if fill.table == self.table.id):
            columns = fill.columns_in(self.table)
            some = columns if len(columns) < len(self.table.columns) else ()
            names.append(" ".join((*fill.row, *some)))
        return names
