"""Review: labels that join right and left and whose split somebody should look at.

A decision is kept in the workspace (:mod:`abdoseg.reviews`) and applied at once, by taking the case again from its
source's folder; every later ingest applies it too.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.cards import card_from
from abdoseg.case import SideSplit
from abdoseg.errors import AbdosegError, WorkspaceError, unknown_name
from abdoseg.reviews import SideDecision, load_reviews, save_reviews
from abdoseg.steps.ingest import ingest
from abdoseg.store import Workspace
from abdoseg.types import UNKNOWN_LABEL


@dataclass(frozen=True)
class Flagged:
    """One joined label to look at.

    Parameters
    ----------
    key
        ``source/case``.
    split
        The pair, its flags and what was decided.
    """

    key: str
    split: SideSplit


@dataclass(frozen=True)
class Decided:
    """What became of a decision.

    Parameters
    ----------
    key, pair
        What was decided about.
    action
        What was decided.
    applied
        Whether the stored case was taken again with it.
    reason
        Why not.
    """

    key: str
    pair: str
    action: str
    applied: bool
    reason: str = ""


def flagged_cases(
    workspace: Workspace, source: str | None = None, case: str | None = None, *, decided: bool = False
) -> list[Flagged]:
    """Return the joined labels that somebody should look at.

    Parameters
    ----------
    workspace, source, case
        Where to look: everywhere, in one source, at one case.
    decided
        Return those that are decided already, too.

    Raises
    ------
    UnknownNameError
        If the workspace has no such source or case.
    """
    keys = workspace.case_keys([source] if source else None)
    if case is not None:
        chosen = f"{source}/{case}"
        if chosen not in keys:
            raise unknown_name("case", chosen, keys)
        keys = [chosen]
    facts = (workspace.read_facts(key) for key in keys)
    return [Flagged(f.key, side) for f in facts for side in f.sides if side.flags and (decided or side.open)]


def draw_flagged(workspace: Workspace, flagged: Flagged, path: Path) -> Path:
    """Write a PNG of a flagged case: image, and right, left and unknown parts of the pair, coronal and axial."""
    from abdoseg.pictures import Panel, save_overlays  # Matplotlib: ingest asks for flags, too, and draws none

    case = workspace.read_case(flagged.key)
    right, left = flagged.split.pair.split("+")
    shown = workspace.anatomy.subset((right, left))
    unknown = Structure("unknown", "unknown side", "?", "#ffffff")
    label = np.zeros_like(case.label)
    for index, value in enumerate((*pair_ids(workspace.anatomy, right, left), UNKNOWN_LABEL), start=1):
        label[case.label == value] = index
    panel = Panel(flagged.key, case.intensity(), {"right / left": label})
    save_overlays(path, [panel], Anatomy((*shown.structures, unknown)))
    return path


def decide(workspace: Workspace, flagged: Flagged, decision: SideDecision) -> Decided:
    """Keep a decision and take the case again with it.

    Raises
    ------
    WorkspaceError
        If the decision cannot be written.
    """
    source, _, case = flagged.key.partition("/")
    pair = flagged.split.pair
    save_reviews(workspace.path, source, load_reviews(workspace.path, source).with_decision(case, pair, decision))
    try:
        _take_again(workspace, source, case)
    except AbdosegError as error:
        return Decided(flagged.key, pair, decision.action, applied=False, reason=str(error))
    return Decided(flagged.key, pair, decision.action, applied=True)


def _take_again(workspace: Workspace, source: str, case: str) -> None:
    record = workspace.records().get(source)
    if record is None or not record.card:
        raise WorkspaceError(f"{source}: taken by an older version; ingest it again with --replace")
    report = ingest(
        workspace, card_from(record.card, source), Path(record.folder), replace=True, only=[case], unlabelled=True
    )
    if case in report.quarantined:
        raise WorkspaceError(f"{source}/{case}: {report.quarantined[case]}")
    if not report.taken:
        raise WorkspaceError(f"{record.folder}: {case} is no longer there; ingest {source} again with --replace")


def pair_ids(anatomy: Anatomy, right: str, left: str) -> tuple[int, int]:
    """Return the ids of both sides."""
    return anatomy.id_of(right), anatomy.id_of(left)
