"""The sums behind the self-disambiguation loss on a CPU: one reading of the logits, and an analytic gradient.

The forward pass keeps no array as large as the logits; the backward pass reads them once more and writes their
gradient.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from abdoseg.errors import CaseError
from abdoseg.kernels import ambiguity as kernel
from abdoseg.losses.plain import Sums, merged_words

T = TypeVar("T")

_MOST_SLOTS = np.iinfo(np.int16).max


def why_not(logits: Tensor, known: Tensor) -> str | None:
    """Return why these inputs cannot be computed here; None if they can."""
    if logits.device.type != "cpu":
        return f"it runs on a CPU, the logits are on {logits.device}"
    if logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it computes float32, the logits are {logits.dtype}"
    if known.shape[2] > kernel.MAX_CLASSES:
        return f"it takes up to {kernel.MAX_CLASSES} classes, there are {known.shape[2]}"
    if known.shape[1] > _MOST_SLOTS:
        return f"it takes fewer than {_MOST_SLOTS} groups, there are {known.shape[1] - 1}"
    return None


def sum_voxels(logits: Tensor, label: Tensor, group: Tensor, known: Tensor, row: int) -> Sums:
    """Return the sums, float64, of what :func:`abdoseg.losses.plain.sum_voxels` takes; any integers will do.

    ``row`` is the number of voxels in a row of memory: where groups repeat row by row, knowing it saves time.

    Raises
    ------
    CaseError
        If a voxel's label or group is not lawful.
    """
    return Sums(*_FusedSums.apply(logits.contiguous(), _narrow(label), _narrow(group), known, row))  # type: ignore[no-untyped-call]


def _narrow(values: Tensor) -> Tensor:
    """Return integers as int16; what does not fit becomes -2, which is lawful nowhere."""
    if values.dtype in (torch.uint8, torch.int8, torch.int16):
        return values.to(torch.int16).contiguous()
    narrow = values.to(torch.int16)
    return narrow.masked_fill_(narrow != values, -2).contiguous()


class _FusedSums(torch.autograd.Function):
    """Voxel sums by the CPU kernel, and their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, group: Tensor, known: Tensor, row: int) -> tuple[Tensor, ...]:
        """Return the fields of :class:`Sums`."""
        examples = _examples(logits, label, group, known, row)
        parts = _in_threads(kernel.sum_voxels, [(e, *span) for e in examples for span in _spans(logits, row)])
        each = len(parts) // max(1, len(examples))
        sums = [_add_up(parts[b * each : (b + 1) * each]) for b in range(len(examples))]
        unlawful = sum(s.unlawful for s in sums)
        if unlawful:
            raise CaseError(f"label or group: {unlawful} voxels hold values that are not lawful.")
        ctx.save_for_backward(logits, label, group, known)
        ctx.row = row
        fields = [torch.from_numpy(np.array([s[i] for s in sums])) for i in range(len(Sums._fields))]
        ctx.mark_non_differentiable(fields[-1])
        return tuple(fields)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, focal: Tensor, entropy: Tensor, probability: Tensor, true_positive: Tensor, _count: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient by the logits."""
        logits, label, group, known = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        by = [
            kernel.Derivatives(float(f), float(e), p.float().numpy(), t.float().numpy())
            for f, e, p, t in zip(focal, entropy, probability, true_positive, strict=True)
        ]
        work = zip(_examples(logits, label, group, known, ctx.row), by, gradient.numpy(), strict=True)
        _in_threads(kernel.write_gradient, [(*of_one, *span) for of_one in work for span in _spans(logits, ctx.row)])
        return gradient, None, None, None, None


def _examples(logits: Tensor, label: Tensor, group: Tensor, known: Tensor, row: int) -> list[kernel.Voxels]:
    """Return the kernel's view of each example."""
    merged = merged_words(known).numpy().view(np.uint64)
    knows = known[:, :, 1:].any(dim=2).numpy()
    arrays = zip(logits.detach().numpy(), label.numpy(), group.numpy(), merged, knows, strict=True)
    return [kernel.Voxels(*of_one, kernel.block_length(row)) for of_one in arrays]


def _spans(logits: Tensor, row: int) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(kernel.part_bounds(logits.shape[2], kernel.block_length(row)))]


def _add_up(parts: list[kernel.VoxelSums]) -> kernel.VoxelSums:
    """Add the parts of one example in their order."""
    return reduce(kernel.VoxelSums.plus, parts)


def _in_threads(function: Callable[..., T], arguments: list[tuple[Any, ...]]) -> list[T]:
    """Return the results in order; as many threads as PyTorch may use."""
    threads = min(torch.get_num_threads(), len(arguments))
    if threads <= 1:
        return [function(*each) for each in arguments]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda each: function(*each), arguments))
