"""``abdoseg predict``."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    DeviceOption,
    WorkspaceOption,
    next_step,
    out,
    progress_bar,
    say,
    split_names,
    warn,
)
from abdoseg.cli._launch import end_with_launcher, launch
from abdoseg.cli._predict import Asked, check_asked, check_names, check_scan, check_windows, post_settings

if TYPE_CHECKING:
    from abdoseg.model import SegmentationModel
    from abdoseg.runs import Run
    from abdoseg.steps.predict import PredictionReport
    from abdoseg.steps.predict_folder import FolderOptions, FolderReport

_POST = "After-treatment"
_WINDOWS = "Windows"


def predict(
    scan: Annotated[
        Path | None,
        typer.Argument(
            show_default=False,
            help="A scan: NIfTI, NRRD, MetaImage, the folder of a DICOM series, or one of these as .zip; or a folder "
            "of scans.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="File to write; its suffix says the format. A folder for a folder or a split.",
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", help="Run to use; several are averaged; default: the newest finished one."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Instead of a scan, a split of the run: train, val, test or all.")
    ] = None,
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
        bool,
        typer.Option("--uncertainty", help="Write how undecided the network was, 0 to 1, beside the label map, too."),
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Write a picture beside the label map, too.")] = False,
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
    explain: Annotated[
        bool,
        typer.Option("--explain-cost", help="Say what windows, time and memory the scan would take; write nothing."),
    ] = False,
    device: DeviceOption = "auto",
    nproc: Annotated[
        int, typer.Option(min=1, max=1024, help="Processes, one a GPU, that share the scans of a folder.")
    ] = 1,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Segment a scan on its own grid: one label map, a side file with the names, and a manifest.

    A folder of scans gives a folder of label maps: what is done is skipped, a scan that fails does not stop the rest.
    torchrun and srun may start several processes, too.
    """
    from abdoseg.errors import ConfigError

    many = split is not None or (scan is not None and _is_batch(scan))
    kept, names = split_names(structures) or None, split_names(runs)
    pictures = preview or uncertainty
    check_asked(Asked(scan, split, output, many, modality, kept, format_, statistics, pictures, nproc))
    if output is None and not explain:
        raise ConfigError("--output: where should the labels go? Give a file (or a folder for several scans) with -o")
    if explain and many:
        raise ConfigError("--explain-cost: explains the cost of one scan; give its file")
    chosen = _runs(workspace, names)
    check_scan(scan)
    post = post_settings(check_names(chosen, kept), largest, fill_holes, min_ml)
    check_windows(overlap, weights)
    if nproc > 1 and output is not None:
        _several_processes(output, nproc)
        return
    end_with_launcher()
    model = _with_settings(_model(chosen, device), tta=tta, overlap=overlap, weights=weights)
    if explain and scan is not None:
        _explain(model, scan)
        return
    assert output is not None  # asked for above
    from abdoseg.steps.predict_folder import FolderOptions  # with PyTorch, so not before what is wrong was told

    suffix = format_ or ("nifti" if many else "")
    options = FolderOptions(modality, kept, suffix, post, uncertainty=uncertainty, preview=preview)
    if split is not None:
        _whole_split(model, workspace, chosen[0], split, output, options)
    elif scan is not None and many:
        _whole_folder(model, scan, output, options)
    elif scan is not None:
        _one_scan(model, scan, output, options, statistics)


def _explain(model: "SegmentationModel", scan: Path) -> None:
    from abdoseg.steps.explain_cost import explain_cost

    cost = explain_cost(model, scan)
    shape = " x ".join(str(n) for n in cost.shape)
    patch = " x ".join(str(n) for n in model.settings().patch_shape)
    say(f"{shape} voxels of {model.spacing_mm:g} mm, {cost.windows} forward passes over windows of {patch}")
    say(f"{len(model.anatomy)} structures in one pass: {cost.window_seconds:.3g} s a window, {cost.seconds:.3g} in all")
    if cost.window_seconds_per_structure is not None:
        say(
            f"as published, a pass for each structure: {cost.window_seconds_per_structure:.3g} s a window, "
            f"{cost.seconds_per_structure:.3g} in all"
        )
    say(f"about {cost.memory_bytes / 1e6:.0f} MB beside scan and network; nothing was predicted")


def _runs(workspace: Path, names: tuple[str, ...]) -> "list[Run]":
    """Return the runs asked for; without a name, the newest finished one."""
    from abdoseg.runs import load_run
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    return [load_run(store, name) for name in names] if names else [load_run(store, None)]


