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

if TYPE_CHECKING:
    from abdoseg.anatomy import Anatomy
    from abdoseg.model import SegmentationModel
    from abdoseg.postprocess import PostSettings
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
    from abdoseg.steps.predict_folder import FolderOptions

    many = split is not None or (scan is not None and _is_batch(scan))
    _check(scan, split, nproc, statistics, many=many, pictures=preview or uncertainty)
    if explain:
        if scan is None or many:
            raise ConfigError("--explain-cost: explains the cost of one scan; give its file")
        _explain(_with_settings(_model(workspace, runs, device), tta=tta, overlap=overlap, weights=weights), scan)
        return
    if output is None:
        raise ConfigError("--output: where should the labels go? Give a file (or a folder for several scans) with -o")
    if nproc > 1:
        _several_processes(output, nproc)
        return
    end_with_launcher()
    model = _with_settings(_model(workspace, runs, device), tta=tta, overlap=overlap, weights=weights)
    post = _post(model.anatomy, largest, fill_holes, min_ml)
    kept = split_names(structures) or None
    suffix = format_ or ("nifti" if many else "")
    options = FolderOptions(modality, kept, suffix, post, uncertainty=uncertainty, preview=preview)
    if split is not None:
        _whole_split(model, workspace, runs[0] if runs else None, split, output, options)
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


def _check(
    scan: Path | None, split: str | None, nproc: int, statistics: Path | None, *, many: bool, pictures: bool
) -> None:
    """Refuse options that do not go together."""
    from abdoseg.errors import ConfigError, unknown_name

    if (scan is None) == (split is None):
        raise ConfigError("give a scan, or a folder of scans, or --split; one of them")
    if split is not None and split not in ("train", "val", "test", "all"):
        raise unknown_name("--split", split, ["train", "val", "test", "all"])
    if nproc > 1 and not many:
        raise ConfigError(f"--nproc {nproc}: processes share the scans of a folder; {scan} is one scan")
    if split is not None and (pictures or statistics is not None):
        raise ConfigError(
            "--split: predicts from the store, which does not hold the scans themselves; pictures, statistics and "
            "uncertainty need the scan's own file"
        )
    if many and statistics is not None:
        raise ConfigError(f"--statistics {statistics}: {scan} is a folder of scans; theirs are beside each label map")


def _model(workspace: Path, names: list[str] | None, device: str) -> "SegmentationModel":
    """Return the model of a run, or the mean of several."""
    from abdoseg.devices import choose_device
    from abdoseg.engine.place import place_of
    from abdoseg.ensemble import ensemble_of
    from abdoseg.runs import load_run
    from abdoseg.store import Workspace
    from abdoseg.trained import load_model

    store = Workspace.open(workspace)
    where = choose_device(device)
    if where.type == "cuda" and where.index is None:
        where = choose_device(f"cuda:{place_of(os.environ)[0].local_rank}")
    models = []
    for run in [load_run(store, name) for name in names] if names else [load_run(store, None)]:
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
    model: "SegmentationModel", workspace: Path, run: str | None, split: str, output: Path, options: "FolderOptions"
) -> None:
    from abdoseg.engine.place import place_of
    from abdoseg.runs import load_run
    from abdoseg.steps.predict_split import predict_split
    from abdoseg.store import Workspace

    store, place = Workspace.open(workspace), place_of(os.environ)[0]
    share = (place.rank, place.size)
    with progress_bar(silent=place.rank > 0) as progress:
        report = predict_split(model, (store, load_run(store, run), split), output, options, progress, share)
    _tell(report, place.size)


def _tell(report: "FolderReport", processes: int) -> None:
    for name, one in report.predicted.items():
        for warning in (*one.warnings, *map(str, one.changes)):
            warn(f"{name}: {warning}")
    for name, why in report.failed.items():
        warn(f"{name}: failed: {why}")
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
