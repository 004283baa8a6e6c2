"""The slices of a DICOM series: their order, and the even stack they make. No file is read here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from abdoseg.errors import CaseError
from abdoseg.types import Affine

SAME_PLACE_MM = 0.01
"""Slices closer than this lie at the same place; positions off by less are rounding."""

EVEN_BELOW = 0.01
"""Slices off their place in an even stack by less than this share of the spacing are repaired without a word."""

UNEVEN_ABOVE = 0.1
"""Slices off by more are refused; between the two they are repaired with a warning."""

TILT_BELOW_RAD = 2e-3
"""Slices stacked this far off their normal are refused: over 500 mm they slide 1 mm, half a voxel of the store.

Gantries are tilted by half a degree (9e-3) and more; positions rounded to 0.1 mm stay below.
"""

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice and where its pixels are.

    Parameters
    ----------
    path, frame, syntax
        File, index of the frame in it, and how its pixels are encoded.
    number
        InstanceNumber, or ``None`` where the file has none.
    shape
        ``(rows, columns)``.
    position_mm
        ``(3,)``, centre of the first pixel, LPS.
    directions
        ``(2, 3)``, LPS: unit vectors along a row (as the column index grows) and along a column.
    spacing_mm
        ``(2,)``, distance between rows, and between columns.
    slope, intercept
        From stored values to intensities.
    """

    path: Path
    frame: int
    syntax: UID
    number: int | None
    shape: tuple[int, int]
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    slope: float
    intercept: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """``(3,)``, unit vector in LPS."""
        normal = np.cross(*self.directions)
        unit: NDArray[np.float64] = normal / np.linalg.norm(normal)
        return unit

    @property
    def name(self) -> str:
        """What to call it in a message."""
        file = self.path.name if self.number is None else f"instance {self.number}"
        return f"{file} frame {self.frame + 1}" if self.frame else file


def by_position(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices in their order along the first one's normal."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: float(one.position_mm @ normal))


def without_copies(
    slices: Sequence[Slice], same_pixels: Callable[[Slice, Slice], bool]
) -> tuple[list[Slice], list[str]]:
    """Return slices, sorted by position, each place once, and a warning when copies were dropped.

    Raises
    ------
    CaseError
        If two slices at one place differ.
    """
    normal = slices[0].normal
    kept = [slices[0]]
    for one in slices[1:]:
        if (one.position_mm - kept[-1].position_mm) @ normal > SAME_PLACE_MM:
            kept.append(one)
        elif not (_lie_alike(one, kept[-1]) and same_pixels(one, kept[-1])):
            a, b = (kept[-1].name, one.name) if one.name != kept[-1].name else (kept[-1].path.name, one.path.name)
            msg = f"{a} and {b} differ but lie at one position, expected one slice a position; keep one phase or echo"
            raise CaseError(msg)
    if len(kept) < 2:
        raise CaseError("all slices lie at one position, expected a stack; fetch the whole series")
    dropped = len(slices) - len(kept)
    copies = "a copy of a slice was" if dropped == 1 else f"{dropped} copies of slices were"
    return kept, [f"{copies} dropped"] if dropped else []


def _lie_alike(one: Slice, other: Slice) -> bool:
    near = np.linalg.norm(one.position_mm - other.position_mm) <= SAME_PLACE_MM
    return bool(near) and (one.slope, one.intercept) == (other.slope, other.intercept)


def by_number(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices, given by position, by instance number if that is an order along the stack."""
    order = [(one.number, one.frame) for one in slices if one.number is not None]
    falling = len(order) == len(slices) and all(a > b for a, b in pairwise(order))
    # Numbers that rise are the order by position already; numbers that do neither say nothing.
    return list(reversed(slices)) if falling else list(slices)


def refuse_gaps(slices: Sequence[Slice]) -> None:
    """Raise CaseError if slices, given by position, leave out places of the stack."""
    steps = np.abs(np.diff([one.position_mm @ slices[0].normal for one in slices]))
    # The lower of two middle steps: with three slices and a gap the upper one would be the gap.
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    lost = np.round(steps / usual).astype(int) - 1
    lost[np.abs(steps - (lost + 1) * usual) > UNEVEN_ABOVE * usual] = 0  # no multiple: uneven, told later
    gaps = [f"{lost_here} after {one.name}" for lost_here, one in zip(lost, slices, strict=False) if lost_here > 0]
    if gaps:
        shown = ", ".join(gaps[:3]) + (", ..." if len(gaps) > 3 else "")
        msg = f"slices are missing ({shown}); expected one every {usual:g} mm; fetch the whole series"
        raise CaseError(msg)


def stacked(slices: Sequence[Slice]) -> tuple[Affine, list[str]]:
    """Return the affine of the even stack nearest to the slices, and a warning where they lie off it.

    Raises
    ------
    CaseError
        If the stack leans or is uneven.
    """
    positions = np.array([one.position_mm for one in slices])
    index = np.arange(len(slices), dtype=np.float64)
    # The fit leaves noise in the last digits, which would make an even 2 mm another one.
    step, origin = np.round(np.polyfit(index, positions, 1), 9)
    spacing = float(np.linalg.norm(step))
    first = slices[0]
    tilt = float(np.arccos(min(1.0, abs(step @ first.normal) / spacing)))
    off = np.linalg.norm(positions - origin - index[:, None] * step, axis=1)
    worst = int(off.argmax())
    where = (
        f"{slices[worst].name} lies {off[worst]:.3g} mm off its place in a stack of one slice every {spacing:.3g} mm"
    )
    if off[worst] > max(UNEVEN_ABOVE * spacing, SAME_PLACE_MM):
        limit = UNEVEN_ABOVE * spacing
        raise CaseError(f"{where} (at most {limit:.2g}); resample the series to even slices")
    if tilt > TILT_BELOW_RAD:
        msg = f"the stack leans {np.degrees(tilt):.2g} degrees off the slices' normal (gantry tilt), expected at most "
        raise CaseError(msg + f"{np.degrees(TILT_BELOW_RAD):.2g}; resample the series to a straight stack")
    affine = np.eye(4)
    affine[:3, 0] = _LPS_TO_RAS * first.directions[0] * first.spacing_mm[1]
    affine[:3, 1] = _LPS_TO_RAS * first.directions[1] * first.spacing_mm[0]
    affine[:3, 2] = _LPS_TO_RAS * step
    affine[:3, 3] = _LPS_TO_RAS * origin
    return affine, [f"{where}; it was moved there"] if off[worst] > max(EVEN_BELOW * spacing, SAME_PLACE_MM) else []
