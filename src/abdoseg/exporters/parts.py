"""What exporters share: the label map they take, the structures asked for, and who made it."""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from abdoseg.anatomy import Anatomy
from abdoseg.types import Label


@dataclass(frozen=True)
class Algorithm:
    """What made a label map.

    Parameters
    ----------
    model
        Name of the run or model; empty where nobody said.
    name, version
        The software.
    """

    model: str = ""
    name: str = "abdoseg"
    version: str = field(default_factory=lambda: version("abdoseg"))

    @property
    def title(self) -> str:
        """Name with the model, for people."""
        return f"{self.name} {self.model}".rstrip()


def require_label_map(label: Label) -> None:
    """Raise ValueError if ``label`` is not a uint8 volume."""
    if label.dtype != np.uint8 or label.ndim != 3:
        raise ValueError(f"label: found {label.dtype} {label.shape}, expected uint8 (X, Y, Z)")


def requested_ids(anatomy: Anatomy, structures: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the ids of the structures asked for, rising; all when ``structures`` is None.

    Raises
    ------
    UnknownNameError
        If a name is not in ``anatomy``.
    """
    if structures is None:
        return tuple(range(1, len(anatomy) + 1))
    return tuple(sorted(set(anatomy.ids_of(structures))))


def stem_of(path: Path, suffixes: tuple[str, ...]) -> str:
    """Return a file's name without its suffix, the first of ``suffixes`` that it ends in."""
    suffix = next((s for s in suffixes if path.name.lower().endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def legend_text(file: str, anatomy: Anatomy, ids: tuple[int, ...], algorithm: Algorithm | None) -> str:
    """Return the side file of a label map, JSON: what its numbers mean, and who made it where that was said."""
    rows = [
        {"id": i, "name": s.name, "title": s.title, "colour": s.colour}
        for i, s in ((i, anatomy.structure(i)) for i in ids)
    ]
    legend: dict[str, Any] = {"file": file, "background": 0, "structures": rows}
    if algorithm is not None:
        legend["made_by"] = asdict(algorithm)
    return json.dumps(legend, indent=1, ensure_ascii=False) + "\n"


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of ``#rrggbb``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
