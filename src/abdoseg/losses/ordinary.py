"""Ordinary focal and dice, every structure known: what methods that know no groups learn from."""

import torch
from torch import Tensor

from abdoseg.losses.disambiguation import DiceOver, disambiguation_terms


def ordinary_focal_and_dice(
    logits: Tensor, label: Tensor, counted: Tensor, dice_over: DiceOver = "annotated", clamp: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return focal (gamma 2) and dice of every example over the voxels that count.

    Parameters
    ----------
    logits
        ``(B, 1 + N, X, Y, Z)``.
    label
        ``(B, X, Y, Z)``, integer, 0..N.
    counted
        bool ``(B, X, Y, Z)``.
    dice_over, clamp
        As for :func:`disambiguation_terms`.

    Returns
    -------
    tuple of Tensor
        Focal and dice, ``(B,)`` each; 0 where no voxel counts.

    Notes
    -----
    Equations 2 and 3 of Chen et al. 2024 with one group that annotates every structure.
    """
    # Voxels that do not count are put outside the image.
    inside = torch.where(counted, 0, -1).to(torch.int16)
    everything = torch.ones(len(logits), 1, logits.shape[1] - 1, dtype=torch.bool, device=logits.device)
    terms = disambiguation_terms(logits, label, inside, everything, dice_over=dice_over, clamp=clamp, validate=False)
    return terms.focal, terms.dice
