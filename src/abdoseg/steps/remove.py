"""Remove: take cases or a view out of a workspace, and say which runs miss them."""

from dataclasses import dataclass

from abdoseg.cards import expand_aliases
from abdoseg.errors import ConfigError
from abdoseg.runs import list_runs
from abdoseg.store import Workspace


@dataclass(frozen=True)
class RemoveReport:
    """What :func:`remove` took out.

    Parameters
    ----------
    keys
        The cases, ``source/case``.
    needed_by
        Unfinished run -> how many of them it froze: without them it cannot go on.
    folders
        Source -> where its files lay when it was ingested; sources of old versions are left out.
    """

    keys: tuple[str, ...]
    needed_by: dict[str, int]
    folders: dict[str, str]


def remove(workspace: Workspace, source: str, case: str | None = None) -> RemoveReport:
    """Take a source, the sources of an alias, or one case out of a workspace; the source's own files stay.

    Raises
    ------
    UnknownNameError
        If there is no such source or case.
    WorkspaceError
        If a case cannot be removed.
    """
    names = expand_aliases([source])
    records = workspace.records()
    folders = {name: records[name].folder for name in names if name in records and records[name].folder}
    keys = [key for name in names for key in workspace.remove(name, case)]
    return RemoveReport(tuple(keys), _needed_by(workspace, set(keys)), folders)


def _needed_by(workspace: Workspace, keys: set[str]) -> dict[str, int]:
    counts = {
        run.name: len(keys.intersection(run.data.keys("all")))
        for run in list_runs(workspace)
        if run.status != "finished"
    }
    return {name: n for name, n in counts.items() if n}


def remove_view(workspace: Workspace, name: str) -> None:
    """Delete a view that is not the active one and that no unfinished run needs; finished runs have their own copy.

    Raises
    ------
    UnknownNameError
        If there is no such view.
    ConfigError
        If it is needed.
    """
    needing = [run.name for run in list_runs(workspace) if run.status != "finished" and run.config.view == name]
    if needing:
        runs = f"run{'' if len(needing) == 1 else 's'} {', '.join(needing[:3])}{' ...' if needing[3:] else ''}"
        raise ConfigError(
            f"view {name}: unfinished {runs} cannot go on without it; finish or delete the run first, "
            "as a folder under runs/"
        )
    workspace.remove_view(name)
