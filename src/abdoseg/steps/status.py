"""Status: what a workspace holds."""

from collections import Counter
from typing import Any

from abdoseg.case import CaseFacts
from abdoseg.errors import WorkspaceError
from abdoseg.runs import Run, damaged_runs, decide_sides, list_runs, repeated_pairs
from abdoseg.steps.sparsify import describe_view, view_facts
from abdoseg.store import CaseBrief, Workspace
from abdoseg.types import SplitName


def status(workspace: Workspace) -> dict[str, Any]:
    """Return what the workspace holds, as plain values ready for JSON.

    Returns
    -------
    dict
        ``workspace``, ``spacing_mm``, ``structures`` (name -> cases annotated, cases with voxels), ``sources`` (one
        dict each: cases, modality, patients, annotated, sides of the split, repaired, quarantined with reasons),
        ``views`` (:func:`abdoseg.steps.sparsify.view_facts`), ``active_view``, ``runs`` (``step`` is that of the
        weights; null where the checkpoint is damaged), ``damaged_runs`` and ``damaged_cases`` (name -> reason).
    """
    facts, damaged = _facts(workspace)
    sides = decide_sides(workspace, facts, workspace.settings.split_seed)
    records = workspace.records()
    names = sorted({f.source for f in facts} | set(records))
    quarantined = {name: records[name].quarantined if name in records else {} for name in names}
    return {
        "workspace": str(workspace.path),
        "spacing_mm": workspace.settings.spacing_mm,
        "sources": [_source(name, [f for f in facts if f.source == name], sides, quarantined[name]) for name in names],
        "structures": _structures(workspace, facts),
        "active_view": workspace.active_view_name(),
        "views": _views(workspace, facts, sides),
        "runs": _runs(workspace, facts, sides),
        "damaged_runs": damaged_runs(workspace),
        "damaged_cases": damaged,
    }


def _facts(workspace: Workspace) -> tuple[list[CaseFacts], dict[str, str]]:
    """Return the facts of the cases that can be read, and why the others cannot."""
    try:
        return workspace.facts(), {}
    except WorkspaceError:
        found, damaged = [], {}
        for key in workspace.case_keys():
            try:
                found.append(workspace.read_facts(key))
            except WorkspaceError as error:
                damaged[key] = str(error)
        if not damaged:  # it is the workspace that is at fault
            raise
    workspace.check_settings(found)
    return found, damaged


def _source(name: str, facts: list[CaseFacts], sides: dict[str, Any], quarantined: dict[str, str]) -> dict[str, Any]:
    by_side = Counter(sides[f.key] for f in facts)
    return {
        "source": name,
        "cases": len(facts),
        "modality": sorted({f.modality for f in facts}),
        "patients": len({f.patient for f in facts}),
        "annotated_structures": max((len(f.groups.structure_ids) for f in facts), default=0),
        "train": by_side["train"],
        "val": by_side["val"],
        "test": by_side["test"],
        "repaired": {f.case: list(f.warnings) for f in facts if f.warnings},
        "quarantined": quarantined,
    }


def _structures(workspace: Workspace, facts: list[CaseFacts]) -> dict[str, dict[str, int]]:
    annotated: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for f in facts:
        annotated.update(workspace.anatomy.structure(c).name for c in f.groups.structure_ids)
        present.update(f.voxels.keys())
    return {name: {"annotated": annotated[name], "present": present[name]} for name in workspace.anatomy.names}


def _views(workspace: Workspace, facts: list[CaseFacts], sides: dict[str, SplitName]) -> list[dict[str, Any]]:
    views = workspace.views()
    names = workspace.settings.structures
    training = [CaseBrief.of(f, names, "") for f in facts if sides[f.key] == "train"] if views else []
    return [view_facts(describe_view(workspace, view, training), workspace.anatomy.names) for view in views]


def _runs(workspace: Workspace, facts: list[CaseFacts], sides: dict[str, SplitName]) -> list[dict[str, Any]]:
    by_key, twins = {f.key: f for f in facts}, repeated_pairs(workspace, facts)
    told = []
    for run in list_runs(workspace):
        seed, fold = run.data.settings.split_seed, run.config.fold
        today = sides if fold is None else decide_sides(workspace, facts, seed, fold)
        told.append({**_run(run, by_key), "leaks": _leaks(run, by_key, today, twins)})
    return told


def _run(run: Run, facts: dict[str, CaseFacts]) -> dict[str, Any]:
    gone = [c.key for c in run.data.cases if c.key not in facts or facts[c.key].digest != c.digest]
    return {
        "run": run.name,
        "status": run.status,
        "network": run.config.network,
        "method": run.config.method,
        "view": run.config.view,
        "cases": len(run.data.cases),
        "step": run.steps_done,
        "steps": run.config.steps,
        "changed_cases": gone,
    }


def _leaks(
    run: Run, facts: dict[str, CaseFacts], sides: dict[str, SplitName], twins: list[tuple[str, str]]
) -> list[str]:
    """Return the cases a run trained on whose scan is validation or test today, or was so in the run."""
    held_out = {key for key in facts if sides[key] != "train"} | {*run.data.keys("val"), *run.data.keys("test")}
    prints = {facts[key].fingerprint for key in held_out if key in facts}
    trained = [key for key in run.data.keys("train") if key in facts]
    for a, b in twins:
        prints |= {facts[a].fingerprint} if b in held_out else set()
        prints |= {facts[b].fingerprint} if a in held_out else set()
    return [key for key in trained if facts[key].fingerprint in prints]
