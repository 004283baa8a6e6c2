"""Sample: what the sampler will draw, beside what is there; no voxel is read."""

from collections import Counter
from typing import Any

import numpy as np

from abdoseg.runs import Run
from abdoseg.sampling import SAMPLERS
from abdoseg.store import Workspace
from abdoseg.training_set import open_sampler


def sample(workspace: Workspace, run: Run, n: int = 20_000) -> dict[str, Any]:
    """Draw the first ``n`` examples of a run.

    Parameters
    ----------
    workspace
        Where its cases lie.
    run
        A run, planned or there (:func:`abdoseg.runs.plan_run`).
    n
        Examples, at least 1.

    Returns
    -------
    dict
        ``sampler``, ``n``; ``structure``, ``modality``, ``source``, ``case`` and ``kind``: name -> ``present``
        (training cases that hold it, so that it can be drawn; for a case, structures), ``drawn`` and ``expected``
        (the exact mean number of draws). ``draws_structures``: whether the sampler draws a structure; where it does
        not, ``structure`` has no ``drawn`` and no ``expected``. ``skipped``: structures that it would draw and of which
        there is nothing.
    """
    sampler = open_sampler(workspace, run)
    table, exact = sampler.candidates, sampler.probabilities()
    draws = [sampler.draw(t) for t in range(n)]
    names = run.class_names
    structure: dict[str, dict[str, float]] = {
        name: {"present": int(table.has[:, i].sum())} for i, name in enumerate(names)
    }
    draws_structures = "structure" in SAMPLERS[run.config.sampler].levels
    if draws_structures:
        drawn = Counter(draw.structure for draw in draws)
        for i, name in enumerate(names):
            structure[name] |= {"drawn": drawn[i], "expected": n * float(exact.structure[i])}
    by_case = Counter(draw.case_index for draw in draws)
    return {
        "sampler": run.config.sampler,
        "n": n,
        "draws_structures": draws_structures,
        "structure": structure,
        "modality": _beside(table.modalities, by_case, n * exact.case),
        "source": _beside(table.sources, by_case, n * exact.case),
        "kind": _beside(table.kinds, by_case, n * exact.case),
        "case": {
            key: {"present": int(table.has[i, 1:].sum()), "drawn": by_case[i], "expected": float(n * exact.case[i])}
            for i, key in enumerate(table.keys)
        },
        "skipped": [names[i] for i in sampler.skipped] if draws_structures else [],
    }


def _beside(names: tuple[str, ...], by_case: Counter[int], expected: Any) -> dict[str, dict[str, float]]:
    """Return, by name, the cases that have it, and the draws and mean draws of these cases."""
    present = Counter(names)
    drawn: Counter[str] = Counter()
    for case, count in by_case.items():
        drawn[names[case]] += count
    different, code = np.unique(np.array(names), return_inverse=True)
    means = dict(zip(different.tolist(), np.bincount(code, expected).tolist(), strict=True))
    return {name: {"present": present[name], "drawn": drawn[name], "expected": means[name]} for name in sorted(present)}
