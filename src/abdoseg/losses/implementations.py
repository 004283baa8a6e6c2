"""Who computes the voxel sums of the self-disambiguation loss.

``plain`` is readable PyTorch for any device and type, the reference of the others; ``fused`` is a kernel for CPUs,
``triton`` one for CUDA GPUs, both in float32 with an analytic gradient.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from abdoseg.losses import fused, plain, triton_sums
from abdoseg.losses.plain import Sums

Implementation = Literal["auto", "plain", "fused", "triton"]
Kernel = Literal["plain", "fused", "triton"]

_WHY_NOT: Mapping[Kernel, Callable[[Tensor, Tensor], str | None]] = {
    "fused": fused.why_not,
    "triton": triton_sums.why_not,
}


def choose(asked: Implementation, logits: Tensor, known: Tensor, clamp: float) -> Kernel:
    """Return which implementation computes logits ``(B, C, X, Y, Z)`` with known ``(B, S, C)``.

    Raises
    ------
    ValueError
        If the one asked for cannot.
    """
    if asked == "plain":
        return "plain"
    if asked == "auto":
        fast: Kernel = "triton" if logits.device.type == "cuda" else "fused"
        return fast if _why_not(fast, logits, known, clamp) is None else "plain"
    reason = _why_not(asked, logits, known, clamp)
    if reason:
        raise ValueError(f"implementation '{asked}': {reason}; choose 'auto' or 'plain'.")
    return asked


def _why_not(name: Kernel, logits: Tensor, known: Tensor, clamp: float) -> str | None:
    """Return why a kernel cannot compute these inputs; None if it can."""
    if torch.compiler.is_compiling():
        return "torch.compile sees through plain PyTorch only"
    if clamp:
        return f"it does not clamp probabilities, clamp is {clamp:g}"
    return _WHY_NOT[name](logits, known)


def sum_voxels(name: Kernel, logits: Tensor, label: Tensor, group: Tensor, known: Tensor, clamp: float) -> Sums:
    """Return the sums of logits ``(B, C, X, Y, Z)``, label and group ``(B, X, Y, Z)`` and known ``(B, S, C)``.

    Raises
    ------
    CaseError
        If a label or group is not lawful and the implementation is ``fused``, which finds out by the way.
    """
    if name == "triton":
        return triton_sums.sum_voxels(logits, label, group, known)
    accurate = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(2)
    label, group = label.flatten(1), group.flatten(1)
    if name == "fused":
        return fused.sum_voxels(accurate, label, group, known, logits.shape[-1])
    # Narrow integers would wrap around in comparisons.
    return plain.sum_voxels(accurate, label.long(), group.long(), known, clamp)
