"""One sigmoid a structure; what nobody looked for says nothing."""

import torch
from torch import Tensor

from abdoseg.losses.binary import BinarySums, annotated_sums, binary_terms
from abdoseg.losses.blocks import sum_in_blocks
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch, with_background
from abdoseg.methods.task import Task


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return BCE + dice of ``(B, N, X, Y, Z)``, summed over annotated structures, mean over the batch."""
    ids = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    label, group = batch.label.flatten(1), batch.group.flatten(1)

    def sums_of(part: Tensor, _: Tensor, block: slice) -> Tensor:
        return torch.stack(annotated_sums(part, ids, label[:, block], group[:, block], batch.annotated))

    sums = sum_in_blocks(sums_of, logits.flatten(2), rows=len(logits) * len(ids))
    bce, dice = binary_terms(BinarySums(*sums), settings.dice_smooth)
    terms = (bce.sum(dim=1).mean(), dice.sum(dim=1).mean())
    return LossParts(terms[0] + terms[1], terms)


def _structures(task: Task) -> int:
    return len(task.structures)


METHOD = Method(loss, ("bce", "dice"), channels=_structures, scores=with_background, independent=True)
