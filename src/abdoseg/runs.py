"""Training runs on disk: what is frozen when one starts, and how to find and load one.

``runs/<name>/config.toml`` is the configuration, ``data.json`` the frozen cases, split, view and structures,
``metrics.jsonl`` one line every few steps, ``checkpoints/last.safetensors`` the state to resume from,
``model.safetensors`` the finished weights.
"""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from abdoseg.anatomy import Anatomy
from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts
from abdoseg.config import TrainConfig, parse_config
from abdoseg.errors import ConfigError, RunError, UnknownNameError, WorkspaceError, unknown_name
from abdoseg.files import write_text
from abdoseg.frozen import FrozenCase, RunData, other_data, other_settings
from abdoseg.methods import METHODS
from abdoseg.methods.task import Task
from abdoseg.origins import Base, Gives, Origin, sources_of
from abdoseg.places import reason_of
from abdoseg.run_files import LONGEST_NAME, check_name, checkpoint_step, is_free, read_metrics
from abdoseg.sampling import held_structures
from abdoseg.splits import SplitItem, split_cases
from abdoseg.store import CaseBrief, Workspace, load_twins, occupied_slices, shown_annotation
from abdoseg.types import SplitName
from abdoseg.value_errors import why_unreadable
from abdoseg.views import View

Parsed = TypeVar("Parsed")

RunStatus = Literal["finished", "unfinished", "not started"]

_OF_RUNS = ("config.toml", "data.json", "metrics.jsonl", "checkpoints", "model.safetensors")
"""What tells that a folder is, or was, a run's."""


@dataclass(frozen=True)
class Run:
    """A run's folder and what it says."""

    folder: Path
    config: TrainConfig
    data: RunData

    @property
    def name(self) -> str:
        """Folder name."""
        return self.folder.name

    @property
    def model_file(self) -> Path:
        """Weights of the finished run."""
        return self.folder / "model.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        """State to resume from."""
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def metrics_file(self) -> Path:
        """One JSON line every few steps."""
        return self.folder / "metrics.jsonl"

    @property
    def status(self) -> RunStatus:
        """``finished`` when the weights are there, ``unfinished`` with a checkpoint, else ``not started``."""
        if self.model_file.is_file():
            return "finished"
        return "unfinished" if self.checkpoint_file.is_file() else "not started"

    @property
    def anatomy(self) -> Anatomy:
        """Structures in channel order."""
        return self.data.settings.anatomy

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes in channel order: background, then the structures."""
        return ("background", *self.anatomy.names)

    def task(self) -> Task:
        """Return what the run's model is to learn."""
        anatomy, config = self.anatomy, self.config
        return Task(
            structures=anatomy.names,
            sources=tuple((source, anatomy.ids_of(names)) for source, names in self.data.annotates.items()),
            decoder_per_source=config.decoder_per_source,
            text_embeddings=self.data.text_embeddings or config.text_embeddings,
            passes_per_structure=config.passes_per_structure,
        )

    @cached_property
    def created(self) -> float:
        """Time the run was made, seconds since the epoch."""
        return (self.folder / "config.toml").stat().st_mtime

    @property
    def steps_done(self) -> int | None:
        """Optimiser steps of the weights that are there; ``None`` where a damaged checkpoint does not tell."""
        if self.status == "finished":
            return self.config.steps
        return checkpoint_step(self.checkpoint_file) if self.status == "unfinished" else 0

    def last_metrics(self) -> dict[str, Any]:
        """Return the newest line of the metrics, or an empty dict."""
        lines = read_metrics(self.metrics_file)
        return lines[-1] if lines else {}


def freeze(workspace: Workspace, config: TrainConfig) -> RunData:
    """Decide cases, split and view of a new run.

    Raises
    ------
    ConfigError
        If the workspace holds no case, or no case is left for training.
    """
    everything = workspace.briefs()
    if not everything:
        raise ConfigError(f"{workspace.path}: no cases; `abdoseg ingest CARD FOLDER` first")
    # The split is that of the whole workspace: a case must not change sides with the choice of sources.
    sides = decide_sides(workspace, everything, workspace.settings.split_seed, config.fold)
    chosen = workspace.chosen_sources(config.sources or None)
    facts = [f for f in everything if f.source in chosen]
    cases = tuple(FrozenCase(key=f.key, side=sides[f.key], digest=f.digest) for f in facts)
    if not any(case.side == "train" for case in cases):
        raise ConfigError(f"{workspace.path}: all {len(cases)} cases are validation or test; ingest training cases")
    view = workspace.view(config.view)
    annotates = {}
    if METHODS[config.method].per_source:
        annotates = _annotated_by_source(workspace, [f for f in facts if sides[f.key] == "train"], config, view)
    found = _found_here(workspace, config)
    return RunData(cases=cases, view=view, settings=workspace.settings, annotates=annotates, text_embeddings=found)


def _found_here(workspace: Workspace, config: TrainConfig) -> str | None:
    """Return what ``text_embeddings = auto`` finds on this machine; ``None`` for all else."""
    if config.text_embeddings != "auto":
        return None
    from abdoseg.methods.text_embeddings import at_hand  # which takes PyTorch

    return at_hand(workspace.anatomy.names)


