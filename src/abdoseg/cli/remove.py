"""``abdoseg remove``."""

from typing import Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, out


def remove(
    source: Annotated[str, typer.Argument(help="A source in the workspace.")],
    case: Annotated[str | None, typer.Argument(help="Only this case.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Take a source, or one case of it, out of the workspace. The source's own files are not touched."""
    from abdoseg.cards import expand_aliases
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    keys = [key for one in expand_aliases([source]) for key in store.remove(one, case)]
    out.print(
        f"removed {len(keys)} case{'s' if len(keys) > 1 else ''}; `abdoseg ingest {source} FOLDER` takes them again"
    )
