"""One structure against all else: binary cross-entropy and dice from a few sums over voxels."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

DICE_EPS = 1.0


class BinarySums(NamedTuple):
    """Sums over the voxels that count; one number a structure."""

    cross_entropy: Tensor
    """Of the binary cross-entropy, nats."""
    true_positive: Tensor
    """Of the probability where the structure is."""
    predicted: Tensor
    """Of the probability."""
    reference: Tensor
    """Voxels where the structure is."""
    voxels: Tensor
    """Voxels that count."""


def binary_sums(logits: Tensor, truth: Tensor, counted: Tensor) -> BinarySums:
    """Return the sums over the last axis.

    Parameters
    ----------
    logits
        ``(..., V)``, any floating type; computed in float32, or float64 for float64.
    truth, counted
        bool ``(..., V)``: where the structure is, which voxels count.
    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weight = counted.to(x.dtype)
    there = truth.to(x.dtype) * weight
    p = x.sigmoid()
    return BinarySums(
        (functional.softplus(x) * weight - x * there).sum(dim=-1),
        (p * there).sum(dim=-1),
        (p * weight).sum(dim=-1),
        there.sum(dim=-1),
        weight.sum(dim=-1),
    )


def annotated_sums(logits: Tensor, ids: Tensor, label: Tensor, group: Tensor, annotated: Tensor) -> BinarySums:
    """Return the sums of structures over the voxels in which each was looked for: ``(B, T)`` each.

    Parameters
    ----------
    logits
        ``(B, T, V)``, any floating type.
    ids
        int64 ``(T,)``: which structures, 1 to N.
    label, group
        Integer ``(B, V)``: structure ids, and groups, -1 outside the image.
    annotated
        bool ``(B, G, N)``.
    """
    truth = label[:, None] == ids[:, None]
    return binary_sums(logits, truth, counted_by_structure(group, annotated[:, :, ids - 1]))


def binary_terms(sums: BinarySums, smooth: Literal["both", "denominator"] = "both") -> tuple[Tensor, Tensor]:
    """Return the mean binary cross-entropy and the dice loss; both 0 where no voxel counts.

    With ``"both"``, dice is 1 - (2 TP + 1) / (sum p + sum g + 1), and a structure that is absent from truth and
    prediction costs 0. With ``"denominator"`` the 1 is only below the line, as DoDNet (Zhang et al. 2021) has it: an
    absent structure costs 1, without a gradient.
    """
    above = 2 * sums.true_positive + (DICE_EPS if smooth == "both" else 0.0)
    dice = 1 - above / (sums.predicted + sums.reference + DICE_EPS)
    return sums.cross_entropy / sums.voxels.clamp(min=1), dice * (sums.voxels > 0)


def counted_by_structure(group: Tensor, annotated: Tensor) -> Tensor:
    """Return in which voxels each structure was looked for: bool ``(B, N, V)``.

    Parameters
    ----------
    group
        Integer ``(B, V)``, -1 outside the image.
    annotated
        bool ``(B, G, N)``.
    """
    rows = functional.pad(annotated, (0, 0, 1, 0), value=False).mT
    slot = (group.long() + 1)[:, None].expand(-1, rows.shape[1], -1)
    return rows.gather(2, slot)
