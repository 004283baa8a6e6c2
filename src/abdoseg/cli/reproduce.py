"""``abdoseg reproduce``."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    DeviceOption,
    JsonOption,
    WorkspaceOption,
    counted,
    next_step,
    out,
    print_json,
    progress_bar,
    say,
    split_names,
    warn,
)
from abdoseg.cli._training import SettingsOption, parse_settings

if TYPE_CHECKING:
    from abdoseg.config import TrainConfig
    from abdoseg.experiments import Grid, Options, Page, Study
    from abdoseg.steps.reproduce import Stand, Trainer
    from abdoseg.store import Workspace


def reproduce(
    table: Annotated[
        str | None, typer.Argument(help="table-1 ... table-9, or a TOML file with your own experiments.")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show which rows can run here, and what is missing.")
    ] = False,
    scale: Annotated[float, typer.Option(help="Factor on the steps: 0.01 is 2,000 instead of 200,000.")] = 1.0,
    network: Annotated[str | None, typer.Option(help="In place of each row's own, for laptops.")] = None,
    preset: Annotated[str, typer.Option(help="What the rows' settings are changes of.")] = "paper",
    seeds: Annotated[str, typer.Option(help="One training a row for each; several: 0,1.")] = "0",
    rows: Annotated[list[str] | None, typer.Option(help="Only these, by name or experiment; several: a,b.")] = None,
    settings: SettingsOption = None,
    at_hand: Annotated[
        bool, typer.Option("--sources-at-hand", help="Run although some of the sources are not in the workspace.")
    ] = False,
    device: DeviceOption = "auto",
    nproc: Annotated[int, typer.Option(min=1, max=1024, help="Processes a training, one a GPU.")] = 1,
    ignore_memory: Annotated[
        bool, typer.Option("--ignore-memory", help="Train also rows that need more memory than is free.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", help="table, json, csv, markdown or latex.")] = "table",
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Train and score the rows of a table of the paper, and print our numbers beside the paper's.

    What differs from the paper is stated under the table. The same command again goes on where it was stopped; a
    finished row is not trained again. Status 1: rows that cannot run here were left out.
    """
    from abdoseg.errors import ConfigError
    from abdoseg.experiments import Options, list_tables, load_study
    from abdoseg.store import Workspace

    _require_one_process()
    format_ = _chosen_format(format_, as_json=as_json, list_only=list_only)
    options = Options(scale, preset, network, parse_settings(settings), _numbers(seeds), at_hand)
    if table is None and not list_only:
        known = ", ".join(list_tables())
        raise ConfigError(f"reproduce: found no table, expected one of {known}, or a TOML file; --list shows them")
    store = Workspace.open(workspace)
    studies = [load_study(name) for name in ([table] if table else list_tables())]
    if list_only:
        _list(store, studies, options, as_json=format_ == "json")
    else:
        _run(store, studies[0], options, split_names(rows), device, nproc, ignore_memory=ignore_memory, format_=format_)


def _chosen_format(format_: str, *, as_json: bool, list_only: bool) -> str:
    """Return the format asked for by ``--format`` or ``--json``."""
    from abdoseg.errors import ConfigError, unknown_name

    formats = ["table", "json"] if list_only else ["table", "json", "csv", "markdown", "latex"]
    if format_ not in formats:
        raise unknown_name("format of --list" if list_only else "format", format_, formats)
    if as_json and format_ not in ("table", "json"):
        raise ConfigError(f"--json: found --format {format_} too, expected one of them; leave one out")
    return "json" if as_json else format_


def _require_one_process() -> None:
    from abdoseg.engine.place import place_of
    from abdoseg.errors import ConfigError

    if place_of(os.environ)[0].size > 1:
        raise ConfigError("reproduce: started as several processes, expected one; use --nproc for its trainings")


def _numbers(text: str) -> tuple[int, ...]:
    from abdoseg.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: expected whole numbers, for example 0,1") from error


