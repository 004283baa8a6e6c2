"""What every method's loss takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from abdoseg.losses.disambiguation import DiceOver, Reduction, UnannotatedWhen


@dataclass(frozen=True, eq=False)
class TorchBatch:
    """One batch of patches.

    Parameters
    ----------
    image
        float32 ``(B, 1, X, Y, Z)``, in [0, 1].
    label, group
        uint8 and int16 ``(B, X, Y, Z)``: structure id, annotation group (-1 outside the image).
    annotated
        bool ``(B, G, N)``.
    """

    image: Tensor
    label: Tensor
    group: Tensor
    annotated: Tensor


@dataclass(frozen=True)
class LossSettings:
    """What a loss may be told at each step.

    Parameters
    ----------
    entropy_weight, entropy_weight_unannotated
        Lambda of patches with and without annotation, ramp included.
    dice_over, reduction, clamp
        Named settings of :func:`abdoseg.losses.disambiguation_terms`.
    unannotated_when
        Which patches are without annotation, see :func:`abdoseg.losses.entropy_weights`.
    """

    entropy_weight: float = 1.0
    entropy_weight_unannotated: float = 3.0
    dice_over: DiceOver = "annotated"
    reduction: Reduction = "group"
    clamp: float = 0.0
    unannotated_when: UnannotatedWhen = "no_group"


@dataclass(frozen=True, eq=False)
class LossParts:
    """A loss and its terms, batch means; ``total`` carries the gradient."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    entropy: Tensor


LossFunction = Callable[[Tensor, TorchBatch, LossSettings], LossParts]
"""``(logits (B, 1+N, X, Y, Z), batch, settings) -> parts``."""
