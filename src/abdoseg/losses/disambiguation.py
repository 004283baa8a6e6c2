"""The self-disambiguation loss: ambiguity-aware focal and dice terms, and an entropy prior.

This is the readable reference, in plain PyTorch. Source: Chen et al., "Versatile Medical Image Segmentation
Learned from Multi-Source Datasets via Model Self-Disambiguation", equations 1-5.

One code path serves every kind of annotation. Voxels belong to *groups*; row ``k`` of ``annotated`` says
which structures are known in group ``k`` (the set Phi_k). A partially labelled volume is one group, a
sparsely labelled one has a group per slice, an unlabelled or ignored region is a group with an empty row,
and voxels outside the image have group -1.

How it is computed. Group ``k`` uses *slot* ``k + 1`` and slot 0 takes the voxels outside the image, with an
empty row, so they need no case of their own. All that the dice term needs is, for each slot, the sum of each
class's probability, the true positives and the voxel counts; these are scatter-additions over all voxels at
once, whatever the number of groups.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from abdoseg.errors import CaseError, unknown_name
from abdoseg.types import UNKNOWN_LABEL

GAMMA = 2
"""Exponent of the focal term."""

DICE_EPS = 1.0
"""Added to the numerator and to the denominator of every dice ratio."""

_SCATTER_CELLS = 4096  # partial sums a class: few enough for the L2 cache, enough for short float32 sums

DiceOver = Literal["annotated", "present"]
Reduction = Literal["group", "volume"]


class DisambiguationTerms(NamedTuple):
    """The terms of the loss, one value an example; each field has shape ``(B,)``."""

    focal: Tensor
    """Focal cross-entropy of the merged probabilities (equation 1); 0 without annotation."""
    dice: Tensor
    """Dice loss of the merged probabilities (equation 2); 0 without annotation."""
    entropy: Tensor
    """Mean entropy, in nats, over the voxels inside the image (equation 5)."""
    has_annotation: Tensor
    """Bool: some voxel lies in a group whose row is not empty."""


class TermSettings(TypedDict, total=False):
    """Keyword settings of :func:`disambiguation_terms`."""

    dice_over: DiceOver
    reduction: Reduction
    validate: bool


@dataclass(frozen=True)
class _Settings:
    dice_over: DiceOver = "annotated"
    reduction: Reduction = "group"
    validate: bool = True

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("dice_over", self.dice_over, get_args(DiceOver)),
            ("reduction", self.reduction, get_args(Reduction)),
        ):
            if value not in known:
                raise unknown_name(kind, value, list(known))


def disambiguation_loss(
    logits: Tensor,
    label: Tensor,
    group: Tensor,
    annotated: Tensor,
    entropy_weight: float = 1.0,
    entropy_weight_unannotated: float = 3.0,
    **settings: Unpack[TermSettings],
) -> Tensor:
    """Return the batch's loss: the mean over examples of focal + dice + weight x entropy.

    Parameters
    ----------
    logits, label, group, annotated, **settings
        As for :func:`disambiguation_terms`.
    entropy_weight
        Weight of the entropy in an example with an annotated voxel.
    entropy_weight_unannotated
        Weight of the entropy in an example without one.

    Returns
    -------
    Tensor
        Scalar, float32 (float64 for float64 logits). 0, with gradient 0, for a batch outside the image.
    """
    terms = disambiguation_terms(logits, label, group, annotated, **settings)
    weight = terms.entropy.new_full(terms.entropy.shape, entropy_weight_unannotated)
    weight = weight.masked_fill(terms.has_annotation, entropy_weight)
    return (terms.focal + terms.dice + weight * terms.entropy).mean()


def disambiguation_terms(
    logits: Tensor,
    label: Tensor,
    group: Tensor,
    annotated: Tensor,
    **settings: Unpack[TermSettings],
) -> DisambiguationTerms:
    """Return focal, dice and entropy of every example.

    With p = softmax(logits) and Phi the annotated structures of a voxel's group, the merged probability of
    c in Phi is p_c and that of background is p_0 plus the p_c of all c not in Phi; the merged label is the
    label where it is in Phi, else 0. Focal is the mean over annotated voxels of -(1 - p~_y)^2 log p~_y.
    Dice of a group is 1 minus the mean over {0} u Phi of (2 TP + 1) / (2 TP + FP + FN + 1); an example's
    dice is the mean of its annotated groups, weighted by their voxel counts. Entropy is over all classes
    and all voxels in the image.

    Parameters
    ----------
    logits
        ``(B, 1 + N, X, Y, Z)``, any floating type; computed in float32, or float64 for float64.
    label
        ``(B, X, Y, Z)``, integer, 0..N; 255 where the group's row is empty.
    group
        ``(B, X, Y, Z)``, integer, index into ``annotated``; -1 outside the image.
    annotated
        ``(B, G, N)``, bool; column ``c - 1`` is structure ``c``.
    **settings
        ``dice_over``: the classes that dice averages, ``"annotated"`` (default) or only those ``"present"``
        in the group (as the authors' code). ``reduction``: ``"group"`` (default), or ``"volume"``: all
        groups with the same row count as one. ``validate``: check the values of ``label`` and ``group``
        (default True; on a GPU this waits for the device).

    Returns
    -------
    DisambiguationTerms
        Four tensors of shape ``(B,)``.

    Raises
    ------
    ValueError
        If shapes or types do not fit together.
    CaseError
        If ``label`` or ``group`` holds a value that is not lawful (a ValueError).
    UnknownNameError
        If a setting has an unknown value.
    """
    chosen = _Settings(**settings)
    _check_arguments(logits, label, group, annotated)
    label, group = label.long(), group.long()  # narrow integers would wrap around in comparisons
    if chosen.validate:
        _check_values(label, group, annotated)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        log_p = _as_accurate(logits).flatten(2).log_softmax(dim=1)
        known = _known_classes(annotated)
        slot = group.flatten(1) + 1
        if chosen.reduction == "volume":
            slot = _join_equal_rows(known).gather(1, slot)
        return _terms(log_p, label.flatten(1), slot, known, chosen.dice_over)


def _terms(log_p: Tensor, label: Tensor, slot: Tensor, known: Tensor, dice_over: DiceOver) -> DisambiguationTerms:
    """Return the terms from log p ``(B, C, V)``, label and slot ``(B, V)`` and known ``(B, S, C)``."""
    p = log_p.exp()
    target = _merged_label(label, slot, known)
    log_p_target = _merged_log_probability(log_p, target, slot, known)
    p_target = log_p_target.exp()

    annotated_slot = known[:, :, 1:].any(dim=2)
    counted = annotated_slot.gather(1, slot).to(p.dtype)
    n_counted = counted.sum(dim=1)
    focal = -((-torch.expm1(log_p_target)) ** GAMMA) * log_p_target

    count, true_positive = _count_by_slot(target, p_target, slot, known)
    dice = _dice_by_slot(_sum_by_slot(p, slot, known.shape[1]), count, true_positive, known, dice_over)
    share = count.sum(dim=2) * annotated_slot / n_counted.clamp(min=1)[:, None]

    inside = (slot > 0).to(p.dtype)
    entropy = -(p * log_p).sum(dim=1)
    return DisambiguationTerms(
        focal=(focal * counted).sum(dim=1) / n_counted.clamp(min=1),
        dice=(dice * share).sum(dim=1),
        entropy=(entropy * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1),
        has_annotation=n_counted > 0,
    )


def _as_accurate(logits: Tensor) -> Tensor:
    """Return float64 as it is and anything narrower as float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _known_classes(annotated: Tensor) -> Tensor:
    """Return which classes are told apart in each slot: bool ``(B, 1 + G, 1 + N)``; background always is."""
    known = torch.nn.functional.pad(annotated, (1, 0, 1, 0), value=False)
    known[:, :, 0] = True
    return known


def _join_equal_rows(known: Tensor) -> Tensor:
    """Return, for every slot, the first slot with the same row: int ``(B, S)``; slot 0 stays 0."""
    rows = known[:, 1:]
    equal = (rows[:, :, None] == rows[:, None, :]).all(dim=3)
    first = equal.to(torch.int8).argmax(dim=2) + 1
    return torch.nn.functional.pad(first, (1, 0), value=0)


def _merged_label(label: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return the label where its structure is known in the voxel's slot, else 0: int ``(B, V)``."""
    classes = known.shape[2]
    label = label.where(label < classes, 0)
    return label * known.flatten(1).gather(1, slot * classes + label)


def _merged_log_probability(log_p: Tensor, target: Tensor, slot: Tensor, known: Tensor) -> Tensor:
    """Return log p~ of every voxel's merged label: ``(B, V)``.

    Background is the log-sum-exp of all classes that are not known structures: exact where the probabilities
    themselves would underflow.
    """
    structure = known.clone()
    structure[:, :, 0] = False
    if known.shape[1] == 2:  # one group: every voxel that counts has the same row
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


def _sum_by_slot(values: Tensor, slot: Tensor, slots: int) -> Tensor:
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
    sums = _sum_by_slot(both, slot * classes + target, slots * classes)
    count, true_positive = sums.reshape(-1, slots, classes, 2).unbind(dim=3)
    return count, true_positive


def _dice_by_slot(total: Tensor, count: Tensor, true_positive: Tensor, known: Tensor, dice_over: DiceOver) -> Tensor:
    """Return the dice loss of every slot ``(B, S)`` from sums over its voxels ``(B, S, C)``.

    ``total`` holds the sums of the plain probabilities; those of unknown structures go to background here.
    """
    to_background = (total * ~known).sum(dim=2, keepdim=True)
    predicted = torch.cat([total[:, :, :1] + to_background, total[:, :, 1:]], dim=2)
    # 2 TP + FP + FN is what was predicted plus what is there.
    ratio = (2 * true_positive + DICE_EPS) / (predicted + count + DICE_EPS)
    averaged = known if dice_over == "annotated" else known & (count > 0)
    return 1 - (ratio * averaged).sum(dim=2) / averaged.sum(dim=2).clamp(min=1)


def _check_arguments(logits: Tensor, label: Tensor, group: Tensor, annotated: Tensor) -> None:
    """Raise ValueError unless shapes and types fit together; looks at no value."""
    if logits.ndim != 5 or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise ValueError(f"logits: found {found}; expected floating (B, 1 + N, X, Y, Z).")
    voxels = (logits.shape[0], *logits.shape[2:])
    for name, array in (("label", label), ("group", group)):
        integer = not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
        if array.shape != voxels or not integer:
            found = f"{array.dtype} {tuple(array.shape)}"
            raise ValueError(f"{name}: found {found}; expected integers {voxels}, one for each voxel of logits.")
    batch, structures = logits.shape[0], logits.shape[1] - 1
    fits = annotated.ndim == 3 and annotated.shape[0] == batch and annotated.shape[2] == structures
    if annotated.dtype != torch.bool or not fits:
        found = f"{annotated.dtype} {tuple(annotated.shape)}"
        expected = f"bool ({batch}, G, {structures}), a column for each structure"
        raise ValueError(f"annotated: found {found}; expected {expected}.")


def _check_values(label: Tensor, group: Tensor, annotated: Tensor) -> None:
    """Raise CaseError if a value of label or group is not lawful."""
    groups, structures = annotated.shape[1:]
    _refuse((group < -1) | (group >= groups), group, f"group: expected -1..{groups - 1}")
    undefined = label == UNKNOWN_LABEL
    _refuse(
        ((label < 0) | (label > structures)) & ~undefined,
        label,
        f"label: expected 0..{structures}, or {UNKNOWN_LABEL} where nothing is annotated",
    )
    if structures < UNKNOWN_LABEL and undefined.any():
        row_known = torch.nn.functional.pad(annotated.any(dim=2), (1, 0), value=False)
        in_known = row_known.gather(1, group.flatten(1) + 1).view_as(undefined)
        _refuse(
            undefined & in_known,
            label,
            f"label: {UNKNOWN_LABEL} is lawful only in a group that annotates nothing",
        )


def _refuse(bad: Tensor, values: Tensor, message: str) -> None:
    """Raise CaseError with the message and the first bad value, if there is one."""
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise CaseError(f"{message}; found {values[place].item()} at (example, x, y, z) = {place}.")
