"""The demo: the whole line on phantoms, where the complete truth is known.

phantoms of four sources -> ingest -> a 20 % axial view of one of them -> train -> predict -> scores against the
truth, in two columns: structures that the case's own source annotates, and structures that it does not.
"""

import json
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from abdoseg.annotation import Annotation
from abdoseg.cards import load_cards
from abdoseg.case import Case, CaseFacts
from abdoseg.config import TrainConfig, make_config
from abdoseg.devices import available_cores, choose_device
from abdoseg.errors import ConfigError
from abdoseg.geometry import Grid, spacing_of
from abdoseg.harmonise import harmonise_label
from abdoseg.phantom import write_phantoms
from abdoseg.pictures import Panel, save_overlays
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import read_scan
from abdoseg.runs import Run
from abdoseg.segmentation import segment_case
from abdoseg.steps.evaluate import EvalSettings, score_case
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import sparsify
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from abdoseg.trained import load_model
from abdoseg.types import Label

SOURCES = ("word", "amos", "btcv", "totalsegmentator")
SPARSE_SOURCE = "word"
SPACING_MM = 4.0
"""Coarse enough for two cores and minutes."""

PHANTOM_SCALE = 1.5
"""Slices of 4.5 to 7.5 mm in CT: coarser ones would cost more of the score in blocky labels than the network does."""


_SCORING = EvalSettings(min_voxels=10)
"""Slivers below 10 voxels (0.6 ml), where an organ just enters the view, are left out; the authors ask for 51."""


@dataclass(frozen=True)
class DemoSettings:
    """How large a demo is.

    Parameters
    ----------
    cases
        Phantoms a source.
    seed
        Of phantoms, split and training.
    steps
        Optimiser steps of each training; ``None``: the preset's.
    compare
        Whether to train the naive method too.
    """

    cases: int = 16
    seed: int = 0
    steps: int | None = None
    compare: bool = False


@dataclass(frozen=True)
class DemoRow:
    """One structure of the final table; DSC in percent, mean over held-out cases, ``None`` where there is none.

    ``annotated`` and ``hidden`` are (mean, number of cases) where the case's source annotates the structure, and
    where it does not.
    """

    structure: str
    annotated: tuple[float, int] | None
    hidden: tuple[float, int] | None


@dataclass(frozen=True)
class DemoReport:
    """What the demo found.

    Parameters
    ----------
    folder
        Phantoms, workspace and picture are in it.
    tables
        Method -> rows, in channel order.
    held_out
        Number of cases scored.
    picture
        PNG of overlays.
    """

    folder: Path
    tables: dict[str, list[DemoRow]]
    held_out: int
    picture: Path


def demo(folder: Path, settings: DemoSettings | None = None, progress: Progress = SILENT) -> DemoReport:
    """Run the whole line in ``folder``; what a killed demo had finished is kept.

    Raises
    ------
    ConfigError
        If the folder holds something that is no demo.
    """
    settings = settings or DemoSettings()
    _write_phantoms(folder, settings, progress)
    workspace = Workspace.create(folder / "workspace", Settings(spacing_mm=SPACING_MM))
    for source in SOURCES:
        for card in load_cards(source):
            ingest(workspace, card, folder / "phantoms" / source, progress=progress)
    view = sparsify(workspace, ["axial"], 0.2, sources=[SPARSE_SOURCE]).view.name
    progress.say(f"{SPARSE_SOURCE} keeps every fifth axial slice; the other sources keep all")
    tables, predictions = {}, {}
    for method in ("self_disambiguation", "background") if settings.compare else ("self_disambiguation",):
        run = train(workspace, _config(settings, method, view), progress=progress).run
        predictions[method] = _predict(workspace, run, progress)
        tables[method] = score_against_truth(workspace, folder / "phantoms" / "truth", predictions[method])
    picture = folder / "overlays.png"
    _draw(picture, workspace, folder / "phantoms" / "truth", predictions)
    return DemoReport(folder, tables, len(predictions["self_disambiguation"]), picture)


def _config(settings: DemoSettings, method: str, view: str) -> TrainConfig:
    overrides = {"method": method, "view": view, "seed": settings.seed, "steps": settings.steps}
    return make_config("demo", overrides)


