"""Draw structure, modality, source and case level by level, each uniformly among what has a candidate.

Source: Chen et al. 2024, section 3.5. The order of the levels is the whole difference between samplers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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


class Sampler:
    """Draws cases; ``draw(t)`` is a pure function of (candidates, levels, seed, t).

    The (case, structure) pairs with a candidate are sorted by the levels, so that what is left after each draw is
    one run of pairs, and the children to draw from are the places in it where the next level changes.

    Parameters
    ----------
    candidates
        What can be drawn.
    name
        Key of :data:`SAMPLERS`.
    seed
        The run's seed.
    mix
        Share of each kind of annotation (``{"partial": 0.5, "sparse": 0.5}``), drawn first; empty: no such draw.

    Raises
    ------
    UnknownNameError
        If no sampler has this name.
    ConfigError
        If ``mix`` names a kind that no case has, or its shares are not positive.
    """

    def __init__(
        self,
        candidates: Candidates,
        name: str = DEFAULT_SAMPLER,
        seed: int = 0,
        mix: Mapping[str, float] | None = None,
    ) -> None:
        if name not in SAMPLERS:
            raise unknown_name("sampler", name, list(SAMPLERS))
        self.candidates = candidates
        self.seed = seed
        self.levels = (("kind",) if mix else ()) + SAMPLERS[name].levels
        self._shares = _shares(candidates, mix) if mix else None
        self._pairs, self._starts = _sorted_pairs(candidates, self.levels, mix or {})

    @property
    def skipped(self) -> tuple[int, ...]:
        """Ids of the structures that are never drawn because no case has a candidate of them."""
        return tuple(int(c) for c in np.flatnonzero(~self.candidates.has.any(axis=0)))

    def draw(self, t: int) -> Draw:
        """Return the draw of example ``t``."""
        generator = stream(self.seed, t, Purpose.CASE)
        low, high = 0, len(self._pairs)
        for level, starts in zip(self.levels, self._starts, strict=True):
            first, stop = np.searchsorted(starts, [low, high])
            if level == "kind" and self._shares is not None:
                chosen = int(np.searchsorted(np.cumsum(self._shares)[:-1], generator.random(), side="right"))
            else:
                chosen = int(first + generator.integers(stop - first))
            low, high = starts[chosen], starts[chosen + 1]
        case, structure = (int(value) for value in self._pairs[low])
        table = self.candidates
        drawn = structure if "structure" in self.levels else None
        return Draw(drawn, table.modalities[case], table.sources[case], case)

    def probabilities(self) -> Probabilities:
        """Return the exact probability of each case, structure, modality and source."""
        leaf = np.ones(1)
        above = np.array([0, len(self._pairs)])
        for level, starts in zip(self.levels, self._starts, strict=True):
            parent = np.searchsorted(above, starts[:-1], side="right") - 1
            share = 1.0 / np.bincount(parent)[parent]
            if level == "kind" and self._shares is not None:
                share = self._shares
            leaf, above = leaf[parent] * share, starts
        pairs = self._pairs[above[:-1]]
        table = self.candidates
        case = np.zeros(len(table))
        structure = np.zeros(table.n_structures + 1)
        np.add.at(case, pairs[:, 0], leaf)
        if "structure" in self.levels:
            np.add.at(structure, pairs[:, 1], leaf)
        return Probabilities(case, structure, _by_name(table.modalities, case), _by_name(table.sources, case))


def _by_name(names: tuple[str, ...], weight: NDArray[np.float64]) -> dict[str, float]:
    """Return the sum of the weights of each name, names in order."""
    different, code = np.unique(np.array(names), return_inverse=True)
    return {str(name): float(p) for name, p in zip(different, np.bincount(code, weight), strict=True)}


def _shares(candidates: Candidates, mix: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the share of each kind in ``mix``, in the order of their names, adding up to 1."""
    missing = sorted(set(mix) - set(candidates.kinds))
    if missing:
        msg = f"mix: no case is annotated as {', '.join(missing)}; found {', '.join(sorted(set(candidates.kinds)))}"
        raise ConfigError(msg)
    if min(mix.values()) <= 0:
        msg = f"mix: found shares {dict(mix)}, expected numbers above 0; leave a kind out to draw none of it"
        raise ConfigError(msg)
    total = sum(mix.values())
    return np.array([mix[kind] / total for kind in sorted(mix)], dtype=np.float64)


def _sorted_pairs(
    candidates: Candidates, levels: tuple[str, ...], mix: Mapping[str, float]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Sort the pairs with a candidate by the levels.

    Returns
    -------
    pairs
        int ``(P, 2)``: case and structure.
    starts
        For each level, where the runs of pairs that agree up to and including this level begin, then P.
    """
    allowed = np.array([not mix or kind in mix for kind in candidates.kinds])
    case, structure = np.nonzero(candidates.has & allowed[:, None])
    names = {"modality": candidates.modalities, "source": candidates.sources, "kind": candidates.kinds}
    codes = {level: np.unique(np.array(values), return_inverse=True)[1][case] for level, values in names.items()}
    codes |= {"case": case, "structure": structure}
    columns = np.array([codes[level] for level in levels])
    order = np.lexsort(columns[::-1])
    columns = columns[:, order]
    changes = np.logical_or.accumulate(np.diff(columns, axis=1) != 0, axis=0)
    starts = [np.concatenate([[0], np.flatnonzero(change) + 1, [len(order)]]) for change in changes]
    return np.stack([case[order], structure[order]], axis=1), starts
