"""``abdoseg export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    counted,
    next_step,
    out,
    progress_bar,
    say,
    split_names,
    warn,
)

if TYPE_CHECKING:
    from abdoseg.sharing.parts import RunReport
    from abdoseg.steps.export import CaseOptions, CasesReport
    from abdoseg.store import Workspace

_CASES = "Of sources and views"

_FEW = 9
"""Cases that one process writes sooner than several start."""


def export(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN | SOURCE... VIEW]",
            help="A run (default: the newest finished one), or sources and a view (default: all, with all labels).",
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="monai-bundle or onnx, of a run; nnunet, h5 or nifti, of cases.")] = ...,  # type: ignore[assignment]
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = ...,  # type: ignore[assignment]
    split: Annotated[
        Literal["train", "val", "test", "all"],
        typer.Option(help="Only the cases of this side of the split.", rich_help_panel=_CASES),
    ] = "all",
    modality: Annotated[
        str | None, typer.Option(help="Only ct or only mr cases; nnU-Net needs one.", rich_help_panel=_CASES)
    ] = None,
    number: Annotated[int, typer.Option(min=1, max=999, help="Of the nnU-Net dataset.", rich_help_panel=_CASES)] = 501,
    name: Annotated[str, typer.Option(help="Of the nnU-Net dataset.", rich_help_panel=_CASES)] = "abdoseg",
    folds: Annotated[
        int,
        typer.Option(
            min=0,
            help="Folds in nnU-Net's splits_final.json, as of train --fold K/N; 0: the split.",
            rich_help_panel=_CASES,
        ),
    ] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cases at a time; default: one a core.", rich_help_panel=_CASES)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another export that is there.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write a run as MONAI bundle or ONNX, or stored cases as nnU-Net raw dataset, HDF5 or NIfTI.

    Files appear whole or not at all. An export of cases that was stopped goes on where it was.
    """
    from abdoseg.sharing import RUN_FORMATS, require_format
    from abdoseg.steps.export import CaseOptions, modality_named
    from abdoseg.store import Workspace

    require_format(to)
    chosen = split_names(names)
    if to in RUN_FORMATS:
        _require_no_case_options(to, split=split, modality=modality, folds=folds, jobs=jobs)
        _run(Workspace.open(workspace), chosen, to, output, force=force)
        return
    options = CaseOptions(split, modality_named(modality), name, number, folds, force)
    _cases(Workspace.open(workspace), chosen, to, output, options, jobs)


def _require_no_case_options(to: str, **given: object) -> None:
    from abdoseg.errors import ConfigError

    wrong = [f"--{name}" for name, value in given.items() if value not in (None, 0, "all")]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: of an export of cases; --to {to} writes a run, leave it out")


def _run(workspace: "Workspace", names: tuple[str, ...], to: str, output: Path, *, force: bool) -> None:
    from abdoseg.errors import ConfigError
    from abdoseg.runs import load_run
    from abdoseg.steps.export_run import export_run

    if len(names) > 1:
        raise ConfigError(f"{', '.join(names)}: --to {to} takes one run")
    run = load_run(workspace, names[0] if names else None)
    say(f"run [bold]{escape(run.name)}[/], {run.status}")
    _print_run(export_run(workspace, run, to, output, force=force))
    if to == "monai-bundle":
        next_step(f"cd {output} && python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS")
    else:
        next_step(f"{output / 'model.json'} says what the network expects")


def _print_run(report: "RunReport") -> None:
    for path in report.files:
        out.print(f"wrote {escape(str(path))}", soft_wrap=True)
    for note in report.notes:
        say(escape(note))
    say(f"scores differ from the run's by at most {report.difference:.1e} of the largest, on random images")


def _cases(
    workspace: "Workspace", names: tuple[str, ...], to: str, output: Path, options: "CaseOptions", jobs: int | None
) -> None:
    from abdoseg.steps.export import export_cases
    from abdoseg.steps.ingest import worker_pool

    with worker_pool(_processes(jobs, workspace)) as pool, progress_bar() as progress:
        report = export_cases(workspace, names, to, output, options, executor=pool, progress=progress)
    _print_cases(report)
    if report.failed:
        next_step("mend or remove the cases that failed, and the same command again")
        raise typer.Exit(1)
    if to == "nnunet":
        where = f"nnUNet_raw={output}"
        next_step(f"{where} nnUNetv2_plan_and_preprocess -d {options.number} --verify_dataset_integrity")


def _processes(jobs: int | None, workspace: "Workspace") -> int:
    """Return how many processes to start: none for a handful of cases, as starting one takes seconds."""
    from abdoseg.devices import available_cores

    few = len(workspace.briefs()) < _FEW
    return jobs or (1 if few else available_cores())


def _print_cases(report: "CasesReport") -> None:
    for case, why in report.failed.items():
        warn(f"{case}: failed: {why}")
    counts = f"{counted(report.written, 'case')} written, {report.present} there already, {len(report.failed)} failed"
    out.print(f"{counts}: {escape(str(report.folder))}", soft_wrap=True)
    if report.unlabelled:
        say(f"{counted(report.unlabelled, 'case')} without any annotation left out")
    for note in report.notes:
        say(escape(note))
