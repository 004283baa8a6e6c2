"""View: a case of the workspace, or files, as a scene for the browser."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.case import CaseFacts
from abdoseg.errors import CaseError, ConfigError, RunError, unknown_name
from abdoseg.geometry import Grid, corner_distance_voxels, same_grid, to_canonical
from abdoseg.label_maps import read_label_map
from abdoseg.modality import decide_modality
from abdoseg.readers import has_images, read_scan, stated_modality
from abdoseg.runs import Run
from abdoseg.steps.evaluate_run import CasePredictor
from abdoseg.store import Workspace
from abdoseg.types import Label
from abdoseg.viewer import Scene
from abdoseg.viewer.scene import require_viewable
from abdoseg.viewer.volumes import as_int16, require_finite


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
        A label map of the harmonised grid instead; values are structure ids.
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
    shown = None
    if run is not None:
        shown = _of_run(workspace, run, facts, device)
    elif pred is not None:
        advice = f"a case is stored on its own {workspace.settings.spacing_mm:g} mm grid: view the scan's file instead"
        shown = Shown(_on_grid(pred, Grid(facts.shape, facts.affine_array), "case", advice), pred.name)
    has_labels = facts.groups.has_annotation
    notes = () if has_labels else ("no structure of this case is annotated: there is no reference",)
    return Scene(
        title=key,
        image=case.image,
        slope=facts.scale * (high - low),
        intercept=low + facts.offset * (high - low),
        affine=facts.affine_array,
        anatomy=workspace.anatomy,
        modality=facts.modality,
        reference=case.label if has_labels else None,
        reference_title=f"{facts.source}'s own labels",
        prediction=shown.label if shown else None,
        prediction_title=shown.title if shown else "",
        annotation=facts.groups,
        notes=(*notes, *_window_note(facts), *(shown.notes if shown else ()), *facts.suspicions, *facts.warnings),
    )


def view_files(scan: Path, label: Path | None = None, pred: Path | None = None, anatomy: Anatomy = ABDOMEN) -> Scene:
    """Return the scene of a scan on file, on its own grid, with label maps on file.

    Parameters
    ----------
    scan
        In any format of ``abdoseg.readers``.
    label, pred
        Reference and prediction on the scan's grid; values are structure ids of ``anatomy``.
    anatomy
        What the values mean.

    Raises
    ------
    CaseError
        If a file cannot be read, grids differ, or the scan is too large for a browser.
    """
    if scan.is_dir() and not has_images(scan):
        raise CaseError(f"{scan}: a folder without a DICOM series of its own; name one scan")
    read = read_scan(scan)
    array, affine = to_canonical(read.array, read.affine)
    shape = (array.shape[0], array.shape[1], array.shape[2])
    try:
        require_viewable(shape)
        require_finite(array)
    except CaseError as error:
        raise CaseError(f"{scan.name}: {error}") from error
    image, slope, intercept = as_int16(array)
    grid = Grid(shape, affine)
    advice = "give a label map of this very scan"
    return Scene(
        title=scan.name,
        image=image,
        slope=slope,
        intercept=intercept,
        affine=affine,
        anatomy=anatomy,
        modality=_modality(scan, array),
        reference=_on_grid(label, grid, "scan", advice) if label else None,
        reference_title=label.name if label else "",
        prediction=_on_grid(pred, grid, "scan", advice) if pred else None,
        prediction_title=pred.name if pred else "",
        notes=read.warnings,
    )


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


def _on_grid(path: Path, grid: Grid, what: str, advice: str) -> Label:
    label, own = read_label_map(path, None)
    if same_grid(grid, own):
        return np.ascontiguousarray(label)
    if grid.shape != own.shape:
        found, expected = (" x ".join(map(str, shape)) for shape in (own.shape, grid.shape))
        raise CaseError(f"{path}: found {found} voxels, the {what} has {expected}; {advice}")
    far = corner_distance_voxels(grid, own)
    raise CaseError(f"{path}: lies {far:.3g} voxels from the {what}, though its shape is the same; {advice}")