def _run(
    store: "Workspace",
    study: "Study",
    options: "Options",
    rows: tuple[str, ...],
    device: str,
    nproc: int,
    *,
    ignore_memory: bool,
    format_: str,
) -> None:
    from abdoseg.steps.reproduce import reproduce as run_rows

    again = ["--device", device, "--workspace", str(store.path), *(["--ignore-memory"] if ignore_memory else [])]
    how: dict[str, Any] = {"processes": nproc, "ignore_memory": ignore_memory}
    how["trainer"] = _several_processes(nproc, again) if nproc > 1 else None
    with progress_bar() as progress:
        made = run_rows(store, study, options, rows=rows, device=device, **how, progress=progress)
    if format_ == "table":
        _print(made.page)
    else:
        typer.echo(_text(made.page, format_), nl=False)
    say(f"wrote {escape(str(made.files[0].parent))}: {', '.join(file.name for file in made.files)}")
    if made.incomplete:
        warn(f"{counted(len(made.incomplete), 'row')} without a number; the lines under the table say why")
        raise typer.Exit(1)
    next_step("abdoseg reproduce --list, or abdoseg status")


def _several_processes(nproc: int, options: list[str]) -> "Trainer":
    """Return what trains a configuration by ``abdoseg train`` in several processes, with these options."""
    import tomli_w

    from abdoseg.cli._launch import launch

    def trainer(config: "TrainConfig") -> None:
        with tempfile.TemporaryDirectory(prefix="abdoseg-") as folder:
            file = Path(folder) / "config.toml"
            file.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
            with _results_to_messages():
                launch(nproc, ["train", "--config", str(file), *options])

    return trainer


@contextmanager
def _results_to_messages() -> Iterator[None]:
    """Let what child processes print on standard output go to standard error: the result is the table alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _text(page: "Page", format_: str) -> str:
    from abdoseg.experiments import to_csv, to_json, to_markdown
    from abdoseg.experiments.page import paper_grid
    from abdoseg.tables import latex_table

    if format_ != "latex":
        return {"json": to_json, "csv": to_csv, "markdown": to_markdown}[format_](page)
    grid = paper_grid(page)
    rows = [(list(row), False) for row in grid.body]
    return latex_table(grid.header, grid.names, rows, [page.study.table.title, *page.notes])


def _print(page: "Page") -> None:
    from abdoseg.experiments import grids

    out.print(f"[bold]{escape(page.study.table.title)}[/]\n")
    for grid in grids(page, out.width - 2):  # the table has an edge on either side
        out.print(_rich(grid))
    for note in page.notes:
        marked = Table.grid(padding=(0, 1))
        marked.add_row("-", escape(note))
        out.print(marked)


def _rich(grid: "Grid") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="none")
    for i, title in enumerate(grid.header):
        names = i < grid.names
        table.add_column(escape(title), justify="left" if names else "right", no_wrap=True, vertical="top")
    for row in grid.body:
        table.add_row(*(escape(text) for text in row))
    return table


def _list(store: "Workspace", studies: list["Study"], options: "Options", *, as_json: bool) -> None:
    from abdoseg.steps.reproduce import stands_of

    stands = [(study, stands_of(store, study, options)) for study in studies]
    if as_json:
        print_json([{"table": study.table.id, **stand.to_json()} for study, of in stands for stand in of])
        return
    marks: dict[str, str] = {}
    for study, of in stands:
        out.print(f"\n[bold]{study.table.id}[/]: {escape(study.table.title)}")
        table = Table(box=None, pad_edge=False)
        for title in ("experiment", "rows", "here"):
            table.add_column(title, overflow="fold", no_wrap=title == "experiment")
        for stand in of:
            table.add_row(stand.experiment.id, escape(", ".join(stand.rows)), _here(stand, marks))
        out.print(table)
    if marks:
        out.print("\nwhat is missing:")
    for reason, mark in marks.items():
        out.print(escape(f"  ({mark}) {reason}"))
    next_step("abdoseg reproduce TABLE, with the same options")


def _here(stand: "Stand", marks: dict[str, str]) -> str:
    """Return how an experiment stands, with marks in place of reasons; ``marks`` takes up new ones."""
    if stand.missing:
        return "cannot run " + " ".join(
            f"({marks.setdefault(reason, str(len(marks) + 1))})" for reason in stand.missing
        )
    states: list[dict[str, Any]] = stand.to_json()["runs"]
    if all(state["status"] == "finished" for state in states):
        return "finished"
    begun = [f"seed {s['seed']} {s['status']} {s['step']:,}/{s['steps']:,}" for s in states if s["run"] is not None]
    steps = ", ".join(dict.fromkeys(f"{s['steps']:,} steps" for s in states))
    return ", ".join(begun) or f"can run, {steps}"
