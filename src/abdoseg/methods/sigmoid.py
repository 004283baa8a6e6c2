"""One sigmoid a structure; what nobody looked for says nothing."""

import torch
from torch import Tensor

from abdoseg.losses.binary import binary_sums, binary_terms, counted_by_structure
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch, with_background
from abdoseg.methods.task import Task


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return BCE + dice of ``(B, N, X, Y, Z)``, summed over annotated structures, mean over the batch."""
    structures = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    truth = batch.label.flatten(1)[:, None] == structures[:, None]
    counted = counted_by_structure(batch.group.flatten(1), batch.annotated)
    bce, dice = binary_terms(binary_sums(logits.flatten(2), truth, counted), settings.dice_smooth)
    terms = (bce.sum(dim=1).mean(), dice.sum(dim=1).mean())
    return LossParts(terms[0] + terms[1], terms)


def _structures(task: Task) -> int:
    return len(task.structures)


METHOD = Method(loss, ("bce", "dice"), channels=_structures, scores=with_background)