def _annotated_by_source(
    workspace: Workspace, briefs: Sequence[CaseBrief], config: TrainConfig, view: View | None
) -> dict[str, tuple[str, ...]]:
    """Return the structures that some training case of each source annotates."""
    names = workspace.anatomy.names
    found: dict[str, set[int]] = {}
    for brief in briefs:
        ids = brief.groups.structure_ids
        if config.annotated_from == "labels":
            ids = annotation_from_labels(workspace, brief, shown_annotation(workspace, brief, view)).structure_ids
        found.setdefault(brief.source, set()).update(ids)
    return {source: tuple(names[i - 1] for i in sorted(ids)) for source, ids in sorted(found.items())}


def annotation_from_labels(workspace: Workspace, case: CaseFacts | CaseBrief, shown: Annotation) -> Annotation:
    """Return an annotation that knows those structures alone of which it shows a voxel; what it hides says nothing."""
    brief = case if isinstance(case, CaseBrief) else CaseBrief.of(case, workspace.anatomy.names, "")
    occupied = occupied_slices(workspace, case) if shown.slices else {}
    return Annotation(shown.rows & held_structures(shown, brief.voxel_counts(), occupied), shown.slices)


def read_frozen(workspace: Workspace, run: Run, frozen: FrozenCase) -> CaseFacts:
    """Return the facts of a case that a run froze.

    Raises
    ------
    RunError
        If the case is gone, or was taken again with other voxels, labels or annotation.
    """
    try:
        facts = workspace.read_facts(frozen.key)
    except WorkspaceError as error:
        msg = f"run {run.name}: its case {frozen.key} is gone; ingest it again or start a new run"
        raise RunError(msg) from error
    if facts.digest != frozen.digest:
        msg = f"run {run.name}: its case {frozen.key} has other voxels or labels now; start a new run with --name"
        raise RunError(msg)
    return facts


def decide_sides(
    workspace: Workspace, facts: Sequence[CaseFacts | CaseBrief], seed: int, fold: tuple[int, int] | None = None
) -> dict[str, SplitName]:
    """Return the side of every case; with ``fold`` (k, n), fold k of the non-test patients is validation.

    Scans that `abdoseg duplicates` found to be one share a side.
    """
    items = [SplitItem(f.key, f.source, f.patient, f.fingerprint, f.split) for f in facts]
    return split_cases(items, seed, fold, repeated_pairs(workspace, facts))


def repeated_pairs(workspace: Workspace, facts: Sequence[CaseFacts | CaseBrief]) -> list[tuple[str, str]]:
    """Return the pairs of cases that `abdoseg duplicates` found to show one scan."""
    twins = load_twins(workspace.path).of({f.key: f.fingerprint for f in facts})
    return [twin.cases for twin in twins]


def plan_run(workspace: Workspace, config: TrainConfig, name: str | None = None) -> tuple[Run, bool]:
    """Return the run of this configuration, and whether it is new; nothing is written.

    An unfinished run of the same configuration is returned to be resumed, with the cases it froze. A finished
    one is returned when its cases are still those of the workspace; otherwise a new run is planned.

    Raises
    ------
    ConfigError
        If ``name`` cannot be a folder's, or stands for something else than a run of this configuration and these
        cases; how they differ is told.
    UnknownNameError
        If there is no run to start from.
    """
    if name is not None:
        check_name(name)
    data = freeze(workspace, config)
    same = [run for run in list_runs(workspace) if run.config.digest() == config.digest() and name in (None, run.name)]
    for run in reversed(same):
        if run.status != "finished" or run.data.is_of(data):
            return replace(run, config=config), False
    folder = workspace.runs_folder / (name or _free_name(workspace, config))
    if not is_free(folder):
        raise _taken(folder, config, data)
    return Run(folder, config, data.model_copy(update={"origin": _origin(workspace, config, data)})), True


def _taken(folder: Path, config: TrainConfig, data: RunData) -> ConfigError:
    """Return the error that another run, or something else, has a name."""
    where = f"run {folder.name}"
    if not folder.is_dir():
        return ConfigError(f"{where}: {folder} is a file, no run; move it away, or choose another --name")
    try:
        run = open_run(folder)
    except RunError as error:
        return ConfigError(f"{where}: exists; {error}, or choose another --name")
    if run.config.digest() != config.digest():
        told = other_settings(config, run.config, folder / "config.toml")
        return ConfigError(f"{where}: exists with other settings: {told}; take the run's, or choose another --name")
    told = other_data(data, run.data)
    return ConfigError(f"{where}: is finished, and the workspace has changed since: {told}; choose another --name")


