"""Dynamic heads: one small network of 153 numbers for each structure, made by a controller from the image.

What DoDNet and the CLIP-driven model share. The heads read 8 channels of all voxels; their maps are in memory for one
block of voxels at a time, in training too, where they are computed again for the gradient.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from abdoseg.losses.binary import BinarySums, annotated_sums, binary_terms
from abdoseg.losses.blocks import blocks_of, sum_in_blocks, voxels_at_once
from abdoseg.methods.parts import LossParts, LossSettings, TorchBatch, with_background
from abdoseg.methods.task import Task
from abdoseg.networks.padded import crop_to
from abdoseg.sampling import Purpose, stream

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork

CHANNELS = 8
"""Channels that a dynamic head reads and has."""

PARTS = (CHANNELS * CHANNELS, CHANNELS * CHANNELS, CHANNELS, CHANNELS, CHANNELS, 1)
"""Numbers of W1, W2, W3, b1, b2, b3, in this order."""

PARAMETERS = sum(PARTS)
"""Numbers of one head."""

_NORM_GROUPS = 16


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
    features, parameters = map(_accurate, outputs)
    with torch.autocast(features.device.type, enabled=False):
        found = (_scores_as_program if _is_traced() else _scores)(features.flatten(2), parameters)
    return found.view(len(features), -1, *features.shape[2:])


def _scores(features: Tensor, parameters: Tensor) -> Tensor:
    """Return scores ``(B, 1 + N, V)`` of features ``(B, 8, V)`` and parameters ``(B, N, 153)``."""
    batch, heads, _ = parameters.shape
    found = features.new_zeros(batch, 1 + heads, features.shape[2])  # those of background stay 0
    size = voxels_at_once(CHANNELS * heads, features.device)
    for i in range(batch):
        for block in blocks_of(found.shape[2], size):
            found[i, 1:, block] = head_logits(features[i, :, block], parameters[i])
    return found


def _scores_as_program(features: Tensor, parameters: Tensor) -> Tensor:
    """Return the same by few operations that put nothing in place: each block would be steps of an exported program."""
    heads = [
        torch.cat([head_logits(h, one) for one in own.split(1)]) for h, own in zip(features, parameters, strict=True)
    ]
    return with_background(torch.stack(heads))


def _accurate(values: Tensor) -> Tensor:
    """Return values in float32, or float64 for float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _is_traced() -> bool:
    traced: bool = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced


def loss(outputs: DynamicOutputs, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return BCE + dice, mean over the structures learnt of an example, then over the batch.

    An example without an annotated structure adds 0.
    """
    bce: list[Tensor] = []
    dice: list[Tensor] = []
    for i, (features, parameters) in enumerate(zip(*outputs, strict=True)):
        ids = _learnt(batch, i, settings)
        if ids:
            terms = binary_terms(_sums(features.flatten(1), parameters, ids, batch, i), settings.dice_smooth)
        else:
            # 0 times the outputs: the example takes part in the gradient all the same.
            terms = (_accurate(features).sum() * 0.0, _accurate(parameters).sum() * 0.0)
        bce.append(terms[0].mean())
        dice.append(terms[1].mean())
    means = (torch.stack(bce).mean(), torch.stack(dice).mean())
    return LossParts(means[0] + means[1], means)


def learnt_structures(looked_for: Tensor, drawn: int, at_most: int, generator: np.random.Generator) -> list[int]:
    """Return the ids of the structures that an example learns in one step.

    Parameters
    ----------
    looked_for
        bool ``(N,)``: which structures were looked for somewhere in it.
    drawn
        Id of the structure that the sampler drew it for; 0 or less: background, or none.
    at_most
        How many it learns; 0: all that were looked for.
    generator
        Draws those beside the drawn one, or in place of background, each as likely as the others.

    Returns
    -------
    list of int
        1 to N, in order.
    """
    ids = [c + 1 for c in looked_for.nonzero()[:, 0].tolist()]
    if at_most == 0 or len(ids) <= at_most:
        return ids
    mixed = [ids[k] for k in generator.permutation(len(ids))]
    first = [c for c in mixed if c == drawn]
    return sorted((first + [c for c in mixed if c != drawn])[:at_most])


def _learnt(batch: TorchBatch, i: int, settings: LossSettings) -> list[int]:
    """Return the ids of the structures that example ``i`` of a batch learns."""
    voxels = torch.bincount(batch.group[i].flatten().long() + 1, minlength=1 + batch.annotated.shape[1])
    looked_for = (batch.annotated[i] & (voxels[1:] > 0)[:, None]).any(dim=0)
    drawn = 0 if batch.structure is None else int(batch.structure[i])
    generator = stream(settings.seed, int(batch.number[i]), Purpose.TASKS)
    return learnt_structures(looked_for, drawn, settings.tasks_per_step, generator)


def _sums(features: Tensor, parameters: Tensor, ids: list[int], batch: TorchBatch, i: int) -> BinarySums:
    """Return the sums of some structures of example ``i``, ``(T,)`` each.

    Parameters
    ----------
    features
        ``(8, V)``.
    parameters
        ``(N, 153)``.
    ids, batch, i
        Which structures of which example.
    """
    chosen = torch.tensor(ids, device=features.device)
    label, group, annotated = (
        batch.label[i : i + 1].flatten(1),
        batch.group[i : i + 1].flatten(1),
        batch.annotated[i : i + 1],
    )

    def sums_of(part: Tensor, heads: Tensor, block: slice) -> Tensor:
        with torch.autocast(part.device.type, enabled=False):
            logits = head_logits(_accurate(part), _accurate(heads))
        return torch.stack(annotated_sums(logits[None], chosen, label[:, block], group[:, block], annotated))[:, 0]

    return BinarySums(*sum_in_blocks(sums_of, features, CHANNELS * len(ids), parameters[chosen - 1]))


def head_channels(task: Task) -> int:  # noqa: ARG001
    """Return the channels of the network's own head."""
    return CHANNELS
