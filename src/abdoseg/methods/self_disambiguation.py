"""The paper's method: ambiguity-aware focal and dice losses, entropy regularisation (equations 1-5)."""

from torch import Tensor

from abdoseg.losses import disambiguation_terms, entropy_weights
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return focal + dice + lambda entropy, mean over the batch; lambda by whether the patch has annotation."""
    terms = disambiguation_terms(
        logits,
        batch.label,
        batch.group,
        batch.annotated,
        dice_over=settings.dice_over,
        reduction=settings.reduction,
        clamp=settings.clamp,
        validate=False,  # batches come from our own patches; looking at every value costs a GPU a wait, a CPU 5 ms
    )
    weight = entropy_weights(
        terms, settings.entropy_weight, settings.entropy_weight_unannotated, settings.unannotated_when
    )
    total = terms.focal + terms.dice + weight * terms.entropy
    return LossParts(total.mean(), (terms.focal.mean(), terms.dice.mean(), terms.entropy.mean()))


METHOD = Method(loss, ("focal", "dice", "entropy"))
