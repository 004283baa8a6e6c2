"""The sums behind the self-disambiguation loss on a CUDA GPU: one reading of the logits, and an analytic gradient.

Needs Triton, which PyTorch's CUDA builds bring along, and is loaded when used. The sums are the same, bit for bit, in
every run: no option is needed for that, ``torch.use_deterministic_algorithms`` or not.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from abdoseg.losses.plain import Sums, merged_words

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST = (8, 0)  # compute capability: bfloat16, and tensor cores for float32


def why_not(logits: Tensor, known: Tensor) -> str | None:
    """Return why logits ``(B, C, X, Y, Z)`` with known ``(B, S, C)`` cannot be computed here; None if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    from abdoseg.kernels import ambiguity_triton as kernel

    unfit = _why_not_on(logits.device, is_interpreted=kernel.IS_INTERPRETED)
    if unfit:
        return unfit
    if logits.dtype not in _DTYPES:
        return f"it computes float32, the logits are {logits.dtype}"
    if known.shape[2] > kernel.MAX_CLASSES:
        return f"it takes up to {kernel.MAX_CLASSES} classes, there are {known.shape[2]}"
    if not 0 < logits[0, 0].numel() <= kernel.MAX_VOXELS:
        return f"it takes 1 to {kernel.MAX_VOXELS} voxels, there are {logits[0, 0].numel()}"
    return None


def _why_not_on(device: torch.device, *, is_interpreted: bool) -> str | None:
    """Return why it cannot run on the device; None if it can."""
    if device.type != ("cpu" if is_interpreted else "cuda"):
        return f"it runs on a CUDA GPU (or on a CPU in Triton's interpreter), the logits are on {device}"
    if device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) < _OLDEST:
        return f"it needs a GPU of compute capability {_OLDEST[0]}.{_OLDEST[1]} or newer"
    return None


def sum_voxels(logits: Tensor, label: Tensor, group: Tensor, known: Tensor) -> Sums:
    """Return the sums, float64: logits ``(B, C, X, Y, Z)``, label and group ``(B, X, Y, Z)``, known ``(B, S, C)``.

    Labels and groups that are not lawful count as background and as outside the image: check them before.
    """
    # The gradient lies as the logits do, for which they may have no gaps.
    if torch.empty_like(logits, device="meta").stride() != logits.stride():
        logits = logits.contiguous()
    merged = merged_words(known).to(torch.int32 if known.shape[2] < 32 else torch.int64)
    return Sums(*_TritonSums.apply(logits, label.contiguous(), group.contiguous(), merged))  # type: ignore[no-untyped-call]


class _TritonSums(torch.autograd.Function):
    """Voxel sums by the GPU kernel, and their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, group: Tensor, merged: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of :class:`Sums`."""
        from abdoseg.kernels import ambiguity_triton as kernel

        sums = kernel.sum_voxels(kernel.Tensors(logits, label, group, merged))
        ctx.save_for_backward(logits, label, group, merged)
        ctx.mark_non_differentiable(sums.voxels)
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, focal: Tensor, entropy: Tensor, probability: Tensor, true_positive: Tensor, _voxels: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient by the logits, in their type."""
        from abdoseg.kernels import ambiguity_triton as kernel

        batch = kernel.Tensors(*ctx.saved_tensors)
        tables = torch.stack([probability, true_positive], dim=1).mT.float().contiguous()
        by = kernel.TensorDerivatives(torch.stack([focal, entropy], dim=1).float(), tables)
        gradient = torch.empty_like(batch.logits)
        kernel.write_gradient(batch, by, gradient)
        return gradient, None, None, None
