"""Independent reference: the tree of draws, walked child by child in exact fractions."""

from collections import defaultdict
from fractions import Fraction

ORDERS = {
    "cmd": ("structure", "modality", "source", "case"),
    "mdc": ("modality", "source", "structure", "case"),
    "random": ("case",),
}


def leaves(candidates):
    """List every (structure, case) that has a candidate, with its names."""
    return [
        {
            "structure": c,
            "case": i,
            "modality": candidates.modalities[i],
            "source": candidates.sources[i],
            "kind": candidates.kinds[i],
        }
        for i in range(len(candidates.keys))
        for c in range(candidates.has.shape[1])
        if candidates.has[i, c]
    ]


def walk(pairs, order, probability=Fraction(1)):
    """Yield (structure or None, case, probability) of each end of the tree."""
    if not order:
        structures = {pair["structure"] for pair in pairs}
        yield (structures.pop() if len(structures) == 1 else None), pairs[0]["case"], probability
        return
    children = defaultdict(list)
    for pair in pairs:
        children[pair[order[0]]].append(pair)
    for child in children.values():
        yield from walk(child, order[1:], probability / len(children))


def outcome_probabilities(candidates, name):
    """Return {(structure or None, case): probability} of one draw of the named sampler."""
    total = defaultdict(Fraction)
    for structure, case, probability in walk(leaves(candidates), ORDERS[name]):
        total[structure if name != "random" else None, case] += probability
    return dict(total)
