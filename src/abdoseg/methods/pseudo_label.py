"""Self-training: a finished run labels what is not annotated, then ordinary training on its labels and the given ones.

:mod:`abdoseg.pseudo_labels` makes the labels before the training begins; here is how one case is labelled and the loss.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from abdoseg.annotation import Annotation
from abdoseg.losses import ordinary_focal_and_dice
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch, voxels_in
from abdoseg.types import UNKNOWN_LABEL, Label


def label_case(
    label: Label,
    annotation: Annotation,
    scores: NDArray[np.float32],
    confidence: float,
    *,
    independent: bool = False,
) -> Label:
    """Return complete labels: what is annotated, then what the scores are sure of, else 255.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)``, structure ids, 255 where nobody knows.
    annotation
        Where which structure is known; with slice lists along several axes, a voxel is known by any of them.
    scores
        float32 ``(1 + N, X, Y, Z)``, of a method.
    confidence
        Least probability of a label that is taken over.
    independent
        What probabilities the scores stand for, :attr:`abdoseg.methods.parts.Method.independent`.

    Returns
    -------
    ndarray
        uint8 ``(X, Y, Z)``. A drawn structure stays; a voxel whose group knows all structures and draws none is
        background; elsewhere it is the most probable of background and the structures that the group does not know.
    """
    known = _known_words(annotation, label)
    drawn = ((known >> label.clip(0, annotation.n_structures).astype(np.uint64)) & np.uint64(1)).astype(bool)
    drawn &= (label > 0) & (label <= annotation.n_structures)
    # The logit of 1 - p is that of p, negated.
    best, highest = np.zeros_like(label), -scores[1:].max(axis=0) if independent else scores[0].copy()
    for structure in range(1, annotation.n_structures + 1):
        unknown = (known >> np.uint64(structure)) & np.uint64(1) == 0
        better = unknown & (scores[structure] > highest)
        best[better], highest[better] = structure, scores[structure][better]
    sure = _probability(highest, scores, independent=independent) >= confidence
    sure |= known == np.uint64(2 * (2**annotation.n_structures - 1))
    found: Label = np.where(drawn, label, np.where(sure, best, UNKNOWN_LABEL)).astype(np.uint8)
    return found


def _probability(score: NDArray[np.float32], scores: NDArray[np.float32], *, independent: bool) -> NDArray[np.float32]:
    """Return the probability that a score ``(X, Y, Z)`` stands for among ``(1 + N, X, Y, Z)``."""
    if independent:
        of_head: NDArray[np.float32] = expit(score)
        return of_head
    highest = scores.max(axis=0)
    of_class: NDArray[np.float32] = np.exp(score - highest) / np.exp(scores - highest).sum(axis=0)
    return of_class


def _known_words(annotation: Annotation, label: Label) -> NDArray[np.uint64]:
    """Return a word of each voxel with the bits of the structures that were looked for in it."""
    bits = (annotation.rows.astype(np.uint64) << np.arange(1, annotation.n_structures + 1, dtype=np.uint64)).sum(axis=1)
    words = np.zeros(label.shape, dtype=np.uint64)
    for axis in annotation.axes() or (None,):
        words |= bits[annotation.group_volume(label.shape, axis)]
    words[label == UNKNOWN_LABEL] = 0
    return words


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return ordinary focal + dice over the voxels that have a label: every group here knows all structures or none."""
    counted = voxels_in(batch, batch.annotated.all(dim=2))
    focal, dice = ordinary_focal_and_dice(logits, batch.label, counted, settings.dice_over, settings.clamp)
    return LossParts((focal + dice).mean(), (focal.mean(), dice.mean()))


METHOD = Method(loss, ("focal", "dice"))
