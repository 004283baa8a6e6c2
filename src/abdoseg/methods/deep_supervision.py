"""Deep supervision: the loss on the logits of coarser levels too, each brought to all voxels (as nnU-Net trains)."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from abdoseg.methods.parts import LossFunction, LossParts, LossSettings, Method, TorchBatch
from abdoseg.methods.task import Task

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork


class DeeplySupervised(nn.Module):
    """A network that shows the logits of all its levels in training.

    Parameters
    ----------
    network
        One listed with ``deep_supervision``.
    """

    def __init__(self, network: "PaddedNetwork") -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits ``(B, C, X, Y, Z)``; in training those of every level, the finest first."""
        if self.training:
            return self.network.deep_logits(image)
        logits: Tensor = self.network(image)
        return logits

    def for_prediction(self) -> nn.Module:
        """Return what prediction uses: the network alone, in its faster form."""
        return self.network.for_prediction()


def with_deep_supervision(method: Method) -> Method:
    """Return a method that learns at every level; its loss must take the network's own logits."""

    def build(network: "PaddedNetwork", task: Task) -> nn.Module:  # noqa: ARG001
        return DeeplySupervised(network)

    return replace(method, build=build, loss=_at_every_level(method.loss))


def _at_every_level(loss: LossFunction) -> Callable[[tuple[Tensor, ...], TorchBatch, LossSettings], LossParts]:
    """Return the mean over levels, each weighing half as much as the finer one before."""

    def of_levels(levels: tuple[Tensor, ...], batch: TorchBatch, settings: LossSettings) -> LossParts:
        parts = [loss(logits, batch, settings) for logits in levels]
        weights = [0.5**level for level in range(len(levels))]
        weights = [weight / sum(weights) for weight in weights]
        total = torch.stack([w * p.total for w, p in zip(weights, parts, strict=True)]).sum()
        table = torch.stack([w * torch.stack(p.terms) for w, p in zip(weights, parts, strict=True)])
        return LossParts(total, tuple(table.sum(dim=0)))

    return of_levels
