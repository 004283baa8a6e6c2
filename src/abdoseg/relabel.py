"""From a source's own label files to structure ids, by its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg import geometry
from abdoseg.anatomy import Anatomy
from abdoseg.cards import Card, merged_targets
from abdoseg.case import SideSplit
from abdoseg.errors import CaseError
from abdoseg.kernels.memory import letter_of
from abdoseg.kernels.values import count_values, lowest_and_highest, paint, translated
from abdoseg.laterality import split_in_place
from abdoseg.readers import Scan, read_scan
from abdoseg.reviews import SideDecision, pair_name
from abdoseg.slice_rows import (
    ListedSlice,
    SliceRows,
    array_axis,
    listed_slices,
    non_empty_slices,
    truncated_rows,
)
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
    slices
        Which of them are known in each slice, where that differs.
    sides
        Labels that joined right and left, and how they were split.
    done, warnings
        What was changed; what somebody should look at.
    """

    label: NDArray[np.uint8]
    annotated: tuple[str, ...]
    slices: SliceRows = field(default_factory=SliceRows)
    sides: tuple[SideSplit, ...] = ()
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseRules:
    """What the card says of one case.

    Parameters
    ----------
    card
        The source.
    annotated
        Names of the structures annotated in this case.
    listed
        Rows of the source's side-car table of annotated slices for this case.
    decisions
        Pair -> what somebody decided about labels that join right and left.
    """

    card: Card
    annotated: tuple[str, ...]
    listed: Sequence[ListedSlice] = ()
    decisions: Mapping[str, SideDecision] = field(default_factory=dict)


def relabel_nothing(image: Scan) -> Relabelled:
    """Return an empty label of which nothing is known: an unlabelled scan."""
    return Relabelled(np.zeros(image.array.shape, dtype=np.uint8), (), done=("taken without labels",))


def relabel_map(name: str, raw_label: NDArray[Any], image: Scan, rules: CaseRules, anatomy: Anatomy) -> Relabelled:
    """Translate the values of a label map.

    Parameters
    ----------
    name
        Of the label file, for messages.
    raw_label
        Its voxels, on the axes of the image.
    image, rules, anatomy
        The scan; what its card says; the workspace's structures.

    Raises
    ------
    CaseError
        If it holds values the card does not know, or fractions.
    """
    card = rules.card
    raw = _whole_numbers(name, raw_label)
    present = _values(raw)
    _require_known(name, present, card)
    targets = card.label_targets(present)
    table = np.zeros(max(present) + 1, dtype=np.uint8)
    for value, target in targets.items():
        if isinstance(target, str) and target in anatomy.names and value < len(table):
            table[value] = anatomy.id_of(target)
    table[sorted(present & card.ignored_values())] = UNKNOWN_LABEL
    label = translated(raw, table)
    sides = _split_merged(label, raw, merged_targets(targets), image, rules, anatomy)
    told = (
        *(f"{variant.reason}" for variant in card.variants_in(present)),
        *(f"split {side.pair.replace('+', ' and ')}" for side in sides),
        *_told("dropped", present & card.dropped_values(), card.dropped),
        *_told("unknown where it says", present & card.ignored_values(), card.ignored),
    )
    label = _vouched(label, rules.annotated, anatomy)
    known = _in_anatomy(rules.annotated, anatomy)
    slices = _slices(rules, label, raw, image, known, anatomy)
    return Relabelled(label, known, slices, sides, told, tuple(w for side in sides for w in side.warnings))


def _told(what: str, values: set[int], names: Mapping[str, str]) -> tuple[str, ...]:
    return (f"{what} {', '.join(names[str(value)] for value in sorted(values))}",) if values else ()


def relabel_masks(masks: Mapping[str, Path], image: Scan, rules: CaseRules, anatomy: Anatomy) -> Relabelled:
    """Read one mask file a structure and join them; where masks overlap, the later in the card wins.

    Only the masks that the card maps are read. A structure none of whose mask files is there counts as not
    annotated, with a warning.
    """
    card = rules.card
    # In the order of the files' memory, which is the image's.
    label = np.zeros(image.array.shape, dtype=np.uint8, order=letter_of(image.array))
    found: set[str] = set()
    overlapping = 0
    for mask_name, structure in card.masks.items():
        if mask_name not in masks:
            continue
        found.add(structure)
        path = masks[mask_name]
        mask = _binary(path.name, on_grid_of(image, read_scan(path), path.name))
        if structure in anatomy.names:
            overlapping += paint(mask, anatomy.id_of(structure), label)
    missing = tuple(name for name in rules.annotated if name not in found)
    release = card.release_of(masks)
    done = (
        *((f"release {release.name}, by its mask files",) if release else ()),
        *((f"{overlapping} voxels in two masks went to the later one",) if overlapping else ()),
    )
    warnings = (f"no mask file for {', '.join(missing)}: taken as not annotated",) if missing else ()
    known = tuple(name for name in rules.annotated if name in found)
    label = _vouched(label, known, anatomy)
    known = _in_anatomy(known, anatomy)
    return Relabelled(label, known, _slices(rules, label, label, image, known, anatomy), (), done, warnings)


