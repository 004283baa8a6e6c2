"""The numbers that a network computes in: float32, or narrower ones with their safeguards."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from abdoseg.errors import ConfigError

Precision = Literal["float32", "bf16", "fp16", "float64"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def storage_type(precision: Precision) -> torch.dtype:
    """Return the type of weights and images; mixed precision keeps both in float32."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the network is called.

    Raises
    ------
    ConfigError
        If the GPU has no bfloat16.
    """
    if precision not in _AUTOCAST:
        return nullcontext()
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"precision bf16: {torch.cuda.get_device_name(device)} has none; choose fp16 or float32")
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


def validation_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision to validate in: float16 has no fast kernels on a CPU, where a case took minutes."""
    return "float32" if precision == "fp16" and device.type == "cpu" else precision


def slow_precision(precision: Precision, device: torch.device) -> list[str]:
    """Return a line of warning where the precision makes a training slower instead of faster; else none."""
    if precision == "fp16" and device.type == "cpu":
        return [
            "precision fp16: has no fast kernels on a CPU and is many times slower there; bf16 or float32 is faster"
        ]
    return []


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps float16 gradients from vanishing; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
