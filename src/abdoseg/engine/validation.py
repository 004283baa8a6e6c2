"""Validation while training: DSC of held-out cases, on the harmonised grid."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from abdoseg.annotation import Annotation
from abdoseg.case import Case
from abdoseg.engine.precision import Precision, autocast, storage_type
from abdoseg.engine.ranks import Ranks
from abdoseg.inference import InferenceSettings, sliding_window_logits
from abdoseg.metrics.overlap import count_overlap, dice

OVERLAP = 0.25
"""Of windows: a third of the windows that a prediction takes, which is enough to tell which weights are better."""


def mean_dsc(
    network: nn.Module,
    keys: Sequence[str],
    read: Callable[[str], Case],
    patch: tuple[int, int, int],
    ranks: Ranks,
    precision: Precision = "float32",
) -> float:
    """Return the mean DSC over cases, in per cent; NaN where no case holds an annotated structure.

    Parameters
    ----------
    network
        ``(B, 1, X, Y, Z)`` to ``(B, 1 + N, X, Y, Z)``.
    keys
        The cases; each process takes its share.
    read
        Returns a case with its voxels.
    patch
        Sides of a window, voxels.
    ranks, precision
        As in training.

    Notes
    -----
    A case's DSC is the mean over the structures that are annotated and there, without any rule of size; `abdoseg
    eval` has the paper's rules, on the scan's own grid.
    """
    place = ranks.place
    settings = InferenceSettings(patch, overlap=OVERLAP, device=str(ranks.device))
    found = [_case_dsc(network, read(key), settings, precision) for key in keys[place.rank :: place.size]]
    values = [value for of_one in ranks.gather(found) for value in of_one if math.isfinite(value)]
    return 100 * float(np.mean(values)) if values else math.nan


def _case_dsc(network: nn.Module, case: Case, settings: InferenceSettings, precision: Precision) -> float:
    device = torch.device(settings.device)
    with autocast(precision, device):
        scores = sliding_window_logits(_Cast(network, storage_type(precision)), case.intensity(), settings)
    prediction = scores.argmax(axis=0).astype(np.uint8)
    return _mean_over_present(prediction, case.label, case.facts.groups)


def _mean_over_present(prediction: NDArray[np.uint8], label: NDArray[np.uint8], annotation: Annotation) -> float:
    counts = count_overlap(prediction, label, annotation)
    there = counts.reference > 0
    return float(dice(counts)[there].mean()) if there.any() else math.nan


class _Cast(nn.Module):
    """A network with weights of one type, for float32 windows."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.network(image.to(self.dtype))
        return logits
