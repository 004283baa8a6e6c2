"""What a training step will take of memory, found without computing anything, and whether it is there."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from abdoseg.config import TrainConfig
from abdoseg.engine.free_memory import free_memory
from abdoseg.engine.precision import Precision, autocast, storage_type
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import TorchBatch
from abdoseg.methods.task import Task


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes a process needs on its device.

    Parameters
    ----------
    weights
        Weights, gradients and what the optimiser remembers (and the moving average).
    gradients
        The share of ``weights`` that the gradients have.
    activations
        What the forward pass keeps for the backward pass, for the patches of one pass.
    logits
        The model's outputs and their gradient.
    """

    weights: int
    gradients: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.activations + self.logits

    @property
    def at_once(self) -> int:
        """What is there at the same time for sure: gradients come as activations go."""
        return self.weights + max(0, self.activations + self.logits - self.gradients)


def estimate_memory(config: TrainConfig, task: Task, processes: int = 1) -> MemoryEstimate:
    """Return what a training step needs, from a forward pass on tensors without data.

    Parameters
    ----------
    config
        Network, method, patch, batch, accumulation, precision, checkpointing.
    task
        What the model learns.
    processes
        That share a batch.

    Notes
    -----
    Buffers of a single operation come on top: convolution algorithms may take more than all the rest. So does, with
    checkpointing, what a block computes again.
    """
    patches = config.batch // processes // config.accumulate
    sides = (config.network, config.method, config.patch, config.precision)
    parts = _estimated(*sides, task, patches, checkpointing=config.checkpointing)
    copies = 4 + (1 if config.average_decay else 0)  # weights, gradients, two moments
    return replace(parts, weights=copies * parts.gradients)


@lru_cache(maxsize=32)  # rows of a table and the runs of a notebook ask for the same again
def _estimated(
    network: str,
    method: str,
    patch: tuple[int, int, int],
    precision: Precision,
    task: Task,
    patches: int,
    *,
    checkpointing: bool,
) -> MemoryEstimate:
    """Return what a pass over so many patches needs, without what the optimiser remembers."""
    wide = storage_type(precision).itemsize // torch.float32.itemsize
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and the caller's random numbers are the caller's
        model = build_model(network, method, task, checkpointing=checkpointing)
    # Of the first source that teaches anything; the values say no more than which head it is.
    source = torch.full((patches,), next((i for i, (_, ids) in enumerate(task.sources) if ids), -1))
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
        tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        without_data: dict[str, Tensor] = {name: fakes.from_tensor(tensor) for name, tensor in tensors.items()}
        image = torch.empty(patches, 1, *patch)
        batch = TorchBatch(image, image, image, image, source, source)  # a model is given images and sources alone
        given = method_for(network, method).inputs(batch)
        kept = _Kept(without_data.values())
        with autocast(precision, image.device), torch.autograd.graph.saved_tensors_hooks(kept.add, _as_it_is):
            outputs = tree_leaves(torch.func.functional_call(model, without_data, given))
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        of_outputs = sum(2 * t.numel() * t.element_size() for t in outputs if isinstance(t, Tensor))
    return MemoryEstimate(2 * wide * weights, wide * weights, wide * kept.bytes(), wide * of_outputs)


def memory_shortage(config: TrainConfig, task: Task, device: torch.device, processes: int = 1, here: int = 1) -> str:
    """Return what a training lacks and what to do, in a line; empty where it may fit, or nobody knows what is free.

    Parameters
    ----------
    config, task, processes
        As for :func:`estimate_memory`.
    device
        Where it will be trained.
    here
        How many of the processes share the device's memory: those on this machine, where it is a CPU.

    Notes
    -----
    What is said to be needed is :attr:`MemoryEstimate.at_once`; all measured trainings took more (docs/networks.md). A
    compiled network is not judged: the compiler chooses what is kept.
    """
    free = free_memory(device)
    if free is None or config.compile:
        return ""
    parts = estimate_memory(config, task, processes)
    if here * parts.at_once <= free:
        return ""
    patches = config.batch // processes // config.accumulate
    sides = "x".join(map(str, config.patch))
    each = f" in each of {here} processes" if here > 1 else ""
    return (
        f"memory: {config.network} with {patches} {'patch' if patches == 1 else 'patches'} of {sides} at once takes at "
        f"least {_gib(parts.at_once)}{each}, and {device} has {_gib(free)} free; take less at once by "
        f"{_more_passes(config.accumulate, patches, parts, free // here)}--set checkpointing=true, --set patch=... or "
        "--preset small, or start it nevertheless by --ignore-memory"
    )


def _more_passes(passes: int, patches: int, parts: MemoryEstimate, free: int) -> str:
    """Return the setting with which a pass has as many patches as may fit, and a comma; empty where not one does."""
    of_one = (parts.activations + parts.logits) / patches
    needs = {n: parts.weights + max(0, n * of_one - parts.gradients) for n in range(1, patches) if patches % n == 0}
    fitting = [n for n, need in needs.items() if need <= free]
    return f"--set accumulate={passes * patches // max(fitting)}, " if fitting else ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


class _Kept:
    """The storages that a forward pass keeps, each once, without those of the weights."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {_identity(tensor) for tensor in weights}
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no identity is given twice

    def add(self, tensor: Tensor) -> Tensor:
        self._storages[_identity(tensor)] = tensor.untyped_storage()
        return tensor

    def bytes(self) -> int:
        return sum(storage.nbytes() for key, storage in self._storages.items() if key not in self._weights)


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # the identity of a storage has no public name


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
