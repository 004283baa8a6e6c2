"""The sums behind the self-disambiguation loss in plain PyTorch: the readable reference, for any device and type.

Group ``k`` uses *slot* ``k + 1`` and slot 0 takes the voxels outside the image, with an empty row, so they need no
case of their own. All that the loss needs is, for each slot, the sum of each class's probability, the true positives
and the voxel counts; these are scatter-additions over all voxels at once, whatever the number of groups.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 2
"""Exponent of the focal term."""

_SCATTER_CELLS = 4096  # partial sums a class: few enough for the L2 cache, enough for short float32 sums


class Sums(NamedTuple):
    """Sums over the voxels of each example; S slots, C classes."""

    focal: Tensor
    """``(B,)``: of -(1 - p)^2 log p of the merged label, over voxels in slots that know a structure."""
    entropy: Tensor
    """``(B,)``: of the entropy, nats, over voxels inside the image."""
    probability: Tensor
    """``(B, S, C)``: of each class's probability, not merged."""
    true_positive: Tensor
    """``(B, S, C)``: of the probability of the merged label, by merged label."""
    voxels: Tensor
    """``(B, S, C)``: voxels by merged label."""


def sum_voxels(logits: Tensor, label: Tensor, group: Tensor, known: Tensor, clamp: float = 0.0) -> Sums:
    """Return the sums of logits ``(B, C, V)``, label and group ``(B, V)`` int64 and known ``(B, S, C)`` bool.

    Inside a logarithm, probabilities are brought into [clamp, 1 - clamp]; 0 leaves them alone.
    """
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    slot = group + 1
    target = merged_label(label, slot, known)
    log_p_target = merged_log_probability(log_p, target, slot, known)
    counted = known[:, :, 1:].any(dim=2).gather(1, slot).to(p.dtype)
    focal = -((-torch.expm1(log_p_target)) ** GAMMA) * _clamped(log_p_target, clamp)
    inside = (slot > 0).to(p.dtype)
    entropy = -(p * _clamped(log_p, clamp)).sum(dim=1)
    count, true_positive = _count_by_slot(target, log_p_target.exp(), slot, known)
    return Sums(
        focal=(focal * counted).sum(dim=1),
        entropy=(entropy * inside).sum(dim=1),
        probability=sum_by_slot(p, slot, known.shape[1]),
        true_positive=true_positive,
        voxels=count,
    )


def _clamped(log_p: Tensor, clamp: float) -> Tensor:
    """Return the logarithms of probabilities brought into [clamp, 1 - clamp]."""
    return log_p.clamp(math.log(clamp), math.log1p(-clamp)) if clamp else log_p


def merged_words(known: Tensor) -> Tensor:
    """Return the bits of the classes that count as background in each slot: int64 ``(B, S)`` of known ``(B, S, C)``.

    Class 0 always does. What the kernels take instead of a table.
    """
    merged = ~known
    merged[:, :, 0] = True
    classes = torch.arange(known.shape[2], device=known.device)
    return (merged * (torch.ones_like(classes) << classes)).sum(dim=2)


def merged_label(label: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return the label where its structure is known in the voxel's slot, else 0: int ``(B, V)``."""
    classes = known.shape[2]
    label = label.where(label < classes, 0)
    return label * known.flatten(1).gather(1, slot * classes + label)


def merged_log_probability(log_p: Tensor, target: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return log p~ of every voxel's merged label: ``(B, V)``.

    Background is the log-sum-exp of all classes that are not known structures: exact where the probabilities
    themselves would underflow.
    """
    structure = known.clone()
    structure[:, :, 0] = False
    # One group: every voxel that counts has the same row. How many classes that hides is a value, which a traced graph
    # may not depend on.
    if known.shape[1] == 2 and not torch.compiler.is_compiling():
        merged = [
            example.index_select(0, (~row).nonzero().squeeze(1)).logsumexp(dim=0)
            for example, row in zip(log_p, structure[:, 1], strict=True)
        ]
        background = torch.stack(merged)
    else:
        hidden = structure.mT.gather(2, slot[:, None].expand(-1, known.shape[2], -1))
        background = log_p.masked_fill(hidden, -torch.inf).logsumexp(dim=1)
    own = log_p.gather(1, target[:, None]).squeeze(1)
    return torch.where(target == 0, background, own)


def sum_by_slot(values: Tensor, slot: Tensor, slots: int) -> Tensor:
    """Return the sums of ``values`` (B, C, V) over the voxels of each slot: ``(B, slots, C)``.

    Neighbouring voxels add to different partial sums: long float32 sums would stop growing, and additions
    in a row to one address would wait for each other.
    """
    batch, channels, voxels = values.shape
    strands = max(1, _SCATTER_CELLS // slots)
    cell = slot * strands + torch.arange(voxels, device=slot.device) % strands
    sums = values.new_zeros(batch, channels, slots * strands)
    sums = sums.scatter_add(2, cell[:, None].expand(-1, channels, -1), values)
    return sums.view(batch, channels, slots, strands).sum(dim=3).mT


def _count_by_slot(target: Tensor, p_target: Tensor, slot: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the voxel counts and the true positives of each slot and merged class: ``(B, S, C)`` each."""
    _, slots, classes = known.shape
    both = torch.stack([torch.ones_like(p_target), p_target], dim=1)
    sums = sum_by_slot(both, slot * classes + target, slots * classes)
    count, true_positive = sums.reshape(-1, slots, classes, 2).unbind(dim=3)
    return count, true_positive
