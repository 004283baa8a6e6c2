"""``abdoseg sample``."""

from typing import Annotated, Any

import typer

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    JsonOption,
    WorkspaceOption,
    counted,
    next_step,
    out,
    print_json,
    say,
)
from abdoseg.cli._training import (
    ConfigOption,
    FoldOption,
    SamplerOption,
    SeedOption,
    SettingsOption,
    SourcesOption,
    ViewOption,
    config_of,
    next_for_run,
    typed_again,
)

MOST_CASES = 5
"""Cases shown at either end of the list."""


def sample(
    context: typer.Context,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=10_000_000, help="Examples to draw.")] = 20_000,
    sampler: SamplerOption = None,
    view: ViewOption = None,
    sources: SourcesOption = None,
    seed: SeedOption = None,
    fold: FoldOption = None,
    settings: SettingsOption = None,
    config: ConfigOption = None,
    run: Annotated[str | None, typer.Option(help="What this run draws; default: a new run would.")] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Show what the sampler will draw, by structure, modality, source and case, beside what is there.

    No scan is opened. The draws are those of the first N examples of a training with the same options.
    """
    from abdoseg.errors import ConfigError
    from abdoseg.runs import find_run, plan_run
    from abdoseg.steps.sample import sample as draw
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    if run is not None:
        if any(value is not None for value in (sampler, view, sources, seed, fold, settings, config)):
            raise ConfigError("--run: has its own settings; leave the other options out")
        planned = find_run(store, run)
    else:
        planned, _ = plan_run(
            store,
            config_of(store, None, config, settings, sampler=sampler, view=view, sources=sources, seed=seed, fold=fold),
        )
    found = draw(store, planned, n)
    if as_json:
        print_json(found)
        return
    cases = found.pop("case")
    of = counted(len(cases), "training case")
    say(f"sampler [bold]{found['sampler']}[/], view [bold]{planned.config.view}[/], {of}")
    titles = ["modality", "kind", "source"]
    if found["draws_structures"]:
        titles.insert(0, "structure")
    else:
        say("it draws no structures: a patch may lie anywhere in a case")
    for title in titles:
        _table(title, found[title], n)
    _cases(cases, n)
    for name in found["skipped"]:
        say(f"{name}: no training case shows it; it is never drawn")
    not_of_train = ("n", "run", "as_json")
    next_step(next_for_run(context, planned) if run is not None else typed_again(context, "train", not_of_train))


def _table(title: str, rows: dict[str, dict[str, float]], n: int, present: str = "cases") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True, min_width=20)
    for name in (present, "drawn", "drawn %", "expected %"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows.items():
        drawn = f"{row['drawn']:.0f}" if "drawn" in row else ""
        shares = (f"{100 * row[key] / n:.2f}" if key in row else "" for key in ("drawn", "expected"))
        table.add_row(name, f"{row['present']:.0f}", drawn, *shares)
    out.print(table)
    out.print()


def _cases(cases: dict[str, dict[str, Any]], n: int) -> None:
    """Show the cases that are drawn most and least."""
    order = sorted(cases, key=lambda key: (-cases[key]["expected"], key))
    if len(order) > 2 * MOST_CASES:
        say(f"of {len(order)} cases, the {MOST_CASES} that are drawn most and least:")
        order = [*order[:MOST_CASES], *order[-MOST_CASES:]]
    _table("case", {key: cases[key] for key in order}, n, present="structures")
