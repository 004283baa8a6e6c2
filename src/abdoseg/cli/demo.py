"""``abdoseg demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import next_step, out, progress_bar, say

if TYPE_CHECKING:
    from abdoseg.steps.demo import DemoReport, DemoRow


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Where to work; the same folder again goes on where it stopped.")
    ] = Path("demo"),
    cases: Annotated[int, typer.Option(min=5, help="Phantoms a source.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of phantoms, split and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; default: the demo preset's.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Train the naive method too, and show the gap.")] = False,
) -> None:
    """Run the whole line on synthetic abdomens: phantoms, ingest, sparsify, train, predict, evaluate.

    Four sources that annotate different structures, one of them on every fifth slice only; one model for all 16. It
    is scored on held-out phantoms against the complete truth, which no step before has seen.
    """
    from abdoseg.steps.demo import DemoSettings
    from abdoseg.steps.demo import demo as run_demo

    with progress_bar() as progress:
        report = run_demo(folder, DemoSettings(cases, seed, steps, compare), progress)
    out.print(_table(report))
    out.print(f"DSC in percent (number of cases), {report.held_out} held-out phantoms, against the complete truth")
    say(f"wrote {escape(str(report.picture))}")
    next_step(f"abdoseg status -w {folder / 'workspace'}, or abdoseg eval --by subject -w {folder / 'workspace'}")


def _table(report: "DemoReport") -> Table:
    table = Table(title="DSC by structure", box=None, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    methods = list(report.tables)
    for method in methods:
        short = "" if len(methods) == 1 else ("naive: " if method == "background" else "abdoseg: ")
        table.add_column(f"{short}annotated in its source", justify="right")
        table.add_column(f"{short}NOT annotated", justify="right")
    if len(methods) > 1:
        table.add_column("gap, not annotated", justify="right")
    for rows in zip(*report.tables.values(), strict=True):
        table.add_row(rows[0].structure, *(text for row in rows for text in _cells(row)), *_gap(rows))
    table.add_section()
    means = [_means(rows) for rows in report.tables.values()]
    gap = [f"{means[0][1] - means[1][1]:+.1f}"] if len(means) > 1 else []
    table.add_row("mean", *(f"{value:.1f}" for pair in means for value in pair), *gap, style="bold")
    return table


def _cells(row: "DemoRow") -> tuple[str, str]:
    return tuple("-" if value is None else f"{value[0]:.1f} ({value[1]})" for value in (row.annotated, row.hidden))  # type: ignore[return-value]


def _gap(rows: "tuple[DemoRow, ...]") -> tuple[str, ...]:
    if len(rows) == 1:
        return ()
    hidden = [row.hidden for row in rows]
    return ("-" if hidden[0] is None or hidden[1] is None else f"{hidden[0][0] - hidden[1][0]:+.1f}",)


def _means(rows: "list[DemoRow]") -> tuple[float, float]:
    """Return the mean over the structures of each column."""
    annotated = [row.annotated[0] for row in rows if row.annotated]
    hidden = [row.hidden[0] for row in rows if row.hidden]
    return sum(annotated) / max(1, len(annotated)), sum(hidden) / max(1, len(hidden))
