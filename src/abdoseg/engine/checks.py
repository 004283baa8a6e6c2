"""What would end a training before its first step, found before anything is written."""

import torch

from abdoseg.config import check_shares
from abdoseg.engine.precision import autocast
from abdoseg.errors import ConfigError
from abdoseg.methods import METHODS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.networks import NETWORKS
from abdoseg.runs import Run, annotation_from_labels, load_run, read_frozen
from abdoseg.store import Workspace
from abdoseg.training_set import open_sampler, patch_settings, sampling_weights, validation_keys


def check_run(workspace: Workspace, run: Run, processes: int = 1, device: torch.device | None = None) -> None:
    """Refuse a planned run that cannot be trained.

    Parameters
    ----------
    workspace, run
        The run, and where its cases lie.
    processes
        That share each batch.
    device
        Where it will be trained; ``None``: not known yet.

    Raises
    ------
    ConfigError, UnknownNameError
        If a setting does not fit the structures, cases, processes or device.
    RunError, WorkspaceError
        If a case that the run froze is gone or changed.
    """
    check_shares(run.config, processes)
    if run.config.start_from is not None:
        base_of(workspace, run)
    patch_settings(run)
    sampling_weights(run)
    # Of a run that learns from another's labels, nothing can be drawn before they are there.
    if not METHODS[run.config.method].needs_teacher:
        open_sampler(workspace, run)
    _check_model(workspace, run)
    _check_validation(workspace, run)
    if device is not None:
        autocast(run.config.precision, device)
        _check_bfloat16(run, device)


def base_of(workspace: Workspace, run: Run) -> Run:
    """Return the run that ``run`` starts from: one with weights, that fits.

    Raises
    ------
    ConfigError
        If it has other structures, spacing or windows, is to label and not finished, or its weights, where they are
        taken, are those of another network.
    RunError, UnknownNameError
        If it has no weights, or is not there.
    """
    base = load_run(workspace, run.config.start_from)
    fits = base.data.settings == run.data.settings
    if not METHODS[run.config.method].needs_teacher:
        fits &= base.config.network == run.config.network
    elif base.status != "finished":
        raise ConfigError(
            f"run {base.name}: is {base.status}; labels are taken from a finished run, train it to its end"
        )
    if not fits:
        raise ConfigError(
            f"run {base.name}: has network {base.config.network} for {len(base.anatomy)} structures; a run that "
            f"starts from it needs the same, found {run.config.network} for {len(run.anatomy)}"
        )
    return base


def _check_model(workspace: Workspace, run: Run) -> None:
    """Build the model without memory for its weights; those it is to start from have to fit."""
    config, task = run.config, run.task()
    with torch.device("meta"):
        model = build_model(config.network, config.method, task)
        method_for(config.network, config.method).prepare(model, task)
        if config.start_from is None or METHODS[config.method].needs_teacher:
            return
        base = base_of(workspace, run)
        other = build_model(base.config.network, base.config.method, base.task())
    if _shapes(model) != _shapes(other):
        raise ConfigError(
            f"run {base.name}: was trained by {base.config.method}, whose weights do not fit {config.method}'s; start "
            "from a run of the same method (and, of multi_head, the same sources)"
        )


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_bfloat16(run: Run, device: torch.device) -> None:
    """Refuse patches of which a CPU makes wrong gradients.

    oneDNN's bfloat16 weight gradients of 3^3 convolutions are off by as much as they are large, or infinite, and differ
    from call to call, where a map has 2 voxels along its first axis; measured with PyTorch 2.13, maps of 1, 3, 4, 6 and
    8 voxels and the other axes are right.
    """
    config = run.config
    if config.precision != "bf16" or device.type != "cpu":
        return
    side = 2 * NETWORKS[config.network].divisor  # halved down to the divisor, longer ones never have 2 voxels
    if config.patch[0] <= side:
        raise ConfigError(
            f"precision bf16: on a CPU, PyTorch's gradients are wrong for {config.network} with patches of at most "
            f"{side} voxels along X, found {config.patch[0]}; choose longer ones (--set patch=...) or float32"
        )


def _check_validation(workspace: Workspace, run: Run) -> None:
    if run.config.final_weights != "best":
        return
    chosen = set(validation_keys(run))
    if not chosen:
        raise ConfigError("final_weights best: there is no validation case; take --fold K/N, or final_weights=last")
    cases = [read_frozen(workspace, run, case) for case in run.data.cases if case.key in chosen]
    if not any(annotation_from_labels(workspace, case, case.groups).has_annotation for case in cases):
        raise ConfigError(
            f"final_weights best: none of {len(cases)} validation cases holds an annotated structure, so none is the "
            "best; take others by --fold K/N, or final_weights=last"
        )
