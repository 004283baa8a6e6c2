"""What MONAI's transformer layers need before they can be trained here."""

from typing import Any

from torch import nn


def without_unused(layer: Any) -> nn.Module:
    """Return a ``TransformerBlock`` without the norm of its cross-attention, which it has even where it has none.

    Weights without a gradient stop distributed training.
    """
    layer.norm_cross_attn = nn.Identity()
    trained: nn.Module = layer
    return trained
