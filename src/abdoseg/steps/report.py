"""Report: what a run learnt from, how its training went, what it scores and where it errs, as one page."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.case import CaseFacts
from abdoseg.errors import AbdosegError
from abdoseg.geometry import spacing_of
from abdoseg.metrics import DEFAULTS, EvalSettings, Score, summarise
from abdoseg.progress import SILENT, Progress
from abdoseg.report import Section, ShownCase, left_out, render
from abdoseg.report.charts import LINE_COLOURS, box_plots, line_chart
from abdoseg.run_files import read_metrics
from abdoseg.runs import Run, keys_of_split, read_frozen
from abdoseg.steps.evaluate import evaluate_cases
from abdoseg.steps.evaluate_run import CasePredictor
from abdoseg.steps.sample import sample
from abdoseg.store import Workspace
from abdoseg.types import UNKNOWN_LABEL, Label

_CURVES = {
    "Loss": ("loss", "focal", "dice"),
    "Validation, DSC in per cent": ("validation_dsc",),
    "Learning rate": ("learning_rate",),
    "Norm of the gradient": ("gradient_norm",),
}
"""Heading -> keys of ``metrics.jsonl``; the loss's other terms are in it too."""

_SET = {"Learning rate", "Validation, DSC in per cent"}
"""Curves without noise to smooth, or with few points."""

_NO_TERMS = {
    "step",
    "seconds_per_step",
    "patches_per_second",
    "wait_percent",
    "best_dsc",
    "best_step",
    "entropy_weight",
}

DRAWN = 20_000
"""Examples that the sampler's statistics are of, at most."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a run's predictions of a split came to.

    Parameters
    ----------
    split, steps
        What was predicted, by weights that had seen so many steps.
    scores
        One for each case, structure and metric.
    confusion
        int64 ``(N + 1, N + 1)``: voxels of a reference structure (row) that were called something (column).
    """

    split: str
    steps: int
    scores: list[Score]
    confusion: NDArray[np.int64]

    @property
    def ranking(self) -> list[tuple[float, str]]:
        """Mean DSC of every case and its key, the worst first."""
        rows = summarise([score for score in self.scores if score.metric == "dsc"], ("subject",))
        return sorted((row.mean, row.keys["subject"]) for row in rows if not row.overall)


def report_run(
    workspace: Workspace,
    run: Run,
    split: str = "test",
    *,
    cases: int = 3,
    device: str = "auto",
    settings: EvalSettings = DEFAULTS,
    progress: Progress = SILENT,
) -> str:
    """Return the report of a run: a self-contained page of HTML.

    Parameters
    ----------
    workspace, run
        Where the cases are; what to report on. A run that goes on is reported as far as it came.
    split
        ``train``, ``val``, ``test`` or ``all`` of the split that the run froze.
    cases
        How many cases to show slice by slice: the worst, the best, and between them.
    device
        Where to predict what is not predicted yet.
    settings
        Metrics and rules.
    progress
        Told after every case.

    Raises
    ------
    ConfigError
        If the split holds no case.
    RunError
        If a case that the run froze is gone or changed.
    """
    settings = replace(settings, metrics=("dsc", *(name for name in settings.metrics if name != "dsc")))
    found = None
    if run.status != "not started":
        found = examine(workspace, run, split, device=device, settings=settings, progress=progress)
    sections = [_training(run)]
    shown: list[ShownCase] = []
    if found is not None and found.ranking:
        sections += [_scores(found), _boxes(found, run.anatomy), _confusion(found, run.anatomy)]
        shown = _shown(workspace, run, found, cases, device)
    else:
        sections.append(Section("scores", "Scores", ["No weights yet, or no structure to score: nothing is scored."]))
    sections += [_drawn(workspace, run), _provenance(workspace, run)]
    return render(run.name, _facts(run, found), sections, shown, run.anatomy)


def examine(
    workspace: Workspace,
    run: Run,
    split: str,
    *,
    device: str = "auto",
    settings: EvalSettings = DEFAULTS,
    progress: Progress = SILENT,
) -> Findings:
    """Return scores and confusion of a split, the scores as ``evaluate_run`` has them."""
    keys = keys_of_split(run, split)
    predictor, steps = CasePredictor.of(run, device)
    frozen = {case.key: case for case in run.data.cases}
    n = 1 + len(run.anatomy)
    confusion = np.zeros((n, n), dtype=np.int64)

    def items() -> Any:
        for key in keys:
            facts = read_frozen(workspace, run, frozen[key])
            prediction, label = predictor.predict(workspace, facts)
            confusion[:] += confusion_of(label, prediction, n)
            yield facts, facts.groups, label, prediction

    progress.start(len(keys), f"evaluating {split}")
    scores = evaluate_cases(items(), settings, run.anatomy, progress)
    return Findings(split, steps, scores, confusion)


