"""Sums of the self-disambiguation loss, and its gradient, on a GPU: two readings of the logits, one writing.

The twin of :mod:`abdoseg.kernels.ambiguity`, whose words it uses (*slot*, *merged*); needs Triton. A program takes one
tile of voxels with all their classes. The sums by slot are products of 0/1 matrices with the tile's probabilities, so
their cost hardly depends on how the groups lie; a tile is small in all directions, so that slices along any axis give
it few slots.

Sums of all tiles meet in integers, probabilities counted in units of 2^-36: unlike those of floats, such additions give
the same bits in any order.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_CLASSES = 64
"""Bits of a word of ``merged``."""

MAX_VOXELS = 2**27
"""Of an example: with more of them the integer sums could overflow."""

_TILE = tl.constexpr((2, 4, 16))  # 16 float16 side by side fill a sector of memory
_SLOTS = tl.constexpr(16)  # the least number of rows that matrix units take
_UNIT = tl.constexpr(2.0**36)
_NONE = tl.constexpr(2**30)  # above any slot
_COPIES = 32  # of small tables: additions to one address would wait for each other


class Tensors(NamedTuple):
    """A batch of B examples of C classes and S slots."""

    logits: Tensor
    """``(B, C, X, Y, Z)``: float32, bfloat16 or float16, any strides."""
    label: Tensor
    """``(B, X, Y, Z)``, contiguous integers."""
    group: Tensor
    """``(B, X, Y, Z)``, contiguous integers."""
    merged: Tensor
    """``(B, S)``: bits of the classes that count as background; int32 for less than 32 classes, else int64."""


class TensorSums(NamedTuple):
    """Sums over the voxels of each example, float64; see :class:`abdoseg.losses.plain.Sums`."""

    focal: Tensor
    entropy: Tensor
    probability: Tensor
    true_positive: Tensor
    voxels: Tensor


class TensorDerivatives(NamedTuple):
    """The loss's derivatives by the sums, float32."""

    scalars: Tensor
    """``(B, 2)``: by focal and by entropy."""
    tables: Tensor
    """``(B, 2, C, S)``: by probability and by true positives; neighbouring slices side by side."""


