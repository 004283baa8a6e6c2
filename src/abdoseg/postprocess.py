"""What may be done to a predicted label map afterwards, structure by structure; nothing unless it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.anatomy import Anatomy
from abdoseg.components import Components
from abdoseg.errors import ConfigError
from abdoseg.types import Label


@dataclass(frozen=True)
class Rule:
    """What is done to one structure, in this order.

    Parameters
    ----------
    largest
        Keep its largest connected component (26 neighbours) alone.
    min_ml
        Take away components smaller than this, millilitres.
    fill_holes
        Background that the structure encloses on all sides (6 neighbours) becomes the structure; other structures
        within it stay.

    Raises
    ------
    ConfigError
        If ``min_ml`` is negative or not finite.
    """

    largest: bool = False
    min_ml: float = 0.0
    fill_holes: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_ml < float("inf"):
            raise ConfigError(f"min_ml: found {self.min_ml:g}; expected millilitres, 0 or more")


@dataclass(frozen=True)
class Change:
    """What a rule did to one structure, millilitres."""

    structure: str
    removed_ml: float = 0.0
    components: int = 0
    filled_ml: float = 0.0

    def __str__(self) -> str:
        """Return it in words."""
        told = []
        if self.components:
            pieces = f"{self.components} piece" + ("s" if self.components > 1 else "")
            told.append(f"{pieces} taken away ({self.removed_ml:.2f} ml)")
        if self.filled_ml:
            told.append(f"holes of {self.filled_ml:.2f} ml filled")
        return f"{self.structure}: {', '.join(told)}"


@dataclass(frozen=True)
class PostSettings:
    """Structure -> what is done to it; structures that are not named stay as they are.

    Parameters
    ----------
    rules
        By structure name.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        anatomy: Anatomy,
        largest: tuple[str, ...] = (),
        fill_holes: tuple[str, ...] = (),
        min_ml: Mapping[str, float] | None = None,
    ) -> "PostSettings":
        """Return the settings of some names each; ``all`` stands for every structure of the anatomy.

        Raises
        ------
        UnknownNameError
            If a name is none of the anatomy's.
        ConfigError
            If a volume is no volume.
        """
        volumes = {name: ml for given, ml in (min_ml or {}).items() for name in _names(anatomy, (given,))}
        # A name of its own stands before "all".
        volumes |= {name: ml for name, ml in (min_ml or {}).items() if name != "all"}
        keep, fill = _names(anatomy, largest), _names(anatomy, fill_holes)
        named = [name for name in anatomy.names if name in {*keep, *fill, *volumes}]
        return cls({name: Rule(name in keep, volumes.get(name, 0.0), name in fill) for name in named})


def _names(anatomy: Anatomy, given: tuple[str, ...]) -> tuple[str, ...]:
    if "all" in given:
        return tuple(anatomy.names)
    anatomy.ids_of(given)
    return given


def postprocess(
    label: Label, settings: PostSettings, anatomy: Anatomy, voxel_ml: float
) -> tuple[Label, tuple[Change, ...]]:
    """Return a label map by the rules, and what they did.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)``, any strides; not changed.
    settings
        What to do.
    anatomy
        Names of the ids.
    voxel_ml
        Volume of a voxel, millilitres.

    Returns
    -------
    tuple
        The label map (the very same where there is nothing to do), and a change for each structure that changed.
    """
    if not settings.rules:
        return label, ()
    out = label.copy(order="K")
    boxes = ndimage.find_objects(out, max_label=len(anatomy))
    changes = []
    for name, rule in settings.rules.items():
        structure = anatomy.id_of(name)
        box = boxes[structure - 1]
        if box is None:
            continue
        part = out[box]
        components, removed = _remove(part, structure, rule, voxel_ml)
        filled = _fill(part, structure) if rule.fill_holes else 0
        if components or filled:
            changes.append(Change(name, removed * voxel_ml, components, filled * voxel_ml))
    return out, tuple(changes)


def _remove(part: Label, structure: int, rule: Rule, voxel_ml: float) -> tuple[int, int]:
    """Take components away in place; return how many, and their voxels."""
    if not (rule.largest or rule.min_ml):
        return 0, 0
    components = Components.of(part == structure)
    voxels = components.voxels
    kept: NDArray[np.bool_] = voxels * voxel_ml >= rule.min_ml
    if rule.largest:
        # The first of equal ones: argmax takes it.
        kept &= np.arange(len(voxels)) == int(voxels.argmax())
    if not kept.all():
        components.write(components.runs, np.where(kept, structure, 0).astype(np.uint8), part)
    return int((~kept).sum()), int(voxels[~kept].sum())


def _fill(part: Label, structure: int) -> int:
    holes = ndimage.binary_fill_holes(part == structure) & (part == 0)
    part[holes] = structure
    return int(holes.sum())
