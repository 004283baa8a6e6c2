"""Marginal and exclusion losses (Shi et al. 2021), on annotation groups."""

import torch
from torch import Tensor

from abdoseg.losses import disambiguation_terms
from abdoseg.losses.disambiguation import known_classes
from abdoseg.losses.plain import merged_label, merged_log_probability, sum_by_slot
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return cross-entropy + dice of the merged probabilities + exclusion, mean over the batch.

    Notes
    -----
    Cross-entropy is the mean over the voxels of groups that know a structure. Dice and exclusion are means over an
    example's groups, weighted by their voxels: a group is to Shi et al. a volume.
    """
    given = logits, batch.label, batch.group, batch.annotated
    dice = disambiguation_terms(
        *given, dice_over=settings.dice_over, reduction=settings.reduction, clamp=settings.clamp, validate=False
    ).dice
    with torch.autocast(logits.device.type, enabled=False):
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(2).log_softmax(dim=1)
        slot, known = batch.group.flatten(1).long() + 1, known_classes(batch.annotated)
        target = merged_label(batch.label.flatten(1).long(), slot, known)
        counted = known[:, :, 1:].any(dim=2).gather(1, slot).to(log_p.dtype)
        log_q = merged_log_probability(log_p, target, slot, known)
        cross_entropy = -(log_q * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        exclusion = _exclusion(log_p.exp()[:, 1:], (target > 0).to(log_p.dtype), slot, known[:, :, 1:])
    terms = (cross_entropy.mean(), dice.mean(), exclusion.mean())
    return LossParts(terms[0] + terms[1] + terms[2], terms)


def _exclusion(p: Tensor, drawn: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return what unannotated structures pay for lying where annotated ones are drawn: ``(B,)``.

    With e = 1 where an annotated structure is drawn, in each group, mean over its unannotated structures: the overlap
    2 sum(e p) / (sum e + sum p), plus the mean over voxels of e log(p + 1).

    Parameters
    ----------
    p
        ``(B, N, V)``: probabilities of the structures.
    drawn, slot
        ``(B, V)``: e, and group plus one.
    known
        bool ``(B, S, N)``: structures that each slot knows.
    """
    structures, slots = p.shape[1], known.shape[1]
    inside = drawn[:, None] * p
    values = torch.cat([inside, p, drawn[:, None] * p.log1p(), drawn[:, None], torch.ones_like(drawn)[:, None]], dim=1)
    sums = sum_by_slot(values, slot, slots)
    both, predicted, logs = (sums[:, :, i * structures : (i + 1) * structures] for i in range(3))
    reference, voxels = sums[:, :, -2, None], sums[:, :, -1, None]
    overlap = 2 * both / (reference + predicted).clamp(min=torch.finfo(p.dtype).tiny)
    of_structure = overlap + logs / voxels.clamp(min=1)
    unknown = ~known & known.any(dim=2, keepdim=True)
    of_group = (of_structure * unknown).sum(dim=2) / unknown.sum(dim=2).clamp(min=1)
    size = voxels[:, :, 0] * known.any(dim=2)
    mean: Tensor = (of_group * size).sum(dim=1) / size.sum(dim=1).clamp(min=1)
    return mean


METHOD = Method(loss, ("cross_entropy", "dice", "exclusion"))
