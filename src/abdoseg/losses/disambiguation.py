"""The self-disambiguation loss: ambiguity-aware focal and dice terms, and an entropy prior.

Source: Chen et al., "Versatile Medical Image Segmentation Learned from Multi-Source Datasets via Model
Self-Disambiguation", equations 1-5.

One code path serves every kind of annotation. Voxels belong to *groups*; row ``k`` of ``annotated`` says
which structures are known in group ``k`` (the set Phi_k). A partially labelled volume is one group, a
sparsely labelled one has a group per slice, an unlabelled or ignored region is a group with an empty row,
and voxels outside the image have group -1.

The terms follow from a few sums over voxels, which one of several implementations computes
(:mod:`abdoseg.losses.implementations`).
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from abdoseg.errors import CaseError, unknown_name
from abdoseg.losses.implementations import Implementation, choose, sum_voxels
from abdoseg.losses.plain import Sums
from abdoseg.types import UNKNOWN_LABEL

DICE_EPS = 1.0
"""Added to the numerator and to the denominator of every dice ratio."""

DiceOver = Literal["annotated", "present"]
Reduction = Literal["group", "volume"]
UnannotatedWhen = Literal["no_group", "no_label"]


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
    has_label: Tensor
    """Bool: some voxel's merged label is a structure."""


class TermSettings(TypedDict, total=False):
    """Keyword settings of :func:`disambiguation_terms`."""

    dice_over: DiceOver
    reduction: Reduction
    clamp: float
    validate: bool
    implementation: Implementation


@dataclass(frozen=True)
class _Settings:
    dice_over: DiceOver = "annotated"
    reduction: Reduction = "group"
    clamp: float = 0.0
    validate: bool = True
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        _check_name("dice_over", self.dice_over, DiceOver)
        _check_name("reduction", self.reduction, Reduction)
        _check_name("implementation", self.implementation, Implementation)
        if not 0 <= self.clamp < 0.5:
            raise ValueError(f"clamp: found {self.clamp}; expected 0 (off) or a probability below 0.5, such as 1e-6.")


def disambiguation_loss(
    logits: Tensor,
    label: Tensor,
    group: Tensor,
    annotated: Tensor,
    entropy_weight: float = 1.0,
    entropy_weight_unannotated: float = 3.0,
    *,
    unannotated_when: UnannotatedWhen = "no_group",
    **settings: Unpack[TermSettings],
) -> Tensor:
    """Return the batch's loss: the mean over examples of focal + dice + weight x entropy.

    Parameters
    ----------
    logits, label, group, annotated, **settings
        As for :func:`disambiguation_terms`.
    entropy_weight, entropy_weight_unannotated, unannotated_when
        As for :func:`entropy_weights`.

    Returns
    -------
    Tensor
        Scalar, float32 (float64 for float64 logits). 0, with gradient 0, for a batch outside the image.
    """
    terms = disambiguation_terms(logits, label, group, annotated, **settings)
    weight = entropy_weights(terms, entropy_weight, entropy_weight_unannotated, unannotated_when)
    return (terms.focal + terms.dice + weight * terms.entropy).mean()


