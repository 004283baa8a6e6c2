"""Scores of overlapping windows, added where they lie; what no later window sees is handed on and forgotten.

With windows that share half of their sides, about half a patch along the longest axis, times the scan's other two
sides, is open at a time, and not the whole scan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from abdoseg.inference.packing import Stay, packed
from abdoseg.inference.windows import Box, Part, WindowGrid


@dataclass
class _Tile:
    """A part of the scan that still waits for windows."""

    box: Box
    scores: Tensor
    weights: Tensor


class Stitcher:
    """Weighted means of scores over the windows of a grid.

    Parameters
    ----------
    grid
        The windows; they have to be added in its order.
    device
        Where the scores are summed; main memory where that has no room.
    reach
        Voxels beyond a window's sides that its scores may reach.
    """

    def __init__(self, grid: WindowGrid, device: torch.device, reach: int = 0) -> None:
        self._grid = grid
        self._device = device
        self._open: dict[tuple[int, int], _Tile] = {}
        a, b, _ = grid.order
        self._parts = [grid.parts(axis, reach) for axis in (a, b)]
        self._offsets, self._voxels = _plan(grid, reach)
        self._memory: Tensor | None = None

    def add(self, box: Box, scores: Tensor, weights: Tensor) -> None:
        """Add scores ``(C, x, y, z)``, times their weights ``(x, y, z)``, at a box that lies within the scan."""
        a, b, _ = self._grid.order
        for i in _met(self._parts[0], box[a]):
            for j in _met(self._parts[1], box[b]):
                tile = self._tile((i, j), len(scores))
                common = [slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(box, tile.box, strict=True)]
                there = tuple(slice(c.start - q.start, c.stop - q.start) for c, q in zip(common, tile.box, strict=True))
                here = tuple(slice(c.start - q.start, c.stop - q.start) for c, q in zip(common, box, strict=True))
                weight = weights[here].to(tile.scores.device)
                tile.scores[:, *there].addcmul_(scores[:, *here].to(tile.scores.device), weight)
                tile.weights[there] += weight

    def finished(self, column: tuple[int, int]) -> Iterator[tuple[Box, Tensor]]:
        """Give out the boxes that are complete once ``column`` was added, and their mean scores ``(C, x, y, z)``.

        The memory of the scores is used again: a box's are good until the next box is asked for.
        """
        along = [
            [i for i, part in enumerate(parts) if part.last == n] for parts, n in zip(self._parts, column, strict=True)
        ]
        for number in product(*along):
            tile = self._open.pop((number[0], number[1]))
            yield tile.box, _mean(tile)

    def _tile(self, number: tuple[int, int], n_classes: int) -> _Tile:
        if number not in self._open:
            a, b, c = self._grid.order
            sides = {a: self._parts[0][number[0]].side, b: self._parts[1][number[1]].side}
            sides[c] = slice(0, self._grid.shape[c])
            box = (sides[0], sides[1], sides[2])
            shape = [side.stop - side.start for side in box]
            if self._memory is None:
                # Once for all: fresh memory costs more than the sums that go into it.
                self._memory = _empty(self._voxels * (n_classes + 1), self._device)
            first, n = self._offsets[number] * (n_classes + 1), math.prod(shape) * (n_classes + 1)
            sums = self._memory[first : first + n].zero_().view(n_classes + 1, *shape)
            self._open[number] = _Tile(box, sums[:-1], sums[-1])
        return self._open[number]


@torch.inference_mode()
def _mean(tile: _Tile) -> Tensor:
    return tile.scores.div_(tile.weights)


def _met(parts: list[Part], side: slice) -> list[int]:
    """Return the numbers of the parts that share a voxel with ``side``."""
    return [i for i, part in enumerate(parts) if part.side.start < side.stop and side.start < part.side.stop]


def _empty(n: int, device: torch.device) -> Tensor:
    try:
        return torch.empty(n, device=device)
    except torch.OutOfMemoryError:
        return torch.empty(n)


def open_voxels(grid: WindowGrid, reach: int = 0) -> int:
    """Return how many voxels' scores there is memory for; windows may see ``reach`` voxels beyond their sides."""
    return _plan(grid, reach)[1]


def _plan(grid: WindowGrid, reach: int) -> tuple[dict[tuple[int, int], int], int]:
    """Return the first voxel of each tile in the memory that all of them share, and the size of that memory."""
    a, b, c = grid.order
    parts = [list(enumerate(grid.parts(axis, reach))) for axis in (a, b)]
    columns = {column: time for time, column in enumerate(grid.columns())}
    numbers, stays = [], []
    for (i, p), (j, q) in product(*parts):
        area = (p.side.stop - p.side.start) * (q.side.stop - q.side.start)
        numbers.append((i, j))
        stays.append(Stay(columns[p.first, q.first], columns[p.last, q.last], area * grid.shape[c]))
    offsets, voxels = packed(stays)
    return dict(zip(numbers, offsets, strict=True)), voxels
