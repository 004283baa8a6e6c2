"""Scores as probabilities, of two kinds of networks; the label is the class of the highest score with both.

Most networks give logits of classes that exclude each other: a softmax over classes makes them probabilities. Networks
with independent heads give each structure's logit against all else, and 0 for background. There a structure's
probability is the sigmoid of its score, background's is 1 minus that of the most probable structure, and background is
the label where no structure reaches 0.5 (``method.md`` 8).
"""

import torch
from torch import Tensor, nn


def has_independent_heads(network: nn.Module) -> bool:
    """Whether a network says that its heads are independent, by an attribute ``independent_heads``."""
    return bool(getattr(network, "independent_heads", False))


def averaged_form(scores: Tensor, *, independent: bool) -> Tensor:
    """Return what windows and networks average when they average probabilities, ``(B, C, ...)``.

    The best class of a mean of it is the label: of independent heads, background is 0.5 everywhere, what the mean
    probability of a structure has to reach.
    """
    return scores.sigmoid() if independent else scores.softmax(1)


def class_probabilities(scores: Tensor, *, independent: bool) -> Tensor:
    """Return the probability of each class, ``(B, C, ...)``; of independent heads they add up to 1 or more."""
    if not independent:
        return scores.softmax(1)
    p = scores[:, 1:].sigmoid()
    return torch.cat([1 - p.amax(1, keepdim=True), p], dim=1)
