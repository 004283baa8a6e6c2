"""``abdoseg init``."""

from typing import Annotated

import typer
from rich.markup import escape

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, counted, in_workspace, next_step, out


def init(
    context: typer.Context,
    structures: Annotated[
        str | None, typer.Option(metavar="FILE", help="TOML or JSON file of the structures; default: the paper's 16.")
    ] = None,
    spacing_mm: Annotated[float, typer.Option(help="Voxel side that all scans are brought to.")] = 2.0,
    window_ct: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="HU that become 0 and 1; default: -400 400.")
    ] = None,
    window_mr: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Percentiles of an MR scan that become 0 and 1; default: 1 99."),
    ] = None,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the train/val/test split.")] = 0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Make a workspace with your own structures, spacing or windows; `abdoseg ingest` makes the usual one by itself.

    These stay: all cases share them. Where a workspace that holds cases is there, it is kept.
    """
    from abdoseg.steps.init import init as make

    report = make(
        workspace,
        structures,
        spacing_mm=spacing_mm,
        window_ct=window_ct,
        window_mr=window_mr,
        split_seed=split_seed,
    )
    made, settings = report.workspace, report.workspace.settings
    ct, mr = settings.windows.ct_hu, settings.windows.mr_percentiles
    replaced = " (it was empty, with other settings)" if report.replaced else ""
    out.print(f"workspace [bold]{escape(str(made.path))}[/]{replaced}: {settings.spacing_mm:g} mm")
    out.print(f"{counted(len(settings.structures), 'structure')}: {', '.join(settings.structures)}")
    out.print(f"CT {ct[0]:g} to {ct[1]:g} HU, MR percentiles {mr[0]:g} to {mr[1]:g}; split seed {settings.split_seed}")
    out.print(f"shipped cards that annotate some of them: {', '.join(report.cards) or 'none'}")
    ingest, draft = in_workspace(context, "abdoseg", "ingest", "CARD", "FOLDER"), "abdoseg cards draft FOLDER"
    next_step(*([draft, ingest] if settings.own_structures else [ingest, draft]))
