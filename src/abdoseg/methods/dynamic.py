"""Dynamic heads: one small network of 153 numbers for each structure, made by a controller from the image.

What DoDNet and the CLIP-driven model share. The heads read 8 channels of all voxels; no more than a few structures'
maps are in memory at once, in training too, where they are computed again for the gradient.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from abdoseg.losses.binary import BinarySums, binary_sums, binary_terms, counted_by_structure
from abdoseg.methods.parts import LossParts, LossSettings, TorchBatch, with_background
from abdoseg.methods.task import Task
from abdoseg.networks.padded import crop_to

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork

CHANNELS = 8
"""Channels that a dynamic head reads and has."""

PARTS = (CHANNELS * CHANNELS, CHANNELS * CHANNELS, CHANNELS, CHANNELS, CHANNELS, 1)
"""Numbers of W1, W2, W3, b1, b2, b3, in this order."""

PARAMETERS = sum(PARTS)
"""Numbers of one head."""

_NORM_GROUPS = 16
_AT_ONCE = 2**21  # float32 a layer may have in memory, of all structures taken at once: 8 MB, fastest on a CPU


class DynamicOutputs(NamedTuple):
    """What the heads need."""

    features: Tensor
    """``(B, 8, X, Y, Z)``."""
    parameters: Tensor
    """``(B, N, 153)``: the numbers of each structure's head."""


class DynamicModel(nn.Module):
    """A network, and a controller that makes heads.

    Parameters
    ----------
    network
        With 8 output channels.
    controller
        From the deepest features, normalised, ``(B, C, x, y, z)`` to ``(B, N, 153)``.
    task
        Whether prediction runs the whole network once for each structure.
    """

    def __init__(self, network: "PaddedNetwork", controller: nn.Module, task: Task) -> None:
        super().__init__()
        self.network, self.controller = network, controller
        self.last_norm = nn.GroupNorm(_NORM_GROUPS, network.last_channels)
        self.deepest_norm = nn.GroupNorm(_NORM_GROUPS, network.deepest_channels)
        self.passes = len(task.structures) if task.passes_per_structure else 1

    def forward(self, image: Tensor) -> DynamicOutputs:
        """Return what the heads of images ``(B, 1, X, Y, Z)`` need."""
        outputs = self._once(image)
        if not self.training:
            for _ in range(self.passes - 1):  # the backbone knows nothing of the structure: the same again
                outputs = self._once(image)
        return outputs

    def for_prediction(self) -> "DynamicModel":
        """Return this model with the network's faster form."""
        self.network = self.network.for_prediction(keep_features=True)
        return self

    def _once(self, image: Tensor) -> DynamicOutputs:
        last, deepest = self.network.features(image)
        features = crop_to(self.network.head(functional.relu(self.last_norm(last))), image)
        return DynamicOutputs(features, self.controller(functional.relu(self.deepest_norm(deepest))))


def head_logits(features: Tensor, parameters: Tensor) -> Tensor:
    """Return the logits of heads: W3 relu(W2 relu(W1 h + b1) + b2) + b3.

    Parameters
    ----------
    features
        h, ``(8, V)``.
    parameters
        ``(T, 153)``: W1 (8 x 8), W2 (8 x 8), W3 (1 x 8), b1, b2, b3 of each; rows are outputs.

    Returns
    -------
    Tensor
        ``(T, V)``.
    """
    w1, w2, w3, b1, b2, b3 = torch.split(parameters, list(PARTS), dim=1)
    heads = len(parameters)
    # The first layer reads the same features for all heads: one product of matrices.
    x = functional.relu(torch.addmm(b1.reshape(-1, 1), w1.reshape(-1, CHANNELS), features)).view(heads, CHANNELS, -1)
    x = functional.relu(torch.baddbmm(b2[:, :, None], w2.view(heads, CHANNELS, CHANNELS), x))
    return torch.baddbmm(b3[:, :, None], w3[:, None], x)[:, 0]


def scores(outputs: DynamicOutputs) -> Tensor:
    """Return scores ``(B, 1 + N, X, Y, Z)``; the best class is background where no head reaches 0.5."""
    features, parameters = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in outputs)
    with torch.autocast(features.device.type, enabled=False):
        logits = [
            torch.cat([head_logits(h, of_image[some]) for some in _chunks(len(of_image), h.shape[1])])
            for h, of_image in zip(features.flatten(2), parameters, strict=True)
        ]
    return with_background(torch.stack(logits).view(*parameters.shape[:2], *features.shape[2:]))


def loss(outputs: DynamicOutputs, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return BCE + dice, mean over the structures learnt of an example, then over the batch.

    An example without an annotated structure adds 0.
    """
    features, parameters = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in outputs)
    groups, labels = batch.group.flatten(1), batch.label.flatten(1)
    counted = counted_by_structure(groups, batch.annotated)
    bce: list[Tensor] = []
    dice: list[Tensor] = []
    with torch.autocast(features.device.type, enabled=False):
        for i, h in enumerate(features.flatten(2)):
            chosen = tasks_of(counted[i], int(batch.number[i]), settings.tasks_per_step)
            sums = _sums(h, parameters[i], chosen, labels[i], counted[i])
            # 0 times the outputs: an example without a task takes part in the gradient all the same.
            nothing = (h.sum() + parameters[i].sum()) * 0.0
            for terms, values in zip((bce, dice), binary_terms(sums, settings.dice_smooth), strict=True):
                terms.append(values.sum() / max(len(chosen), 1) + nothing)
    means = (torch.stack(bce).mean(), torch.stack(dice).mean())
    return LossParts(means[0] + means[1], means)


def tasks_of(counted: Tensor, number: int, at_most: int) -> Tensor:
    """Return which structures (0-based) an example learns in one step: those looked for in it, or some of them.

    Parameters
    ----------
    counted
        bool ``(N, V)``: where each was looked for.
    number
        Of the example; it decides which are drawn.
    at_most
        How many; 0: all.
    """
    there = counted.any(dim=1).nonzero()[:, 0]
    if at_most == 0 or len(there) <= at_most:
        return there
    drawn = torch.randperm(len(there), generator=torch.Generator().manual_seed(number))[:at_most]
    return there[drawn.sort().values.to(there.device)]


def _sums(features: Tensor, parameters: Tensor, chosen: Tensor, label: Tensor, counted: Tensor) -> BinarySums:
    """Return the sums of the chosen structures; their maps are made again for the gradient."""
    parts = []
    for some in _chunks(len(chosen), features.shape[1]):
        ids = chosen[some]
        parts.append(checkpoint(_sums_at_once, features, parameters[ids], ids, label, counted, use_reentrant=False))
    if not parts:
        return BinarySums(*features.new_zeros(5, 0))
    return BinarySums(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _sums_at_once(features: Tensor, parameters: Tensor, ids: Tensor, label: Tensor, counted: Tensor) -> BinarySums:
    return binary_sums(head_logits(features, parameters), label[None] == (ids + 1)[:, None], counted[ids])


def _chunks(tasks: int, voxels: int) -> Iterator[slice]:
    """Yield slices of tasks whose maps are in memory at once."""
    size = max(1, _AT_ONCE // (CHANNELS * voxels))
    for first in range(0, tasks, size):
        yield slice(first, first + size)


def head_channels(task: Task) -> int:  # noqa: ARG001
    """Return the channels of the network's own head."""
    return CHANNELS
