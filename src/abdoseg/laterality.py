"""Split one label that joins a right and a left organ.

Connected components are assigned by the side of the body their centroid lies on, in world coordinates; never by
"the two largest", which is wrong when one gland is in two pieces.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.geometry import to_canonical
from abdoseg.types import Affine

SPECK_FRACTION = 0.05
"""Components smaller than this part of the largest say nothing about how many organs there are."""

CROSSING_FRACTION = 0.2
"""A component with at least this part of its voxels on either side of the midline crosses it."""

RATIO_LIMIT = 3.0


@dataclass(frozen=True, eq=False)
class SidedMask:
    """Result of a split.

    Parameters
    ----------
    right, left, unknown
        bool ``(X, Y, Z)``, disjoint; ``unknown`` holds components that cross the midline.
    flags
        Why somebody should look at this case; empty when the split is plain.
    """

    right: NDArray[np.bool_]
    left: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    flags: tuple[str, ...]


def body_midline(body: NDArray[np.bool_]) -> float:
    """Return the mean x index of a body mask ``(X, Y, Z)`` in RAS+; the middle of the volume when it is empty."""
    per_slice = body.sum(axis=(1, 2))
    if not per_slice.any():
        return (float(body.shape[0]) - 1) / 2
    return float(np.average(np.arange(body.shape[0]), weights=per_slice))


def split_sides(mask: NDArray[np.bool_], midline: float) -> SidedMask:
    """Assign the 26-connected components of ``mask`` ``(X, Y, Z)`` in RAS+ to the right or the left.

    Parameters
    ----------
    mask
        Voxels of the joined organ.
    midline
        x index of the body's midline.

    Notes
    -----
    In RAS+ the first axis points to the patient's right, so larger x is right.
    """
    components, n = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(components.ravel(), minlength=n + 1)[1:]
    right = np.zeros(n + 1, dtype=bool)
    left = np.zeros(n + 1, dtype=bool)
    crossing = np.zeros(n + 1, dtype=bool)
    x = np.arange(mask.shape[0])
    for index, box in enumerate(ndimage.find_objects(components), start=1):
        profile = (components[box] == index).sum(axis=(1, 2))
        share_right = float(profile[x[box[0]] > midline].sum() / sizes[index - 1])
        large = sizes[index - 1] >= SPECK_FRACTION * sizes.max()
        crossing[index] = large and min(share_right, 1 - share_right) >= CROSSING_FRACTION
        right[index] = not crossing[index] and share_right >= 0.5
        left[index] = not crossing[index] and share_right < 0.5
    flags = _flags(sizes, right[1:], left[1:], crossing[1:])
    return SidedMask(right[components], left[components], crossing[components], flags)


def _flags(
    sizes: NDArray[np.int_], right: NDArray[np.bool_], left: NDArray[np.bool_], crossing: NDArray[np.bool_]
) -> tuple[str, ...]:
    if len(sizes) == 0:
        return ()
    flags = []
    if crossing.any():
        flags.append("a component crosses the midline and was left unknown")
    n_right, n_left = int(sizes[right].sum()), int(sizes[left].sum())
    if not n_right or not n_left:
        flags.append(f"all components lie on the {'right' if n_right else 'left'}" if n_right or n_left else "no side")
    elif max(n_right, n_left) > RATIO_LIMIT * min(n_right, n_left):
        flags.append(f"right and left differ {max(n_right, n_left) / min(n_right, n_left):.1f}-fold in size")
    return tuple(flags)


def split_in_place(
    label: NDArray[np.uint8],
    joined: NDArray[np.bool_],
    body: NDArray[np.bool_],
    affine: Affine,
    ids: tuple[int, int, int],
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
    """
    canonical_mask, _ = to_canonical(joined, affine)
    canonical_body, _ = to_canonical(body, affine)
    canonical_label, _ = to_canonical(label, affine)  # a view: writing to it writes to label
    sided = split_sides(canonical_mask, body_midline(canonical_body))
    for mask, value in zip((sided.right, sided.left, sided.unknown), ids, strict=True):
        canonical_label[mask] = value
    return sided.flags
