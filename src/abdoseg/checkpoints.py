"""State of a training on disk: safetensors only, nothing is ever unpickled."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from abdoseg.errors import RunError, WorkspaceError, one_line
from abdoseg.files import whole_files
from abdoseg.places import local_copy

MODEL, OPTIMISER, AVERAGE = "model.", "optimiser.", "average."
"""How the names of tensors begin in a checkpoint: weights, the optimiser's memory, averaged weights."""


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
            draft.touch()
            mode = draft.stat().st_mode
            save_file(copies, draft, dict(facts))
            draft.chmod(mode)  # the writer's own files are for their owner alone, whatever the umask
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
        raise useless(path, f"cannot be read ({one_line(str(error))})") from error


def useless(path: Path, why: str) -> RunError:
    """Return the error that a file of weights is of no use, with the ways out."""
    return RunError(
        f"{path}: {why}; bring it back, or delete it to begin the run anew, or choose another --name or --run"
    )


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def load_weights(path: Path, network: nn.Module) -> dict[str, str]:
    """Put the weights of a checkpoint into a network, the averaged ones where there are some; return its facts.

    Raises
    ------
    RunError
        If the file is damaged or belongs to another network.
    """
    tensors, facts = load_tensors(path)
    averaged = {key: value for key, value in under(AVERAGE, tensors).items() if key != ".updates"}
    plain = {key: value for key, value in tensors.items() if not key.startswith((MODEL, OPTIMISER, AVERAGE))}
    try:
        network.load_state_dict(averaged or under(MODEL, tensors) or plain)
    except RuntimeError as error:
        raise useless(path, "weights of another network or method") from error
    return facts
