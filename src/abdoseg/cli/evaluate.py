"""``abdoseg eval``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    DeviceOption,
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
    from abdoseg.anatomy import Anatomy
    from abdoseg.metrics import EvalSettings, Score
    from abdoseg.progress import Progress


@dataclass(frozen=True)
class _Scored:
    """The scores of a run or a folder, with its name and its structures."""

    name: str
    anatomy: "Anatomy"
    scores: "list[Score]"


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
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="dsc, nsd, hd95, volume_error, volume_difference; several: a,b.", show_default="dsc"),
    ] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help="Tolerance of the NSD in mm, as liver=5; several: a=1,b=2.")
    ] = None,
    one_sided: Annotated[
        str, typer.Option(help="HD95 where the prediction lacks the structure: skip, or the scan's diagonal.")
    ] = "skip",
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Two runs: paired differences A - B by structure.", metavar="A B")
    ] = None,
    pred: Annotated[Path | None, typer.Option(help="Folder of predictions, instead of a run.")] = None,
    ref: Annotated[Path | None, typer.Option(help="Folder of references, with --pred.")] = None,
    pred_b: Annotated[Path | None, typer.Option(help="Folder of other predictions to compare --pred with.")] = None,
    card: Annotated[
        str | None, typer.Option(help="With --ref: the card whose label values the references use.")
    ] = None,
    missing: Annotated[str, typer.Option(help="With --pred: error, zero or skip for a missing prediction.")] = "error",
    resample: Annotated[
        bool, typer.Option("--resample", help="With --pred: bring predictions to the references' grids, nearest voxel.")
    ] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Score a run, or two plain folders: DSC in percent, with spread and bootstrap confidence interval.

    Only annotated structures count. Cases the run has not predicted yet are predicted first.
    """
    from abdoseg.errors import unknown_name
    from abdoseg.metrics import summarise
    from abdoseg.tables import FORMATS

    formats = ["table", *FORMATS]
    if format_ not in formats:
        raise unknown_name("format", format_, formats)
    if split not in ("train", "val", "test", "all"):
        raise unknown_name("split", split, ["test", "val", "train", "all"])
    _check_choice(pred, ref, pred_b, run, compare, by, resample=resample)
    groups = split_names(by) or ("structure",)
    summarise([], groups)  # a wrong --by is told before anything is predicted
    settings = _settings(absent, min_voxels, split_names(metrics) or ("dsc",), split_names(tolerance), one_sided)
    with progress_bar() as progress:
        if ref is not None:
            sides = [side for side in (pred, pred_b) if side is not None]
            found = [_folders(side, ref, card, missing, settings, progress, resample=resample) for side in sides]
        else:
            names = compare or (run,)
            found = [_run(workspace, name, split, device, settings, progress) for name in names]
    for scored in found:
        _require_scores(scored.scores)
        _tell_unscored(scored.scores)
    if len(found) == 2:
        _print_comparison(found[0].scores, found[1].scores, format_)
    else:
        _print_rows(found[0], groups, format_)


def _check_choice(
    pred: Path | None,
    ref: Path | None,
    pred_b: Path | None,
    run: str | None,
    compare: tuple[str, str] | None,
    by: list[str] | None,
    *,
    resample: bool,
) -> None:
    """Raise ConfigError for options that do not go together."""
    from abdoseg.errors import ConfigError

    if (pred is None) != (ref is None):
        raise ConfigError("--pred and --ref: found one of them, expected both or none; give both folders")
    if pred is None and (pred_b is not None or resample):
        raise ConfigError("--pred-b and --resample: found without folders; expected --pred and --ref too")
    if compare and (pred is not None or run is not None):
        raise ConfigError("--compare: found --run or --pred too; expected two runs alone; for folders give --pred-b")
    if by and (compare or pred_b is not None):
        raise ConfigError("--by: a comparison is by structure and over subjects; leave --by out")


def _print_rows(scored: _Scored, groups: tuple[str, ...], format_: str) -> None:
    from abdoseg.metrics import summarise
    from abdoseg.tables import format_rows

    rows = summarise(scored.scores, groups)
    if format_ == "table":
        from abdoseg.cli._tables import rich_table

        out.print(rich_table(rows))
        next_step("abdoseg eval --by dataset, --by subject, or --format json")
    else:
        typer.echo(format_rows(rows, format_, scored.name, scored.anatomy), nl=False)


