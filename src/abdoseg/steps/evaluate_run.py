"""Evaluate a run on cases of the workspace; what it has not predicted yet is predicted first.

Predictions and references meet on the harmonised grid; scores on a scan's own grid come from ``predict`` and
``eval --pred DIR --ref DIR``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts
from abdoseg.devices import choose_device
from abdoseg.exporters.nifti import write_label_map
from abdoseg.metrics import DEFAULTS, EvalSettings, Score
from abdoseg.model import SegmentationModel
from abdoseg.places import local_copy
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import read_scan
from abdoseg.runs import Run, keys_of_split, read_frozen
from abdoseg.segmentation import segment_case
from abdoseg.steps.evaluate import evaluate_cases
from abdoseg.store import Workspace
from abdoseg.trained import load_model
from abdoseg.types import Label


@dataclass(frozen=True)
class RunScores:
    """Scores of a run on one side of its split.

    Parameters
    ----------
    run, split
        What was scored.
    steps
        Optimiser steps the weights had seen.
    cases
        Keys of the cases scored.
    scores
        One for each case, structure and metric.
    """

    run: Run
    split: str
    steps: int
    cases: tuple[str, ...]
    scores: list[Score]


def evaluate_run(
    workspace: Workspace,
    run: Run,
    split: str = "test",
    *,
    device: str = "auto",
    settings: EvalSettings = DEFAULTS,
    progress: Progress = SILENT,
) -> RunScores:
    """Score a run.

    Parameters
    ----------
    workspace, run
        Where the cases are; what to score.
    split
        ``train``, ``val``, ``test`` or ``all`` of the split the run froze.
    device
        Where to predict.
    settings
        Metrics and rules.
    progress
        Told after every case.

    Raises
    ------
    ConfigError
        If the split holds no case.
    RunError
        If the run has no weights, or a case it froze is gone or changed.
    """
    keys = keys_of_split(run, split)
    predictor, steps = CasePredictor.of(run, device)
    items = _items(workspace, run, keys, predictor)
    progress.start(len(keys), f"evaluating {split}")
    scores = evaluate_cases(items, settings, run.anatomy, progress)
    return RunScores(run, split, steps, tuple(keys), scores)


@dataclass(frozen=True)
class CasePredictor:
    """Predicts a case, or reads what these very weights predicted before."""

    model: SegmentationModel
    folder: Path

    @classmethod
    def of(cls, run: Run, device: str = "auto") -> tuple["CasePredictor", int]:
        """Return the predictor with a run's weights, and how many steps they have seen."""
        model, steps = load_model(run, choose_device(device))
        return cls(model, run.folder / "predictions" / f"step-{steps:06d}"), steps

    def predict(self, workspace: Workspace, facts: CaseFacts) -> tuple[Label, Label]:
        """Return prediction and stored label, uint8 ``(X, Y, Z)``."""
        case = workspace.read_case(facts.key)
        # The digest in the name keeps a prediction from outliving the voxels it was made of.
        path = self.folder / facts.source / f"{facts.case}.{facts.digest[:8]}.nii.gz"
        if path.is_file():
            with local_copy(path) as copy:
                found: NDArray[np.uint8] = read_scan(copy).array.astype(np.uint8)
            return found, case.label
        prediction = segment_case(self.model, case)
        write_label_map(prediction, facts.affine_array, path, self.model.anatomy)
        return prediction, case.label


def _items(
    workspace: Workspace, run: Run, keys: list[str], predictor: CasePredictor
) -> Iterator[tuple[CaseFacts, Annotation, Label, Label]]:
    frozen = {case.key: case for case in run.data.cases}
    for key in keys:
        facts = read_frozen(workspace, run, frozen[key])
        prediction, label = predictor.predict(workspace, facts)
        yield facts, facts.groups, label, prediction