def sum_voxels(batch: Tensors) -> TensorSums:
    """Return the sums over the voxels of every example."""
    grid, slots = _grid(batch.logits), batch.merged.shape[1]
    copies = max(1, min(_COPIES, 4096 // slots))
    shape = (len(batch.merged), copies, 3, slots, batch.logits.shape[1])
    tables = torch.zeros(shape, dtype=torch.int64, device=batch.logits.device)
    by_tile = torch.empty((2, grid[1], grid[0]), dtype=torch.float32, device=batch.logits.device)
    with torch.cuda.device_of(batch.logits):  # type: ignore[no-untyped-call]
        _sum[grid](*batch, *_sizes(batch), copies, tables, by_tile, _padded(batch))
    probability, true_positive, voxels = (tables.sum(dim=1).double() / _UNIT.value).unbind(dim=1)
    focal, entropy = by_tile.double().sum(dim=2)
    return TensorSums(focal, entropy, probability, true_positive, voxels)


def write_gradient(batch: Tensors, by: TensorDerivatives, gradient: Tensor) -> None:
    """Write the gradient, of the logits' type and strides."""
    with torch.cuda.device_of(batch.logits):  # type: ignore[no-untyped-call]
        _gradient[_grid(batch.logits)](*batch, *_sizes(batch), *by, gradient, _padded(batch))


def _grid(logits: Tensor) -> tuple[int, int]:
    """Return the number of tiles of an example, and that of examples."""
    tiles = 1
    for side, length in zip(logits.shape[2:], _TILE.value, strict=True):
        tiles *= triton.cdiv(side, length)
    return tiles, len(logits)


def _sizes(batch: Tensors) -> tuple[int, ...]:
    """Return the sizes and strides that both kernels take."""
    classes, *sides = batch.logits.shape[1:]
    return (*sides, *batch.logits.stride(), classes, batch.merged.shape[1])


def _padded(batch: Tensors) -> int:
    """Return the number of rows of a tile: a power of 2, at least what tensor cores take."""
    return max(16, 1 << (batch.logits.shape[1] - 1).bit_length())


@triton.jit
def _voxels(X, Y, Z):  # type: ignore[no-untyped-def]
    """Return the voxels of this program's tile and whether they are in the patch: four ``(V,)``."""
    i = tl.arange(0, _TILE[0] * _TILE[1] * _TILE[2])
    tile = tl.program_id(0)
    across, along = tl.cdiv(Y, _TILE[1]), tl.cdiv(Z, _TILE[2])
    z = tile % along * _TILE[2] + i % _TILE[2]
    y = tile // along % across * _TILE[1] + i // _TILE[2] % _TILE[1]
    x = tile // along // across * _TILE[0] + i // _TILE[2] // _TILE[1]
    return x, y, z, (x < X) & (y < Y) & (z < Z)


@triton.jit
def _places(x, y, z, stride_b, stride_c, stride_x, stride_y, stride_z, c):  # type: ignore[no-untyped-def]
    """Return where the logits of classes and voxels lie: ``(C, V)``."""
    voxel = x.to(tl.int64) * stride_x + y.to(tl.int64) * stride_y + z.to(tl.int64) * stride_z
    return tl.program_id(1).to(tl.int64) * stride_b + c.to(tl.int64)[:, None] * stride_c + voxel[None, :]


@triton.jit
def _annotation(label, group, merged, x, y, z, present, X, Y, Z, c, classes, slots):  # type: ignore[no-untyped-def]
    """Return each voxel's slot, merged label, whether its slot knows a structure, and its hidden classes ``(C, V)``."""
    example = tl.program_id(1).to(tl.int64)
    voxel = ((example * X + x) * Y + y) * Z + z
    slot = tl.load(group + voxel, mask=present, other=-1).to(tl.int32) + 1
    slot = tl.where((slot >= 0) & (slot < slots), slot, 0)
    target = tl.load(label + voxel, mask=present, other=0).to(tl.int32)
    target = tl.where((target >= 0) & (target < classes), target, 0)
    word = tl.load(merged + example * slots + slot)
    bits = (word[None, :] >> c.to(word.dtype)[:, None]) & 1
    real = c < classes
    hidden = (bits != 0) & real[:, None]
    knows = tl.max(((bits == 0) & real[:, None]).to(tl.int32), 0) != 0
    target = tl.where((word >> target.to(word.dtype)) & 1 != 0, 0, target)
    return slot, target, knows, hidden


@triton.jit
def _softmax(x, real):  # type: ignore[no-untyped-def]
    """Return p, the distance of every logit from the highest, and its mean by p; logits below ``real`` are -inf."""
    highest = tl.max(x, 0)
    e = tl.exp(x - highest[None, :])
    total = tl.sum(e, 0)
    p = e / total[None, :]
    distance = tl.where(real[:, None], x - highest[None, :], 0.0)
    return p, distance, tl.sum(p * distance, 0), tl.log(total), highest


@triton.jit
def _merge(x, c, target, hidden, highest, log_total):  # type: ignore[no-untyped-def]
    """Return the log probability q of the merged label, and the share of it that each class has.

    By log-sum-exp over the label's own classes: exact where their probabilities would underflow.
    """
    own = tl.where((target == 0)[None, :], hidden, c[:, None] == target[None, :])
    x = tl.where(own, x, float("-inf"))
    best = tl.max(x, 0)
    e = tl.exp(x - best[None, :])
    total = tl.sum(e, 0)
    return (best - highest) + tl.log(total) - log_total, e / total[None, :]


@triton.jit
def _sum(  # type: ignore[no-untyped-def]
    logits, label, group, merged, X, Y, Z, stride_b, stride_c, stride_x, stride_y, stride_z, classes, slots,
    copies, tables, by_tile, CLASSES: tl.constexpr,
):  # fmt: skip
    """Add one tile to ``tables (B, copies, 3, S, C)``; write its focal and entropy to ``by_tile (2, B, tiles)``."""
    c = tl.arange(0, CLASSES)
    real = c < classes
    x, y, z, present = _voxels(X, Y, Z)
    places = _places(x, y, z, stride_b, stride_c, stride_x, stride_y, stride_z, c)
    values = tl.load(logits + places, mask=real[:, None] & present[None, :], other=0.0).to(tl.float32)
    values = tl.where(real[:, None], values, float("-inf"))
    slot, target, knows, hidden = _annotation(label, group, merged, x, y, z, present, X, Y, Z, c, classes, slots)
    p, _, mean_distance, log_total, highest = _softmax(values, real)
    log_q, _ = _merge(values, c, target, hidden, highest, log_total)
    q = tl.exp(log_q)

    focal = -(1 - q) * (1 - q) * log_q * (knows & present).to(tl.float32)
    entropy = (log_total - mean_distance) * ((slot > 0) & present).to(tl.float32)
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(by_tile + tile, tl.sum(focal, 0))
    tl.store(by_tile + tl.num_programs(1) * tl.num_programs(0) + tile, tl.sum(entropy, 0))

    p = tl.trans(p)
    is_target = target[:, None] == c[None, :]
    q_of_target = tl.where(is_target, q[:, None], 0.0)
    copy = tl.program_id(1).to(tl.int64) * copies + tl.program_id(0) % copies
    table = tables + copy * 3 * slots * classes
    first = tl.min(tl.where(present, slot, _NONE), 0)
    while first < _NONE:
        row = first + tl.arange(0, _SLOTS)
        inside = ((row[:, None] == slot[None, :]) & present[None, :]).to(tl.float16)
        cell = table + row[:, None] * classes + c[None, :]
        _add(cell, _sum_rows(inside, p), real)
        _add(cell + slots * classes, _sum_rows(inside, q_of_target), real)
        _add(cell + 2 * slots * classes, tl.dot(inside, is_target.to(tl.float16)), real)
        first = tl.min(tl.where(present & (slot >= first + _SLOTS), slot, _NONE), 0)


@triton.jit
def _sum_rows(inside, values):  # type: ignore[no-untyped-def]
    """Return the product of zeros and ones ``(R, V)`` with numbers from 0 to 1 ``(V, C)``, as exact as float32.

    Two float16 have its digits, scaled so that small numbers keep theirs; matrix units add products in float32.
    """
    values *= 32768.0
    high = values.to(tl.float16)
    low = (values - high.to(tl.float32)).to(tl.float16)
    return tl.dot(inside, high, tl.dot(inside, low)) / 32768.0


@triton.jit
def _add(cell, values, real):  # type: ignore[no-untyped-def]
    """Add what is not 0, and so belongs to a slot of the tile, to the cells of a table."""
    tl.atomic_add(cell, (values * _UNIT).to(tl.int64), mask=(values > 0) & real[None, :], sem="relaxed")


@triton.jit
def _gradient(  # type: ignore[no-untyped-def]
    logits, label, group, merged, X, Y, Z, stride_b, stride_c, stride_x, stride_y, stride_z, classes, slots,
    by_scalars, by_tables, gradient, CLASSES: tl.constexpr,
):  # fmt: skip
    """Write one tile of the gradient; the formulas are those of :func:`abdoseg.kernels.ambiguity._gradient`."""
    c = tl.arange(0, CLASSES)
    real = c < classes
    x, y, z, present = _voxels(X, Y, Z)
    places = _places(x, y, z, stride_b, stride_c, stride_x, stride_y, stride_z, c)
    inside = real[:, None] & present[None, :]
    values = tl.load(logits + places, mask=inside, other=0.0).to(tl.float32)
    values = tl.where(real[:, None], values, float("-inf"))
    slot, target, knows, hidden = _annotation(label, group, merged, x, y, z, present, X, Y, Z, c, classes, slots)
    p, distance, _, log_total, highest = _softmax(values, real)
    log_q, share = _merge(values, c, target, hidden, highest, log_total)
    q = tl.exp(log_q)

    example = tl.program_id(1).to(tl.int64)
    by_focal = tl.load(by_scalars + 2 * example) * knows.to(tl.float32)
    by_entropy = tl.load(by_scalars + 2 * example + 1) * (slot > 0).to(tl.float32)
    table = by_tables + 2 * example * classes * slots
    by_p = tl.load(table + c[:, None] * slots + slot[None, :], mask=inside, other=0.0)
    by_q = tl.load(table + (classes + target) * slots + slot)

    own = by_focal * (1 - q) * (2 * q * log_q - (1 - q)) + q * by_q  # q times the derivative by q
    by_p -= by_entropy[None, :] * distance
    common = tl.sum(p * by_p, 0) + own  # which also takes the mean distance from the entropy's part
    result = p * (by_p - common[None, :]) + share * own[None, :]
    tl.store(gradient + places, result.to(gradient.dtype.element_ty), mask=inside)


IS_INTERPRETED = not isinstance(_sum, triton.JITFunction)
"""Whether Triton's interpreter runs the kernels (``TRITON_INTERPRET=1`` before Triton is loaded), on a CPU."""
