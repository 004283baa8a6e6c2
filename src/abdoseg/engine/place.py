"""Which of several processes this one is, by what torchrun and SLURM say. Pure: no torch.

One process is a training of its own (rank 0 of 1). Several are started by torchrun, by ``abdoseg train --nproc`` or by
SLURM's ``srun``.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from abdoseg.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of a training.

    Parameters
    ----------
    rank, size
        Number of the process, from 0, and how many there are.
    local_rank
        Its number on this machine: it takes the GPU with this number.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def place_of(environment: Mapping[str, str]) -> tuple[Place, str]:
    """Return where this process stands, and where the processes meet, as PyTorch's ``init_method``.

    torchrun sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``. ``srun`` with several tasks sets ``SLURM_PROCID``,
    ``SLURM_STEP_NUM_TASKS`` and ``SLURM_LOCALID``; the first node of the step is then where all meet, at a port that
    follows from the job's number. A batch script that runs one process without ``srun`` is one process.

    Raises
    ------
    ConfigError
        If a variable is no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        return Place(rank, size, _number(environment, "LOCAL_RANK", 0)), "env://"
    if _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in environment:
        place = Place(
            _number(environment, "SLURM_PROCID"),
            _number(environment, "SLURM_STEP_NUM_TASKS"),
            _number(environment, "SLURM_LOCALID", 0),
        )
        return place, _slurm_meeting_point(environment)
    return Place(), "env://"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d+", text):
        raise ConfigError(f"environment variable {name}: found '{text}', expected a whole number")
    return int(text)


def _slurm_meeting_point(environment: Mapping[str, str]) -> str:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    address = environment.get("MASTER_ADDR") or first_node(nodes)
    port = environment.get("MASTER_PORT") or 20000 + _number(environment, "SLURM_JOB_ID", 0) % 20000
    return f"tcp://{address}:{port}"


def first_node(nodes: str) -> str:
    """Return the first name of a SLURM node list such as ``gpu[03-05,9],cpu1``."""
    try:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return shown.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
        if match is None:
            raise ConfigError(f"SLURM_NODELIST '{nodes}': names no node; set MASTER_ADDR") from None
        return "".join(part or "" for part in match.groups())


def is_first_process() -> bool:
    """Return whether this process is the one of its training that talks."""
    return place_of(os.environ)[0].rank == 0
