"""Train, validation and test: pure, seeded, by patient, without leaks.

The official split of a source is kept. Elsewhere the side is computed from (seed, patient), so that adding a
case moves no other case further than the counts demand. Cases of one patient, and repeated scans of equal
content, share a side: the most protected one (test before validation before training).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from abdoseg.errors import ConfigError
from abdoseg.types import SplitName

SMALLEST_SPLIT = 5
"""A source with fewer patients than this has no validation and no test side."""


@dataclass(frozen=True)
class SplitItem:
    """What a split needs to know of a case."""

    case: str
    source: str
    patient: str
    fingerprint: str = ""
    official: SplitName | None = None


def split_cases(
    items: Sequence[SplitItem],
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    twins: Iterable[tuple[str, str]] = (),
) -> dict[str, SplitName]:
    """Return the side of every case.

    Parameters
    ----------
    items
        All cases of the workspace; ``case`` must be unique.
    seed
        Any integer; the same seed gives the same sides.
    fold
        ``(k, n)`` with k in 1..n: of all patients that are not test, in seeded order, every n-th from the k-th on
        is validation and the rest is training; official validation cases take part.
    twins
        Pairs of cases that show one scan; they share a side.

    Returns
    -------
    dict
        Case to ``"train"``, ``"val"`` or ``"test"``.

    Notes
    -----
    Per source of n patients without an official side: test = round(0.1 n), validation = round(0.1 of the rest),
    both 0 below 5 patients (halves round up).
    """
    group_of = _leak_groups(items, twins)
    members: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[group_of[item.case]].append(item)
    sides: dict[str, SplitName] = {}
    for group, cases in members.items():
        official = {item.official for item in cases if item.official is not None}
        if official:
            sides[group] = _most_protected(official)
    for source in sorted({item.source for item in items}):
        open_groups = {group_of[i.case] for i in items if i.source == source and group_of[i.case] not in sides}
        sides.update(_deal(open_groups, seed))
    if fold is not None:
        sides = _folded(sides, seed, fold)
    return {item.case: sides[group_of[item.case]] for item in items}


def _folded(sides: dict[str, SplitName], seed: int, fold: tuple[int, int]) -> dict[str, SplitName]:
    k, n = fold
    if not (n >= 2 and 1 <= k <= n):
        raise ConfigError(f"fold {k}/{n}: expected K/N with N at least 2 and K in 1..N")
    order = _seeded_order((group for group, side in sides.items() if side != "test"), seed)
    held_out = set(order[k - 1 :: n])
    return {g: "test" if side == "test" else "val" if g in held_out else "train" for g, side in sides.items()}


def _seeded_order(groups: Iterable[str], seed: int) -> list[str]:
    return sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())


def _deal(groups: Iterable[str], seed: int) -> dict[str, SplitName]:
    order = _seeded_order(groups, seed)
    n = len(order)
    n_test = int(0.1 * n + 0.5) if n >= SMALLEST_SPLIT else 0
    n_val = int(0.1 * (n - n_test) + 0.5) if n >= SMALLEST_SPLIT else 0
    counts: tuple[tuple[SplitName, int], ...] = (("test", n_test), ("val", n_val), ("train", n - n_test - n_val))
    return dict(zip(order, (side for side, count in counts for _ in range(count)), strict=True))


def _most_protected(sides: set[SplitName]) -> SplitName:
    return "test" if "test" in sides else "val" if "val" in sides else "train"


def _leak_groups(items: Sequence[SplitItem], twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Union cases that share a patient of a source, a fingerprint or a scan; the group's name is its smallest key."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def union(a: str, b: str) -> None:
        low, high = sorted((root(a), root(b)))
        parent[high] = low

    for item in items:
        patient = f"patient:{item.source}/{item.patient}"
        union(patient, f"zcase:{item.case}")
        if item.fingerprint:
            union(patient, f"zprint:{item.fingerprint}")
    cases = {item.case for item in items}
    for a, b in twins:
        if a in cases and b in cases:
            union(f"zcase:{a}", f"zcase:{b}")
    return {item.case: root(f"zcase:{item.case}") for item in items}
