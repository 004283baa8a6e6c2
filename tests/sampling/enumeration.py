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


def walk(pairs, order, weights, probability=Fraction(1)):
    """Yield (structure or None, case, probability) of each end of the tree."""
    if not order:
        structures = {pair["structure"] for pair in pairs}
        yield (structures.pop() if len(structures) == 1 else None), pairs[0]["case"], probability
        return
    children = defaultdict(list)
    for pair in pairs:
        children[pair[order[0]]].append(pair)
    weight = {name: Fraction(weights.get(order[0], {}).get(name, 1)) for name in children}
    for name, child in children.items():
        yield from walk(child, order[1:], weights, probability * weight[name] / sum(weight.values()))


def outcome_probabilities(candidates, name, weights=None):
    """Return {(structure or None, case): probability} of one draw of the named sampler."""
    weights = weights or {}
    pairs = [
        pair
        for pair in leaves(candidates)
        if all(Fraction(weights.get(level, {}).get(pair[level], 1)) for level in ORDERS[name])
    ]
    total = defaultdict(Fraction)
    for structure, case, probability in walk(pairs, ORDERS[name], weights):
        total[structure if name != "random" else None, case] += probability
    return dict(total)
