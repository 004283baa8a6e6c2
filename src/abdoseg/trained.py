"""From a run on disk to a model that predicts."""

from pathlib import Path
from typing import cast

import torch

from abdoseg.checkpoints import load_weights
from abdoseg.errors import RunError
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import Model, Predictor
from abdoseg.model import SegmentationModel
from abdoseg.runs import Run


def load_model(run: Run, device: torch.device) -> tuple[SegmentationModel, int]:
    """Return a run's model, and how many steps its weights have seen.

    The finished weights are taken, else those of the last checkpoint.

    Raises
    ------
    RunError
        If there are none, or they are damaged or of another network.
    """
    trained = build_model(run.config.network, run.config.method, run.task())
    facts = load_weights(checkpoint_of(run), trained)
    fast = cast("Model", trained).for_prediction()
    method = method_for(run.config.network, run.config.method)
    network = Predictor(fast, method.scores, independent=method.independent)
    steps = int(facts.get("step", run.config.steps))
    settings = run.data.settings
    model = SegmentationModel(
        network=network.to(device).eval(),
        anatomy=run.anatomy,
        spacing_mm=settings.spacing_mm,
        windows=settings.windows,
        patch_shape=run.config.patch,
        device=str(device),
        name=run.name,
    )
    return model, steps


def checkpoint_of(run: Run) -> Path:
    """Return the file with a run's weights: the finished ones, else the last checkpoint.

    Raises
    ------
    RunError
        If there is neither.
    """
    if run.status == "not started":
        raise RunError(f"run {run.name}: no trained weights yet; `abdoseg train` goes on with it")
    return run.model_file if run.status == "finished" else run.checkpoint_file
