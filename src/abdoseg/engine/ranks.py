"""What the processes of one training tell each other.

Each learns from its share of every batch, and gradients are averaged.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from abdoseg.engine.place import Place, place_of
from abdoseg.errors import AbdosegError, ConfigError, RunError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; validation of a large scan may keep one of them busy."""


class Ranks:
    """The processes of a training; with one process every method is free."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.place = place
        self.device = device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.place.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.place.size > 1

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the means over processes; the same numbers in each."""
        if not self.several:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self.others_may_be_gone():
            dist.all_reduce(tensor)
        return [float(value) for value in tensor.cpu() / self.place.size]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.place.size
        with self.others_may_be_gone():
            dist.all_gather_object(found, value)
        return found

    def first_does(self, work: Callable[[], T]) -> T:
        """Return in every process what ``work`` returned, or raise what it raised, in the first one."""
        if not self.several:
            return work()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except AbdosegError as error:
                told[1] = error
        with self.others_may_be_gone():
            dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise self.heard(told[1])
        result: T = told[0]
        return result

    def heard(self, error: AbdosegError) -> AbdosegError:
        """Return an error that all processes raise, marked so that the first one alone tells it."""
        error.told_elsewhere = not self.first
        return error

    @contextmanager
    def others_may_be_gone(self) -> Iterator[None]:
        """Turn what PyTorch says of a lost connection into one line; who failed has told its own reason."""
        try:
            yield
        except RuntimeError as error:
            if not (self.several and _is_of_the_connection(error)):
                raise
            msg = (
                "another process of this training stopped or does not answer; its own message says why, if it was not "
                "killed; the same command goes on from the last checkpoint"
            )
            raise self.heard(RunError(msg)) from error


def _is_of_the_connection(error: RuntimeError) -> bool:
    """Whether the other processes are what went wrong; gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or re.search(r"gloo|nccl|c10d|peer", str(error), re.IGNORECASE) is not None


@contextmanager
def joined_ranks(device: str = "auto", environment: Mapping[str, str] | None = None) -> Iterator[Ranks]:
    """Join the processes of this training for the length of the block.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; with several processes, ``cuda`` is the GPU of the local rank.
    environment
        Where to look for torchrun's and SLURM's variables; default: this process's.

    Raises
    ------
    ConfigError
        If the device is not there, or the processes cannot find each other.
    """
    from abdoseg.devices import choose_device

    place, meeting_point = place_of(os.environ if environment is None else environment)
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = choose_device(f"cuda:{place.local_rank}")
    if place.size == 1:
        yield Ranks(place, chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group(backend, meeting_point, timeout=TIMEOUT, rank=place.rank, world_size=place.size)
    except (ValueError, RuntimeError) as error:  # the second is the parent of PyTorch's own
        msg = (
            f"process {place.rank} of {place.size}: cannot meet the others at {meeting_point} ({error}); start all of "
            "them, by torchrun, srun or --nproc"
        )
        raise ConfigError(msg) from error
    try:
        yield Ranks(place, chosen)
    except Exception:
        raise  # others may be gone: to say good-bye to them could wait for ever, and the process ends anyway
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()
