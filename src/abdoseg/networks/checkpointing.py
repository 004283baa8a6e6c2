"""Activation checkpointing as a plain call: trade a second forward pass for the memory of the first."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run(part: nn.Module, *inputs: Tensor, checkpointing: bool) -> Tensor:
    """Return ``part(*inputs)``; with ``checkpointing``, activations inside it are recomputed in backward.

    Outside training (no gradients) it is an ordinary call. No part may draw random numbers.
    """
    if checkpointing and torch.is_grad_enabled():
        recomputed: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
        return recomputed
    computed: Tensor = part(*inputs)
    return computed
