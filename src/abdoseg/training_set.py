"""What a run learns from: its training cases as its view shows them, and how they are drawn."""

from collections.abc import Sequence

import numpy as np

from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import AffineSettings
from abdoseg.augmentation.flip import FlipSettings, partners_of
from abdoseg.case import CaseFacts
from abdoseg.errors import RunError, unknown_name
from abdoseg.patches import PatchSettings, PatchStream
from abdoseg.runs import Run, read_frozen
from abdoseg.sampling import (
    Candidates,
    CaseEntry,
    Sampler,
    Weights,
    held_structures,
    kind_of,
)
from abdoseg.store import CaseBrief, Workspace, occupied_slices, shown_annotation


def training_cases(workspace: Workspace, run: Run) -> list[tuple[CaseFacts, Annotation]]:
    """Return facts and annotation, as the run shows it, of its training cases.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    names = run.anatomy.names
    found = [read_frozen(workspace, run, frozen) for frozen in run.data.cases if frozen.side == "train"]
    return [(f, _shown(workspace, run, f, [f.voxels.get(name, 0) for name in names])) for f in found]


def _shown(workspace: Workspace, run: Run, case: CaseFacts | CaseBrief, voxels: Sequence[int]) -> Annotation:
    """Return a case's annotation as the run's view and settings show it; ``voxels`` are those of structures 1..N."""
    annotation = shown_annotation(workspace, case, run.data.view)
    if run.config.annotated_from == "labels":
        annotation = Annotation(annotation.rows & (np.array(voxels) > 0), annotation.slices)
    return annotation


def open_stream(workspace: Workspace, run: Run) -> PatchStream:
    """Return the patches of a run's training cases.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    config = run.config
    cases = training_cases(workspace, run)
    settings = PatchSettings(
        shape=config.patch,
        affine=AffineSettings(rotation_degrees=config.rotation_degrees, scale=config.scale),
        sampler=config.sampler,
        seed=config.seed,
        weights=sampling_weights(run),
        padding=config.padding,
        flip=FlipSettings(config.flip, partners_of(run.anatomy) if config.flip[0] else ()),
        intensity=config.intensity,
    )
    cache_bytes = config.cache_mb * 2**20
    return PatchStream(cases, workspace, settings, cache_bytes=cache_bytes, candidates=_candidates(workspace, run))


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
    """Return what a run's training cases can be drawn for, from the sources' indexes."""
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
        entries.append(_entry(workspace, run, brief))
    return Candidates.of(entries)


def _entry(workspace: Workspace, run: Run, brief: CaseBrief) -> CaseEntry:
    annotation = _shown(workspace, run, brief, brief.voxels)
    occupied = occupied_slices(workspace, brief) if annotation.slices else {}
    held = held_structures(annotation, brief.voxel_counts(), occupied)
    return CaseEntry(brief.key, brief.source, brief.modality, held, kind_of(annotation))
