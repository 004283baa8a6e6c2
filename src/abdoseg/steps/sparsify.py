"""Sparsify: make a sparse view of the workspace, as if only some slices had been drawn."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from abdoseg.annotation import AXES
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.runs import decide_sides
from abdoseg.store import CaseBrief, Workspace, lacks_occupied, occupied_slices, shown_annotation
from abdoseg.value_errors import found_and_expected
from abdoseg.views import FULL_VIEW, View, held_slices, percent

DEFAULT_FRACTION = 0.2

LONGEST_NAME = 120
"""Characters of a view's name that is made from the rest."""


class SliceRule(TypedDict, total=False):
    """Other ways to choose slices than a fraction of them, evenly spaced along the whole axis.

    Keys
    ----
    every
        Keep slices floor(K/2), floor(K/2) + K, ... instead of a fraction.
    seed
        Keep random slices: which ones depends on this seed, the case and the axis only.
    per_structure
        Space each structure's slices over those that hold it, so that it keeps at least one in every case.
    native
        Choose among the slices of the file; a harmonised slice follows its nearest one.
    """

    every: int | None
    seed: int | None
    per_structure: bool
    native: bool


@dataclass(frozen=True)
class SparsifyReport:
    """What a view leaves.

    All but ``hidden`` is counted over the cases whose labels it thins. Effort is estimated by contours: one is one
    structure in one slice. Drawing all of them along one axis is the whole effort.

    Parameters
    ----------
    view
        The view.
    cases
        Number of annotated training cases whose labels it thins, and of annotated training cases in all.
    slices
        For each view direction, slices that know at least one of the structures it thins: now and before.
    annotated
        (Voxel, structure) pairs that are annotated, over all structures: now and before. Where all structures of a
        case are thinned alike this is the part of its voxels. A voxel counts once, however many axes know it.
    contours
        For each view direction, contours that stay, and contours before.
    hidden
        Structures that training cases hold and the view hides in all of them.
    emptied
        Cases of which it hides all.
    other_axes
        Annotated cases it cannot thin: their source drew slices along other axes.
    unindexed
        Cases whose labelled voxels had to be read because they were stored by an older version.
    """

    view: View
    cases: tuple[int, int]
    slices: dict[str, tuple[int, int]]
    annotated: tuple[float, float]
    contours: dict[str, tuple[int, int]]
    hidden: tuple[str, ...]
    emptied: int
    other_axes: int
    unindexed: int

    @property
    def annotated_part(self) -> float | None:
        """Part of the annotation that stays; ``None`` where there was none."""
        now, before = self.annotated
        return now / before if before else None

    @property
    def effort(self) -> float | None:
        """Part of an axis' contours that stays, summed over the axes; ``None`` where there are no contours."""
        parts = [now / before for now, before in self.contours.values() if before]
        return sum(parts) if parts else None

    @property
    def effort_saved(self) -> float | None:
        """What is left of 1; below 0 where several axes ask for more contours than one drawn whole."""
        return None if self.effort is None else 1 - self.effort


def sparsify(
    workspace: Workspace,
    view: Sequence[str] = ("axial",),
    fraction: float | None = None,
    *,
    structures: Sequence[str] = (),
    sources: Sequence[str] = (),
    name: str | None = None,
    **rule: Unpack[SliceRule],
) -> SparsifyReport:
    """Make a view in which training cases keep some of their slices, and make it the active one.

    Parameters
    ----------
    workspace
        Its cases stay as they are.
    view
        One or more of axial, coronal, sagittal; with several, a patch uses one of them.
    fraction
        Fraction of slices kept, in (0, 1]; 1 keeps all, each slice as a group of its own. Default: 0.2, unless
        ``every`` is given.
    structures
        Thin only these; the others stay annotated in every slice. Empty: all.
    sources
        Cards it applies to; empty: all.
    name
        Name of the view; default: made from the rest, for example ``axial-20``.
    rule
        See :class:`SliceRule`.

    Raises
    ------
    ConfigError
        If a value is not allowed, two contradict each other, the workspace is empty, or the name stands for another
        view.
    UnknownNameError
        If a view direction, a structure or a source is not known.
    """
    if not view:
        raise ConfigError(f"--view: found none, expected some of {', '.join(AXES)}")
    for axis in view:
        if axis not in AXES:
            raise unknown_name("view", axis, [*AXES, FULL_VIEW, *(one.name for one in workspace.views())])
    if name in AXES:
        raise ConfigError(f"--name: found {name}, which is a direction; choose another name")
    briefs = workspace.briefs()
    if not briefs:
        raise ConfigError(f"{workspace.path}: no cases; `abdoseg ingest CARD FOLDER` first")
    workspace.chosen_sources(sources or None)
    recipe = {"axes": view, "structures": structures, "sources": sources, **_which_slices(fraction, rule)}
    made = _make_view(workspace, recipe, name)
    workspace.save_view(made)
    workspace.activate_view(made.name)
    return _describe(workspace, made, briefs)


