"""What a run learns from: its training cases as its view shows them, and how they are drawn."""

import hashlib

from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import AffineSettings
from abdoseg.augmentation.flip import FlipSettings, partners_of
from abdoseg.case import CaseFacts
from abdoseg.errors import RunError, unknown_name
from abdoseg.methods import METHODS
from abdoseg.patches import PatchSettings, PatchStream
from abdoseg.runs import Run, annotation_from_labels, read_frozen
from abdoseg.sampling import (
    Candidates,
    CaseEntry,
    Sampler,
    Weights,
    held_structures,
    kind_of,
)
from abdoseg.store import CaseBrief, DerivedCases, Workspace, occupied_slices, shown_annotation


def training_cases(workspace: Workspace, run: Run) -> list[tuple[CaseFacts, Annotation]]:
    """Return facts and annotation, as the run shows it, of the training cases that its method can learn from.

    Raises
    ------
    RunError
        If there is none, or a case the run froze is gone or was taken again with other voxels.
    """
    shown = shown_training_cases(workspace, run)
    taken = [(facts, annotation) for facts, annotation in shown if learns_from(workspace, run, facts, annotation)]
    if not taken:
        raise _nothing_held(run)
    return taken


def _nothing_held(run: Run) -> RunError:
    cases, method = len(run.data.keys("train")), run.config.method
    msg = f"run {run.name}: none of its {cases} training cases holds an annotated structure; {method} needs one"
    return RunError(msg)


def shown_training_cases(workspace: Workspace, run: Run) -> list[tuple[CaseFacts, Annotation]]:
    """Return facts and annotation, as the run shows it, of all its training cases.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    found = [read_frozen(workspace, run, frozen) for frozen in run.data.cases if frozen.side == "train"]
    return [(f, _shown(workspace, run, f)) for f in found]


def validation_keys(run: Run) -> list[str]:
    """Return the cases that a training is validated on, in an order that mixes the sources; never test cases."""
    # So that a few of the cases stand for all.
    keys = sorted(run.data.keys("val"), key=lambda key: hashlib.sha256(key.encode()).digest())
    return keys[: run.config.validate_cases or None] if run.config.validate_every else []


def derived_cases(run: Run) -> DerivedCases:
    """Return where a run keeps the cases that another run labelled for it."""
    return DerivedCases(run.folder / "cases")


def learns_from(workspace: Workspace, run: Run, case: CaseFacts | CaseBrief, annotation: Annotation) -> bool:
    """Whether a run's method takes a training case: some take only those that hold an annotated structure.

    So the paper trained DoDNet and the CLIP-driven model: without scans of TotalSegmentator that show none of the
    structures (section 4.2).

    Parameters
    ----------
    workspace, run
        The run, and where its cases lie.
    case, annotation
        The case, and its annotation as the run shows it: what a view hides does not count.
    """
    if not METHODS[run.config.method].skips_unannotated:
        return True
    return annotation_from_labels(workspace, case, annotation).has_annotation


def _shown(workspace: Workspace, run: Run, case: CaseFacts | CaseBrief) -> Annotation:
    """Return a case's annotation as the run's view and settings show it."""
    annotation = shown_annotation(workspace, case, run.data.view)
    return annotation_from_labels(workspace, case, annotation) if run.config.annotated_from == "labels" else annotation


def open_stream(workspace: Workspace, run: Run) -> PatchStream:
    """Return the patches of a run's training cases.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    config = run.config
    labelled = METHODS[config.method].needs_teacher
    cases = _derived_training_cases(run) if labelled else training_cases(workspace, run)
    cache_bytes = config.cache_mb * 2**20
    reader = derived_cases(run) if labelled else workspace
    candidates = _candidates(workspace, run)
    return PatchStream(cases, reader, patch_settings(run), cache_bytes=cache_bytes, candidates=candidates)


def patch_settings(run: Run) -> PatchSettings:
    """Return what a run's patches are like.

    Raises
    ------
    ConfigError, UnknownNameError
        If a setting does not fit the run's structures.
    """
    config = run.config
    return PatchSettings(
        shape=config.patch,
        affine=AffineSettings(rotation_degrees=config.rotation_degrees, scale=config.scale),
        sampler=config.sampler,
        seed=config.seed,
        weights=sampling_weights(run),
        padding=config.padding,
        flip=FlipSettings(config.flip, partners_of(run.anatomy) if config.flip[0] else ()),
        intensity=config.intensity,
    )


def _derived_training_cases(run: Run) -> list[tuple[CaseFacts, Annotation]]:
    """Return the training cases as another run labelled them."""
    facts = [derived_cases(run).read_facts(key) for key in run.data.keys("train")]
    return [(f, f.groups) for f in facts]


def sampling_weights(run: Run) -> Weights:
    """Return the run's weights as the sampler takes them; structures are named in the configuration.

    Raises
    ------
    UnknownNameError
        If a structure is not the workspace's.
    """
    names = run.class_names
    structures: dict[str | int, float] = {}
    for name, weight in run.config.structure_weights.items():
        if name not in names:
            raise unknown_name("structure", name, list(names))
        structures[names.index(name)] = weight
    return {"structure": structures, "source": dict(run.config.source_weights), "kind": dict(run.config.mix)}


def open_sampler(workspace: Workspace, run: Run) -> Sampler:
    """Return the sampler that :func:`open_stream` would draw with, from the sources' indexes: no case is opened.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    return Sampler(_candidates(workspace, run), run.config.sampler, run.config.seed, sampling_weights(run))


def _candidates(workspace: Workspace, run: Run) -> Candidates:
    """Return what a run's training cases can be drawn for, from the sources' indexes.

    Of a run whose cases another run labels, those labels count as soon as they are all there.
    """
    derived = derived_cases(run)
    if METHODS[run.config.method].needs_teacher and all(map(derived.is_there, run.data.keys("train"))):
        names = run.anatomy.names
        facts = [derived.read_facts(key) for key in run.data.keys("train")]
        return Candidates.of([_entry(workspace, CaseBrief.of(f, names, ""), f.groups) for f in facts])
    sources = sorted({case.key.partition("/")[0] for case in run.data.cases})
    briefs = {brief.key: brief for brief in workspace.briefs(sources)}
    entries = []
    for frozen in run.data.cases:
        if frozen.side != "train":
            continue
        brief = briefs.get(frozen.key)
        if brief is None or brief.digest != frozen.digest:
            msg = f"run {run.name}: its case {frozen.key} is gone or has other voxels now; start a new run with --name"
            raise RunError(msg)
        annotation = _shown(workspace, run, brief)
        if learns_from(workspace, run, brief, annotation):
            entries.append(_entry(workspace, brief, annotation))
    if not entries:
        raise _nothing_held(run)
    return Candidates.of(entries)


def _entry(workspace: Workspace, brief: CaseBrief, annotation: Annotation) -> CaseEntry:
    occupied = occupied_slices(workspace, brief) if annotation.slices else {}
    held = held_structures(annotation, brief.voxel_counts(), occupied)
    return CaseEntry(brief.key, brief.source, brief.modality, held, kind_of(annotation))