def _origin(workspace: Workspace, config: TrainConfig, data: RunData) -> Origin:
    """Return what a new run learns from, and through which runs."""
    base = None
    if config.start_from is not None:
        run = find_run(workspace, config.start_from)
        known = run.data.origin or Origin(sources=sources_of(workspace, run.data.keys("train")))
        gives: Gives = "labels" if METHODS[config.method].needs_teacher else "weights"
        base = Base(
            run=run.name, gives=gives, steps=run.steps_done, sources=known.sources, started_from=known.started_from
        )
    return Origin(sources=sources_of(workspace, data.keys("train")), started_from=base)


def start_run(
    workspace: Workspace, config: TrainConfig, name: str | None = None, check: Callable[[Run], object] | None = None
) -> tuple[Run, bool]:
    """Return what :func:`plan_run` does, with a new run's folder written once ``check`` has raised nothing."""
    run, new = plan_run(workspace, config, name)
    if new:
        if check is not None:
            check(run)
        _write_run(run)
    return run, new


def _write_run(run: Run) -> None:
    folder, config, data = run.folder, run.config, run.data
    write_text(folder / "data.json", data.model_dump_json(indent=1))
    # The configuration comes last: a folder without it is no run.
    write_text(folder / "config.toml", tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def _free_name(workspace: Workspace, config: TrainConfig) -> str:
    first = f"{config.network}-{config.method}-{config.view}"[: LONGEST_NAME - 20]  # a view's name may be a long one
    base = f"{first}-{config.digest()}"
    names = [base, *(f"{base}-{i}" for i in range(2, 1000))]
    return next(name for name in names if is_free(workspace.runs_folder / name))


def open_run(folder: Path) -> Run:
    """Return the run in ``folder``.

    Raises
    ------
    RunError
        If the folder is no run, or a file of it is damaged.
    """
    config = _read(folder / "config.toml", _parsed_config)
    data = _read(folder / "data.json", RunData.model_validate_json)
    return Run(folder, config, data)


def _read(file: Path, parse: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of bytes that are no text, of TOML, of JSON, of their values
        reason = reason_of(error) if isinstance(error, OSError) else why_unreadable(error)
        msg = f"{file}: not a run that can be read ({reason}); mend the file, or remove the folder"
        raise RunError(msg) from error


def _parsed_config(text: str) -> TrainConfig:
    facts = tomllib.loads(text)
    if not facts:  # which would be the paper's settings
        raise ValueError("the file is empty")
    return parse_config(facts, "config.toml")


def list_runs(workspace: Workspace) -> list[Run]:
    """Return all readable runs of a workspace, oldest first; :func:`damaged_runs` has the others."""
    runs = [run for run in _try_all(workspace).values() if isinstance(run, Run)]
    return sorted(runs, key=lambda run: (run.created, run.name))


def damaged_runs(workspace: Workspace) -> dict[str, str]:
    """Return folder name -> why it cannot be read, for the runs that :func:`list_runs` leaves out."""
    return {name: run for name, run in _try_all(workspace).items() if isinstance(run, str)}


def _try_all(workspace: Workspace) -> dict[str, Run | str]:
    found: dict[str, Run | str] = {}
    # One pattern a file: an object store lists what lies below a prefix, and has no folders of its own.
    folders = {file.parent for name in _OF_RUNS for file in workspace.runs_folder.glob(f"*/{name}")}
    for folder in folders:
        try:
            found[folder.name] = open_run(folder)
        except RunError as error:
            found[folder.name] = str(error)
    return found


def find_run(workspace: Workspace, name: str) -> Run:
    """Return the run called ``name``, trained or not.

    Raises
    ------
    UnknownNameError
        If no run has this name.
    RunError
        If its files are damaged.
    """
    found = _try_all(workspace)
    if not found:
        raise UnknownNameError(f"run '{name}' is not known: there are no runs yet; `abdoseg train` makes one")
    run = found.get(name)
    if isinstance(run, str):
        raise RunError(run)
    if run is None:
        raise unknown_name("run", name, sorted(found), "`abdoseg status` lists the runs.")
    return run


def load_run(workspace: Workspace, name: str | None = None) -> Run:
    """Return the run called ``name``, else the newest finished one, else the newest with a checkpoint.

    Raises
    ------
    RunError
        If there is no run that can predict.
    UnknownNameError
        If no run has this name.
    """
    runs = list_runs(workspace) if name is None else [find_run(workspace, name)]
    for status in ("finished", "unfinished"):
        ready = [run for run in runs if run.status == status]
        if ready:
            return ready[-1]
    where = f"run {name}" if name else f"{workspace.path}"
    raise RunError(f"{where}: no trained weights yet; `abdoseg train` first")


def keys_of_split(run: Run, split: str) -> list[str]:
    """Return the cases of a run's ``train``, ``val``, ``test`` or ``all``, at least one.

    Raises
    ------
    ConfigError
        If there is none.
    """
    keys = run.data.keys(split)
    if not keys:
        counts = {side: len(run.data.keys(side)) for side in ("train", "val", "test")}
        held = ", ".join(f"{side} {n}" for side, n in counts.items())
        raise ConfigError(
            f"run {run.name}: its {split} split is empty ({held}; a source needs 5 patients to have a test case); "
            "choose another --split, or ingest more cases and train again"
        )
    return keys