def _print_comparison(a: "list[Score]", b: "list[Score]", format_: str) -> None:
    from abdoseg.metrics.paired import FEWEST_PAIRS, compare_scores
    from abdoseg.tables import format_comparison

    rows = compare_scores(a, b)
    if not rows:
        warn("nothing to compare: no structure of any case has a score in both")
        raise typer.Exit(1)
    few = sum(row.p is None for row in rows)
    if few:
        say(f"no p value in {few} of {len(rows)} rows: fewer than {FEWEST_PAIRS} pairs differ")
    if format_ != "table":
        typer.echo(format_comparison(rows, format_), nl=False)
        return
    from abdoseg.cli._tables import comparison_table

    for metric in dict.fromkeys(row.metric for row in rows):
        out.print(comparison_table([row for row in rows if row.metric == metric]))


def _tell_unscored(scores: "list[Score]") -> None:
    """Say what has no distances: a mean over the others would look better than it is."""
    from abdoseg.metrics import Outcome

    reasons = {
        Outcome.KNOWN_IN_PART: "their references are known in part, so their surfaces are not known",
        Outcome.NOT_PREDICTED: "they were not predicted (--one-sided diagonal counts them)",
    }
    for metric in dict.fromkeys(score.metric for score in scores):
        for outcome, why in reasons.items():
            n = sum(score.metric == metric and score.outcome is outcome for score in scores)
            if n:
                say(f"{metric}: {counted(n, 'structure')} (summed over cases) left out: {why}")


def _require_scores(scores: "list[Score]") -> None:
    """Say why there is nothing to show, with status 1, when no structure of any case could be scored."""
    if any(score.value is not None for score in scores):
        return
    counts = Counter(score.outcome.value for score in scores)
    why = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no structure at all"
    warn(f"nothing to score: {why} (structures times cases)")
    raise typer.Exit(1)


def _settings(
    absent: str, min_voxels: int, metrics: tuple[str, ...], tolerances: tuple[str, ...], one_sided: str
) -> "EvalSettings":
    from abdoseg.errors import unknown_name
    from abdoseg.metrics import EvalSettings, get_metric

    if absent not in ("skip", "score"):
        raise unknown_name("--absent", absent, ["skip", "score"])
    if one_sided not in ("skip", "diagonal"):
        raise unknown_name("--one-sided", one_sided, ["skip", "diagonal"])
    for name in metrics:
        get_metric(name)
    return EvalSettings(
        metrics=metrics,
        absent="score" if absent == "score" else "skip",
        min_voxels=min_voxels,
        tolerances_mm=_tolerances(tolerances),
        one_sided="diagonal" if one_sided == "diagonal" else "skip",
    )


def _tolerances(texts: tuple[str, ...]) -> dict[str, float]:
    from abdoseg.anatomy import ABDOMEN
    from abdoseg.errors import ConfigError

    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise ConfigError(f"--tolerance: found {text}; expected STRUCTURE=MM, as liver=5") from None
        ABDOMEN.id_of(name.strip())
    return found


def _run(
    workspace: Path, name: str | None, split: str, device: str, settings: "EvalSettings", progress: "Progress"
) -> _Scored:
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
    return _Scored(run.name, run.anatomy, report.scores)


def _folders(
    pred: Path,
    ref: Path,
    card: str | None,
    missing: str,
    settings: "EvalSettings",
    progress: "Progress",
    *,
    resample: bool,
) -> _Scored:
    from abdoseg.errors import unknown_name
    from abdoseg.readers import stem_of
    from abdoseg.steps.evaluate_folders import Missing, evaluate_pairs, folder_rules, pair_folders

    allowed: dict[str, Missing] = {"error": "error", "zero": "zero", "skip": "skip"}
    if missing not in allowed:
        raise unknown_name("--missing", missing, list(allowed))
    rules = folder_rules(ref, card)
    pairs, notes = pair_folders(pred, ref, allowed[missing])
    for line in (*rules.notes, *notes):
        say(line)
    scores = evaluate_pairs(pairs, rules, settings, progress, resample=resample)
    return _Scored(stem_of(pred.resolve()), rules.anatomy, scores)
