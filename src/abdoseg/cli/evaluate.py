"""``abdoseg eval``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from abdoseg.metrics import EvalSettings, Score
    from abdoseg.progress import Progress


def evaluate(
    by: Annotated[
        list[str] | None,
        typer.Option(help="structure, dataset, subject or modality; several: a,b.", show_default="structure"),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val, train or all, as the run froze it.")] = "test",
    run: Annotated[str | None, typer.Option(help="Run to evaluate; default: the newest finished one.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, csv, markdown or latex.")] = "table",
    absent: Annotated[
        str, typer.Option(help="Annotated but absent structures: skip, or score false positives.")
    ] = "skip",
    min_voxels: Annotated[int, typer.Option(min=1, help="Smallest reference structure that counts.")] = 1,
    pred: Annotated[Path | None, typer.Option(help="Folder of predictions, instead of a run.")] = None,
    ref: Annotated[Path | None, typer.Option(help="Folder of references, with --pred.")] = None,
    card: Annotated[
        str | None, typer.Option(help="With --ref: the card whose label values the references use.")
    ] = None,
    missing: Annotated[str, typer.Option(help="With --pred: error, zero or skip for a missing prediction.")] = "error",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Score a run, or two plain folders: DSC in percent, with spread and bootstrap confidence interval.

    Only annotated structures count. Cases the run has not predicted yet are predicted first.
    """
    from abdoseg.errors import ConfigError, unknown_name
    from abdoseg.metrics import summarise
    from abdoseg.tables import FORMATS, format_rows

    formats = ["table", *FORMATS]
    if format_ not in formats:
        raise unknown_name("format", format_, formats)
    if split not in ("train", "val", "test", "all"):
        raise unknown_name("split", split, ["test", "val", "train", "all"])
    if (pred is None) != (ref is None):
        raise ConfigError("--pred and --ref: found one of them, expected both or none; give both folders")
    groups = split_names(by) or ("structure",)
    summarise([], groups)  # a wrong --by is told before anything is predicted
    settings = _settings(absent, min_voxels)
    with progress_bar() as progress:
        if pred is not None and ref is not None:
            scores = _folders(pred, ref, card, missing, settings, progress)
        else:
            scores = _run(workspace, run, split, device, settings, progress)
    _require_scores(scores)
    rows = summarise(scores, groups)
    if format_ == "table":
        from abdoseg.cli._tables import rich_table

        out.print(rich_table(rows))
        next_step("abdoseg eval --by dataset, --by subject, or --format json")
    else:
        typer.echo(format_rows(rows, format_))


def _require_scores(scores: "list[Score]") -> None:
    """Say why there is nothing to show, with status 1, when no structure of any case could be scored."""
    if any(score.value is not None for score in scores):
        return
    counts = Counter(score.outcome.value for score in scores)
    why = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no structure at all"
    warn(f"nothing to score: {why} (structures times cases)")
    raise typer.Exit(1)


def _settings(absent: str, min_voxels: int) -> "EvalSettings":
    from abdoseg.errors import unknown_name
    from abdoseg.metrics import EvalSettings

    if absent not in ("skip", "score"):
        raise unknown_name("--absent", absent, ["skip", "score"])
    return EvalSettings(absent="score" if absent == "score" else "skip", min_voxels=min_voxels)


def _run(
    workspace: Path, name: str | None, split: str, device: str, settings: "EvalSettings", progress: "Progress"
) -> "list[Score]":
    from abdoseg.runs import load_run
    from abdoseg.steps.evaluate_run import evaluate_run
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    run = load_run(store, name)
    if run.status != "finished":
        warn(f"run {run.name} is not finished; its last checkpoint is evaluated")
    report = evaluate_run(store, run, split, device=device, settings=settings, progress=progress)
    spacing = run.data.settings.spacing_mm
    say(
        f"run [bold]{run.name}[/], {report.steps} steps, {split}: {len(report.cases)} cases, on the {spacing:g} mm grid"
    )
    return report.scores


def _folders(
    pred: Path, ref: Path, card: str | None, missing: str, settings: "EvalSettings", progress: "Progress"
) -> "list[Score]":
    from abdoseg.errors import unknown_name
    from abdoseg.steps.evaluate import Missing, evaluate_pairs, folder_rules, pair_folders

    allowed: dict[str, Missing] = {"error": "error", "zero": "zero", "skip": "skip"}
    if missing not in allowed:
        raise unknown_name("--missing", missing, list(allowed))
    rules = folder_rules(ref, card)
    pairs, notes = pair_folders(pred, ref, allowed[missing])
    for line in (*rules.notes, *notes):
        say(line)
    return evaluate_pairs(pairs, rules, settings, progress=progress)
