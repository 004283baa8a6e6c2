"""The paper's method: ambiguity-aware focal and dice losses, entropy regularisation (equations 1-5)."""

from torch import Tensor

from abdoseg.losses import disambiguation_terms
from abdoseg.methods.parts import EntropyWeights, LossParts, TorchBatch


def loss(logits: Tensor, batch: TorchBatch, weights: EntropyWeights) -> LossParts:
    """Return focal + dice + lambda entropy, mean over the batch; lambda by whether the patch has annotation."""
    terms = disambiguation_terms(logits, batch.label, batch.group, batch.annotated)
    weight = terms.entropy.new_full(terms.entropy.shape, weights.unannotated)
    weight[terms.has_annotation] = weights.annotated
    total = terms.focal + terms.dice + weight * terms.entropy
    return LossParts(total.mean(), terms.focal.mean(), terms.dice.mean(), terms.entropy.mean())
