"""Where to compute."""

import os
import re
from typing import TYPE_CHECKING

from abdoseg.errors import ConfigError

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """Return the number of cores this process may use (a batch system may grant fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_device_name(name: str) -> None:
    """Refuse what is no device's name, without loading PyTorch; whether it is there, `choose_device` says.

    Raises
    ------
    ConfigError
        If it is none of ``auto``, ``cpu``, ``cuda`` and ``cuda:N``.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", name):
        raise ConfigError(f"device '{name}': unknown; expected auto, cpu, cuda or cuda:N")


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device called ``name``; ``auto`` is a CUDA GPU when there is one, else the CPU.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.
    """
    check_device_name(name)
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}': no CUDA GPU is at hand; choose --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device '{name}': this machine has {torch.cuda.device_count()} GPUs, numbered from 0")
    return device
