"""Losses: what training minimises, as plain functions of tensors.

Every loss here takes logits, labels and the annotation of the same voxels (groups, and which structures are
known in each group), in the axis order ``(B, C, X, Y, Z)``, and returns one scalar that can be
differentiated.

To add a loss, write one file in this package with a function of the signature of
:func:`disambiguation_loss` (state the equations in its docstring) and add one line to :data:`LOSSES`; then
add an independent reference to ``tests/losses``.
"""

from collections.abc import Callable, Mapping

import torch

from abdoseg.losses.disambiguation import (
    DisambiguationTerms,
    disambiguation_loss,
    disambiguation_terms,
    entropy_weights,
)
from abdoseg.losses.ordinary import ordinary_focal_and_dice

__all__ = [
    "LOSSES",
    "DisambiguationTerms",
    "disambiguation_loss",
    "disambiguation_terms",
    "entropy_weights",
    "ordinary_focal_and_dice",
]

LOSSES: Mapping[str, Callable[..., torch.Tensor]] = {
    "disambiguation": disambiguation_loss,
}
"""Name -> loss; the one place where losses are listed."""
