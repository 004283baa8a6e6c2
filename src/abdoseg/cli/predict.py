"""``abdoseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from abdoseg.anatomy import Anatomy
    from abdoseg.model import SegmentationModel
    from abdoseg.postprocess import PostSettings
    from abdoseg.steps.predict import PredictionReport

_POST = "After-treatment"
_WINDOWS = "Windows"


def predict(
    scan: Annotated[
        Path,
        typer.Argument(help="A scan: NIfTI, NRRD, MetaImage, or the folder of a DICOM series; or a folder of scans."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its suffix says the format. A folder for a folder.")
    ],
    run: Annotated[str | None, typer.Option(help="Run to use; default: the newest finished one.")] = None,
    modality: Annotated[str | None, typer.Option(help="ct or mr; default: decided from the scan, and said.")] = None,
    structures: Annotated[list[str] | None, typer.Option(help="Keep only these structures.")] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="nifti, nifti-per-structure, nrrd, metaimage, dicom-seg, dicom-labelmap or dicom-rtstruct; default: "
            "by the suffix, nifti for a folder.",
        ),
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help="Write each structure's volume, intensity and box: .json or .csv.")
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Write how undecided the network was, 0 to 1: .nii.gz.")
    ] = None,
    largest: Annotated[
        list[str] | None,
        typer.Option(help="Keep only the largest piece of these structures, or of all.", rich_help_panel=_POST),
    ] = None,
    fill_holes: Annotated[
        list[str] | None,
        typer.Option(help="Fill background that these structures enclose, or all.", rich_help_panel=_POST),
    ] = None,
    min_ml: Annotated[
        list[str] | None,
        typer.Option(
            help="Take away pieces smaller than this: spleen=1, or all=0.2 (millilitres).", rich_help_panel=_POST
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="See each window five ways (larger, smaller, shifted).", rich_help_panel=_WINDOWS),
    ] = False,
    overlap: Annotated[
        float, typer.Option(help="Part of its side a window shares with the next.", rich_help_panel=_WINDOWS)
    ] = 0.5,
    weights: Annotated[
        str, typer.Option(help="Of a window's voxels: gaussian or constant.", rich_help_panel=_WINDOWS)
    ] = "gaussian",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Segment a scan on its own grid: one label map, and a side file with the names.

    A folder of scans gives a folder of label maps: what is done is skipped, a scan that fails does not stop the rest.
    """
    from abdoseg.devices import choose_device
    from abdoseg.runs import load_run
    from abdoseg.steps.predict import Extras, predict_file
    from abdoseg.store import Workspace
    from abdoseg.trained import load_model

    chosen = load_run(Workspace.open(workspace), run)
    model, steps = load_model(chosen, choose_device(device))
    say(f"run [bold]{chosen.name}[/], {chosen.status}, {steps} steps")
    model = _with_settings(model, tta=tta, overlap=overlap, weights=weights)
    post = _post(model.anatomy, largest, fill_holes, min_ml)
    kept = split_names(structures) or None
    if _is_batch(scan):
        _whole_folder(model, scan, output, (modality, kept, format_, post, uncertainty, statistics))
        return
    with progress_bar() as progress:
        extras = Extras(post, statistics, uncertainty)
        report = predict_file(model, scan, output, modality, kept, progress, format_=format_, extras=extras)
    _print(report)


def _with_settings(model: "SegmentationModel", *, tta: bool, overlap: float, weights: str) -> "SegmentationModel":
    from dataclasses import replace

    from abdoseg.errors import unknown_name
    from abdoseg.inference import TEST_TIME_VIEWS, View

    if weights not in ("gaussian", "constant"):
        raise unknown_name("--weights", weights, ["gaussian", "constant"])
    chosen: Literal["gaussian", "constant"] = "constant" if weights == "constant" else "gaussian"
    views = TEST_TIME_VIEWS if tta else (View(),)
    if tta:
        say(f"test-time augmentation: {len(views)} forward passes a window")
    settings = replace(model.settings(), overlap=overlap, weights=chosen, views=views)
    return replace(model, inference=settings)


def _post(
    anatomy: "Anatomy", largest: list[str] | None, fill_holes: list[str] | None, min_ml: list[str] | None
) -> "PostSettings":
    from abdoseg.postprocess import PostSettings

    volumes = dict(_volume(entry) for entry in split_names(min_ml))
    return PostSettings.of(anatomy, split_names(largest), split_names(fill_holes), volumes)


def _volume(entry: str) -> tuple[str, float]:
    from abdoseg.errors import ConfigError

    name, _, volume = entry.partition("=")
    try:
        return name, float(volume)
    except ValueError as error:
        raise ConfigError(f"--min-ml: found {entry!r}; expected NAME=MILLILITRES, as in spleen=1 or all=0.2") from error


def _is_batch(scan: Path) -> bool:
    from abdoseg.scans import has_dicom

    return scan.is_dir() and not has_dicom(scan)


def _whole_folder(
    model: "SegmentationModel",
    folder: Path,
    output: Path,
    given: "tuple[str | None, tuple[str, ...] | None, str | None, PostSettings, Path | None, Path | None]",
) -> None:
    from abdoseg.errors import ConfigError
    from abdoseg.steps.predict_folder import FolderOptions, predict_folder

    modality, structures, format_, post, uncertainty, statistics = given
    for option, path in (("--uncertainty", uncertainty), ("--statistics", statistics)):
        if path is not None:
            raise ConfigError(
                f"{option} {path}: {folder} is a folder of scans; statistics are written beside each label map, and "
                "uncertainty for one scan at a time"
            )
    options = FolderOptions(modality, structures, format_ or "nifti", post)
    with progress_bar() as progress:
        report = predict_folder(model, folder, output, options, progress)
    for name, one in report.predicted.items():
        for warning in (*one.warnings, *map(str, one.changes)):
            warn(f"{name}: {warning}")
    for name, why in report.failed.items():
        warn(f"{name}: failed: {why}")
    counts = f"{len(report.predicted)} predicted, {len(report.skipped)} there already, {len(report.failed)} failed"
    say(f"{counts}; {escape(str(report.manifest))} says with what")
    if report.failed:
        next_step("mend or move the scans that failed, and the same command again")
        raise typer.Exit(1)
    next_step("open the label maps over the scans in any viewer, or abdoseg eval --pred FOLDER --ref FOLDER")


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
    for change in report.changes:
        say(str(change))
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items())
    say(f"seconds: {seconds}")
    for path in report.outputs:
        say(f"wrote {escape(str(path))}")
    next_step("open the label map over the scan in any viewer")
