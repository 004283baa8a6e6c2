"""``abdoseg status``."""

from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    JsonOption,
    WorkspaceOption,
    counted,
    in_workspace,
    next_step,
    out,
    print_json,
    warn,
)
from abdoseg.cli._training import again
from abdoseg.cli._views import print_view

_SHOWN = 3
"""Names told in a line of warning."""


def status(context: typer.Context, workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """Show what the workspace holds: sources, structures, views and runs.

    The effort that a view saves is estimated by contours: one is one structure in one slice, and drawing all of them
    along one axis is the whole effort.
    """
    from abdoseg.steps.status import status as collect
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    facts = collect(store)
    if as_json:
        print_json(facts)
        return
    out.print(f"workspace [bold]{escape(facts['workspace'])}[/], {facts['spacing_mm']:g} mm")
    _sources(facts["sources"])
    _structures(facts["structures"])
    _views(facts)
    _runs(facts["runs"])
    for reason in (*facts["damaged_cases"].values(), *facts["damaged_runs"].values()):
        warn(reason)
    next_step(*(in_workspace(context, "abdoseg", *words) for words in _what_next(facts, store.runs_folder)))


def _what_next(facts: dict[str, Any], runs_folder: Path) -> list[list[str]]:
    """Return the commands that fit what is there."""
    if not facts["sources"]:
        return [["ingest", "CARD", "FOLDER"]]
    open_runs = [run["run"] for run in facts["runs"] if run["status"] != "finished"]
    if open_runs:
        return [["train", *again(runs_folder / open_runs[-1])]]
    if facts["runs"]:
        return [["eval", "--by", "structure"], ["report"], ["predict", "SCAN", "-o", "OUT.nii.gz"]]
    return [["train"]]


def _sources(sources: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("source", no_wrap=True)
    for title in ("", "cases", "train", "val", "test", "organs", "repaired", "quarantined"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in sources:
        numbers = (s["cases"], s["train"], s["val"], s["test"], s["annotated_structures"])
        flags = (len(s["repaired"]), len(s["quarantined"]))
        table.add_row(s["source"], ", ".join(s["modality"]), *(str(n) for n in (*numbers, *flags)))
    out.print(table)
    for s in sources:
        for case, reason in list(s["quarantined"].items())[:5]:
            warn(f"{s['source']}/{case} quarantined: {reason}")


def _structures(structures: dict[str, dict[str, int]]) -> None:
    out.print("\ncases that annotate a structure (and hold it):")
    cells = [f"{name} {n['annotated']} ({n['present']})" for name, n in structures.items()]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    half = (len(cells) + 1) // 2
    for left, right in zip(cells[:half], [*cells[half:], ""], strict=False):
        table.add_row(left, right)
    out.print(table)


def _views(facts: dict[str, Any]) -> None:
    out.print(f"\nactive view: [bold]{facts['active_view']}[/]")
    for view in facts["views"]:
        out.print(f"view [bold]{view['view']}[/]:")
        print_view(view)


def _runs(runs: list[dict[str, Any]]) -> None:
    if not runs:
        out.print("\nno runs yet")
        return
    out.print()
    for run in runs:
        step = "?" if run["step"] is None else run["step"]
        out.print(f"run [bold]{run['run']}[/]: {run['status']}, {step}/{run['steps']} steps")
        for doubt in _doubts(run):
            warn(f"run {run['run']}: {doubt}")


def _doubts(run: dict[str, Any]) -> list[str]:
    """Return what is wrong with a run."""
    doubts, changed = [], run["changed_cases"]
    if run["step"] is None:
        doubts.append("checkpoints/last.safetensors is damaged; bring it back, or delete it to begin the run anew")
    if changed:
        cases = f"{counted(len(changed), 'case')} {'is' if len(changed) == 1 else 'are'} gone or changed"
        doubts.append(f"{cases} since it began: {_some(changed)}")
    if run["leaks"]:
        doubts.append(f"it trained on scans that are held out today: {_some(run['leaks'])}; train a new run")
    return doubts


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
