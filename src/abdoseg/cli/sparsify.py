"""``abdoseg sparsify``."""

from typing import TYPE_CHECKING, Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, in_workspace, next_step, out, split_names
from abdoseg.cli._views import print_view

if TYPE_CHECKING:
    from abdoseg.steps.sparsify import SparsifyReport
    from abdoseg.store import Workspace


def sparsify(
    context: typer.Context,
    view: Annotated[
        list[str],
        typer.Option(help="axial, coronal or sagittal (several: a,b); or a view that is there; full: all labels."),
    ],
    frac: Annotated[
        float | None,
        typer.Option(help="Fraction of slices that keep their labels, above 0 up to 1.  [default: 0.2]"),
    ] = None,
    every: Annotated[int | None, typer.Option(metavar="K", help="Keep every K-th slice instead of a fraction.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random slices instead of evenly spaced ones.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --random.  [default: 0]")] = None,
    structures: Annotated[
        list[str] | None, typer.Option(help="Thin only these (a,b); the others stay annotated everywhere.")
    ] = None,
    per_structure: Annotated[
        bool, typer.Option("--per-structure", help="Space each structure's slices over those that hold it.")
    ] = False,
    native: Annotated[
        bool, typer.Option("--native", help="Choose slices of the files' own grids, as the authors do.")
    ] = False,
    sources: Annotated[list[str] | None, typer.Option(help="Only these cards (a hybrid); default: all.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the view; default: made from the rest.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Make a sparse view, in which training cases keep only some of their slices, and make it the active one.

    No voxel is copied. Validation and test cases keep all labels. `--view full` shows all labels again, and
    `--view NAME` goes back to a view that was made before.

    The effort saved is estimated by contours: one is one structure in one slice, and drawing all of them along one
    axis is the whole effort.
    """
    from abdoseg.cards import expand_aliases
    from abdoseg.errors import ConfigError
    from abdoseg.steps.sparsify import SliceRule, switch_view
    from abdoseg.steps.sparsify import sparsify as make
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    axes = split_names(view)
    there = _one_that_is_there(store, axes)
    if there is not None:
        _refuse_others(context, there)
        _tell(store, switch_view(store, there))
        next_step(in_workspace(context, "abdoseg", "train"))
        return
    for option, given in (("--structures", structures), ("--sources", sources)):
        if given and not split_names(given):
            raise ConfigError(f"{option}: found none, expected names as a,b; leave it out for all")
    if seed is not None and not random:
        raise ConfigError(f"--seed {seed}: slices are evenly spaced without --random; add it, or leave out --seed")
    rule = SliceRule(every=every, seed=(seed or 0) if random else None, per_structure=per_structure, native=native)
    report = make(
        store,
        axes,
        frac,
        structures=split_names(structures),
        sources=expand_aliases(split_names(sources)),
        name=name,
        **rule,
    )
    _tell(store, report)
    next_step(in_workspace(context, "abdoseg", "train"))


def _one_that_is_there(store: "Workspace", names: tuple[str, ...]) -> str | None:
    """Return which of some names is not a direction but a view's, if any."""
    from abdoseg.annotation import AXES
    from abdoseg.views import FULL_VIEW

    known = {FULL_VIEW, *(one.name for one in store.views())} - set(AXES)
    found = next((name for name in names if name in known), None)
    if found is not None and len(names) > 1:
        raise _goes_alone(found)
    return found


def _refuse_others(context: typer.Context, name: str) -> None:
    """Refuse options that would make a view, beside the name of one that is there."""
    for option in context.params:
        source = context.get_parameter_source(option)
        if option not in ("view", "workspace") and source is not None and source.name == "COMMANDLINE":
            raise _goes_alone(name)


def _goes_alone(name: str) -> Exception:
    from abdoseg.errors import ConfigError
    from abdoseg.views import FULL_VIEW

    what = "shows all labels" if name == FULL_VIEW else "is there already, and becomes the active one"
    return ConfigError(f"--view {name}: {what}; it goes with no other view and no other option")


def _tell(store: "Workspace", report: "SparsifyReport | None") -> None:
    from abdoseg.steps.sparsify import view_facts

    if report is None:
        out.print("active view: [bold]full[/], all labels")
        return
    out.print(f"active view: [bold]{report.view.name}[/]")
    print_view(view_facts(report, store.anatomy.names))
    out.print("  validation and test keep all labels; `--view full` shows them all again")
