"""State of a training on disk: safetensors only, nothing is ever unpickled."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from abdoseg.errors import RunError, WorkspaceError
from abdoseg.files import whole_files
from abdoseg.places import local_copy

_MODEL = "model."
_OPTIMISER = "optimiser."


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write tensors and text facts to ``path``, whole or not at all.

    Raises
    ------
    WorkspaceError
        If the file cannot be written.
    """
    # Shared or strided storage (channels_last) is refused by the format: contiguous copies it is.
    copies = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with whole_files(path) as (draft,):
        try:
            save_file(copies, draft, dict(facts))
        except SafetensorError as error:
            raise WorkspaceError(f"{path}: cannot be written ({error}); check space and permissions") from error
        with draft.open("rb") as file:
            os.fsync(file.fileno())


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and text facts of a file written by :func:`save_tensors`.

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        with local_copy(path) as copy, safe_open(copy, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be read ({error}); train again, or choose another run") from error


def save_checkpoint(path: Path, network: nn.Module, optimiser: Optimizer, step: int) -> None:
    """Save everything a training needs to go on after ``step`` optimiser steps."""
    tensors = {_MODEL + key: value for key, value in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"{_OPTIMISER}{index}.{key}"] = torch.as_tensor(value)
    save_tensors(path, tensors, {"step": str(step)})


def _lay_out_as_parameters(optimiser: Optimizer) -> None:
    """Give every moment the memory layout of its parameter.

    Files hold contiguous tensors; a fused optimiser walks parameter, gradient and moments by address and would pair
    the wrong numbers of a channels-last parameter with them.
    """
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def load_checkpoint(path: Path, network: nn.Module, optimiser: Optimizer | None = None) -> int:
    """Restore network and optimiser in place; return the number of optimiser steps done.

    Raises
    ------
    RunError
        If the file is damaged or belongs to another network.
    """
    tensors, facts = load_tensors(path)
    model = {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)}
    try:
        network.load_state_dict(model)
    except RuntimeError as error:
        raise RunError(f"{path}: weights of another network; train again, or choose another run") from error
    if optimiser is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(_OPTIMISER):
                index, _, name = key.removeprefix(_OPTIMISER).partition(".")
                state.setdefault(int(index), {})[name] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        _lay_out_as_parameters(optimiser)
    return int(facts["step"])