def _slices(
    rules: CaseRules,
    label: NDArray[np.uint8],
    raw: NDArray[np.unsignedinteger],
    image: Scan,
    known: tuple[str, ...],
    anatomy: Anatomy,
) -> SliceRows:
    """Return what is known slice by slice, by the card's rule; ``raw`` are the file's own values."""
    card = rules.card
    row = np.zeros(len(anatomy), dtype=bool)
    row[[i - 1 for i in anatomy.ids_of(known)]] = True
    if card.sparse is not None and card.sparse.axis is not None:
        axis = array_axis(card.sparse.axis, image.affine)
        drawn = (raw > 0) & (label != UNKNOWN_LABEL)
        return SliceRows({axis: non_empty_slices(drawn, axis, row)}, apart=True)
    if card.sparse is not None:
        ids = {name: anatomy.id_of(name) for name in known}
        rows = listed_slices(rules.listed, card.sparse, label.shape, image.affine, ids)
        if not rows:
            raise CaseError(f"{card.sparse.table} lists no slice of this case; list its annotated slices there")
        wide = {axis: np.pad(r, ((0, 0), (0, len(anatomy) - r.shape[1]))) for axis, r in rows.items()}
        return SliceRows(wide, apart=True)
    truncated = anatomy.ids_of(tuple(name for name in card.truncated if name in known))
    return truncated_rows(label, image.affine, truncated, row) if truncated else SliceRows()


def _vouched(label: NDArray[np.uint8], known: tuple[str, ...], anatomy: Anatomy) -> NDArray[np.uint8]:
    """Return the label with structures that are not annotated in this case set to 0; 255 stays."""
    hidden = set(anatomy.ids_of(anatomy.names)) - set(anatomy.ids_of(_in_anatomy(known, anatomy)))
    if not hidden:
        return label
    table = np.arange(256, dtype=np.uint8)
    table[list(hidden)] = 0
    return translated(label, table)


def body_mask(image: Scan, modality: Modality) -> NDArray[np.bool_]:
    """Return a rough mask of the body, bool ``(X, Y, Z)``: enough for its midline."""
    if modality == "CT":
        return np.asarray(image.array > BODY_ABOVE_HU)
    return np.asarray(image.array > np.mean(image.array))


def _in_anatomy(names: tuple[str, ...], anatomy: Anatomy) -> tuple[str, ...]:
    return tuple(name for name in names if name in anatomy.names)


def on_grid_of(image: Scan, other: Scan, name: str) -> NDArray[Any]:
    """Return the voxels of ``other`` on the axes of ``image``; the same space in another axis order is turned."""
    if geometry.same_grid(image.grid, other.grid):
        return other.array
    turned, turned_affine = geometry.to_canonical(other.array, other.affine)
    reference, reference_affine = geometry.to_canonical(image.array, image.affine)
    if turned.shape != reference.shape:
        msg = f"{name}: shape {other.array.shape}, expected the image's {image.array.shape}; not its label?"
        raise CaseError(msg)
    distance = geometry.corner_distance_voxels(
        geometry.Grid(reference.shape, reference_affine), geometry.Grid(turned.shape, turned_affine)
    )
    if distance > geometry.AFFINE_TOLERANCE_VOXELS:
        msg = (
            f"{name}: its affine puts it {distance:.3g} voxels away from the image, expected less than "
            f"{geometry.AFFINE_TOLERANCE_VOXELS:g}; copy the image's header if the voxels match"
        )
        raise CaseError(msg)
    return geometry.from_canonical(turned, image.affine)


def _whole_numbers(name: str, array: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise CaseError(f"{name}: NaN or infinite label values; expected whole numbers")
        rounded = np.rint(array)
        if np.abs(array - rounded).max() > INTEGER_TOLERANCE:
            raise CaseError(f"{name}: fractions among the label values; expected whole numbers (resampled linearly?)")
        array = rounded
    low, high = (int(value) for value in lowest_and_highest(array))
    if low < 0 or high > 65535:
        raise CaseError(f"{name}: label values {low}..{high}, expected 0..65535")
    return array.astype(np.uint8 if high < 256 else np.uint16, copy=False)


def _values(array: NDArray[np.unsignedinteger]) -> set[int]:
    return {int(value) for value in np.flatnonzero(count_values(array))}


def _binary(name: str, array: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    """Return a mask: 0 and one other value."""
    numbers = _whole_numbers(name, array)
    values = _values(numbers)
    if len(values - {0}) > 1:
        raise CaseError(f"{name}: values {sorted(values)[:5]}, expected a mask of 0 and one other value")
    return numbers


def _require_known(name: str, present: set[int], card: Card) -> None:
    unknown = present - {0} - set(card.label_targets()) - card.dropped_values() - card.ignored_values()
    if unknown:
        values = ", ".join(str(value) for value in sorted(unknown)[:8])
        raise CaseError(
            f"{name}: label values {values} are not in card {card.id}; add them to its labels or dropped, "
            "or check that this is the right source"
        )


def _split_merged(
    label: NDArray[np.uint8],
    raw: NDArray[np.unsignedinteger],
    merged: Mapping[int, tuple[str, str]],
    image: Scan,
    rules: CaseRules,
    anatomy: Anatomy,
) -> tuple[SideSplit, ...]:
    by_sides: dict[tuple[str, str], list[int]] = {}
    for value, sides in merged.items():  # a tumour takes the side of its organ: values of the same pair are one
        by_sides.setdefault(sides, []).append(value)
    splits = []
    for (right, left), values in by_sides.items():
        if right not in anatomy.names or left not in anatomy.names:
            continue
        joined = np.isin(raw, values)
        if not joined.any():
            continue
        ids = (anatomy.id_of(right), anatomy.id_of(left), UNKNOWN_LABEL)
        pair = pair_name(right, left)
        decision = rules.decisions.get(pair)
        body = body_mask(image, rules.card.modality)
        by_card = SideDecision(action="cut", by="card") if rules.card.split_crossing == "cut" else None
        flags = split_in_place(label, joined, body, image.affine, ids, decision or by_card)
        told = (decision.action, decision.by) if decision else None
        splits.append(SideSplit(pair=pair, values=tuple(values), flags=flags, decided=told))
    return tuple(splits)