def _write_phantoms(folder: Path, settings: DemoSettings, progress: Progress) -> None:
    """Draw the phantoms, unless a demo of the same size did; one that was cut off is drawn again."""
    wanted = json.dumps({"cases": settings.cases, "seed": settings.seed, "scale": PHANTOM_SCALE})
    mark, done = folder / "demo.json", folder / "phantoms" / "complete.json"
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise ConfigError(f"{folder}: is not empty and no demo; choose another folder")
    if mark.is_file() and mark.read_text(encoding="utf-8") != wanted:
        raise ConfigError(f"{folder}: holds a demo of another size or seed; choose another folder or delete it")
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted, encoding="utf-8")
    shutil.rmtree(folder / "phantoms", ignore_errors=True)
    progress.start(len(SOURCES), f"drawing {settings.cases} phantoms a source")
    draw = partial(
        write_phantoms, folder / "phantoms", cases=settings.cases, seed=settings.seed, spacing_scale=PHANTOM_SCALE
    )
    with ProcessPoolExecutor(min(available_cores(), len(SOURCES)), mp_context=get_context("spawn")) as pool:
        drawing = {pool.submit(draw, (source,)): source for source in SOURCES}
        for future in as_completed(drawing):
            future.result()
            progress.advance(1, drawing[future])
    done.write_text(wanted, encoding="utf-8")


def _predict(workspace: Workspace, run: Run, progress: Progress) -> dict[str, Label]:
    """Return the label maps of all held-out cases: validation and test, as nothing is chosen on either."""
    model, _ = load_model(run, choose_device("cpu"))
    keys = run.data.keys("val") + run.data.keys("test")
    progress.start(len(keys), "predicting held-out phantoms")
    predictions = {}
    for key in keys:
        predictions[key] = segment_case(model, workspace.read_case(key))
        progress.advance(1, key)
    return predictions


def read_truth(folder: Path, facts: CaseFacts) -> Label:
    """Return the complete truth of a phantom on its harmonised grid, uint8 ``(X, Y, Z)``.

    Parameters
    ----------
    folder
        The truth folder that the phantoms were written with.
    facts
        The case.
    """
    # A source may have two cards (amos-ct, amos-mri), a card two releases; all phantoms have case ids of their own.
    name = f"{facts.case}.nii.gz"
    scan = read_scan(next(folder.glob(f"*/{name}"), folder / facts.source / name))
    return harmonise_label(scan.array.astype(np.uint8), scan.affine, Grid(facts.shape, facts.affine_array))


def score_against_truth(workspace: Workspace, truth: Path, predictions: dict[str, Label]) -> list[DemoRow]:
    """Return DSC by structure against the complete truth, apart for what the case's source annotates and does not."""
    anatomy = workspace.anatomy
    everything = Annotation.partial(range(1, len(anatomy) + 1), len(anatomy))
    found: dict[tuple[str, bool], list[float]] = {}
    for key, prediction in predictions.items():
        facts = workspace.read_facts(key)
        known = {anatomy.structure(c).name for c in facts.groups.structure_ids}
        reference = read_truth(truth, facts)
        spacing_mm = spacing_of(facts.affine_array)
        for score in score_case(prediction, reference, everything, spacing_mm, anatomy, _SCORING):
            if score.value is not None:
                found.setdefault((score.structure, score.structure in known), []).append(score.value)
    return [DemoRow(name, _mean(found.get((name, True))), _mean(found.get((name, False)))) for name in anatomy.names]


def _mean(values: list[float] | None) -> tuple[float, int] | None:
    return (float(np.mean(values)), len(values)) if values else None


def _draw(path: Path, workspace: Workspace, truth: Path, predictions: dict[str, dict[str, Label]]) -> None:
    """Draw the first held-out case of each source: image, what its source annotates, truth, predictions."""
    first: dict[str, str] = {}
    for key in predictions["self_disambiguation"]:
        first.setdefault(key.partition("/")[0], key)
    panels = []
    for key in first.values():
        case: Case = workspace.read_case(key)
        labels = {"truth": read_truth(truth, case.facts), "its source draws": case.label}
        labels |= {_TITLES[method]: of[key] for method, of in predictions.items()}
        panels.append(Panel(key, case.intensity(), labels))
    save_overlays(path, panels, workspace.anatomy)


_TITLES = {"self_disambiguation": "abdoseg", "background": "naive"}
