"""Review: labels that join right and left and whose split somebody should look at.

A decision is kept in the workspace (:mod:`abdoseg.reviews`) and applied at once, by taking the case again from its
source's folder; every later ingest applies it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.cards import card_from
from abdoseg.case import Case, SideSplit
from abdoseg.components import Components
from abdoseg.errors import AbdosegError, UnknownNameError, WorkspaceError, unknown_name
from abdoseg.laterality import Component, describe
from abdoseg.model import SegmentationModel
from abdoseg.pictures import Panel, save_overlays
from abdoseg.progress import SILENT, Progress
from abdoseg.reviews import SideDecision, load_reviews, save_reviews
from abdoseg.steps.ingest import ingest
from abdoseg.steps.predict import segment_case
from abdoseg.store import Workspace
from abdoseg.types import UNKNOWN_LABEL

CLEAR_MAJORITY = 0.8
"""A component takes the side that the model gives to this part of what it gives to either."""


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
    case = workspace.read_case(flagged.key)
    right, left = flagged.split.pair.split("+")
    shown = workspace.anatomy.subset((right, left))
    unknown = Structure("unknown", "unknown side", "?", "#ffffff")
    label = np.zeros_like(case.label)
    for index, value in enumerate((*_ids(workspace.anatomy, right, left), UNKNOWN_LABEL), start=1):
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


def assist(
    workspace: Workspace, model: SegmentationModel, flagged: Sequence[Flagged], progress: Progress = SILENT
) -> list[Decided]:
    """Let a trained model decide flagged cases, component by component; what it does not tell apart stays open.

    The model should not have learnt from the source itself (the paper verifies such splits by hand, with a model
    trained without that source).
    """
    done = []
    progress.start(len(flagged), "asking the model")
    for item in flagged:
        decision = _sides_by_model(workspace.read_case(item.key), model, workspace.anatomy, item.split)
        if decision is not None:
            done.append(decide(workspace, item, decision))
        progress.advance(1, item.key)
    return done


def _sides_by_model(case: Case, model: SegmentationModel, anatomy: Anatomy, split: SideSplit) -> SideDecision | None:
    right, left = split.pair.split("+")
    try:
        guess_ids = _ids(model.anatomy, right, left)
    except UnknownNameError:
        return None
    joined = np.isin(case.label, (*_ids(anatomy, right, left), UNKNOWN_LABEL))
    components = Components.of(joined)
    guess = segment_case(model, case)
    numbers = np.zeros(joined.shape, dtype=np.int64)
    components.write(components.runs, np.arange(1, len(components.voxels) + 1), numbers)
    found = describe(components, 0.0, case.facts.affine_array)
    sides = [_side_of(guess[numbers == i], guess_ids, c) for i, c in enumerate(found, start=1) if c.large]
    known = tuple(side for side in sides if side is not None)
    return SideDecision(action="components", by=f"run {model.name}", sides=known) if known else None


def _side_of(
    guess: NDArray[np.uint8], ids: tuple[int, int], component: Component
) -> tuple[float, float, float, str] | None:
    """Return the component's place and side, where the model plainly prefers one."""
    votes = [int((guess == i).sum()) for i in ids]
    if max(votes) < CLEAR_MAJORITY * sum(votes) or not sum(votes):
        return None
    return (*component.centroid_mm, "right" if votes[0] > votes[1] else "left")


def _ids(anatomy: Anatomy, right: str, left: str) -> tuple[int, int]:
    return anatomy.id_of(right), anatomy.id_of(left)
