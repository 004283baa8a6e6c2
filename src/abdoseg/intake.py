"""One case on its way in: its files, and what the card says, to a harmonised case in memory.

:mod:`abdoseg.readers` (voxels) -> :mod:`abdoseg.relabel` (structure ids, sides) -> :mod:`abdoseg.harmonise` (RAS+,
spacing, window) and :mod:`abdoseg.slice_rows` (what is annotated where).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg import geometry, harmonise, relabel
from abdoseg.anatomy import Anatomy
from abdoseg.annotation import Annotation
from abdoseg.cards import Card
from abdoseg.case import Case, CaseFacts, Foreground, SideSplit
from abdoseg.duplicates import signature
from abdoseg.errors import CaseError
from abdoseg.kernels.values import count_values
from abdoseg.modality import modality_warning
from abdoseg.placement import placed_by_intensity
from abdoseg.plausibility import Ranges, hu_scale, measure, oddities
from abdoseg.readers import Scan, read_scan
from abdoseg.readers.layouts import CaseFiles
from abdoseg.reviews import SideDecision
from abdoseg.slice_rows import ListedSlice, harmonised_annotation, hide_unvouched, lost_slices
from abdoseg.store import Settings, Workspace
from abdoseg.types import SplitName


def card_digest(card: Card) -> str:
    """Return a hash of what a card says about labels, annotation and split."""
    facts = card.model_dump_json(
        exclude={"title", "layouts", "overlaps", "expected", "access", "evidence", "suspect", "exclude", "alias"}
    )
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def build_case(
    card: Card,
    files: CaseFiles,
    row: dict[str, str],
    workspace: Workspace,
    *,
    listed: Sequence[ListedSlice] = (),
    decisions: Mapping[str, SideDecision] | None = None,
) -> tuple[Case, Foreground]:
    """Read and harmonise one case; nothing is written.

    Parameters
    ----------
    card, files, row
        The source, the case's files, its row in the source's table.
    workspace
        Whose settings hold.
    listed
        Its annotated slices by the source's side-car table.
    decisions
        What was decided about labels that join right and left.

    Raises
    ------
    CaseError
        If image or label cannot be used; the message says why.
    """
    settings = workspace.settings
    excluded = card.release_of(files.masks)
    if excluded is not None and files.case in excluded.exclude:
        raise CaseError(f"excluded by the card, in release {excluded.name}: {excluded.exclude[files.case]}")
    rules = relabel.CaseRules(card, card.annotated_in(row, files.masks), listed, decisions or {})
    taken = _take(files, rules, settings)
    harmonised, label = taken.image, taken.label
    annotation = taken.groups.to_json()
    facts = CaseFacts(
        case=files.case,
        source=card.id,
        modality=card.modality,
        patient=card.patients.get(files.case, files.patient),
        split=_official_side(card, files, row),
        shape=harmonised.grid.shape,
        affine=harmonised.grid.affine.tolist(),
        native_shape=taken.native.shape,
        native_affine=taken.native.affine.tolist(),
        scale=harmonised.scale,
        offset=harmonised.offset,
        window=harmonised.window,
        annotation=annotation,
        voxels=_count(label, settings.anatomy),
        fingerprint=_fingerprint(harmonised.image),
        signature=signature(harmonised.image, harmonised.grid.affine).to_json(),
        digest=_digest(harmonised, label, annotation),
        settings_digest=settings.digest(),
        card_digest=card_digest(card),
        sides=taken.sides,
        warnings=taken.warnings,
        done=(*_geometry_done(taken.native, settings.spacing_mm), *taken.done),
    )
    doubts = (*_suspects(card, files), *_spacing_warning(card, taken.native))
    return _examined(Case(facts, harmonised.image, label), card, doubts, settings.anatomy)


@dataclass(frozen=True, eq=False)
class _Taken:
    """A case on the harmonised grid, and what is kept of its native voxels."""

    image: harmonise.HarmonisedImage
    label: NDArray[np.uint8]
    groups: Annotation
    native: geometry.Grid
    sides: tuple[SideSplit, ...]
    done: tuple[str, ...]
    warnings: tuple[str, ...]


def _take(files: CaseFiles, rules: relabel.CaseRules, settings: Settings) -> _Taken:
    """Read and harmonise; the native voxels, most of a worker's memory, are gone when it returns."""
    scan, raw = _read_both(files)
    anatomy, modality = settings.anatomy, rules.card.modality
    relabelled = _relabel(files, scan, raw, rules, anatomy)
    del raw
    warnings = (*scan.warnings, *modality_warning(scan.array, modality), *relabelled.warnings)
    image = harmonise.harmonise_image(scan.array, scan.affine, modality, settings.windows, settings.spacing_mm)
    native = scan.grid
    del scan
    known = np.zeros(len(anatomy), dtype=bool)
    known[[i - 1 for i in anatomy.ids_of(relabelled.annotated)]] = True
    groups = harmonised_annotation(known, relabelled.slices, native.affine, native.shape, image.grid)
    warnings = (*warnings, *lost_slices(relabelled.slices, native.affine, native.shape, image.grid))
    by_slice = groups.axes() if relabelled.slices.apart else ()
    label = harmonise.harmonise_label(relabelled.label, native.affine, image.grid, by_slice)
    label = hide_unvouched(label, groups)
    return _Taken(image, label, groups, native, relabelled.sides, relabelled.done, warnings)


