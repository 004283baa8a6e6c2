"""Validation while training: DSC of held-out cases, on the harmonised grid."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from abdoseg.annotation import Annotation
from abdoseg.case import Case
from abdoseg.engine.precision import Precision, autocast, storage_type
from abdoseg.engine.ranks import Ranks
from abdoseg.errors import AbdosegError, RunError
from abdoseg.inference import InferenceSettings, sliding_window_logits
from abdoseg.metrics.overlap import count_overlap, dice

OVERLAP = 0.25
"""Of windows: a third of the windows that a prediction takes, which is enough to tell which weights are better."""


def _never() -> bool:
    return False


def mean_dsc(
    network: nn.Module,
    keys: Sequence[str],
    read: Callable[[str], Case],
    patch: tuple[int, int, int],
    ranks: Ranks,
    precision: Precision = "float32",
    *,
    asked_to_stop: Callable[[], bool] = _never,
) -> float | None:
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
    asked_to_stop
        Looked at after every window; once it is true in any process, all leave the rest and return ``None``.

    Raises
    ------
    AbdosegError
        In every process, if one of them cannot read or predict a case.

    Notes
    -----
    A case's DSC is the mean over the structures that are annotated and there, without any rule of size; `abdoseg
    eval` has the paper's rules, on the scan's own grid.
    """
    place = ranks.place
    settings = InferenceSettings(patch, overlap=OVERLAP, device=str(ranks.device))
    found: list[float] = []
    # In step, a case a process: so all hear of a signal, or of an error, while there is still something to skip.
    for first in range(0, len(keys), place.size):
        mine = keys[first + place.rank : first + place.rank + 1]
        told = ranks.gather(_told(mine, lambda key: _case_dsc(network, read(key), settings, precision, asked_to_stop)))
        for one in told:
            if one.error is not None:
                raise ranks.heard(one.error)
        if any(one.stopped for one in told):
            return None
        found += [one.dsc for one in told if math.isfinite(one.dsc)]
    return 100 * float(np.mean(found)) if found else math.nan


class _Told(NamedTuple):
    """What a process tells the others of a case: its DSC, that it was stopped, or why it failed."""

    dsc: float = math.nan
    stopped: bool = False
    error: AbdosegError | None = None


class _StoppedError(Exception):
    """Somebody asked to stop."""


def _told(keys: Sequence[str], score: Callable[[str], float]) -> _Told:
    try:
        return _Told(score(keys[0])) if keys else _Told()
    except _StoppedError:
        return _Told(stopped=True)
    except AbdosegError as error:
        return _Told(error=error)


def _case_dsc(
    network: nn.Module,
    case: Case,
    settings: InferenceSettings,
    precision: Precision,
    asked_to_stop: Callable[[], bool],
) -> float:
    def stop_if_asked(done: int, windows: int) -> None:  # noqa: ARG001
        if asked_to_stop():
            raise _StoppedError

    def predicted(precision: Precision) -> NDArray[np.float32]:
        with autocast(precision, torch.device(settings.device)):
            model = _Cast(network, storage_type(precision))
            return sliding_window_logits(model, case.intensity(), settings, stop_if_asked)

    try:
        scores = predicted(precision)
    except RunError:
        if precision != "fp16":
            raise
        scores = predicted("float32")  # float16 ends at 65,504: the weights may be good all the same
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
