"""Which pairs of scans may be the same: from signatures alone, without looking at every pair.

Every point of every scan asks for the points of other scans whose surroundings are most alike. Two scans are a
candidate pair when enough of their points answer each other AND do so under one flip or exchange of axes and one
shift: like anatomy gives single answers anywhere, only the same scan gives them in one place.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from abdoseg.duplicates.signature import Signature

TREES = 6
"""How often the points are sorted into cells: one tree alone parts some like points."""

LEAF = 128
"""Largest number of points of a cell; those of one cell are compared with each other."""

LIKEST = 2
"""How many points of its cell each is matched with."""

CELLS = 64
"""Cells compared at a time."""

FARTHEST = 40.0
"""Descriptors further apart are of different places."""

AGREEING = 5
"""Points that must agree on one placement; fewer where a scan has few points."""

TOLERANCE_MM = 6.0
"""How far points that agree may lie from where the placement puts them."""

BATCH = 256
"""Scans whose points are looked up at a time; memory grows with this, not with the square of the scans."""


def candidate_pairs(signatures: Mapping[str, Signature]) -> list[tuple[str, str, float]]:
    """Return the pairs of scans that may be the same.

    Parameters
    ----------
    signatures
        Key of a scan to its signature.

    Returns
    -------
    list of tuple
        ``(smaller key, larger key, score)``, sorted by keys; the score in 0..1 is the part of the points (of the scan
        that has fewer) that agree on one placement.

    Notes
    -----
    Time grows a little faster than the number of scans, memory in proportion to it. Up to :data:`NEIGHBOURS` repeats
    of a scan all their pairs are found; of larger sets enough of them to join the set.
    """
    keys = sorted(key for key, value in signatures.items() if len(value))
    if len(keys) < 2:
        return []
    points = _Points([signatures[key] for key in keys])
    best: dict[tuple[int, int], float] = defaultdict(float)
    for a, b, score in points.pairs():
        pair = (min(a, b), max(a, b))
        best[pair] = max(best[pair], score)
    return [(keys[a], keys[b], score) for (a, b), score in sorted(best.items())]


def groups(pairs: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Return the connected components of ``pairs``, each of two keys or more, sorted by their smallest key."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found: list[set[str]] = []
    seen: set[str] = set()
    for key in sorted(neighbours):
        if key in seen:
            continue
        group, waiting = {key}, [key]
        while waiting:
            new = neighbours[waiting.pop()] - group
            group |= new
            waiting += new
        seen |= group
        found.append(group)
    return found


class _Points:
    """The points of all scans in one list, and for each the likest points of other scans."""

    def __init__(self, signatures: list[Signature]) -> None:
        self.counts = np.array([len(s) for s in signatures])
        self.start = np.concatenate([[0], np.cumsum(self.counts)])
        self.owner = np.repeat(np.arange(len(signatures), dtype=np.int32), self.counts)
        self.positions = np.concatenate([s.positions_mm for s in signatures])
        descriptors = np.concatenate([s.descriptors for s in signatures])
        rng = np.random.default_rng(0)  # the same pairs in every run
        self.like = np.concatenate([_like_points(descriptors, self.owner, rng) for _ in range(TREES)], axis=1)

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """Yield ``(scan, other scan, score)`` of every pair that passes; a pair may come from either side."""
        for first in range(0, len(self.counts), BATCH):
            yield from self._pairs_of(first, min(first + BATCH, len(self.counts)))

    def _pairs_of(self, first: int, stop: int) -> Iterator[tuple[int, int, float]]:
        mine, theirs = self._matches(int(self.start[first]), int(self.start[stop]))
        pair = self.owner[mine].astype(np.int64) * len(self.counts) + self.owner[theirs]
        order = np.argsort(pair, kind="stable")
        begin = np.flatnonzero(np.diff(pair[order], prepend=-1))
        end = np.append(begin[1:], len(order))
        a, b = self.owner[mine[order[begin]]], self.owner[theirs[order[begin]]]
        fewer = np.minimum(self.counts[a], self.counts[b])
        needed = np.minimum(AGREEING, (fewer + 1) // 2)
        for i in np.flatnonzero(end - begin >= needed):
            chosen = order[begin[i] : end[i]]
            agreeing = _agreeing(self.positions[mine[chosen]], self.positions[theirs[chosen]])
            if agreeing >= needed[i]:
                yield int(a[i]), int(b[i]), float(agreeing / fewer[i])

    def _matches(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return points of ``begin..end - 1`` and, for each, the like points found, every one once."""
        found = self.like[begin:end]
        mine = np.broadcast_to(np.arange(begin, end)[:, None], found.shape)
        match = np.sort((mine * len(self.owner) + found)[found >= 0])
        match = match[np.diff(match, prepend=-1) > 0]
        return match // len(self.owner), match % len(self.owner)


