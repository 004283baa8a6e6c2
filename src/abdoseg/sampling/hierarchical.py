"""Draw structure, modality, source and case level by level, each uniformly among what has a candidate.

Source: Chen et al. 2024, section 3.5. The order of the levels is the whole difference between samplers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.sampling.candidates import Candidates
from abdoseg.sampling.stream import Purpose, stream


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler.

    Parameters
    ----------
    title
        One line for people.
    levels
        What is drawn, in order: ``structure``, ``modality``, ``source``, ``kind`` and last ``case``. Without
        ``structure`` the patch centre is any voxel of the image.
    """

    title: str
    levels: tuple[str, ...]


SAMPLERS: dict[str, SamplerSpec] = {
    "cmd": SamplerSpec(
        "structure, then modality, source, case (the paper's)", ("structure", "modality", "source", "case")
    ),
    "mdc": SamplerSpec("modality, then source, structure, case", ("modality", "source", "structure", "case")),
    "random": SamplerSpec("any case, anywhere in it", ("case",)),
}
"""Name to sampler."""

DEFAULT_SAMPLER = "cmd"


@dataclass(frozen=True)
class Draw:
    """What example t is about.

    Parameters
    ----------
    structure
        Structure id, 0 background; ``None`` where the sampler draws no structure (any voxel of the image).
    modality, source
        Those of the case.
    case_index
        Row of the candidates' table.
    """

    structure: int | None
    modality: str
    source: str
    case_index: int


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Exact probabilities of one draw.

    Parameters
    ----------
    case
        float64 ``(n_cases,)``.
    structure
        float64 ``(N + 1,)``; all 0 where the sampler draws no structure.
    modality, source
        By name.
    """

    case: NDArray[np.float64]
    structure: NDArray[np.float64]
    modality: dict[str, float]
    source: dict[str, float]


Weights = Mapping[str, Mapping[Any, float]]
"""Level -> child -> weight; what is not named weighs 1, kinds of annotation 0."""


class Sampler:
    """Draws cases; ``draw(t)`` is a pure function of (candidates, levels, weights, seed, t).

    The (case, structure) pairs with a candidate are sorted by the levels, so that what is left after each draw is
    one run of pairs, and the children to draw from are the places in it where the next level changes. A child is
    drawn in proportion to its weight among those that are left.

    Parameters
    ----------
    candidates
        What can be drawn.
    name
        Key of :data:`SAMPLERS`.
    seed
        The run's seed.
    weights
        By level: ``{"structure": {0: 0.5}}`` draws background half as often as each other structure that there is,
        ``{"source": {"word": 2}}`` a source twice as often as others. ``{"kind": {"partial": 0.5, "sparse": 0.5}}``
        draws the kind of annotation first (the authors' alternation), and kinds that are not named never. A weight
        of 0 draws nothing of it.

    Raises
    ------
    UnknownNameError
        If no sampler has this name.
    ConfigError
        If a weight is negative or names what no case has, or the sampler does not draw that level, or nothing
        is left to draw.
    """

    def __init__(
        self, candidates: Candidates, name: str = DEFAULT_SAMPLER, seed: int = 0, weights: Weights | None = None
    ) -> None:
        if name not in SAMPLERS:
            raise unknown_name("sampler", name, list(SAMPLERS))
        weights = {level: of for level, of in (weights or {}).items() if of}
        self.candidates = candidates
        self.seed = seed
        self.levels = (("kind",) if "kind" in weights else ()) + SAMPLERS[name].levels
        _check_weights(candidates, name, self.levels, weights)
        self._pairs, self._levels = _sorted_pairs(candidates, self.levels, weights)

    @property
    def skipped(self) -> tuple[int, ...]:
        """Ids of the structures that are never drawn because no case has a candidate of them."""
        return tuple(int(c) for c in np.flatnonzero(~self.candidates.has.any(axis=0)))

    def draw(self, t: int) -> Draw:
        """Return the draw of example ``t``."""
        generator = stream(self.seed, t, Purpose.CASE)
        low, high = 0, len(self._pairs)
        for starts, reached in self._levels:
            first, stop = np.searchsorted(starts, [low, high])
            if reached is None:
                chosen = int(first + generator.integers(stop - first))
            else:
                target = reached[first] + generator.random() * (reached[stop] - reached[first])
                chosen = int(np.clip(np.searchsorted(reached, target, side="right") - 1, first, stop - 1))
            low, high = starts[chosen], starts[chosen + 1]
        case, structure = (int(value) for value in self._pairs[low])
        table = self.candidates
        drawn = structure if "structure" in self.levels else None
        return Draw(drawn, table.modalities[case], table.sources[case], case)

    def probabilities(self) -> Probabilities:
        """Return the exact probability of each case, structure, modality and source."""
        leaf = np.ones(1)
        above = np.array([0, len(self._pairs)])
        for starts, reached in self._levels:
            parent = np.searchsorted(above, starts[:-1], side="right") - 1
            weight = np.ones(len(parent)) if reached is None else np.diff(reached)
            leaf, above = leaf[parent] * weight / np.bincount(parent, weight)[parent], starts
        pairs = self._pairs[above[:-1]]
        table = self.candidates
        case, structure = np.zeros(len(table)), np.zeros(table.n_structures + 1)
        np.add.at(case, pairs[:, 0], leaf)
        if "structure" in self.levels:
            np.add.at(structure, pairs[:, 1], leaf)
        return Probabilities(case, structure, _by_name(table.modalities, case), _by_name(table.sources, case))


def _by_name(names: tuple[str, ...], weight: NDArray[np.float64]) -> dict[str, float]:
    """Return the sum of the weights of each name, names in order."""
    different, code = np.unique(np.array(names), return_inverse=True)
    return {str(name): float(p) for name, p in zip(different, np.bincount(code, weight), strict=True)}


def _check_weights(candidates: Candidates, name: str, levels: tuple[str, ...], weights: Weights) -> None:
    """Raise ConfigError unless the weights are of levels that are drawn, of children that are there, and lawful."""
    children: dict[str, set[str | int]] = {
        "structure": set(range(candidates.n_structures + 1)),
        "source": set(candidates.sources),
        "kind": set(candidates.kinds),
    }
    for level, of in weights.items():
        if level not in levels or level not in children:
            raise ConfigError(f"sampler {name}: weights of {level}, but it draws {', '.join(levels)}; leave them out")
        missing = sorted(str(child) for child in set(of) - children[level])
        if missing:
            there = ", ".join(sorted(str(child) for child in children[level]))
            raise ConfigError(f"sampler: weight of {level} {', '.join(missing)}, but no case has it; there are {there}")
        for child, weight in of.items():
            if not (np.isfinite(weight) and weight >= 0):
                raise ConfigError(f"sampler: weight {weight} of {level} {child}; expected a number of at least 0")


def _sorted_pairs(
    candidates: Candidates, levels: tuple[str, ...], weights: Weights
) -> tuple[NDArray[np.int64], list[tuple[NDArray[np.int64], NDArray[np.float64] | None]]]:
    """Sort the pairs with a candidate by the levels.

    Returns
    -------
    pairs
        int ``(P, 2)``: case and structure; none that weighs 0.
    levels
        For each level, where the runs of pairs that agree up to and including it begin, then P; and, where its
        children have weights, the sum of those before each run, then of all.
    """
    case, structure = np.nonzero(candidates.has)
    names = {"modality": candidates.modalities, "source": candidates.sources, "kind": candidates.kinds}
    different = {level: np.unique(np.array(values), return_inverse=True) for level, values in names.items()}
    codes = {level: code[case] for level, (_, code) in different.items()} | {"case": case, "structure": structure}
    children = {level: found.tolist() for level, (found, _) in different.items()}
    children["structure"] = list(range(candidates.n_structures + 1))
    weight_of = {
        level: np.array([of.get(child, 0.0 if level == "kind" else 1.0) for child in children[level]])
        for level, of in weights.items()
    }
    kept = np.ones(len(case), dtype=bool)
    for level, of_child in weight_of.items():
        kept &= of_child[codes[level]] > 0
    if not kept.any():
        raise ConfigError("sampler: every case or structure has a weight of 0; nothing is left to draw")
    columns = np.array([codes[level][kept] for level in levels])
    order = np.lexsort(columns[::-1])
    columns = columns[:, order]
    changes = np.logical_or.accumulate(np.diff(columns, axis=1) != 0, axis=0)
    runs: list[tuple[NDArray[np.int64], NDArray[np.float64] | None]] = []
    for level, column, change in zip(levels, columns, changes, strict=True):
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        reached = None
        if level in weight_of:
            reached = np.concatenate([[0.0], np.cumsum(weight_of[level][column[starts]])])
        runs.append((np.append(starts, len(order)), reached))
    return np.stack([case[kept][order], structure[kept][order]], axis=1), runs
