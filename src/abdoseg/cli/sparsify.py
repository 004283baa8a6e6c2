"""``abdoseg sparsify``."""

from typing import Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, out, split_names
from abdoseg.cli._training import say_next, typed_again
from abdoseg.cli._views import print_view


def sparsify(
    context: typer.Context,
    view: Annotated[
        list[str], typer.Option(help="axial, coronal or sagittal (several: a,b); full: show all labels again.")
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

    No voxel is copied. Validation and test cases keep all labels. `--view full` shows all labels again.

    The effort saved is estimated by contours: one is one structure in one slice, and drawing all of them along one
    axis is the whole effort.
    """
    from abdoseg.cards import expand_aliases
    from abdoseg.errors import ConfigError
    from abdoseg.steps.sparsify import SliceRule, view_facts
    from abdoseg.steps.sparsify import sparsify as make
    from abdoseg.store import Workspace
    from abdoseg.views import FULL_VIEW

    store = Workspace.open(workspace)
    axes = split_names(view)
    if seed is not None and not random:
        raise ConfigError(f"--seed {seed}: slices are evenly spaced without --random; add it, or leave out --seed")
    rule = SliceRule(every=every, seed=(seed or 0) if random else None, per_structure=per_structure, native=native)
    if FULL_VIEW in axes:
        flags = (random, per_structure, native, structures, sources, name)
        if len(axes) > 1 or frac is not None or every is not None or any(flags):
            raise ConfigError("--view full: shows all labels; it goes with no other view and no other option")
        store.activate_view(FULL_VIEW)
        out.print("active view: [bold]full[/], all labels")
        return
    report = make(
        store,
        axes,
        frac,
        structures=split_names(structures),
        sources=expand_aliases(split_names(sources)),
        name=name,
        **rule,
    )
    out.print(f"active view: [bold]{report.view.name}[/]")
    print_view(view_facts(report, store.anatomy.names))
    out.print("  validation and test keep all labels; `--view full` shows them all again")
    of_the_view = {option.name for option in context.command.params if option.name} - {"workspace"}
    say_next(typed_again(context, "train", of_the_view))
