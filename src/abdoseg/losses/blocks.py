"""Sums over the voxels of a patch, one block of voxels after the other, in the backward pass too.

The maps that the sums are made of are in memory for one block at a time, and made again for the gradient. Nothing but
the gradient outlives its block: what automatic differentiation would keep of each block lies between what each block
frees, so that a process grows to several times the size of either.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SumsOfBlock = Callable[[Tensor, Tensor, slice], Tensor]
"""``(values (..., v) of a block, what all blocks share, the block) -> sums``, of one shape for all blocks."""

_ON_CPU = 2**20  # numbers in the largest map of a block: 4 MB of float32, about what a core's caches hold
_ELSEWHERE = 2**22  # a GPU needs more to do at once
_KEPT = 2**23  # a patch whose largest map is no larger (32 MB of float32) keeps its maps: faster by the second making


def sum_in_blocks(sums_of: SumsOfBlock, values: Tensor, rows: int, shared: Tensor | None = None) -> Tensor:
    """Return the sum of ``sums_of`` over all blocks, with its gradient.

    Parameters
    ----------
    sums_of
        Computes the sums of one block; called again in the backward pass. Tensors that it takes from elsewhere get no
        gradient.
    values
        ``(..., V)``, V voxels, at least one.
    rows
        Numbers a voxel of the largest map that ``sums_of`` makes: the more, the fewer voxels in a block.
    shared
        A tensor that all blocks read.

    Returns
    -------
    Tensor
        What ``sums_of`` returns, summed; differentiable once.
    """
    given, voxels = values.new_zeros(0) if shared is None else shared, values.shape[-1]
    if rows * voxels <= _KEPT:
        return sums_of(values, given, slice(0, voxels))
    summed: Tensor = _SumInBlocks.apply(sums_of, voxels_at_once(rows, values.device), values, given)  # type: ignore[no-untyped-call]
    return summed


def voxels_at_once(rows: int, device: torch.device) -> int:
    """Return the voxels of a block whose largest map has so many numbers a voxel."""
    return max(1, (_ON_CPU if device.type == "cpu" else _ELSEWHERE) // rows)


def blocks_of(voxels: int, size: int) -> Iterator[slice]:
    """Yield the blocks of ``size`` voxels that all together are."""
    for first in range(0, voxels, size):
        yield slice(first, min(first + size, voxels))


class _SumInBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums_of: SumsOfBlock, size: int, values: Tensor, shared: Tensor) -> Tensor:
        ctx.sums_of, ctx.size = sums_of, size
        ctx.save_for_backward(values, shared)
        first, *others = blocks_of(values.shape[-1], size)
        total = sums_of(values[..., first], shared, first)
        for block in others:
            total = total + sums_of(values[..., block], shared, block)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, None, Tensor, Tensor]:
        values, shared = ctx.saved_tensors
        of_values, of_shared = torch.empty_like(values), torch.zeros_like(shared)
        for block in blocks_of(values.shape[-1], ctx.size):
            part, own = values[..., block].detach().requires_grad_(), shared.detach().requires_grad_()
            with torch.enable_grad():
                sums = ctx.sums_of(part, own, block)
            of_part, of_own = torch.autograd.grad(sums, (part, own), slope, materialize_grads=True)
            of_values[..., block] = of_part
            of_shared += of_own
        return None, None, of_values, of_shared
