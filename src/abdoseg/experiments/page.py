"""A filled table as text: Markdown, CSV, JSON, and the grids that a terminal shows. Pure: nothing is printed."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from abdoseg.experiments.results import Cell, Page

MISSING = "–"
"""Stands for a number that is not there, in tables for people."""

_WIDEST = 6
"""More columns than this are set as rows in Markdown."""


@dataclass(frozen=True)
class Grid:
    """Texts in rows and columns; the first ``names`` columns name the rows. A text may have several lines."""

    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    names: int

    def width(self, gap: int = 2) -> int:
        """Return the characters of its widest row, with ``gap`` between columns."""
        columns = zip(self.header, *self.body, strict=True)
        widths = [max(len(line) for text in column for line in text.split("\n")) for column in columns]
        return sum(widths) + gap * (len(widths) - 1)


def grids(page: Page, width: int) -> list[Grid]:
    """Return the table as the paper has it where ``width`` characters suffice; else its columns as rows, in parts.

    A part has as many of the table's rows, as columns, as fit, and one at least.
    """
    rows = page.study.table.rows
    upright = _upright(page, _two_lines)
    if upright.width() <= width:
        return [upright]
    parts: list[Grid] = []
    first = 0
    while first < len(rows):
        fitting = [
            n for n in range(1, len(rows) - first + 1) if _turned(page, rows[first : first + n]).width() <= width
        ]
        n = max(fitting, default=1)
        parts.append(_turned(page, rows[first : first + n]))
        first += n
    return parts


def paper_grid(page: Page) -> Grid:
    """Return the table as the paper has it, each row twice: the paper's and ours, without intervals.

    Where there are many columns, a mean stands over its standard deviation.
    """
    table, cells = page.study.table, _by_place(page)
    between = "\n" if len(table.columns) > _WIDEST else ""
    body = []
    for row in table.rows:
        of_row = [cells[row, column.title] for column in table.columns]
        paper = [_spread(*cell.paper, between) if cell.paper else MISSING for cell in of_row]
        here = [_spread(cell.here.mean, cell.here.std, between) if cell.here else MISSING for cell in of_row]
        body += [(*row, "paper", *paper), (*[""] * len(row), "here", *here)]
    return Grid((*table.heads, "", *table.titles), tuple(body), len(table.heads) + 1)


def to_markdown(page: Page) -> str:
    """Return title, table and notes in GitHub's Markdown, a line a row."""
    table = page.study.table
    wide = len(table.columns) > _WIDEST
    grid = _turned(page, table.rows, repeat=True) if wide else _upright(page, _one_line)
    rule = ["---"] * grid.names + ["---:"] * (len(grid.header) - grid.names)
    lines = [_markdown_line(grid.header), _markdown_line(rule), *(_markdown_line(row) for row in grid.body)]
    notes = [f"- {_escaped(note)}" for note in page.notes]
    return "\n".join([f"# {_escaped(table.title)}", "", *lines, "", *notes]) + "\n"


def to_csv(page: Page) -> str:
    """Return one line a cell under a header; numbers are not rounded, those that are not there are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*page.study.table.heads, "column", "experiment", *_FACTS])
    for cell in page.cells:
        facts = _facts(cell)
        writer.writerow([*cell.row, cell.column, cell.result.experiment.id, *(facts[name] for name in _FACTS)])
    return text.getvalue()


def to_json(page: Page) -> str:
    """Return ``table``, ``title``, ``options``, ``cells`` and ``notes``; numbers are not rounded."""
    table = page.study.table
    cells = [_json_cell(cell) for cell in page.cells]
    facts = {"table": table.id, "title": table.title, "options": page.options, "cells": cells, "notes": page.notes}
    return json.dumps(facts, indent=1, allow_nan=False) + "\n"


_FACTS = (
    *("paper_mean", "paper_std", "mean", "std", "ci95_low", "ci95_high", "n"),
    *("steps", "seeds", "runs", "reason"),
)


def _facts(cell: Cell) -> dict[str, object]:
    result, here = cell.result, cell.here
    low, high = (here.ci95 if here and here.ci95 else None) or (None, None)
    paper = cell.paper or (None, None)
    return {
        "paper_mean": paper[0],
        "paper_std": paper[1],
        "mean": here.mean if here else None,
        "std": here.std if here else None,
        "ci95_low": low,
        "ci95_high": high,
        "n": here.n if here else None,
        "steps": result.configs[0].steps if result.configs else None,
        "seeds": " ".join(str(config.seed) for config in result.configs),
        "runs": " ".join(result.runs),
        "reason": result.reason,
    }


def _json_cell(cell: Cell) -> dict[str, object]:
    result = cell.result
    return {
        "row": list(cell.row),
        "column": cell.column,
        "experiment": result.experiment.id,
        "paper": None if cell.paper is None else {"mean": cell.paper[0], "std": cell.paper[1]},
        "here": None if cell.here is None else cell.here.to_json(),
        "steps": result.configs[0].steps if result.configs else None,
        "seeds": [config.seed for config in result.configs],
        "runs": list(result.runs),
        "reason": result.reason,
    }


def _upright(page: Page, shown: Callable[[Cell], str]) -> Grid:
    """Return the table as the paper has it, each column twice: the paper's and ours."""
    table = page.study.table
    titles = [f"{column.title}\n{whose}" for column in table.columns for whose in ("paper", "here")]
    cells = _by_place(page)
    body = [
        (*row, *(text for column in table.columns for text in _both(cells[row, column.title], shown)))
        for row in table.rows
    ]
    return Grid((*table.heads, *titles), tuple(body), len(table.heads))


def _turned(page: Page, rows: Sequence[tuple[str, ...]], *, repeat: bool = False) -> Grid:
    """Return some rows of the table as columns, each twice; ``repeat``: with the row's name above both."""
    table, cells = page.study.table, _by_place(page)
    blank = ("",) * len(table.heads)
    titles = [
        "\n".join([*names, whose])
        for row in rows
        for names, whose in ((row, "paper"), (row if repeat else blank, "here (95 % CI)"))
    ]
    body = [
        (column.title, *(text for row in rows for text in _both(cells[row, column.title], _one_line)))
        for column in table.columns
    ]
    return Grid(("", *titles), tuple(body), 1)


def _by_place(page: Page) -> dict[tuple[tuple[str, ...], str], Cell]:
    return {(cell.row, cell.column): cell for cell in page.cells}


def _both(cell: Cell, shown: Callable[[Cell], str]) -> tuple[str, str]:
    return (_spread(*cell.paper) if cell.paper else MISSING), shown(cell)


def _one_line(cell: Cell) -> str:
    return _two_lines(cell).replace("\n", " ")


def _two_lines(cell: Cell) -> str:
    if cell.here is None:
        return MISSING
    interval = "" if cell.here.ci95 is None else f"\n({cell.here.ci95[0]:.1f}–{cell.here.ci95[1]:.1f})"
    return _spread(cell.here.mean, cell.here.std) + interval


def _spread(mean: float, std: float | None, between: str = "") -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f}{between}±{std:.1f}"


def _markdown_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(text) for text in texts)} |"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<")
