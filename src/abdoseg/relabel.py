"""From a source's own label files to structure ids, by its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg import geometry
from abdoseg.anatomy import Anatomy
from abdoseg.cards import Card
from abdoseg.errors import CaseError
from abdoseg.laterality import split_in_place
from abdoseg.readers import Scan, read_scan
from abdoseg.types import UNKNOWN_LABEL, Modality

INTEGER_TOLERANCE = 1e-5
"""Label files saved as floats are taken when every value is this close to a whole number."""

BODY_ABOVE_HU = -300.0
"""CT voxels above this are body: well above air, below fat."""


@dataclass(frozen=True, eq=False)
class Relabelled:
    """A label map in structure ids.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)`` on the image's own axes; 0 background, 255 unknown.
    annotated
        Names of the structures known in this case.
    done, warnings
        What was changed; what somebody should look at.
    """

    label: NDArray[np.uint8]
    annotated: tuple[str, ...]
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def relabel_map(path: Path, image: Scan, card: Card, annotated: tuple[str, ...], anatomy: Anatomy) -> Relabelled:
    """Read a label map and translate its values.

    Raises
    ------
    CaseError
        If the file is damaged, holds values the card does not know or fractions, or lies on another grid.
    """
    raw = _whole_numbers(path, _on_grid_of(image, read_scan(path), path))
    present = _values(raw)
    _require_known(path, present, card)
    table = np.zeros(max(present) + 1, dtype=np.uint8)
    for value, target in card.label_targets().items():
        if isinstance(target, str) and target in anatomy.names and value < len(table):
            table[value] = anatomy.id_of(target)
    label = table[raw]
    done, warnings = _split_merged(label, raw, image, card, anatomy)
    dropped = sorted(present & card.dropped_values())
    if dropped:
        names = ", ".join(f"{card.dropped[str(value)]}" for value in dropped)
        done = (*done, f"dropped {names}")
    _hide_unvouched(label, annotated, anatomy)
    return Relabelled(label, _in_anatomy(annotated, anatomy), done, warnings)


def relabel_masks(
    masks: Mapping[str, Path], image: Scan, card: Card, annotated: tuple[str, ...], anatomy: Anatomy
) -> Relabelled:
    """Read one mask file a structure and join them; where masks overlap, the later in the card wins.

    A structure none of whose mask files is there counts as not annotated, with a warning.
    """
    label = np.zeros(image.array.shape, dtype=np.uint8)
    found: set[str] = set()
    overlapping = 0
    for mask_name, structure in card.masks.items():
        if mask_name not in masks:
            continue
        found.add(structure)
        mask = _binary(masks[mask_name], _on_grid_of(image, read_scan(masks[mask_name]), masks[mask_name]))
        if structure in anatomy.names:
            structure_id = anatomy.id_of(structure)
            overlapping += int(((label > 0) & (label != structure_id) & mask).sum())
            label[mask] = structure_id
    missing = tuple(name for name in annotated if name not in found)
    done = (f"{overlapping} voxels in two masks went to the later one",) if overlapping else ()
    warnings = (f"no mask file for {', '.join(missing)}: taken as not annotated",) if missing else ()
    known = tuple(name for name in annotated if name in found)
    _hide_unvouched(label, known, anatomy)
    return Relabelled(label, _in_anatomy(known, anatomy), done, warnings)


def _hide_unvouched(label: NDArray[np.uint8], known: tuple[str, ...], anatomy: Anatomy) -> None:
    """Set labels of structures that are not annotated in this case to 0, in place; 255 stays."""
    table = np.arange(256, dtype=np.uint8)
    table[1 : len(anatomy) + 1] = 0
    ids = list(anatomy.ids_of(_in_anatomy(known, anatomy)))
    table[ids] = ids
    label[...] = table[label]


def body_mask(image: Scan, modality: Modality) -> NDArray[np.bool_]:
    """Return a rough mask of the body, bool ``(X, Y, Z)``: enough for its midline."""
    if modality == "CT":
        return np.asarray(image.array > BODY_ABOVE_HU)
    return np.asarray(image.array > np.mean(image.array))


def _in_anatomy(names: tuple[str, ...], anatomy: Anatomy) -> tuple[str, ...]:
    return tuple(name for name in names if name in anatomy.names)


def _on_grid_of(image: Scan, other: Scan, path: Path) -> NDArray[Any]:
    """Return the voxels of ``other`` on the axes of ``image``; the same space in another axis order is turned."""
    if geometry.same_grid(image.grid, other.grid):
        return other.array
    turned, turned_affine = geometry.to_canonical(other.array, other.affine)
    reference, reference_affine = geometry.to_canonical(image.array, image.affine)
    if turned.shape != reference.shape:
        msg = f"{path.name}: shape {other.array.shape}, expected the image's {image.array.shape}; not its label?"
        raise CaseError(msg)
    distance = geometry.corner_distance_voxels(
        geometry.Grid(reference.shape, reference_affine), geometry.Grid(turned.shape, turned_affine)
    )
    if distance > geometry.AFFINE_TOLERANCE_VOXELS:
        msg = (
            f"{path.name}: its affine puts it {distance:.3g} voxels away from the image, expected less than "
            f"{geometry.AFFINE_TOLERANCE_VOXELS:g}; copy the image's header if the voxels match"
        )
        raise CaseError(msg)
    return geometry.from_canonical(turned, image.affine)


def _whole_numbers(path: Path, array: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise CaseError(f"{path.name}: NaN or infinite label values; expected whole numbers")
        rounded = np.rint(array)
        if np.abs(array - rounded).max() > INTEGER_TOLERANCE:
            raise CaseError(
                f"{path.name}: fractions among the label values; expected whole numbers (resampled linearly?)"
            )
        array = rounded
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise CaseError(f"{path.name}: label values {low}..{high}, expected 0..65535")
    return array.astype(np.uint8 if high < 256 else np.uint16)


def _values(array: NDArray[np.unsignedinteger]) -> set[int]:
    """Return the values that occur; counted slab by slab, as a whole scan would be copied to 64 bits."""
    counts = sum(np.bincount(slab.reshape(-1), minlength=65536) for slab in array)
    return {int(value) for value in np.flatnonzero(counts)}


def _binary(path: Path, array: NDArray[Any]) -> NDArray[np.bool_]:
    numbers = _whole_numbers(path, array)
    values = _values(numbers)
    if len(values - {0}) > 1:
        raise CaseError(f"{path.name}: values {sorted(values)[:5]}, expected a mask of 0 and one other value")
    return numbers > 0


def _require_known(path: Path, present: set[int], card: Card) -> None:
    unknown = present - {0} - set(card.label_targets()) - card.dropped_values()
    if unknown:
        values = ", ".join(str(value) for value in sorted(unknown)[:8])
        raise CaseError(
            f"{path.name}: label values {values} are not in card {card.id}; add them to its labels or dropped, "
            "or check that this is the right source"
        )


def _split_merged(
    label: NDArray[np.uint8], raw: NDArray[np.unsignedinteger], image: Scan, card: Card, anatomy: Anatomy
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    done: list[str] = []
    warnings: list[str] = []
    for value, (right, left) in card.merged.items():
        if right not in anatomy.names or left not in anatomy.names:
            continue
        joined = raw == value
        if not joined.any():
            continue
        ids = (anatomy.id_of(right), anatomy.id_of(left), UNKNOWN_LABEL)
        flags = split_in_place(label, joined, body_mask(image, card.modality), image.affine, ids)
        done.append(f"split value {value} into {right} and {left}")
        warnings.extend(f"split of value {value}: {flag}" for flag in flags)
    return tuple(done), tuple(warnings)
