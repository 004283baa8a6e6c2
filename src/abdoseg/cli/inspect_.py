"""``abdoseg inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, out, progress_bar, say


def inspect(
    source: Annotated[str | None, typer.Argument(help="Only this source.")] = None,
    case: Annotated[str | None, typer.Argument(help="Only this case of it.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="For how many cases of a source to draw overlays.")] = 40,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the pages.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write an HTML page per source: overlays, volumes and HU against what is usual, odd cases first."""
    from abdoseg.steps.inspect import inspect as run_inspect
    from abdoseg.store import Workspace

    with progress_bar() as progress:
        report = run_inspect(
            Workspace.open(workspace), source, case, folder=output, pictures=pictures, progress=progress
        )
    for key, reasons in list(report.odd.items())[:10]:
        out.print(f"{key}: {'; '.join(reasons)}", markup=False)
    if len(report.odd) > 10:
        out.print(f"... and {len(report.odd) - 10} more odd cases on the pages")
    for page in report.pages.values():
        say(f"wrote {page}")
