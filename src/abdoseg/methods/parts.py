"""What every method's loss takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class TorchBatch:
    """One batch of patches.

    Parameters
    ----------
    image
        float32 ``(B, 1, X, Y, Z)``, in [0, 1].
    label, group
        int64 ``(B, X, Y, Z)``: structure id, annotation group (-1 outside the image).
    annotated
        bool ``(B, G, N)``.
    """

    image: Tensor
    label: Tensor
    group: Tensor
    annotated: Tensor


@dataclass(frozen=True)
class EntropyWeights:
    """Lambda of patches with and without an annotated voxel, ramp included."""

    annotated: float
    unannotated: float


@dataclass(frozen=True, eq=False)
class LossParts:
    """A loss and its terms, batch means; ``total`` carries the gradient."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    entropy: Tensor


LossFunction = Callable[[Tensor, TorchBatch, EntropyWeights], LossParts]
"""``(logits (B, 1+N, X, Y, Z), batch, weights) -> parts``."""
