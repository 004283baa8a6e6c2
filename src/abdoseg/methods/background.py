"""The naive way: whatever nobody annotated is background, in unannotated structures' places and slices too."""

import torch
from torch import Tensor

from abdoseg.losses import disambiguation_terms
from abdoseg.methods.parts import LossParts, LossSettings, TorchBatch


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return ordinary focal + dice with every structure taken as annotated everywhere; there is no entropy term."""
    everything = torch.ones_like(batch.annotated[:, :1])
    inside = batch.group.clamp(max=0)
    terms = disambiguation_terms(
        logits,
        batch.label,
        inside,
        everything,
        dice_over=settings.dice_over,
        clamp=settings.clamp,
        validate=False,  # batches come from our own patches
    )
    total = terms.focal + terms.dice
    return LossParts(total.mean(), terms.focal.mean(), terms.dice.mean(), terms.entropy.mean())
