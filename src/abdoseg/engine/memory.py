"""What a training step will take of memory, found without computing anything."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from abdoseg.config import TrainConfig
from abdoseg.engine.precision import autocast, storage_type
from abdoseg.networks import build_network


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
        Logits and their gradient.
    """

    weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.activations + self.logits


def estimate_memory(config: TrainConfig, n_classes: int, processes: int = 1) -> MemoryEstimate:
    """Return what a training step needs, from a forward pass on tensors without data.

    Parameters
    ----------
    config
        Network, patch, batch, accumulation, precision, checkpointing.
    n_classes
        1 + N.
    processes
        That share a batch.

    Notes
    -----
    Buffers of a single operation come on top: convolution algorithms may take more than all the rest.
    """
    patches = config.batch // processes // config.accumulate
    wide = storage_type(config.precision).itemsize // torch.float32.itemsize
    network = build_network(config.network, n_classes, checkpointing=config.checkpointing)
    with FakeTensorMode() as fakes:
        tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        without_data: dict[str, Tensor] = {name: fakes.from_tensor(tensor) for name, tensor in tensors.items()}
        image = torch.empty(patches, 1, *config.patch)
        kept = _Kept(without_data.values())
        with autocast(config.precision, image.device), torch.autograd.graph.saved_tensors_hooks(kept.add, _as_it_is):
            logits = torch.func.functional_call(network, without_data, (image,))
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        of_logits = 2 * logits.numel() * logits.element_size()
    copies = 4 + (1 if config.average_decay else 0)  # weights, gradients, two moments
    return MemoryEstimate(wide * copies * weights, wide * kept.bytes(), wide * of_logits)


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
