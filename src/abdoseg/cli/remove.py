"""``abdoseg remove``."""

from typing import TYPE_CHECKING, Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, counted, in_workspace, next_step, out, warn

if TYPE_CHECKING:
    from abdoseg.steps.remove import RemoveReport


def remove(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(help="A source in the workspace.")] = None,
    case: Annotated[str | None, typer.Argument(help="Only this case.")] = None,
    view: Annotated[str | None, typer.Option(help="Instead: a sparse view that is not the active one.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Take a source, or one case of it, out of the workspace; or a view. The source's own files are not touched.

    Unfinished runs that need the cases are named. A view that an unfinished run needs is kept.
    """
    from abdoseg.errors import ConfigError
    from abdoseg.steps.remove import remove as take_out
    from abdoseg.steps.remove import remove_view
    from abdoseg.store import Workspace

    if (source is None) == (view is None):
        raise ConfigError("remove: expected a source, or --view NAME, and not both; `abdoseg status` lists them")
    store = Workspace.open(workspace)
    if source is None:
        remove_view(store, str(view))
        out.print(f"removed view {view}; no case is touched")
        next_step(in_workspace(context, "abdoseg", "status"))
        return
    report = take_out(store, source, case)
    again = in_workspace(context, "abdoseg", "ingest", source, _folder(report))
    out.print(f"removed {counted(len(report.keys), 'case')}")
    for run, n in report.needed_by.items():
        warn(f"run {run}: is not finished, and cannot go on without {n} of them; `{again}` brings them back")
    next_step(in_workspace(context, "abdoseg", "status"), again)


def _folder(report: "RemoveReport") -> str:
    """Return where the files lay when they were taken in."""
    folders = set(report.folders.values())
    return folders.pop() if len(folders) == 1 else "FOLDER"
