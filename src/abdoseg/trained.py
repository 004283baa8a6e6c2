"""From a run on disk to a model that predicts."""

import torch

from abdoseg.checkpoints import load_checkpoint, load_tensors
from abdoseg.errors import RunError
from abdoseg.model import SegmentationModel
from abdoseg.networks import build_network
from abdoseg.runs import Run


def load_model(run: Run, device: torch.device) -> tuple[SegmentationModel, int]:
    """Return a run's model, and how many steps its weights have seen.

    The finished weights are taken, else those of the last checkpoint.

    Raises
    ------
    RunError
        If there are none, or they are damaged or of another network.
    """
    network = build_network(run.config.network, 1 + len(run.anatomy))
    if run.status == "finished":
        tensors, _ = load_tensors(run.model_file)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise RunError(f"{run.model_file}: weights of another network; train again") from error
        steps = run.config.steps
    elif run.status == "unfinished":
        steps = load_checkpoint(run.checkpoint_file, network)
    else:
        raise RunError(f"run {run.name}: no trained weights yet; `abdoseg train` goes on with it")
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