def entropy_weights(
    terms: DisambiguationTerms, annotated: float, unannotated: float, unannotated_when: UnannotatedWhen = "no_group"
) -> Tensor:
    """Return lambda, the weight of each example's entropy: ``(B,)``.

    Parameters
    ----------
    terms
        The examples' terms.
    annotated, unannotated
        Weight of an example with annotation, and of one without.
    unannotated_when
        An example is without annotation where no voxel lies in a group that knows a structure (``"no_group"``), or
        where no voxel holds the label of one (``"no_label"``, as the authors' code decides).

    Raises
    ------
    UnknownNameError
        If ``unannotated_when`` is neither.
    """
    _check_name("unannotated_when", unannotated_when, UnannotatedWhen)
    has_one = terms.has_annotation if unannotated_when == "no_group" else terms.has_label
    return terms.entropy.new_full(terms.entropy.shape, unannotated).masked_fill(has_one, annotated)


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
        groups with the same row count as one. ``clamp``: probabilities inside a logarithm are brought into
        [clamp, 1 - clamp], beyond which they have no slope (the authors' code: 1e-6; default 0, off).
        ``validate``: check the values of ``label`` and ``group`` (default True; on a GPU this waits for the
        device; the fused kernel always checks, at no cost). ``implementation``: ``"auto"`` (default: the
        fastest that can compute this), ``"plain"``, ``"fused"`` (CPU) or ``"triton"`` (CUDA).

    Returns
    -------
    DisambiguationTerms
        Five tensors of shape ``(B,)``.

    Raises
    ------
    ValueError
        If shapes or types do not fit together, or the implementation asked for cannot compute this.
    CaseError
        If ``label`` or ``group`` holds a value that is not lawful (a ValueError).
    UnknownNameError
        If a setting has an unknown value.
    """
    chosen = _Settings(**settings)
    _check_arguments(logits, label, group, annotated)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        known = known_classes(annotated)
        implementation = choose(chosen.implementation, logits, known, chosen.clamp)
        if chosen.validate and implementation != "fused":
            _check_values(label.long(), group.long(), annotated)
        try:
            sums = sum_voxels(implementation, logits, label, group, known, chosen.clamp)
        except CaseError:  # the fused kernel counts what is not lawful; here it is named
            _check_values(label.long(), group.long(), annotated)
            raise
        if chosen.reduction == "volume":
            sums = _join_equal_rows(sums, known)
        terms = _terms(sums, known, chosen.dice_over)
    accurate = torch.promote_types(logits.dtype, torch.float32)
    focal, dice, entropy = (term.to(accurate) for term in terms[:3])
    return DisambiguationTerms(focal, dice, entropy, terms.has_annotation, terms.has_label)


def _terms(sums: Sums, known: Tensor, dice_over: DiceOver) -> DisambiguationTerms:
    """Return the terms from the sums and known ``(B, S, C)``."""
    annotated_slot = known[:, :, 1:].any(dim=2)
    size = sums.voxels.sum(dim=2)
    n_counted = (size * annotated_slot).sum(dim=1)
    n_inside = size[:, 1:].sum(dim=1)
    share = size * annotated_slot / n_counted.clamp(min=1)[:, None]
    dice = _dice_by_slot(sums, known, dice_over)
    return DisambiguationTerms(
        focal=sums.focal / n_counted.clamp(min=1),
        dice=(dice * share).sum(dim=1),
        entropy=sums.entropy / n_inside.clamp(min=1),
        has_annotation=n_counted > 0,
        has_label=(sums.voxels[:, :, 1:] > 0).any(dim=2).any(dim=1),
    )


def known_classes(annotated: Tensor) -> Tensor:
    """Return which classes are told apart in each slot: bool ``(B, 1 + G, 1 + N)``; background always is."""
    known = torch.nn.functional.pad(annotated, (1, 0, 1, 0), value=False)
    known[:, :, 0] = True
    return known


def _join_equal_rows(sums: Sums, known: Tensor) -> Sums:
    """Return the sums with those of slots with the same row added up in the first of them; slot 0 stays apart."""
    rows = known[:, 1:]
    equal = (rows[:, :, None] == rows[:, None, :]).all(dim=3)
    first = torch.nn.functional.pad(equal.to(torch.int8).argmax(dim=2) + 1, (1, 0), value=0)

    def joined(table: Tensor) -> Tensor:
        return torch.zeros_like(table).scatter_add(1, first[:, :, None].expand_as(table), table)

    tables = joined(sums.probability), joined(sums.true_positive), joined(sums.voxels)
    return Sums(sums.focal, sums.entropy, *tables)


def _dice_by_slot(sums: Sums, known: Tensor, dice_over: DiceOver) -> Tensor:
    """Return the dice loss of every slot: ``(B, S)``.

    The sums are of plain probabilities; those of unknown structures go to background here.
    """
    total = sums.probability
    to_background = (total * ~known).sum(dim=2, keepdim=True)
    predicted = torch.cat([total[:, :, :1] + to_background, total[:, :, 1:]], dim=2)
    # 2 TP + FP + FN is what was predicted plus what is there.
    ratio = (2 * sums.true_positive + DICE_EPS) / (predicted + sums.voxels + DICE_EPS)
    averaged = known if dice_over == "annotated" else known & (sums.voxels > 0)
    return 1 - (ratio * averaged).sum(dim=2) / averaged.sum(dim=2).clamp(min=1)


def _check_name(kind: str, value: str, names: Any) -> None:
    """Raise UnknownNameError unless the value is one of a Literal's names."""
    if value not in get_args(names):
        raise unknown_name(kind, value, list(get_args(names)))


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
