"""What memory is free: of a GPU by its driver, of the machine by Linux, within the limit of a container or a job."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_OF_VERSION = {
    "": (_GROUPS, "memory.max", "memory.current", "inactive_file"),
    "memory": (_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controllers in a line of ``/proc/self/cgroup`` -> where its groups lie, limit, use, and what of it can be dropped.

Control groups of version 2 have one line without a name, those of version 1 a line a controller.
"""


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take on a device; ``None`` where nobody says.

    Of a GPU: what the driver has to give, and what PyTorch holds in this process without using it. Of a CPU on Linux:
    what the kernel calls available (free, and caches of files that it can drop; no swap), or what the control groups'
    limits leave (of a container, of a SLURM job), whichever is less. Elsewhere all main memory of the machine.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return None
    found = [room for room in (_available(), *_rooms_of_groups()) if room is not None]
    return min(found) if found else _installed()


def _available() -> int | None:
    """Return the kernel's ``MemAvailable`` in bytes."""
    facts = dict(line.split(":", 1) for line in _lines(_PROC / "meminfo") if ":" in line)
    return int(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else None


def _rooms_of_groups() -> Iterator[int | None]:
    """Yield what each control group that holds this process leaves of its limit, in bytes; ``None`` without a limit."""
    for line in _lines(_PROC / "self" / "cgroup"):
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers in _OF_VERSION:
            folder, *names = _OF_VERSION[controllers]
            inside = Path(group.lstrip("/"))
            yield from (_room(folder / part, *names) for part in (inside, *inside.parents))


def _room(group: Path, limit_name: str, use_name: str, droppable_name: str) -> int | None:
    limit, use = (" ".join(_lines(group / name)) for name in (limit_name, use_name))
    if not limit.isdecimal() or not use.isdecimal():  # "max" is no limit
        return None
    # A group's use counts the files that it has read, which the kernel drops when memory is asked for.
    facts = dict(line.split(maxsplit=1) for line in _lines(group / "memory.stat"))
    return max(0, int(limit) - int(use) + int(facts.get(droppable_name, 0)))


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # the first on Windows
        return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