def _model(runs: "list[Run]", device: str) -> "SegmentationModel":
    """Return the model of a run, or the mean of several."""
    from abdoseg.devices import choose_device
    from abdoseg.engine.place import place_of
    from abdoseg.ensemble import ensemble_of
    from abdoseg.trained import load_model

    where = choose_device(device)
    if where.type == "cuda" and where.index is None:
        where = choose_device(f"cuda:{place_of(os.environ)[0].local_rank}")
    models = []
    for run in runs:
        model, steps = load_model(run, where)
        say(f"run [bold]{run.name}[/], {run.status}, {steps} steps")
        models.append(model)
    return ensemble_of(models)


def _one_scan(
    model: "SegmentationModel",
    scan: Path,
    output: Path,
    options: "FolderOptions",
    statistics: Path | None,
) -> None:
    from abdoseg.steps.predict_alone import predict_alone

    with progress_bar() as progress:
        report = predict_alone(model, scan, output, options, statistics, progress)
    if report.prediction is None:
        say(
            f"{escape(str(output))} is there already, of the same scan by the same weights and options "
            f"({escape(str(report.manifest))})"
        )
        next_step("to predict again, delete it; or open it over the scan in any viewer")
        return
    _print(report.prediction, report.manifest)


def _with_settings(model: "SegmentationModel", *, tta: bool, overlap: float, weights: str) -> "SegmentationModel":
    from dataclasses import replace

    from abdoseg.inference import TEST_TIME_VIEWS, View

    chosen: Literal["gaussian", "constant"] = "constant" if weights == "constant" else "gaussian"
    views = TEST_TIME_VIEWS if tta else (View(),)
    if tta:
        say(f"test-time augmentation: {len(views)} forward passes a window")
    settings = replace(model.settings(), overlap=overlap, weights=chosen, views=views)
    return replace(model, inference=settings)


def _is_batch(scan: Path) -> bool:
    from abdoseg.readers import has_images

    return scan.is_dir() and not has_images(scan)


def _whole_folder(model: "SegmentationModel", folder: Path, output: Path, options: "FolderOptions") -> None:
    from abdoseg.engine.place import place_of
    from abdoseg.steps.predict_folder import predict_folder

    place = place_of(os.environ)[0]
    with progress_bar(silent=place.rank > 0) as progress:
        report = predict_folder(model, folder, output, options, progress, (place.rank, place.size))
    _tell(report, place.size)


def _whole_split(
    model: "SegmentationModel", workspace: Path, run: "Run", split: str, output: Path, options: "FolderOptions"
) -> None:
    from abdoseg.engine.place import place_of
    from abdoseg.steps.predict_split import predict_split
    from abdoseg.store import Workspace

    store, place = Workspace.open(workspace), place_of(os.environ)[0]
    share = (place.rank, place.size)
    with progress_bar(silent=place.rank > 0) as progress:
        report = predict_split(model, (store, run, split), output, options, progress, share)
    _tell(report, place.size)


def _tell(report: "FolderReport", processes: int) -> None:
    for name, one in report.predicted.items():
        for warning in (*one.warnings, *map(str, one.changes)):
            warn(f"{name}: {warning}")
    # A launcher would kill the other processes of one that fails: what failed is in the manifest.
    if processes == 1:
        _sum_up(len(report.predicted), len(report.skipped), len(report.failed), report.manifest)


def _several_processes(output: Path, processes: int) -> None:
    """Start the same command in several processes, and sum up what all of them did."""
    from abdoseg.steps import manifest

    path = output / manifest.NAME
    before = manifest.scans_in(path)
    launch(processes, sys.argv[1:])
    after = manifest.scans_in(path)
    failed = sum("error" in facts for facts in after.values())
    old = sum(before.get(name) == facts and "error" not in facts for name, facts in after.items())
    _sum_up(len(after) - failed - old, old, failed, path)


def _sum_up(predicted: int, old: int, failed: int, manifest: Path) -> None:
    say(f"{predicted} predicted, {old} there already, {failed} failed; {escape(str(manifest))} says with what")
    if failed:
        next_step("mend or move the scans that failed, and the same command again")
        raise typer.Exit(1)
    next_step("open the label maps over the scans in any viewer, or abdoseg eval --pred FOLDER --ref FOLDER")


def _print(report: "PredictionReport", manifest: Path) -> None:
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
    for path in (*report.outputs, manifest):
        say(f"wrote {escape(str(path))}")
    next_step("open the label map over the scan in any viewer")
