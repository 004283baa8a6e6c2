"""Training runs on disk: what is frozen when one starts, and how to find and load one.

``runs/<name>/config.toml`` is the configuration, ``data.json`` the frozen cases, split, view and structures,
``metrics.jsonl`` one line every few steps, ``checkpoints/last.safetensors`` the state to resume from,
``model.safetensors`` the finished weights.
"""

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts
from abdoseg.config import TrainConfig, parse_config
from abdoseg.errors import ConfigError, RunError, UnknownNameError, WorkspaceError, unknown_name
from abdoseg.files import write_text
from abdoseg.methods import METHODS
from abdoseg.methods.task import Task
from abdoseg.origins import Base, Gives, Origin, sources_of
from abdoseg.sampling import held_structures
from abdoseg.splits import SplitItem, split_cases
from abdoseg.store import CaseBrief, Settings, Workspace, load_twins, occupied_slices, shown_annotation
from abdoseg.types import NAME_PATTERN, SplitName
from abdoseg.value_errors import why_unreadable
from abdoseg.views import View

RunStatus = Literal["finished", "unfinished", "not started"]


class FrozenCase(BaseModel):
    """One case of a run: which, on which side, and what its voxels, labels and annotation were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    side: SplitName
    digest: str


class RunData(BaseModel):
    """Everything of the workspace that a run froze when it started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: tuple[FrozenCase, ...]
    view: View | None = Field(default=None, description="recipe of the sparse view of the training cases")
    settings: Settings = Field(description="structures, spacing and windows of the workspace")
    annotates: dict[str, tuple[str, ...]] = Field(
        default={}, description="structures that each training source annotates; only for methods with a head a source"
    )
    origin: Origin | None = Field(default=None, description="what its weights learn from; runs of old versions: None")

    def is_of(self, other: "RunData") -> bool:
        """Whether both froze the same of a workspace; where weights come from is no part of it."""
        return self.model_copy(update={"origin": None}) == other.model_copy(update={"origin": None})

    def keys(self, side: str) -> list[str]:
        """Return the case keys of ``train``, ``val``, ``test`` or ``all``."""
        return [case.key for case in self.cases if side in (case.side, "all")]


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
        return ABDOMEN.subset(self.data.settings.structures)

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
            text_embeddings=config.text_embeddings,
            passes_per_structure=config.passes_per_structure,
        )

    @cached_property
    def created(self) -> float:
        """Time the run was made, seconds since the epoch."""
        return (self.folder / "config.toml").stat().st_mtime

    def last_metrics(self) -> dict[str, Any]:
        """Return the newest line of the metrics, or an empty dict."""
        lines = read_metrics(self.metrics_file)
        return lines[-1] if lines else {}


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl`` up to the first damaged one, such as one that a kill cut off."""
    if not file.is_file():
        return []
    lines: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines():
        try:
            facts = json.loads(line)
        except ValueError:  # no JSON, or bytes that are no text
            break
        if not isinstance(facts, dict) or "step" not in facts:
            break
        lines.append(facts)
    return lines


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
    return RunData(cases=cases, view=view, settings=workspace.settings, annotates=annotates)


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
        If ``name`` cannot be a folder's, or belongs to a run with another configuration.
    UnknownNameError
        If there is no run to start from.
    """
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"--name: found '{name}', expected letters, digits, dots, dashes and underscores")
    data = freeze(workspace, config)
    same = [run for run in list_runs(workspace) if run.config.digest() == config.digest() and name in (None, run.name)]
    for run in reversed(same):
        if run.status != "finished" or run.data.is_of(data):
            return replace(run, config=config), False
    folder = workspace.runs_folder / (name or _free_name(workspace, config))
    if folder.exists():
        raise ConfigError(f"run {name}: exists with another configuration or other cases; choose another --name")
    return Run(folder, config, data.model_copy(update={"origin": _origin(workspace, config, data)})), True


def _origin(workspace: Workspace, config: TrainConfig, data: RunData) -> Origin:
    """Return what a new run learns from, and through which runs."""
    base = None
    if config.start_from is not None:
        run = find_run(workspace, config.start_from)
        known = run.data.origin or Origin(sources=sources_of(workspace, run.data.keys("train")))
        gives: Gives = "labels" if METHODS[config.method].needs_teacher else "weights"
        steps = run.config.steps if run.status == "finished" else run.last_metrics().get("step")
        base = Base(run=run.name, gives=gives, steps=steps, sources=known.sources, started_from=known.started_from)
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
    base = f"{config.network}-{config.method}-{config.view}-{config.digest()}"
    names = [base, *(f"{base}-{i}" for i in range(2, 1000))]
    return next(name for name in names if not (workspace.runs_folder / name).exists())


def open_run(folder: Path) -> Run:
    """Return the run in ``folder``.

    Raises
    ------
    RunError
        If the folder is no run, or a file of it is damaged.
    """
    try:
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        data = RunData.model_validate_json((folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of bytes that are no text, of TOML, of JSON, of their values
        msg = f"{folder}: not a run that can be read ({why_unreadable(error)}); mend the file, or remove the folder"
        raise RunError(msg) from error
    return Run(folder, parse_config(config, str(folder / "config.toml")), data)


def list_runs(workspace: Workspace) -> list[Run]:
    """Return all readable runs of a workspace, oldest first; :func:`damaged_runs` has the others."""
    runs = [run for run in _try_all(workspace).values() if isinstance(run, Run)]
    return sorted(runs, key=lambda run: (run.created, run.name))


def damaged_runs(workspace: Workspace) -> dict[str, str]:
    """Return folder name -> why it cannot be read, for the runs that :func:`list_runs` leaves out."""
    return {name: run for name, run in _try_all(workspace).items() if isinstance(run, str)}


def _try_all(workspace: Workspace) -> dict[str, Run | str]:
    found: dict[str, Run | str] = {}
    for file in workspace.runs_folder.glob("*/config.toml"):
        try:
            found[file.parent.name] = open_run(file.parent)
        except (RunError, ConfigError) as error:
            found[file.parent.name] = str(error)
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
