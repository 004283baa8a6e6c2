"""Flips: settings, the axes drawn for one example, and what a mirrored body's structures are called.

A mirror image has its right kidney where the left one was, so a flip along X renames the structures that have a
partner on the other side, in the labels and in what is annotated. Off by default: the liver ends up on the left, which
no patient shows (situs inversus aside).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.errors import ConfigError


@dataclass(frozen=True)
class FlipSettings:
    """How often a patch is mirrored.

    Parameters
    ----------
    probability
        Of a flip along X (left and right), Y (front and back) and Z (up and down), each drawn on its own.
    partners
        For structures 1..N in order, the id of the structure on the other side, or its own; see :func:`partners_of`.
        Needed for flips along X.

    Raises
    ------
    ConfigError
        If a probability is not in [0, 1], or flips along X lack the partners.
    """

    probability: tuple[float, float, float] = (0.0, 0.0, 0.0)
    partners: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.probability) != 3 or not all(0 <= p <= 1 for p in self.probability):
            raise ConfigError(
                f"flip probability: found {self.probability}, expected three numbers from 0 to 1 (X, Y, Z)"
            )
        if self.probability[0] > 0 and not self.partners:
            msg = (
                "flip probability: a flip along X makes right left, and it is not known which structures have a "
                "partner on the other side; give partners (partners_of(anatomy)), or 0 for X"
            )
            raise ConfigError(msg)
        ids = range(1, len(self.partners) + 1)
        if any(p not in ids or self.partners[p - 1] != c for c, p in zip(ids, self.partners, strict=True)):
            msg = f"flip partners: found {self.partners}, expected ids 1 to {len(self.partners)}, in pairs"
            raise ConfigError(msg)


def partners_of(anatomy: Anatomy) -> tuple[int, ...]:
    """Return, for structures 1..N, the id of the structure on the other side, or its own where it has none.

    Raises
    ------
    ConfigError
        If a structure's partner is not in the anatomy: mirrored, it would be something without an id.
    """
    partners = []
    for structure_id, structure in enumerate(anatomy.structures, start=1):
        if structure.partner is None:
            partners.append(structure_id)
        elif structure.partner in anatomy.names:
            partners.append(anatomy.id_of(structure.partner))
        else:
            msg = f"flip along X: {structure.name} would become {structure.partner}, which is not among the structures"
            raise ConfigError(f"{msg}; add it, or do without flips along X")
    return tuple(partners)


@dataclass(frozen=True)
class FlipParameters:
    """The axes along which one patch is mirrored."""

    axes: tuple[bool, bool, bool]

    def matrix(self) -> NDArray[np.float64]:
        """Return ``(3, 3)``: offset from the centre in the flipped patch to that in the plain one."""
        return np.diag([-1.0 if flipped else 1.0 for flipped in self.axes])


def draw_flip(generator: np.random.Generator, settings: FlipSettings) -> FlipParameters:
    """Draw for each axis whether it is flipped."""
    x, y, z = (bool(u < p) for u, p in zip(generator.random(3), settings.probability, strict=True))
    return FlipParameters((x, y, z))


def mirrored_labels(label: NDArray[np.uint8], partners: Sequence[int]) -> NDArray[np.uint8]:
    """Return labels with the names of the other side; background and unknown stay."""
    table = np.arange(256, dtype=np.uint8)
    table[1 : len(partners) + 1] = partners
    return table[label]


def mirrored_id(structure: int | None, partners: Sequence[int]) -> int | None:
    """Return the id of the structure on the other side; background, 0, and ``None`` stay."""
    return partners[structure - 1] if structure else structure


def mirrored_rows(rows: NDArray[np.bool_], partners: Sequence[int]) -> NDArray[np.bool_]:
    """Return ``annotated (G, N)`` of a mirrored patch: what was known of one side is known of the other."""
    mirrored: NDArray[np.bool_] = rows[:, np.asarray(partners) - 1]
    return mirrored