def confusion_of(reference: Label, prediction: Label, n: int) -> NDArray[np.int64]:
    """Return the voxels of each reference class (row) that were called each class (column), int64 ``(n, n)``.

    Voxels that nobody knows (255) are left out. The row of background is not meant to be read: a voxel that nobody
    drew may hold a structure that was not annotated.
    """
    known = reference != UNKNOWN_LABEL
    pairs = reference[known].astype(np.int64) * n + prediction[known]
    return np.bincount(pairs, minlength=n * n).reshape(n, n)


def _facts(run: Run, found: Findings | None) -> dict[str, str]:
    sources: dict[str, int] = {}
    for key in run.data.keys("train"):
        sources[key.split("/")[0]] = sources.get(key.split("/")[0], 0) + 1
    facts = {
        "method, network": f"{run.config.method}, {run.config.network}",
        "sampler, view": f"{run.config.sampler}, {run.config.view}",
        "status": f"{run.status}, {'no weights' if found is None else f'{found.steps} of {run.config.steps} steps'}",
        "learnt from": ", ".join(f"{name} ({n})" for name, n in sorted(sources.items())),
    }
    if found is not None and found.ranking:
        (row,) = [r for r in summarise([s for s in found.scores if s.metric == "dsc"], ("dataset",)) if r.overall]
        interval = "" if row.ci95 is None else f" [{row.ci95[0]:.1f}, {row.ci95[1]:.1f}]"
        facts[f"DSC, {found.split}"] = f"{row.mean:.1f} %{interval}, {row.n} cases"
    return facts


def _training(run: Run) -> Section:
    lines = read_metrics(run.folder / "metrics.jsonl")
    named = {key for keys in _CURVES.values() for key in keys}
    terms = sorted({key for line in lines for key in line} - named - _NO_TERMS)
    charts = {}
    for heading, keys in _CURVES.items():
        wanted = (*keys, *terms) if heading == "Loss" else keys
        curves = {key: [(line["step"], line[key]) for line in lines if line.get(key) is not None] for key in wanted}
        if any(curves.values()):
            charts[heading] = line_chart(curves, label=f"{heading} over steps", smooth=heading not in _SET)
    notes = [] if charts else ["Nothing was written down yet."]
    if charts:
        notes.append("Pale: as measured; bold: the mean over a twentieth of the curve.")
        notes.append("To read a curve, point at it, or tab to it and use the arrow keys.")
    return Section("training", "Training", notes, charts)


_COLUMNS = ("mean", "std", "median", "95 % low", "95 % high", "n")


def _scores(found: Findings) -> Section:
    tables = {}
    for metric in dict.fromkeys(score.metric for score in found.scores):
        of_metric = [score for score in found.scores if score.metric == metric]
        for by in (("structure",), ("dataset",), ("modality",), ("subject",), ("structure", "dataset")):
            rows = [
                [*row.keys.values(), row.mean, row.std, row.median, *(row.ci95 or (None, None)), row.n]
                for row in summarise(of_metric, by)
            ]
            if rows:
                tables[f"{metric} by {' and '.join(by)}"] = ((*by, *_COLUMNS), rows)
    notes = [
        (
            "Annotated structures that the reference holds; what nobody annotated is left out, never scored 0. "
            "Intervals: 95 %, by drawing subjects anew. DSC in per cent."
        ),
        (
            "n: the values behind a mean, of cases, or of structures in the rows of one case and of an average. A case "
            "counts for a structure if its source annotates it and its reference holds it, so that n differs between "
            "structures; surfaces and distances ask for more."
        ),
        *left_out(found.scores),
    ]
    return Section("scores", "Scores", notes, tables=tables)


def _boxes(found: Findings, anatomy: Anatomy) -> Section:
    charts = {}
    for metric in dict.fromkeys(score.metric for score in found.scores if score.value is not None):
        valued = [score for score in found.scores if score.metric == metric and score.value is not None]
        by_structure = {
            s.title: (
                s.colour,
                [(score.subject, float(score.value or 0)) for score in valued if score.structure == s.name],
            )
            for s in anatomy.structures
        }
        by_structure = {title: group for title, group in by_structure.items() if group[1]}
        charts[f"{metric.upper()} by structure"] = box_plots(
            by_structure,
            label=f"{metric.upper()} by structure",
            unit=_unit(metric),
            most=100.0 if metric in _PER_CENT else None,
        )
        means = [row for row in summarise(valued, ("subject",)) if not row.overall]
        dataset = {score.subject: score.dataset for score in valued}
        names = sorted(set(dataset.values()))
        by_dataset = {
            name: (
                LINE_COLOURS[i % len(LINE_COLOURS)],
                [(r.keys["subject"], r.mean) for r in means if dataset[r.keys["subject"]] == name],
            )
            for i, name in enumerate(names)
        }
        charts[f"{metric.upper()} by dataset, a point a case"] = box_plots(
            by_dataset,
            label=f"{metric.upper()} by dataset",
            unit=_unit(metric),
            most=100.0 if metric in _PER_CENT else None,
        )
    notes = [
        "In brackets: how many values, which differs as n does in the tables above.",
        "To read a value, point at it, or tab to the chart; left and right go along a row, up and down between rows.",
    ]
    return Section("spread", "Spread", notes, charts)


