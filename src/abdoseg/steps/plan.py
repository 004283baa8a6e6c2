"""What a training will take and see, before it starts."""

from collections.abc import Collection, Iterable
from math import prod
from typing import TYPE_CHECKING, Any

from abdoseg.config import TrainConfig, check_shares, make_config
from abdoseg.methods import METHODS
from abdoseg.runs import Run, annotation_from_labels, freeze, load_run
from abdoseg.sampling import SAMPLERS
from abdoseg.store import Workspace, shown_annotation
from abdoseg.training_set import learns_from, open_sampler, patch_settings
from abdoseg.views import FULL_VIEW

if TYPE_CHECKING:
    import torch

SPLIT_NEEDS = 6
"""Patients of a source without an official split from which on one of them is a validation case."""

LONG = 10
"""Times the voxels of preset ``small`` from which on a training on a CPU is called long."""


def check_plan(workspace: Workspace, run: Run, processes: int = 1) -> None:
    """Refuse a planned run as far as that takes no torch, which is slow to load.

    Raises
    ------
    ConfigError, UnknownNameError, RunError, WorkspaceError
        If a name, weight or share is wrong, or nothing can be drawn.
    """
    check_shares(run.config, processes)
    if run.config.start_from is not None:
        load_run(workspace, run.config.start_from)
    patch_settings(run)
    if not METHODS[run.config.method].needs_teacher:  # what it draws is labelled later
        open_sampler(workspace, run)


def plan_training(
    workspace: Workspace, run: Run, processes: int = 1, device: "torch.device | None" = None
) -> dict[str, Any]:
    """Return what a run will take and see, as plain values ready for JSON; no scan is opened.

    Parameters
    ----------
    workspace
        Where its cases lie.
    run
        A run, planned or there.
    processes
        That share each batch.
    device
        Where it will be trained; ``None``: not known yet.

    Returns
    -------
    dict
        ``memory_bytes``: ``weights`` (with gradients and the optimiser's moments), ``activations``, ``logits`` and
        ``total`` of a process. ``cache_bytes`` and ``device_cache_bytes``: budgets. ``structures``: name -> ``cases``
        that hold it, and the mean number of ``patches`` centred on it over the whole training (``None`` where the
        sampler draws no structure). ``warnings``: what somebody should know before it starts, a line each.

    Raises
    ------
    ConfigError, UnknownNameError, RunError, WorkspaceError
        If the training would be refused.
    """
    from abdoseg.engine.checks import check_run
    from abdoseg.engine.memory import estimate_memory

    check_run(workspace, run, processes, device)
    config = run.config
    memory = estimate_memory(config, run.task(), processes)
    sampler = open_sampler(workspace, run)
    draws = "structure" in SAMPLERS[config.sampler].levels
    share = sampler.probabilities().structure
    names = run.class_names
    return {
        "memory_bytes": {
            "weights": memory.weights,
            "activations": memory.activations,
            "logits": memory.logits,
            "total": memory.total,
        },
        "cache_bytes": config.cache_mb * 2**20,
        "device_cache_bytes": config.device_cache_mb * 2**20,
        "structures": {
            name: {
                "cases": int(sampler.candidates.has[:, i].sum()),
                "patches": float(share[i] * config.steps * config.batch) if draws else None,
            }
            for i, name in enumerate(names)
        },
        "warnings": [
            *_too_little_memory(run, processes, device),
            *lacks_validation(run),
            *_not_learnt(workspace, run, sampler.skipped),
        ],
    }


def lacks_memory(workspace: Workspace, config: TrainConfig, processes: int, device: "torch.device | None") -> list[str]:
    """Return a line where a training that is still to begin needs more memory than is free; ``train`` refuses it.

    Parameters
    ----------
    workspace, config
        What it would learn from, and how; its view need not be there.
    processes, device
        As for :func:`plan_training`; all processes are on this machine.
    """
    data = freeze(workspace, config.model_copy(update={"view": FULL_VIEW}))
    return _too_little_memory(Run(workspace.runs_folder, config, data), processes, device)


