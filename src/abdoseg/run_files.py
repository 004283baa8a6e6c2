"""The name of a run, and what its files tell without PyTorch: lines of metrics, the step of a checkpoint."""

import json
import re
from pathlib import Path
from typing import Any

from abdoseg.errors import ConfigError
from abdoseg.types import NAME_PATTERN

LONGEST_NAME = 100
"""Characters of a run's name."""

_MOST_HEADER_BYTES = 100_000_000  # as safetensors itself has it


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl`` up to the first damaged one, such as one that a kill cut off."""
    if not file.is_file():
        return []
    lines: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines():
        try:
            facts = json.loads(line)
        except ValueError:  # no JSON, or bytes that are no text
            break
        if not isinstance(facts, dict) or "step" not in facts:
            break
        lines.append(facts)
    return lines


def checkpoint_step(file: Path) -> int | None:
    """Return the optimiser steps that a checkpoint has seen, or ``None`` where it does not tell.

    A safetensors file begins with the length of its header, a little-endian integer of 8 bytes, and the header, JSON
    with the text facts under ``__metadata__``. No tensor is read.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= _MOST_HEADER_BYTES:
                return None
            return int(json.loads(opened.read(length))["__metadata__"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_name(name: str) -> None:
    """Raise ConfigError if a name cannot be that of a run's folder."""
    if not re.fullmatch(NAME_PATTERN, name):
        found = name if len(name) <= LONGEST_NAME else f"{name[:20]}..."
        raise ConfigError(f"--name: found '{found}', expected letters, digits, dots, dashes and underscores")
    if len(name) > LONGEST_NAME:
        found = f"'{name[:20]}...' of {len(name)} characters"
        raise ConfigError(f"--name: found {found}, expected at most {LONGEST_NAME}; choose a shorter one")


def is_free(folder: Path) -> bool:
    """Whether a new run may take this folder: nothing is there, or what a kill left before the run began."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(one.name == "data.json" or one.name.startswith(".") for one in folder.iterdir())
