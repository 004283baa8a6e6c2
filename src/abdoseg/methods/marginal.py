"""Marginal and exclusion losses (Shi et al. 2021), on annotation groups."""

import torch
from torch import Tensor

from abdoseg.losses import disambiguation_terms
from abdoseg.losses.blocks import sum_in_blocks
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
    label, slot = batch.label.flatten(1), batch.group.flatten(1) + 1
    known = known_classes(batch.annotated)

    def sums_of(part: Tensor, _: Tensor, block: slice) -> Tensor:
        return _sums(part, label[:, block].long(), slot[:, block].long(), known)

    structures = known.shape[2] - 1
    with torch.autocast(logits.device.type, enabled=False):
        sums = sum_in_blocks(sums_of, logits.flatten(2), rows=len(logits) * (3 * structures + 3))
    voxels = (sums[:, :, -2] * known[:, :, 1:].any(dim=2)).sum(dim=1)
    cross_entropy = sums[:, :, -1].sum(dim=1) / voxels.clamp(min=1)
    exclusion = _exclusion(sums, known[:, :, 1:])
    terms = (cross_entropy.mean(), dice.mean(), exclusion.mean())
    return LossParts(terms[0] + terms[1] + terms[2], terms)


def _sums(logits: Tensor, label: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return the sums over some voxels that the loss is made of: ``(B, S, 3 N + 3)``.

    With e = 1 where an annotated structure is drawn, by slot: of e p, p and e log(p + 1) of each structure, of e, the
    voxels, and the cross-entropy of the voxels whose group knows a structure.

    Parameters
    ----------
    logits
        ``(B, 1 + N, V)``.
    label, slot
        int64 ``(B, V)``: structure id, and group plus one.
    known
        bool ``(B, S, 1 + N)``: classes told apart in each slot.
    """
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
    target = merged_label(label, slot, known)
    counted = known[:, :, 1:].any(dim=2).gather(1, slot)
    cross_entropy = -merged_log_probability(log_p, target, slot, known) * counted
    p, drawn = log_p[:, 1:].exp(), (target > 0).to(log_p.dtype)[:, None]
    rows = [drawn * p, p, drawn * p.log1p(), drawn, torch.ones_like(drawn), cross_entropy[:, None]]
    return sum_by_slot(torch.cat(rows, dim=1), slot, known.shape[1])


def _exclusion(sums: Tensor, known: Tensor) -> Tensor:
    """Return what unannotated structures pay for lying where annotated ones are drawn: ``(B,)``.

    With e = 1 where an annotated structure is drawn, in each group, mean over its unannotated structures: the overlap
    2 sum(e p) / (sum e + sum p), plus the mean over voxels of e log(p + 1).

    Parameters
    ----------
    sums
        What :func:`_sums` returns of all voxels.
    known
        bool ``(B, S, N)``: structures that each slot knows.
    """
    structures = known.shape[2]
    both, predicted, logs = (sums[:, :, i * structures : (i + 1) * structures] for i in range(3))
    reference, voxels = sums[:, :, -3, None], sums[:, :, -2, None]
    overlap = 2 * both / (reference + predicted).clamp(min=torch.finfo(sums.dtype).tiny)
    of_structure = overlap + logs / voxels.clamp(min=1)
    unknown = ~known & known.any(dim=2, keepdim=True)
    of_group = (of_structure * unknown).sum(dim=2) / unknown.sum(dim=2).clamp(min=1)
    size = voxels[:, :, 0] * known.any(dim=2)
    mean: Tensor = (of_group * size).sum(dim=1) / size.sum(dim=1).clamp(min=1)
    return mean


METHOD = Method(loss, ("cross_entropy", "dice", "exclusion"))
