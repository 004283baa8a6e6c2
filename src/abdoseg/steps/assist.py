"""Assist: a trained model decides flagged splits of right and left, component by component."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.case import Case, SideSplit
from abdoseg.components import Components
from abdoseg.errors import UnknownNameError
from abdoseg.laterality import Component, describe
from abdoseg.model import SegmentationModel
from abdoseg.progress import SILENT, Progress
from abdoseg.reviews import SideDecision
from abdoseg.segmentation import segment_case
from abdoseg.steps.review import Decided, Flagged, decide, pair_ids
from abdoseg.store import Workspace
from abdoseg.types import UNKNOWN_LABEL

CLEAR_MAJORITY = 0.8
"""A component takes the side that the model gives to this part of what it gives to either."""


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
        guess_ids = pair_ids(model.anatomy, right, left)
    except UnknownNameError:
        return None
    joined = np.isin(case.label, (*pair_ids(anatomy, right, left), UNKNOWN_LABEL))
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
