"""``abdoseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    next_step,
    out,
    progress_bar,
    say,
    split_names,
    warn,
)

if TYPE_CHECKING:
    from abdoseg.steps.predict import PredictionReport


def predict(
    scan: Annotated[Path, typer.Argument(help="A scan: NIfTI, NRRD, MetaImage, or the folder of a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write, .nii.gz or .nii.")],
    run: Annotated[str | None, typer.Option(help="Run to use; default: the newest finished one.")] = None,
    modality: Annotated[str | None, typer.Option(help="ct or mr; default: decided from the scan, and said.")] = None,
    structures: Annotated[list[str] | None, typer.Option(help="Keep only these structures.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Segment a scan on its own grid: one label map, and a side file with the names."""
    from abdoseg.devices import choose_device
    from abdoseg.runs import load_run
    from abdoseg.steps.predict import predict_file
    from abdoseg.store import Workspace
    from abdoseg.trained import load_model

    chosen = load_run(Workspace.open(workspace), run)
    model, steps = load_model(chosen, choose_device(device))
    say(f"run [bold]{chosen.name}[/], {chosen.status}, {steps} steps")
    with progress_bar() as progress:
        report = predict_file(
            model, scan, output, modality, structures=split_names(structures) or None, progress=progress
        )
    _print(report)


def _print(report: "PredictionReport") -> None:
    shape = " x ".join(str(n) for n in report.shape)
    spacing = " x ".join(f"{s:.3g}" for s in report.spacing_mm)
    say(f"{shape} voxels, {spacing} mm")
    for warning in report.warnings:
        warn(warning)
    table = Table(box=None, pad_edge=False)
    table.add_column("structure")
    table.add_column("volume ml", justify="right")
    for name, volume in report.volume_ml.items():
        table.add_row(name, f"{volume:.1f}")
    out.print(table)
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items())
    say(f"seconds: {seconds}")
    for path in report.outputs:
        say(f"wrote {escape(str(path))}")
    next_step("open the label map over the scan in any viewer")