_PER_CENT = ("dsc", "nsd")


def _unit(metric: str) -> str:
    return {"dsc": "DSC, per cent", "nsd": "NSD, per cent", "hd95": "HD95, mm"}.get(metric, metric)


def _confusion(found: Findings, anatomy: Anatomy) -> Section:
    counts = found.confusion[1:]
    sums = counts.sum(axis=1)
    rows = np.flatnonzero(sums)
    titles = [s.title for s in anatomy.structures]
    parts = [[float(v) / float(sums[i]) for v in counts[i]] for i in rows]
    notes = [
        (
            "Of the voxels of a structure in the reference (row), the per cent called each structure (column). "
            "Background has no row: what nobody drew may be a structure that was not annotated."
        )
    ]
    return Section("confusion", "Confusion", notes, heat=([titles[i] for i in rows], ["background", *titles], parts))


def _shown(workspace: Workspace, run: Run, found: Findings, cases: int, device: str) -> list[ShownCase]:
    ranking = found.ranking
    places = np.unique(np.linspace(0, len(ranking) - 1, max(1, min(cases, len(ranking)))).round().astype(int))
    predictor, _ = CasePredictor.of(run, device)
    shown = []
    for place in places if cases else []:
        score, key = ranking[int(place)]
        prediction, label = predictor.predict(workspace, workspace.read_facts(key))
        case = workspace.read_case(key)
        rank = _rank(int(place), len(ranking))
        shown.append(
            ShownCase(
                f"{rank}: {key}, DSC {score:.1f} %",
                _annotated(case.facts, run.anatomy),
                case.intensity(),
                label,
                prediction,
                spacing_of(case.facts.affine_array)[0],
            )
        )
    return shown


def _rank(place: int, n: int) -> str:
    if n == 1:
        return "The only case"
    if place in (0, n - 1):
        return "Best" if place else "Worst"
    return "Median" if place in ((n - 1) // 2, n // 2) else f"Place {n - place} of {n}"


def _annotated(facts: CaseFacts, anatomy: Anatomy) -> str:
    rows: NDArray[np.bool_] = np.asarray(facts.groups.rows)
    known = np.logical_or.reduce(rows, axis=0).tolist()
    missing = [s.title for i, s in enumerate(anatomy.structures) if not known[i]]
    return f"not annotated: {', '.join(missing)}" if missing else "all structures are annotated"


def _drawn(workspace: Workspace, run: Run) -> Section:
    n = min(DRAWN, run.config.steps * run.config.batch)
    try:
        found = sample(workspace, run, n)
    except AbdosegError as error:
        return Section("sampling", "Sampling", [f"Not shown: {error}"])
    tables = {
        "By structure": _drawn_table("structure", found["structure"], n),
        "By source": _drawn_table("source", found["source"], n),
        "By modality": _drawn_table("modality", found["modality"], n),
    }
    notes = [
        f"The first {n} examples that the sampler {found['sampler']} draws, beside the training cases that are there."
    ]
    if found["skipped"]:
        notes.append(f"Never drawn, as no training case holds it: {', '.join(found['skipped'])}.")
    return Section("sampling", "Sampling", notes, tables=tables)


def _drawn_table(what: str, rows: Mapping[str, Mapping[str, float]], n: int) -> tuple[Sequence[str], list[list[Any]]]:
    def percent(value: float | None) -> float | None:
        return None if value is None else 100 * value / n

    cells = [
        [name, row["present"], percent(row.get("drawn")), percent(row.get("expected"))] for name, row in rows.items()
    ]
    return (what, "cases", "drawn %", "expected %"), cells


def _provenance(workspace: Workspace, run: Run) -> Section:
    cases = [[case.key, case.side, case.digest] for case in run.data.cases]
    notes = [
        (
            f"Made by abdoseg {version('abdoseg')}, torch {version('torch')}, Python {platform.python_version()} on "
            f"{platform.platform()}."
        ),
        f"Workspace {workspace.path}, run folder {run.folder}.",
    ]
    text = tomli_w.dumps(run.config.model_dump(mode="json", exclude_none=True))
    return Section(
        "provenance",
        "Provenance",
        notes,
        tables={"Frozen cases": (("case", "side", "digest"), cases)},
        text=text,
    )