def _examined(case: Case, card: Card, known: tuple[str, ...], anatomy: Anatomy) -> tuple[Case, Foreground]:
    """Return the case with what is measured of its structures and what is odd about it."""
    foreground = Foreground.of(case.label, len(anatomy))
    ml = float(np.prod(geometry.spacing_of(case.facts.affine_array))) / 1000
    measures = measure(case.image, hu_scale(case), foreground, ml, anatomy)
    if case.facts.groups.slices:  # only some slices are drawn: what is seen of a structure is not all of it
        measures = {name: found.model_copy(update={"cut": True}) for name, found in measures.items()}
    annotated = tuple(anatomy.structure(i).name for i in case.facts.groups.structure_ids)
    odd = oddities(measures, card.modality, Ranges.of(card.expected), annotated)
    runs = foreground.occupied(case.facts.shape)
    occupied = {anatomy.structure(i).name: by_axis for i, by_axis in runs.items()}
    update = {"measures": measures, "suspicions": (*known, *odd), "occupied": occupied}
    return Case(case.facts.model_copy(update=update), case.image, case.label), foreground


def read_image(files: CaseFiles) -> Scan:
    """Return the image of a case."""
    return read_scan(files.image, files.layout.image_key)


def _read_both(files: CaseFiles) -> tuple[Scan, Scan | None]:
    """Return image and label map, read at the same time; mask files are read one by one, later."""
    if files.label is None:
        return read_image(files), None
    with ThreadPoolExecutor(1, thread_name_prefix="label") as pool:
        label = pool.submit(read_scan, files.label, files.layout.label_key)
        return read_image(files), label.result()


def _suspects(card: Card, files: CaseFiles) -> Iterator[str]:
    release = card.release_of(files.masks)
    for known in (card.suspect, release.suspect if release else {}):
        if files.case in known:
            yield f"by its card: {known[files.case]}"


def _spacing_warning(card: Card, native: geometry.Grid) -> Iterator[str]:
    if card.expected.spacing_mm is None:
        return
    low, high = card.expected.spacing_mm
    spacing = native.spacing_mm
    if min(spacing) < low / 2 or max(spacing) > high * 2:
        found = " x ".join(f"{s:.3g}" for s in spacing)
        yield f"voxels of {found} mm, the source is known to have sides of {low:g} to {high:g} mm; invented spacing?"


def _relabel(
    files: CaseFiles, image: Scan, label: Scan | None, rules: relabel.CaseRules, anatomy: Anatomy
) -> relabel.Relabelled:
    if not files.has_label:
        return relabel.relabel_nothing(image)
    if files.label is None or label is None:
        return relabel.relabel_masks(files.masks, image, rules, anatomy)
    name, test = files.label.name, rules.card.orientation_test
    if test is None:
        return relabel.relabel_map(name, relabel.on_grid_of(image, label, name), image, rules, anatomy)
    placed = placed_by_intensity(label, image, test)
    done = relabel.relabel_map(name, placed.label, image, rules, anatomy)
    return replace(done, done=(f"label lies {placed.name}, by the intensities under it", *done.done))


def _geometry_done(native: geometry.Grid, spacing_mm: float) -> tuple[str, ...]:
    codes = geometry.axis_codes(native.affine)
    spacing = " x ".join(f"{s:.3g}" for s in native.spacing_mm)
    turned = (f"turned {codes} to RAS",) if codes != "RAS" else ()
    return (*turned, f"resampled {spacing} mm to {spacing_mm:g} mm")


def _count(label: NDArray[np.uint8], anatomy: Anatomy) -> dict[str, int]:
    counts = count_values(label)
    return {name: int(counts[i]) for i, name in enumerate(anatomy.names, start=1) if counts[i]}


def _fingerprint(image: NDArray[np.int16]) -> str:
    hashed = hashlib.sha256(np.ascontiguousarray(image).data)
    hashed.update(str(image.shape).encode())
    return hashed.hexdigest()[:32]


def _digest(harmonised: harmonise.HarmonisedImage, label: NDArray[np.uint8], annotation: dict[str, Any]) -> str:
    facts = json.dumps([annotation, np.round(harmonised.grid.affine, 4).tolist(), harmonised.window])
    hashed = hashlib.sha256(facts.encode())
    hashed.update(np.ascontiguousarray(harmonised.image).data)
    hashed.update(np.ascontiguousarray(label).data)
    return hashed.hexdigest()[:32]


def _official_side(card: Card, files: CaseFiles, row: dict[str, str]) -> SplitName | None:
    if card.split is None:
        return None
    text = files.names.get(card.split.group or "") or row.get(card.split.column or "", "")
    return card.split.sides.get(text.strip())
