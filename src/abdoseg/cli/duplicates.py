"""``abdoseg duplicates``."""

from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    JsonOption,
    WorkspaceOption,
    next_step,
    out,
    print_json,
    progress_bar,
    say,
)


def duplicates(as_json: JsonOption = False, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Find scans that occur more than once, within and across sources; splits then keep them on one side.

    Scans are found by content: cropped, with flipped axes, in another window or resampled. What was compared once is
    not compared again.
    """
    from abdoseg.steps.duplicates import duplicates as find
    from abdoseg.store import Workspace

    with progress_bar() as progress:
        report = find(Workspace.open(workspace), progress)
    if as_json:
        pairs = [twin.model_dump(mode="json", exclude={"fingerprints"}) for twin in report.twins]
        print_json({"cases": report.cases, "compared": report.compared, "pairs": pairs, "groups": report.groups})
        return
    say(f"{report.cases} cases, {report.compared} candidate pairs compared")
    if not report.twins:
        say("no scan occurs twice")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("case", "is also", "copy"):
        table.add_column(title, overflow="fold")
    for title in ("correlation", "overlap"):
        table.add_column(title, justify="right", no_wrap=True)
    for twin in report.twins:
        numbers = (f"{twin.correlation:.3f}", f"{twin.overlap:.0%}")
        table.add_row(escape(twin.cases[0]), escape(twin.cases[1]), ", ".join(twin.kinds), *numbers)
    out.print(table)
    next_step("abdoseg status flags runs whose split tore copies apart; new runs keep them together")
