"""Where to compute."""

import os
from typing import TYPE_CHECKING

from abdoseg.errors import ConfigError

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """Return the number of cores this process may use (a batch system may grant fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device called ``name``; ``auto`` is a CUDA GPU when there is one, else the CPU.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device '{name}': unknown; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}': no CUDA GPU is at hand; choose --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device '{name}': this machine has {torch.cuda.device_count()} GPUs, numbered from 0")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device '{name}': not supported; expected auto, cpu, cuda or cuda:N")
    return device
