"""Sparsify: make a sparse view of the workspace, as if only some slices had been drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from abdoseg.annotation import AXES
from abdoseg.case import CaseFacts
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.runs import decide_sides
from abdoseg.store import Workspace
from abdoseg.views import FULL_VIEW, View


@dataclass(frozen=True)
class SparsifyReport:
    """What a view leaves.

    Parameters
    ----------
    view
        The view, now active.
    cases
        Number of annotated training cases whose labels it thins, and of annotated training cases in all.
    slices
        For each view direction, annotated slices kept and before, over those cases.
    """

    view: View
    cases: tuple[int, int]
    slices: dict[str, tuple[int, int]]


def sparsify(
    workspace: Workspace,
    view: Sequence[str] = ("axial",),
    fraction: float = 0.2,
    *,
    sources: Sequence[str] = (),
    name: str | None = None,
) -> SparsifyReport:
    """Make a view in which training cases keep evenly spaced slices, and make it the active one.

    Parameters
    ----------
    workspace
        Its cases stay as they are.
    view
        One or more of axial, coronal, sagittal; with several, a patch uses one of them.
    fraction
        Fraction of slices kept, in (0, 1]; 1 keeps all, each slice as a group of its own.
    sources
        Cards it applies to; empty: all.
    name
        Name of the view; default: made from the rest, for example ``axial-20``.

    Raises
    ------
    ConfigError
        If a value is not allowed, or the name stands for another view.
    UnknownNameError
        If a view direction or a source is not known.
    """
    for axis in view:
        if axis not in AXES:
            raise unknown_name("view", axis, [*AXES, FULL_VIEW])
    workspace.case_keys(sources or None)
    try:
        made = View(
            name=name or _default_name(view, fraction, sources),
            axes=tuple(view),
            fraction=fraction,
            sources=tuple(sources),
        )
    except ValidationError as error:
        raise ConfigError(
            "; ".join(f"{e['loc'][0]}: {e['msg']}, found {e['input']}" for e in error.errors())
        ) from error
    workspace.save_view(made)
    workspace.activate_view(made.name)
    facts = workspace.facts()
    sides = decide_sides(workspace, facts, workspace.settings.split_seed)
    return describe_view(made, [f for f in facts if sides[f.key] == "train"])


def describe_view(view: View, training: Sequence[CaseFacts]) -> SparsifyReport:
    """Count what a view keeps of the annotated ones among the training cases, without reading a voxel."""
    annotated = [facts for facts in training if facts.groups.has_annotation]
    thinned = [facts for facts in annotated if view.applies_to(facts.source)]
    slices = {}
    for name in view.axes:
        axis = AXES[name]
        kept = sum(int(view.kept_slices(facts.shape)[axis].sum()) for facts in thinned)
        slices[name] = (kept, sum(facts.shape[axis] for facts in thinned))
    return SparsifyReport(view, (len(thinned), len(annotated)), slices)


def _default_name(view: Sequence[str], fraction: float, sources: Sequence[str]) -> str:
    return "-".join([*view, f"{100 * fraction:g}", *sources])