def _too_little_memory(run: Run, processes: int, device: "torch.device | None") -> list[str]:
    from abdoseg.engine.memory import memory_shortage

    if device is None:
        return []
    here = processes if device.type == "cpu" else 1
    shortage = memory_shortage(run.config, run.task(), device, processes, here)
    return [shortage] if shortage else []


def long_on_a_cpu(configs: Iterable[TrainConfig], device: "torch.device") -> list[str]:
    """Return a line for each training that sees many times the voxels of the preset for CPUs, where the device is one.

    How long a step takes is not known before one is done; how much there is to see is.
    """
    if device.type != "cpu":
        return []
    small = make_config("small")
    long = [config for config in configs if _voxels(config) >= LONG * _voxels(small)]
    return list(dict.fromkeys(_how_long(config, small) for config in long))


def _how_long(config: TrainConfig, small: TrainConfig) -> str:
    times, sides = _voxels(config) / _voxels(small), "x".join(map(str, config.patch))
    harder = "" if config.network == small.network else f", and {config.network} takes longer for each"
    return (
        f"on a CPU: {config.steps:,} steps of {config.batch} {'patch' if config.batch == 1 else 'patches'} of {sides} "
        f"are {times:,.0f} times the voxels of --preset small{harder}; that preset, or less by --scale or "
        "--set patch=..., is done sooner"
    )


def _voxels(config: TrainConfig) -> int:
    return config.steps * config.batch * prod(config.patch)


def lacks_validation(run: Run) -> list[str]:
    """Return a line that says why there is no validation case and what to do; empty where there is one."""
    if run.data.keys("val"):
        return []
    none = "no validation case, so no score during training"
    if run.config.fold is not None:
        k, n = run.config.fold
        return [f"{none}: --fold {k}/{n} holds out nothing here; take a smaller N, or add patients"]
    held_out = "--fold 1/5 holds some out; " if len(run.data.keys("train")) > 1 else ""
    return [f"{none}: {held_out}a source without an official split needs {SPLIT_NEEDS} patients to have one"]


def not_learnt(run: Run, skipped: Collection[int], annotated: Collection[int], held: Collection[str]) -> list[str]:
    """Return, for each structure that cannot be learnt, its name and why.

    Parameters
    ----------
    run
        The run.
    skipped
        Ids of the structures of which there is nothing to draw.
    annotated
        Ids of those that some training case annotates, as the run shows it.
    held
        Names of those of which some training case holds a voxel.
    """
    lines = []
    for structure in skipped:
        name = run.anatomy.structure(structure).name
        if structure not in annotated:
            reason = "no training case annotates it"
        elif name not in held:
            reason = "annotated, but no training case holds it"
        else:
            reason = "the view hides all its voxels"
        lines.append(f"{name}: {reason}; it cannot be learnt")
    return lines


def not_taken(run: Run, taken: int) -> list[str]:
    """Return a line about the training cases that the method leaves out, of which it takes ``taken``."""
    left_out = len(run.data.keys("train")) - taken
    if not left_out:
        return []
    hold, are, them = ("case holds", "is", "it") if left_out == 1 else ("cases hold", "are", "them")
    told = f"{left_out} training {hold} no annotated structure and {are} left out: {run.config.method}"
    return [f"{told} cannot learn from {them}"]


def _not_learnt(workspace: Workspace, run: Run, skipped: Collection[int]) -> list[str]:
    """Return :func:`not_taken` and :func:`not_learnt` of a run whose cases are not opened, from the indexes."""
    method = METHODS[run.config.method]
    if method.needs_teacher:  # another run labels the cases first
        return []
    training = set(run.data.keys("train"))
    annotated: set[int] = set()
    held: set[str] = set()
    taken = 0
    for brief in workspace.briefs(sorted({key.partition("/")[0] for key in training})):
        if brief.key not in training:
            continue
        annotation = shown_annotation(workspace, brief, run.data.view)
        if run.config.annotated_from == "labels":
            annotation = annotation_from_labels(workspace, brief, annotation)
        if not learns_from(workspace, run, brief, annotation):
            continue
        taken += 1
        annotated.update(annotation.structure_ids)
        held.update(name for name, n in zip(run.anatomy.names, brief.voxel_counts(), strict=True) if n)
    return [*not_taken(run, taken), *not_learnt(run, skipped, annotated, held)]
