"""View: a case of the workspace, or files, as a scene for the browser."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.cards import Card, load_card, merged_targets
from abdoseg.case import CaseFacts
from abdoseg.errors import CaseError, ConfigError, RunError, unknown_name
from abdoseg.geometry import Grid, corner_distance_voxels, same_grid, to_canonical
from abdoseg.label_maps import read_label_map
from abdoseg.modality import decide_modality
from abdoseg.readers import has_images, read_scan, stated_modality
from abdoseg.runs import Run
from abdoseg.steps.evaluate_folders import folder_rules
from abdoseg.steps.evaluate_run import CasePredictor
from abdoseg.store import Workspace
from abdoseg.types import UNKNOWN_LABEL, Label
from abdoseg.viewer import Scene
from abdoseg.viewer.legends import Meaning, meaning_beside
from abdoseg.viewer.scene import require_viewable
from abdoseg.viewer.volumes import as_int16, require_finite
from abdoseg.zips import at_hand


@dataclass(frozen=True)
class Shown:
    """A prediction, and what it is called."""

    label: Label
    title: str
    notes: tuple[str, ...] = ()


def case_key(workspace: Workspace, name: str) -> str:
    """Return ``name`` where it is the key of a case.

    Raises
    ------
    UnknownNameError
        If the workspace has no such case; the message proposes the nearest ones.
    """
    source, _, case = name.partition("/")
    keys = workspace.case_keys([source])
    if name not in keys:
        known = [key.partition("/")[2] for key in keys]
        raise unknown_name(f"case of {source}", case, known[:20], "Give SOURCE/CASE, or the path of a scan.")
    return name


def view_case(
    workspace: Workspace, key: str, run: Run | None = None, pred: Path | None = None, *, device: str = "auto"
) -> Scene:
    """Return the scene of a stored case: its harmonised image, its labels, and a prediction if asked for.

    Parameters
    ----------
    workspace, key
        Where the case is; ``source/case``.
    run
        Its prediction is shown, and made and kept first where there is none.
    pred
        A label map of the harmonised grid instead; values mean what ``<stem>.labels.json`` beside it says, or else
        are structure ids.
    device
        Where to predict.

    Raises
    ------
    ConfigError
        If both ``run`` and ``pred`` are given.
    CaseError
        If a file cannot be read, lies on another grid, or the case is too large for a browser.
    RunError
        If the run has no weights, or other structures or spacing than the workspace.
    """
    if run is not None and pred is not None:
        raise ConfigError("--run and --pred: two predictions; the page shows one, leave one out")
    case = workspace.read_case(case_key(workspace, key))
    facts = case.facts
    require_viewable(facts.shape)
    low, high = facts.window
    shown, anatomy = None, workspace.anatomy
    if run is not None:
        shown = _of_run(workspace, run, facts, device)
    elif pred is not None:
        advice = f"a case is stored on its own {workspace.settings.spacing_mm:g} mm grid: view the scan's file instead"
        meaning = meaning_beside(pred, anatomy)
        anatomy = meaning.anatomy
        label = _on_grid(pred, Grid(facts.shape, facts.affine_array), "case", advice, meaning.values)
        shown = Shown(label, pred.name, meaning.notes)
    has_labels = facts.groups.has_annotation
    notes = () if has_labels else ("no structure of this case is annotated: there is no reference",)
    return Scene(
        title=key,
        image=case.image,
        slope=facts.scale * (high - low),
        intercept=low + facts.offset * (high - low),
        affine=facts.affine_array,
        anatomy=anatomy,
        modality=facts.modality,
        reference=case.label if has_labels else None,
        reference_title=f"{facts.source}'s own labels",
        prediction=shown.label if shown else None,
        prediction_title=shown.title if shown else "",
        annotation=facts.groups,
        notes=(*notes, *_window_note(facts), *(shown.notes if shown else ()), *facts.suspicions, *facts.warnings),
    )


def view_files(
    scan: Path,
    label: Path | None = None,
    pred: Path | None = None,
    anatomy: Anatomy = ABDOMEN,
    *,
    card: Card | str | None = None,
) -> Scene:
    """Return the scene of a scan on file, on its own grid, with label maps on file.

    Parameters
    ----------
    scan
        In any format of ``abdoseg.readers``, or a ``.zip`` with one scan.
    label, pred
        Reference and prediction on the scan's grid. Values mean what ``<stem>.labels.json`` beside the file says, or
        else are structure ids of ``anatomy``.
    anatomy
        What the ids mean.
    card
        Card (or its name or path) whose raw values ``label`` uses; it also says which structures are annotated.

    Raises
    ------
    ConfigError
        If there is a card and no ``label``.
    CardError
        If the card cannot be used.
    CaseError
        If a file cannot be read, grids differ, or the scan is too large for a browser.
    """
    if card is not None and label is None:
        raise ConfigError("--card: says what the values of a reference mean, and there is none; give --label too")
    scene = _bare(scan, anatomy)
    if label is not None:
        meaning = _meaning(label, card, scene.anatomy)
        drawn = _on_scan(label, scene, meaning)
        scene = _noted(scene, meaning)
        scene = replace(scene, reference=drawn, reference_title=label.name, annotation=meaning.annotation)
    if pred is not None:
        meaning = meaning_beside(pred, scene.anatomy)
        found = _on_scan(pred, scene, meaning)
        scene = replace(_noted(scene, meaning), prediction=found, prediction_title=pred.name)
    return scene


def _bare(scan: Path, anatomy: Anatomy) -> Scene:
    """Return the scene of a scan alone; where it is an archive, it is unpacked for as long as it is read."""
    with at_hand(scan) as source:
        if source.is_dir() and not has_images(source):
            raise CaseError(f"{scan}: a folder without a DICOM series of its own; name one scan")
        read = read_scan(source)
        array, affine = to_canonical(read.array, read.affine)
        try:
            require_viewable(array.shape)
            require_finite(array)
        except CaseError as error:
            raise CaseError(f"{scan.name}: {error}") from error
        image, slope, intercept = as_int16(array)
        modality = _modality(source, array)
    return Scene(scan.name, image, slope, intercept, affine, anatomy, modality, notes=read.warnings)


def _noted(scene: Scene, meaning: Meaning) -> Scene:
    return replace(scene, anatomy=meaning.anatomy, notes=(*scene.notes, *meaning.notes))


def _on_scan(path: Path, scene: Scene, meaning: Meaning) -> Label:
    x, y, z = scene.image.shape
    return _on_grid(path, Grid((x, y, z), scene.affine), "scan", "give a label map of this very scan", meaning.values)


def _meaning(label: Path, card: Card | str | None, anatomy: Anatomy) -> Meaning:
    """Return what the values of a reference mean, and what is not known of them."""
    if card is not None:
        return _by_card(label, load_card(card) if isinstance(card, str) else card, anatomy)
    meaning = meaning_beside(label, anatomy)
    hints = tuple(f"{note}; a source's own label file needs its --card" for note in meaning.notes)
    unsaid = f"{label.name}: does not say what was annotated; a structure that is not in it is absent or was not drawn"
    return Meaning(meaning.anatomy, meaning.values, notes=(*hints, unsaid))


def _by_card(label: Path, card: Card, anatomy: Anatomy) -> Meaning:
    """Return what a card says of a reference's values, as :func:`folder_rules` has it for ``eval``.

    A value that joins both sides of the body is shown as unknown: here nobody tells the sides apart, and a prediction
    of either side is no difference.
    """
    rules = folder_rules(label, card, anatomy)
    joined = merged_targets(card.label_targets())
    values = {**(rules.values or {}), **dict.fromkeys(joined, UNKNOWN_LABEL)}
    by_case = sorted(set(card.annotated) - set(card.annotated_in({})))
    notes = [f"{label.name}: values as the card {card.id} has them"]
    notes += [f"{card.id} draws {' and '.join(sides)} as one value, shown as unknown" for sides in joined.values()]
    notes += [f"{card.id} does not annotate {name} in every case: taken as not annotated" for name in by_case]
    return Meaning(anatomy, values, rules.annotation, tuple(notes))


def _modality(scan: Path, array: np.ndarray) -> str | None:
    try:
        return decide_modality(array, None, stated_modality(scan))[0]
    except ConfigError:
        # To look at a scan nobody need be asked: the page leaves the HU out and offers the automatic window.
        return None


def _of_run(workspace: Workspace, run: Run, facts: CaseFacts, device: str) -> Shown:
    if run.anatomy.names != workspace.anatomy.names:
        raise RunError(f"run {run.name}: learnt other structures than this workspace has; view it in its own workspace")
    predictor, steps = CasePredictor.of(run, device)
    prediction, _ = predictor.predict(workspace, facts)
    side = next((case.side for case in run.data.cases if case.key == facts.key), None)
    notes = ("the run was trained on this very case: its prediction says little",) if side == "train" else ()
    return Shown(prediction, f"run {run.name}, {steps} steps", notes)


def _window_note(facts: CaseFacts) -> tuple[str, ...]:
    low, high = facts.window
    unit = " HU" if facts.modality == "CT" else ""
    return (f"as stored for training: intensities end at {low:g} and {high:g}{unit}",)


def _on_grid(path: Path, grid: Grid, what: str, advice: str, values: dict[int, int] | None) -> Label:
    label, own = read_label_map(path, values)
    if same_grid(grid, own):
        return np.ascontiguousarray(label)
    if grid.shape != own.shape:
        found, expected = (" x ".join(map(str, shape)) for shape in (own.shape, grid.shape))
        raise CaseError(f"{path}: found {found} voxels, the {what} has {expected}; {advice}")
    far = corner_distance_voxels(grid, own)
    raise CaseError(f"{path}: lies {far:.3g} voxels from the {what}, though its shape is the same; {advice}")
