"""The loss written a second time, from the equations alone: float64 numpy, loops over groups and classes.

Nothing here is shared with the package, nothing is clever, and probabilities are merged by adding them up.
"""

from typing import NamedTuple

import numpy as np


class ReferenceTerms(NamedTuple):
    focal: np.ndarray
    dice: np.ndarray
    entropy: np.ndarray
    has_annotation: np.ndarray
    has_label: np.ndarray


def reference_loss(terms, entropy_weight=1.0, entropy_weight_unannotated=3.0, unannotated_when="no_group"):
    total = 0.0
    has_one = {"no_group": terms.has_annotation, "no_label": terms.has_label}[unannotated_when]
    for b in range(len(terms.focal)):
        weight = entropy_weight if has_one[b] else entropy_weight_unannotated
        total += terms.focal[b] + terms.dice[b] + weight * terms.entropy[b]
    return total / len(terms.focal)


def reference_terms(logits, label, group, annotated, dice_over="annotated", reduction="group", clamp=0.0):
    """Arrays as for the package; every input a numpy array, logits float64."""
    examples = []
    for b in range(len(logits)):
        p = _softmax(logits[b])
        focal, dice = _supervised(p, label[b], _Regions(group[b], annotated[b], reduction), dice_over, clamp)
        inside = group[b] >= 0
        entropies = [-sum(_p_log_p(q, clamp) for q in voxel) for voxel in p[:, inside].T]
        rows = range(len(annotated[b]))
        known = any(annotated[b][k].any() and (group[b] == k).any() for k in rows)
        drawn = any((group[b][label[b] == c + 1] == k).any() for k in rows for c in np.flatnonzero(annotated[b][k]))
        examples.append((focal, dice, np.mean(entropies) if entropies else 0.0, known, drawn))
    return ReferenceTerms(*(np.array(column) for column in zip(*examples, strict=True)))


class _Regions:
    """The voxel masks that count as one group, each with its set of annotated structures."""

    def __init__(self, group, annotated, reduction):
        masks = {}
        for k, row in enumerate(annotated):
            structures = tuple(int(c) for c in np.flatnonzero(row) + 1)
            name = structures if reduction == "volume" else (k, structures)
            mask = group == k
            if structures and mask.any():
                masks[name] = masks.get(name, np.zeros_like(mask)) | mask
        self.items = [(m, n if reduction == "volume" else n[1]) for n, m in masks.items()]


def _supervised(p, label, regions, dice_over, clamp):
    focals, dices, sizes = [], [], []
    for mask, phi in regions.items:
        q, y = _merge(p[:, mask], label[mask], phi)
        focals.append(np.mean([-((1 - q[c][i]) ** 2) * _log(q[c][i], clamp) for i, c in enumerate(y)]))
        dices.append(_dice(q, y, dice_over))
        sizes.append(mask.sum())
    if not sizes:
        return 0.0, 0.0
    return np.average(focals, weights=sizes), np.average(dices, weights=sizes)


def _merge(p, label, phi):
    merged = {0: p[0].copy()}
    for c in range(1, len(p)):
        if c in phi:
            merged[c] = p[c]
        else:
            merged[0] += p[c]
    return merged, np.array([c if c in phi else 0 for c in label])


def _dice(q, y, dice_over):
    ratios = []
    for c, probability in q.items():
        truth = (y == c).astype(float)
        tp = (probability * truth).sum()
        fp = (probability * (1 - truth)).sum()
        fn = ((1 - probability) * truth).sum()
        if dice_over == "annotated" or truth.any():
            ratios.append((2 * tp + 1) / (2 * tp + fp + fn + 1))
    return 1 - np.mean(ratios)


def _softmax(logits):
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0)


def _p_log_p(p, clamp):
    return p * _log(p, clamp) if p > 0 else 0.0


def _log(p, clamp):
    return np.log(min(max(p, clamp), 1 - clamp) if clamp else p)
