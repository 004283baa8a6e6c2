"""What a training step will take of memory, found without computing anything."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from abdoseg.config import TrainConfig
from abdoseg.engine.precision import autocast, storage_type
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
    activations
        What the forward pass keeps for the backward pass, for the patches of one pass.
    logits
        The model's outputs and their gradient.
    """

    weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.activations + self.logits


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
    Buffers of a single operation come on top: convolution algorithms may take more than all the rest.
    """
    patches = config.batch // processes // config.accumulate
    wide = storage_type(config.precision).itemsize // torch.float32.itemsize
    network = build_model(config.network, config.method, task, checkpointing=config.checkpointing)
    # Of the first source that teaches anything; the values say no more than which head it is.
    source = torch.full((patches,), next((i for i, (_, ids) in enumerate(task.sources) if ids), -1))
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
        tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        without_data: dict[str, Tensor] = {name: fakes.from_tensor(tensor) for name, tensor in tensors.items()}
        image = torch.empty(patches, 1, *config.patch)
        batch = TorchBatch(image, image, image, image, source, source)  # a model is given images and sources alone
        given = method_for(config.network, config.method).inputs(batch)
        kept = _Kept(without_data.values())
        with autocast(config.precision, image.device), torch.autograd.graph.saved_tensors_hooks(kept.add, _as_it_is):
            outputs = tree_leaves(torch.func.functional_call(network, without_data, given))
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        of_outputs = sum(2 * t.numel() * t.element_size() for t in outputs if isinstance(t, Tensor))
    copies = 4 + (1 if config.average_decay else 0)  # weights, gradients, two moments
    return MemoryEstimate(wide * copies * weights, wide * kept.bytes(), wide * of_outputs)


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
