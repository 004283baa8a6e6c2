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
from abdoseg.errors import ConfigError
from abdoseg.exporters.nifti import write_label_map
from abdoseg.metrics import DEFAULTS, EvalSettings, Score
from abdoseg.model import SegmentationModel
from abdoseg.places import local_copy
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import read_scan
from abdoseg.runs import Run, read_frozen
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
    keys = run.data.keys(split)
    if not keys:
        raise ConfigError(_empty_split(run, split))
    model, steps = load_model(run, choose_device(device))
    folder = run.folder / "predictions" / f"step-{steps:06d}"
    items = _items(workspace, run, keys, _Predictor(model, folder))
    progress.start(len(keys), f"evaluating {split}")
    scores = evaluate_cases(items, settings, run.anatomy, progress)
    return RunScores(run, split, steps, tuple(keys), scores)


def _empty_split(run: Run, split: str) -> str:
    counts = {side: len(run.data.keys(side)) for side in ("train", "val", "test")}
    held = ", ".join(f"{side} {n}" for side, n in counts.items())
    return (
        f"run {run.name}: its {split} split is empty ({held}; a source needs 5 patients to have a test case); "
        "choose another --split, or ingest more cases and train again"
    )


@dataclass(frozen=True)
class _Predictor:
    """Predicts a case, or reads what these very weights predicted before."""

    model: SegmentationModel
    folder: Path

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
    workspace: Workspace, run: Run, keys: list[str], predictor: _Predictor
) -> Iterator[tuple[CaseFacts, Annotation, Label, Label]]:
    frozen = {case.key: case for case in run.data.cases}
    for key in keys:
        facts = read_frozen(workspace, run, frozen[key])
        prediction, label = predictor.predict(workspace, facts)
        yield facts, facts.groups, label, prediction