def switch_view(workspace: Workspace, name: str) -> SparsifyReport | None:
    """Make a view that is there the active one; of ``"full"``, all labels, there is nothing to report.

    Raises
    ------
    UnknownNameError
        If there is no such view.
    """
    workspace.activate_view(name)
    view = workspace.view(name)
    return None if view is None else _describe(workspace, view, workspace.briefs())


def _describe(workspace: Workspace, view: View, briefs: Sequence[CaseBrief]) -> SparsifyReport:
    sides = decide_sides(workspace, briefs, workspace.settings.split_seed)
    return describe_view(workspace, view, [brief for brief in briefs if sides[brief.key] == "train"])


def _which_slices(fraction: float | None, rule: SliceRule) -> dict[str, Any]:
    """Return how slices are chosen; what contradicts itself is refused."""
    every, seed = rule.get("every"), rule.get("seed")
    if every is not None and fraction is not None:
        raise ConfigError(f"--frac {fraction:g} and --every {every}: each says how many slices stay; give one of them")
    if every is not None and seed is not None:
        raise ConfigError(f"--every {every} and --random: contradict each other; random slices take --frac")
    if every is None and fraction is None:
        fraction = DEFAULT_FRACTION
    return {"fraction": fraction, **rule}


def _make_view(workspace: Workspace, recipe: dict[str, Any], name: str | None) -> View:
    ids = {workspace.anatomy.id_of(structure) for structure in recipe["structures"]}
    once = {"axes": tuple(dict.fromkeys(recipe["axes"])), "sources": tuple(dict.fromkeys(recipe["sources"]))}
    recipe = {**recipe, **once, "structures": tuple(sorted(ids))}
    try:
        unnamed = View.model_validate({**recipe, "name": "unnamed"})
        return View.model_validate({**recipe, "name": name or default_name(unnamed, workspace.anatomy.names)})
    except ValidationError as error:
        raise ConfigError("; ".join(map(_reason, error.errors()))) from error


_OPTIONS = {"fraction": "--frac", "every": "--every", "seed": "--seed", "name": "--name"}
"""Field of a view -> the option that gives it."""

_EXPECTED = {
    "fraction": "a fraction of the slices, 0 < frac <= 1",
    "every": "a whole number of at least 1",
    "seed": "a whole number of at least 0, below 2^64",
}


def _reason(error: ErrorDetails) -> str:
    """Return what is wrong with a value: the option as it is typed, what was found, what was expected."""
    field, value = str(error["loc"][0]), error["input"]
    where = _OPTIONS.get(field, field)
    if field in _EXPECTED:
        return f"{where}: found {value}, expected {_EXPECTED[field]}"
    if error["type"] == "string_pattern_mismatch":
        return f"{where}: found {value}, expected letters, digits, dots, dashes and underscores"
    return f"{where}: found {value}, {found_and_expected(error)}"


def default_name(view: View, names: Sequence[str]) -> str:
    """Return a name made of all that tells a view apart; ``names`` are the structures in id order.

    A long one is cut and ends in a hash of the whole: it has to be a file's, and part of a run's.
    """
    parts = [*view.axes]
    parts.append(f"every{view.every}" if view.fraction is None else percent(view.fraction))
    if view.seed is not None:
        parts.append(f"random{view.seed or ''}")
    if view.structures:
        parts += ["of", *(names[structure - 1] for structure in view.structures)]
    parts += ["each"] if view.per_structure else []
    parts += ["native"] if view.native else []
    name = "-".join([*parts, *view.sources])
    if len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{mark}"


def describe_view(workspace: Workspace, view: View, training: Iterable[CaseBrief]) -> SparsifyReport:
    """Count what a view keeps of the training cases' annotation.

    No voxel is read, unless a case was stored by a version that did not note which slices hold its structures.
    """
    total = _Counts.zero(len(view.axes), len(workspace.anatomy))
    for case in training:
        total += _count(workspace, view, case)
    annotated, thinned, emptied, other_axes, unindexed = (int(n) for n in total.cases)
    hidden = np.flatnonzero((total.held[:, 0] == 0) & (total.held[:, 1] > 0))
    return SparsifyReport(
        view,
        (thinned, annotated),
        _by_axis(view, total.slices),
        (float(total.annotated[0]), float(total.annotated[1])),
        _by_axis(view, total.contours),
        tuple(workspace.anatomy.names[structure] for structure in hidden),
        emptied,
        other_axes,
        unindexed,
    )


