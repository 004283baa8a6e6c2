"""``abdoseg sparsify``."""

from typing import Annotated

import typer

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, next_step, out, split_names


def sparsify(
    view: Annotated[
        list[str], typer.Option(help="axial, coronal or sagittal (several: a,b); full: show all labels again.")
    ],
    frac: Annotated[float, typer.Option(help="Fraction of slices that keep their labels, above 0 up to 1.")] = 0.2,
    sources: Annotated[list[str] | None, typer.Option(help="Only these cards (a hybrid); default: all.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the view; default: made from the rest.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Make a sparse view, in which training cases keep only evenly spaced slices, and make it the active one.

    No voxel is copied. Validation and test cases keep all labels. `--view full` shows all labels again.
    """
    from abdoseg.cards import expand_aliases
    from abdoseg.steps.sparsify import sparsify as make
    from abdoseg.store import Workspace
    from abdoseg.views import FULL_VIEW

    store = Workspace.open(workspace)
    axes = split_names(view)
    if axes == (FULL_VIEW,):
        store.activate_view(FULL_VIEW)
        out.print("active view: [bold]full[/], all labels")
        return
    report = make(store, axes, frac, sources=expand_aliases(split_names(sources)), name=name)
    thinned, annotated = report.cases
    out.print(f"active view: [bold]{report.view.name}[/], thins {thinned} of {annotated} annotated training cases")
    for axis, (kept, total) in report.slices.items():
        out.print(f"  {axis}: {kept} of {total} slices keep their labels ({100 * kept / max(1, total):.1f} %)")
    out.print("  validation and test keep all labels; `sparsify --view full` shows them all again")
    next_step("abdoseg train")