def _like_points(
    descriptors: NDArray[np.int8], owner: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return, for each of P points, the likest of other scans among the points in its cell of one random tree.

    The tree (Dasgupta and Freund, 2008) halves the points at the median of a random direction, again and again: like
    points mostly stay together. An exact search in this many dimensions would compare nearly all with all; a miss here
    and there does no harm, since a repeated scan has dozens of points.

    Parameters
    ----------
    descriptors
        ``(P, D)``.
    owner
        ``(P,)``: the scan of each point.

    Returns
    -------
    ndarray
        int32 ``(P, LIKEST)``; -1 for none.
    """
    order, cells = _tree(descriptors, rng)
    like = np.full((len(owner), LIKEST), -1, dtype=np.int32)
    for first in range(0, len(cells) - 1, CELLS):
        edges = cells[first : first + CELLS + 1]
        # Cells differ in size by one point at most; the last one of a smaller cell stands there twice.
        rows = np.minimum(edges[:-1, None] + np.arange(np.diff(edges).max()), edges[1:, None] - 1)
        points = order[rows]
        nearest, near = _nearest(descriptors[points].astype(np.float32), owner[points])
        for rank in range(LIKEST):
            found = np.take_along_axis(points, nearest[rank], axis=1)
            like[points, rank] = np.where(near[rank], found, -1)
    return like


def _tree(descriptors: NDArray[np.int8], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the points in the order of the leaves, and where each leaf begins; the last entry is P."""
    n = len(descriptors)
    levels = max(0, int(np.ceil(np.log2(n / LEAF))))
    directions = rng.standard_normal((descriptors.shape[1], levels)).astype(np.float32)
    blocks = np.array_split(descriptors, n // 65536 + 1)
    along = np.concatenate([block.astype(np.float32) @ directions for block in blocks])
    along *= 0.4 / max(float(np.abs(along).max(initial=0.0)), 1.0)
    order = np.arange(n)
    for level in range(levels):
        # Edges of a level are among those of the next, by integer arithmetic.
        edges = (np.arange(2**level + 1) * n) >> level
        cell = np.repeat(np.arange(2**level), np.diff(edges))
        # One sort of whole numbers (the cell) plus fractions (the place along the direction) sorts within all cells.
        order = order[np.argsort(cell + along[order, level].astype(np.float64))]
    return order, (np.arange(2**levels + 1) * n) >> levels


def _nearest(
    descriptors: NDArray[np.float32], owner: NDArray[np.int32]
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.bool_]]]:
    """Return for every point, ``(cells, points, D)``, the nearest of other scans in its cell, and whether it is near.

    Both hold :data:`LIKEST` arrays ``(cells, points)``, the nearest first.
    """
    length = np.square(descriptors).sum(axis=2)
    squared = length[:, :, None] + length[:, None] - 2 * descriptors @ descriptors.transpose(0, 2, 1)
    squared[owner[:, :, None] == owner[:, None]] = np.inf
    nearest, near = [], []
    for _ in range(LIKEST):
        at = squared.argmin(axis=2)[:, :, None]
        nearest.append(at[:, :, 0])
        near.append(np.take_along_axis(squared, at, axis=2)[:, :, 0] <= FARTHEST**2)
        np.put_along_axis(squared, at, np.inf, axis=2)
    return nearest, near


PLACEMENTS = np.array(
    [np.eye(3)[list(p)] * np.array(s)[:, None] for p in permutations(range(3)) for s in product((1, -1), repeat=3)],
    dtype=np.float32,
)
"""float32 ``(48, 3, 3)``: all ways in which axes can be exchanged and flipped."""


def _agreeing(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> int:
    """Return how many of M matched points, ``(M, 3)`` mm each, agree on one placement and shift."""
    shift = theirs.T[:, None] - np.einsum("gij,mj->igm", PLACEMENTS, mine)
    near = np.abs(shift[:, :, :, None] - shift[:, :, None]) <= TOLERANCE_MM
    return int(near.all(axis=0).sum(axis=2).max())
