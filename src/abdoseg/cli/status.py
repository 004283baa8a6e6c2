"""``abdoseg status``."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption, next_step, out, print_json, warn
from abdoseg.cli._views import print_view


def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> None:
    """Show what the workspace holds: sources, structures, views and runs.

    The effort that a view saves is estimated by contours: one is one structure in one slice, and drawing all of them
    along one axis is the whole effort.
    """
    from abdoseg.steps.status import status as collect
    from abdoseg.store import Workspace

    facts = collect(Workspace.open(workspace))
    if as_json:
        print_json(facts)
        return
    out.print(f"workspace [bold]{escape(facts['workspace'])}[/], {facts['spacing_mm']:g} mm")
    _sources(facts["sources"])
    _structures(facts["structures"])
    _views(facts)
    _runs(facts["runs"])
    for reason in facts["damaged_runs"].values():
        warn(reason)
    next_step("abdoseg train" if facts["sources"] else "abdoseg ingest CARD FOLDER")


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
        out.print(f"run [bold]{run['run']}[/]: {run['status']}, {run['step']}/{run['steps']} steps")
        if run["changed_cases"]:
            warn(f"{len(run['changed_cases'])} of its cases are gone or changed: {', '.join(run['changed_cases'][:3])}")
        if run["leaks"]:
            warn(f"it trained on scans that are held out today: {', '.join(run['leaks'][:4])}; train a new run")
