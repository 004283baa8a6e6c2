"""Everything that training changes, and how it is saved whole and taken up again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from abdoseg.checkpoints import AVERAGE, MODEL, OPTIMISER, load_tensors, save_tensors, under, useless


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    score: float
    """Mean DSC in per cent; NaN where no case holds an annotated structure."""
    step: int
    """Optimiser steps the weights had seen."""


@dataclass
class TrainState:
    """Weights, what the optimiser remembers, and the step they are at.

    Parameters
    ----------
    network
        Bare: neither compiled nor wrapped for several processes.
    optimiser
        AdamW over its parameters.
    scaler
        Of float16 gradients; disabled otherwise.
    average
        Exponential moving average of the weights, or ``None``.
    step
        Optimiser steps done. Example numbers follow from it, so it is the stream's position too.
    best
        The best validation so far, or ``None``.
    validated
        The last one, or ``None``. A state saved before its step's validation ended has an earlier one.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: "AveragedModel | None" = None
    step: int = 0
    best: Validation | None = None
    validated: Validation | None = None

    def usable(self) -> nn.Module:
        """Return the network to predict with: the averaged one where there is an average."""
        averaged: nn.Module | None = self.average.module if self.average is not None else None
        return averaged if averaged is not None else self.network

    def save(self, path: Path) -> None:
        """Write all of it, whole or not at all."""
        tensors = {MODEL + key: value for key, value in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"{OPTIMISER}{index}.{key}"] = torch.as_tensor(value)
        if self.average is not None:
            tensors |= {AVERAGE + key: value for key, value in self.average.module.state_dict().items()}
            tensors[f"{AVERAGE}.updates"] = self.average.n_averaged
        facts = {"step": str(self.step), "scaler": json.dumps(self.scaler.state_dict())}
        for name, told in (("best", self.best), ("validated", self.validated)):
            if told is not None:
                facts |= {f"{name}_score": repr(told.score), f"{name}_step": str(told.step)}
        save_tensors(path, tensors, facts)

    def load(self, path: Path) -> None:
        """Take up what :meth:`save` wrote.

        Raises
        ------
        RunError
            If the file is damaged or belongs to another network.
        """
        tensors, facts = load_tensors(path)
        try:
            self.network.load_state_dict(under(MODEL, tensors))
            self._load_optimiser(under(OPTIMISER, tensors))
            if self.average is not None:
                averaged = under(AVERAGE, tensors)
                self.average.n_averaged.copy_(averaged.pop(".updates"))
                self.average.module.load_state_dict(averaged)
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(json.loads(facts["scaler"]))
            self.step = int(facts["step"])
            self.best, self.validated = (_validation(facts, name) for name in ("best", "validated"))
        except (RuntimeError, KeyError, ValueError) as error:
            raise useless(path, f"holds the state of another training ({_first_line(error)})") from error

    def _load_optimiser(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        _lay_out_as_parameters(self.optimiser)


def _first_line(error: Exception) -> str:
    """Return what an error says before it lists every tensor."""
    text = str(error).strip()
    return text.splitlines()[0].strip().rstrip(":")[:200] if text else type(error).__name__


def _validation(facts: Mapping[str, str], name: str) -> Validation | None:
    if f"{name}_score" not in facts:
        return None
    return Validation(float(facts[f"{name}_score"]), int(facts[f"{name}_step"]))


def _lay_out_as_parameters(optimiser: torch.optim.Optimizer) -> None:
    """Give every moment the memory layout of its parameter.

    Files hold contiguous tensors; a fused optimiser walks parameter, gradient and moments by address and would pair
    the wrong numbers of a channels-last parameter with them.
    """
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def moving_average(network: nn.Module, decay: float) -> "AveragedModel | None":
    """Return an exponential moving average of the weights; ``None`` for a decay of 0."""
    if decay == 0:
        return None
    average: Callable[..., Any] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