def _by_axis(view: View, counts: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    return {name: (int(now), int(before)) for name, (now, before) in zip(view.axes, counts, strict=True)}


def view_facts(report: SparsifyReport, names: Sequence[str]) -> dict[str, Any]:
    """Return a view and what it leaves, as plain values ready for JSON; ``names`` are the structures in id order.

    Returns
    -------
    dict
        ``view`` (its name), ``axes``, ``how`` (even, random or every), ``fraction``, ``every``, ``seed``,
        ``structures``, ``per_structure``, ``native``, ``sources``; ``cases`` (whose labels it thins) and
        ``annotated_cases``; ``slices`` and ``contours`` (axis -> [now, before]); ``annotated_part``, ``effort`` and
        ``effort_saved`` (parts of 1, or null); ``hidden`` structures; ``emptied``, ``other_axes`` and ``unindexed``
        cases.
    """
    view = report.view
    return {
        "view": view.name,
        "how": view.how,
        **view.model_dump(mode="json", exclude={"name", "structures"}),
        "structures": [names[structure - 1] for structure in view.structures],
        "cases": report.cases[0],
        "annotated_cases": report.cases[1],
        "slices": {axis: list(counts) for axis, counts in report.slices.items()},
        "contours": {axis: list(counts) for axis, counts in report.contours.items()},
        "annotated_part": report.annotated_part,
        "effort": report.effort,
        "effort_saved": report.effort_saved,
        "hidden": list(report.hidden),
        "emptied": report.emptied,
        "other_axes": report.other_axes,
        "unindexed": report.unindexed,
    }


@dataclass(frozen=True, eq=False)
class _Counts:
    """What is counted of a case; the last axis of all but ``cases`` is now and before.

    Parameters
    ----------
    cases
        int ``(5,)``: annotated, thinned, hidden whole, drawn along other axes, stored without occupied slices.
    slices, contours
        int ``(axes, 2)``.
    annotated
        float ``(2,)``: (voxel, structure) pairs.
    held
        int ``(N, 2)``: contours of each structure, or labelled voxels where the case is not thinned.
    """

    cases: NDArray[np.int64]
    slices: NDArray[np.int64]
    contours: NDArray[np.int64]
    annotated: NDArray[np.float64]
    held: NDArray[np.int64]

    @classmethod
    def zero(cls, n_axes: int, n_structures: int) -> "_Counts":
        """Return the counts of no case."""
        whole = (np.zeros(shape, dtype=np.int64) for shape in (5, (n_axes, 2), (n_axes, 2), (n_structures, 2)))
        cases, slices, contours, held = whole
        return cls(cases, slices, contours, np.zeros(2), held)

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def _count(workspace: Workspace, view: View, case: CaseBrief) -> _Counts:
    """Count one case."""
    counts = _Counts.zero(len(view.axes), len(workspace.anatomy))
    before = case.groups
    if not before.has_annotation:
        return counts
    counts.cases[0] = 1
    if not view.applies_to(case.source) or not view.can_thin(before):
        counts.cases[3] = view.applies_to(case.source)
        counts.held[:] = case.voxel_counts()[:, None]
        return counts
    now = shown_annotation(workspace, case, view)
    counts.cases[:] = 1, 1, not now.has_annotation, 0, lacks_occupied(case)
    occupied = occupied_slices(workspace, case)
    thinned = np.array(view.structures or range(1, before.n_structures + 1)) - 1
    for when, annotation in enumerate((now, before)):
        unknown = np.ones(before.n_structures)  # part of the voxels that no axis knows, by structure
        for i, axis in enumerate(AXES[name] for name in view.axes):
            known = annotation.known_slices(axis, case.shape[axis])
            drawn = known & held_slices(occupied, axis, known.shape)
            counts.slices[i, when] = known[:, thinned].any(axis=1).sum()
            counts.contours[i, when] = drawn.sum()
            counts.held[:, when] += drawn.sum(axis=0)
            unknown *= 1 - known.mean(axis=0)
        counts.annotated[when] = np.prod(case.shape) * (1 - unknown).sum()
    return counts
