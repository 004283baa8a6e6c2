"""Split one label that joins a right and a left organ.

Connected components are assigned by the side of the body their centroid lies on, in world coordinates; never by
"the two largest", which is wrong when one gland is in two pieces.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from abdoseg.components import Components
from abdoseg.geometry import to_canonical
from abdoseg.reviews import SideDecision
from abdoseg.types import Affine

SPECK_FRACTION = 0.05
"""Components smaller than this part of the largest say nothing about how many organs there are."""

CROSSING_FRACTION = 0.2
"""A component with at least this part of its voxels on either side of the midline crosses it."""

RATIO_LIMIT = 3.0
"""One side this many times as large as the other is looked at."""

PELVIC_MM = 80.0
"""One side this far below the other is looked at: a pelvic or transplanted organ, or a label of something else."""

MATCH_MM = 10.0
"""A decision on a component holds for the component whose centroid is no further from where it was."""

Side = Literal["right", "left", "crossing"]


@dataclass(frozen=True)
class Component:
    """One 26-connected part of a joined label.

    Parameters
    ----------
    voxels
        Its size.
    centroid_mm
        RAS+.
    side
        By position; ``crossing`` with much on either side of the midline.
    large
        Not a speck.
    """

    voxels: int
    centroid_mm: tuple[float, float, float]
    side: Side
    large: bool


def body_midline(body: NDArray[np.bool_]) -> float:
    """Return the mean x index of a body mask ``(X, Y, Z)`` in RAS+; the middle of the volume when it is empty."""
    per_slice = body.sum(axis=(1, 2))
    if not per_slice.any():
        return (float(body.shape[0]) - 1) / 2
    return float(np.average(np.arange(body.shape[0]), weights=per_slice))


def describe(components: Components, midline: float, affine: Affine) -> list[Component]:
    """Return what is known of each component of a joined organ.

    Parameters
    ----------
    components
        Of a mask ``(X, Y, Z)`` in RAS+: the joined organ.
    midline
        x index of the body's midline.
    affine
        Voxel index to mm of the mask.

    Notes
    -----
    In RAS+ the first axis points to the patient's right, so larger x is right.
    """
    voxels = components.voxels
    share_right = components.voxels_of(components.beyond(0, midline)) / voxels
    centroids = components.centroids @ affine[:3, :3].T + affine[:3, 3]
    large = voxels >= SPECK_FRACTION * voxels.max(initial=0)
    crossing = large & (np.minimum(share_right, 1 - share_right) >= CROSSING_FRACTION)
    sides: list[Side] = ["right" if share >= 0.5 else "left" for share in share_right]
    return [
        Component(int(voxels[i]), _point(centroids[i]), "crossing" if crossing[i] else side, bool(large[i]))
        for i, side in enumerate(sides)
    ]


def _point(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def split_sides(
    mask: NDArray[np.bool_],
    midline: float,
    affine: Affine,
    ids: tuple[int, int, int],
    label: NDArray[np.uint8],
    decision: SideDecision | None = None,
) -> tuple[str, ...]:
    """Assign the components of ``mask`` to the right or the left; return why somebody should look at it.

    Parameters
    ----------
    mask
        bool ``(X, Y, Z)`` in RAS+: voxels of the joined organ.
    midline
        x index of the body's midline.
    affine
        Voxel index to mm.
    ids
        Right, left and unknown.
    label
        uint8 of the mask's shape: gets the ids where ``mask`` is True. Unknown are components that cross the midline,
        or were decided so.
    decision
        What somebody decided about this case; default: by position, and crossing components unknown.
    """
    components = Components.of(mask)
    found = describe(components, midline, affine)
    decided = [_decided(one, decision) for one in found]
    right, left, unknown = ids
    here = {"right": right, "left": left, "unknown": unknown, "cut": left}
    components.write(components.runs, np.array([here[side] for side in decided], dtype=np.uint8), label)
    if "cut" in decided:
        beyond = np.array([right if side == "cut" else here[side] for side in decided], dtype=np.uint8)
        components.write(components.beyond(0, midline), beyond, label)
    return _flags(found, cut="cut" in decided)


def _decided(component: Component, decision: SideDecision | None) -> str:
    """Return ``right``, ``left``, ``cut`` (at the midline) or ``unknown`` for one component."""
    action = decision.action if decision else "keep"
    if decision is not None and action == "components":
        return next((side for *at, side in decision.sides if _is_at(component, at)), "unknown")
    if action in ("right", "left", "unknown"):
        return action
    if component.side == "crossing":
        return "cut" if action == "cut" else "unknown"
    return component.side


def _is_at(component: Component, at_mm: list[float]) -> bool:
    return float(np.linalg.norm(np.subtract(component.centroid_mm, at_mm))) <= MATCH_MM


def _flags(components: list[Component], *, cut: bool) -> tuple[str, ...]:
    large = [c for c in components if c.large]
    if not large:
        return ()
    flags = []
    if any(c.side == "crossing" for c in large):
        flags.append(f"a component crosses the midline and was {'cut there' if cut else 'left unknown'}")
    elif len(large) == 1:
        flags.append("there is one component only")
    sizes = {side: sum(c.voxels for c in components if c.side == side) for side in ("right", "left")}
    low, high = sorted(sizes.values())
    if not low and high:
        flags.append(f"all components lie on the {'right' if sizes['right'] else 'left'}")
    elif high > RATIO_LIMIT * max(low, 1):
        flags.append(f"right and left differ {high / low:.1f}-fold in size")
    if low:
        heights = {side: np.average(*_heights(components, side)) for side in ("right", "left")}
        if abs(heights["right"] - heights["left"]) > PELVIC_MM:
            lower = min(heights, key=lambda side: heights[side])
            flags.append(f"the {lower} one lies {abs(heights['right'] - heights['left']):.0f} mm below the other")
    return tuple(flags)


def _heights(components: list[Component], side: str) -> tuple[list[float], None, list[float]]:
    of_side = [c for c in components if c.side == side]
    return [c.centroid_mm[2] for c in of_side], None, [float(c.voxels) for c in of_side]


def split_in_place(
    label: NDArray[np.uint8],
    joined: NDArray[np.bool_],
    body: NDArray[np.bool_],
    affine: Affine,
    ids: tuple[int, int, int],
    decision: SideDecision | None = None,
) -> tuple[str, ...]:
    """Write right, left and unknown ids into ``label`` where ``joined`` is True; return the flags.

    Parameters
    ----------
    label
        ``(X, Y, Z)`` on the scan's own axes, changed in place.
    joined, body
        bool masks of the same shape.
    affine
        The scan's voxel-to-mm affine.
    ids
        Ids to write for right, left and unknown.
    decision
        What somebody decided about this case.
    """
    canonical_mask, canonical_affine = to_canonical(joined, affine)
    canonical_body, _ = to_canonical(body, affine)
    canonical_label, _ = to_canonical(label, affine)  # a view: writing to it writes to label
    midline = body_midline(canonical_body)
    return split_sides(canonical_mask, midline, canonical_affine, ids, canonical_label, decision)
