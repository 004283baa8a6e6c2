"""Does the method do what it promises? Trainings on phantoms of all nine sources, scored against the complete truth.

Every phantom's truth is known, so what a source does not annotate can be scored too, and the same network can be
trained on complete labels for an upper bound. Phantoms, trainings and scores are kept in FOLDER: a second call goes
on, and rows that are done are not done again. Run from the checkout, on quiet cores:
``python benchmarks/evidence.py FOLDER [--rows 'background;dodnet'] [--steps 2000]``.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from abdoseg.annotation import Annotation
from abdoseg.cards import Card, load_cards
from abdoseg.case import Case, Foreground
from abdoseg.config import make_config
from abdoseg.devices import available_cores, choose_device
from abdoseg.geometry import spacing_of
from abdoseg.metrics import EvalSettings, Outcome, Score
from abdoseg.phantom import write_phantoms
from abdoseg.segmentation import segment_case
from abdoseg.steps.demo import read_truth
from abdoseg.steps.evaluate import score_case
from abdoseg.steps.ingest import ingest
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace, arrays
from abdoseg.trained import load_model
from abdoseg.types import Label

SOURCES = (
    "word",
    "amos",
    "btcv",
    "totalsegmentator",
    "totalsegmentator-v1",
    "abdomenct1k",
    "flare22",
    "nih-pancreas",
    "urogram",
)
CARDS = {"totalsegmentator-v1": "totalsegmentator"}
"""Sources whose card has another name."""

UROGRAM = {"1": "right_kidney", "2": "left_kidney", "3": "bladder"}
"""A private source: its user says what its labels are."""

THREE = ("amos-ct", "amos-mri", "btcv", "flare22")
"""The paper's "3 sets"."""

FEW = ("word", "abdomenct1k", "nih-pancreas", "urogram")
"""One source draws most structures, three draw four or fewer."""

LABELS: dict[str, Callable[[int, int], bool]] = {
    "complete": lambda case, structure: True,  # noqa: ARG005
    "thirds": lambda case, structure: structure % 3 == case % 3,
}
"""Labels made from the truth: does the n-th case of a source annotate structure c? Of thirds, no case annotates more
than 6 of 16, and any structure is annotated in a third of the cases of every source."""

SPACING_MM, PHANTOM_SCALE = 4.0, 1.5
SCORING = EvalSettings(min_voxels=10)

Workspaces = dict[str, Workspace]
"""By the labels of their cases."""

NO_ENTROPY = {"entropy_weight": 0.0, "entropy_weight_unannotated": 0.0}


@dataclass(frozen=True)
class Row:
    """One training: settings beside the preset's, on the sources' own labels or on some made from the truth."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: str = "partial"
    steps_factor: float = 1.0


ROWS = (
    Row("complete labels", {**NO_ENTROPY}, labels="complete"),
    Row("self_disambiguation"),
    Row("background", {"method": "background"}),
    Row("ignore", {"method": "ignore"}),
    Row("marginal", {"method": "marginal"}),
    Row("sigmoid", {"method": "sigmoid"}),
    Row("multi_head", {"method": "multi_head"}),
    Row("dodnet", {"method": "dodnet"}),
    Row("clip_driven", {"method": "clip_driven"}),
    Row("self_disambiguation, learning rate 1e-3", {"learning_rate": 1e-3}),
    Row("dodnet, learning rate 1e-3", {"method": "dodnet", "learning_rate": 1e-3}),
    Row("clip_driven, learning rate 1e-3", {"method": "clip_driven", "learning_rate": 1e-3}),
    Row("dodnet, learning rate 1e-3, doubled", {"method": "dodnet", "learning_rate": 1e-3}, steps_factor=2.0),
    Row("clip_driven, learning rate 1e-3, doubled", {"method": "clip_driven", "learning_rate": 1e-3}, steps_factor=2.0),
    Row("no entropy", {**NO_ENTROPY}),
    Row(
        "entropy 1 from the first step", {"entropy_weight": 1.0, "entropy_weight_unannotated": 3.0, "entropy_ramp": 0.0}
    ),
    Row("entropy growing to 1", {"entropy_weight": 1.0, "entropy_weight_unannotated": 3.0}),
    Row("entropy 0.1 from the first step", {"entropy_ramp": 0.0}),
    Row("dice over annotated", {"dice_over": "annotated"}),
    Row("3 sets", {"sources": THREE}),
    Row("3 sets, no entropy", {"sources": THREE, **NO_ENTROPY}),
    Row("few labels, complete", {"sources": FEW, **NO_ENTROPY}, labels="complete"),
    Row("few labels", {"sources": FEW}),
    Row("few labels, background", {"sources": FEW, "method": "background"}),
    Row("few labels, random", {"sources": FEW, "sampler": "random"}),
    Row("few labels, random, background", {"sources": FEW, "sampler": "random", "method": "background"}),
    Row("thirds", labels="thirds"),
    Row("thirds, no entropy", {**NO_ENTROPY}, labels="thirds"),
    Row("thirds, background", {"method": "background"}, labels="thirds"),
    Row("random", {"sampler": "random"}),
    Row("random, background", {"sampler": "random", "method": "background"}),
    Row("mdc", {"sampler": "mdc"}),
)
"""What can be asked for; all on `unet_small` with the demo's settings."""


def prepare(folder: Path, cases: int) -> Workspaces:
    """Return the workspaces by their labels; they are made once, so that several calls may train."""
    done = folder / "prepared.json"
    if not done.is_file():
        draw(folder, cases)
        partial_workspace(folder)
        done.write_text(json.dumps({"cases": cases}), encoding="utf-8")
    partly = Workspace.open(folder / "partial")
    return {"partial": partly} | {name: workspace_of_truth(folder, partly, name) for name in LABELS}


def draw(folder: Path, cases: int) -> None:
    """Write the phantoms, once."""
    done = folder / "phantoms" / "complete.json"
    if done.is_file():
        return
    write = partial(write_phantoms, folder / "phantoms", cases=cases, spacing_scale=PHANTOM_SCALE)
    with ProcessPoolExecutor(available_cores(), mp_context=get_context("spawn")) as pool:
        list(pool.map(write, [(source,) for source in SOURCES]))
    done.write_text(json.dumps({"cases": cases}), encoding="utf-8")


def with_labels(card: Card) -> Card:
    """Return the card as its user completes it."""
    if not card.labels_by_user:
        return card
    return card.model_copy(update={"labels": UROGRAM, "annotated": tuple(UROGRAM.values())})


def partial_workspace(folder: Path) -> Workspace:
    """Return the workspace of the sources as they are annotated."""
    workspace = Workspace.create(folder / "partial", Settings(spacing_mm=SPACING_MM))
    for source in SOURCES:
        for card in map(with_labels, load_cards(CARDS.get(source, source))):
            report = ingest(workspace, card, folder / "phantoms" / source)
            for case, reason in report.quarantined.items():
                print(f"{card.id}/{case}: {reason}")
    return workspace


def workspace_of_truth(folder: Path, partly: Workspace, labels: str) -> Workspace:
    """Return a workspace of the same cases, with labels made from their complete truth."""
    if (folder / labels / "made.json").is_file():
        return Workspace.open(folder / labels)
    workspace = Workspace.create(folder / labels, Settings(spacing_mm=SPACING_MM))
    n = len(workspace.anatomy)
    number: Counter[str] = Counter()
    for key in partly.case_keys():
        case = partly.read_case(key)
        annotates = [c for c in range(1, n + 1) if LABELS[labels](number[case.facts.source], c)]
        number[case.facts.source] += 1
        truth = read_truth(folder / "phantoms" / "truth", case.facts)
        if not arrays.is_case(workspace.case_folder(key)):
            write_labels(workspace, case, np.where(np.isin(truth, annotates), truth, 0).astype(np.uint8), annotates)
    (folder / labels / "made.json").write_text("{}", encoding="utf-8")
    return workspace


def write_labels(workspace: Workspace, case: Case, label: Label, annotates: Sequence[int]) -> None:
    """Store a case with other labels, which annotate the structures of ``annotates`` (ids)."""
    names = workspace.anatomy.names
    held = Foreground.of(label, len(names))
    facts = case.facts.model_copy(
        update={
            "annotation": Annotation.partial(annotates, len(names)).to_json(),
            "voxels": {name: int(n) for name, n in zip(names, held.counts(), strict=True) if n},
            "occupied": {names[i - 1]: runs for i, runs in held.occupied(label.shape).items()},
            "digest": f"truth of {case.facts.digest}, {','.join(map(str, annotates))}",
        }
    )
    arrays.open_source(workspace.source_folder(facts.source), {"source": facts.source})
    arrays.write_case(workspace.case_folder(facts.key), workspace.incoming, Case(facts, case.image, label), held)


def scores_of(row: Row, steps: int, seed: int, folder: Path, workspaces: Workspaces) -> list[Score]:
    """Train a row, unless it is done, and return its scores on the held-out cases: validation and test."""
    workspace, partly = workspaces[row.labels], workspaces["partial"]
    config = make_config("demo", {"steps": int(steps * row.steps_factor), "seed": seed, **row.settings})
    run = train(workspace, config, device="auto").run
    file = run.folder / "truth_scores.json"
    if file.is_file():
        return [Score(outcome=Outcome.SCORED, **told) for told in json.loads(file.read_text(encoding="utf-8"))]
    model, _ = load_model(run, choose_device("auto"))
    # The split is the whole workspace's: the same held-out cases for every row, also those of sources it left out.
    keys = held_out(partly)
    found = []
    for key in keys:
        found += scores_of_case(partly, folder, key, segment_case(model, partly.read_case(key)))
    file.write_text(json.dumps([plain(score) for score in found]), encoding="utf-8")
    return found


def held_out(workspace: Workspace) -> list[str]:
    """Return the validation and test cases of the whole workspace's split."""
    from abdoseg.runs import freeze

    data = freeze(workspace, make_config("demo"))
    return data.keys("val") + data.keys("test")


def scores_of_case(workspace: Workspace, folder: Path, key: str, prediction: np.ndarray) -> list[Score]:
    """Return one case's scores against its truth; ``modality`` says whether its source annotates the structure."""
    anatomy = workspace.anatomy
    everything = Annotation.partial(range(1, len(anatomy) + 1), len(anatomy))
    facts = workspace.read_facts(key)
    known = {anatomy.structure(c).name for c in facts.groups.structure_ids}
    truth = read_truth(folder / "phantoms" / "truth", facts)
    scores = score_case(prediction, truth, everything, spacing_of(facts.affine_array), anatomy, SCORING)
    return [
        replace(s, dataset=facts.source, subject=key, modality="annotated" if s.structure in known else "hidden")
        for s in scores
        if s.value is not None
    ]


def plain(score: Score) -> dict[str, Any]:
    """Return a score as JSON holds it."""
    names = ("structure", "metric", "value", "dataset", "subject", "modality")
    return {name: getattr(score, name) for name in names}


def by_subject(scores: Iterable[Score]) -> dict[str, float]:
    """Return each subject's mean over its structures, per cent."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.subject, []).append(float(score.value or 0.0))
    return {subject: float(np.mean(of_one)) for subject, of_one in values.items()}


def difference(ours: dict[str, float], theirs: dict[str, float]) -> str:
    """Return theirs less ours over the same subjects, with a 95 % interval by drawing subjects anew."""
    paired = np.array([theirs[subject] - ours[subject] for subject in ours if subject in theirs])
    drawn = np.random.default_rng(0).choice(paired, (4000, paired.size)).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{paired.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def table(results: dict[str, list[Score]]) -> str:
    """Return the table as Markdown."""
    lines = ["| training | DSC by subject | annotated in its source | not annotated | less `self_disambiguation` |"]
    lines.append("|---|---|---|---|---|")
    ours = by_subject(results["self_disambiguation"]) if "self_disambiguation" in results else {}
    for name, scores in results.items():
        parts = [scores, *([s for s in scores if s.modality == kind] for kind in ("annotated", "hidden"))]
        cells = [interval(part) for part in parts]
        lines.append(f"| {name} | {' | '.join(cells)} | {difference(ours, by_subject(scores)) if ours else ''} |")
    return "\n".join(lines)


def by_structure(results: dict[str, list[Score]], workspace: Workspace) -> str:
    """Return, where a structure is not annotated, each training's mean DSC, the rarest annotated structures first."""
    annotated = Counter(c for facts in workspace.facts() for c in facts.groups.structure_ids)
    cases, names = len(workspace.case_keys()), list(results)
    lines = [f"| structure | annotated in | held-out cases without | {' | '.join(names)} |"]
    lines.append("|---" * (3 + len(names)) + "|")
    for c in sorted(annotated, key=lambda c: annotated[c]):
        name = workspace.anatomy.structure(c).name
        hidden = [
            [float(s.value or 0.0) for s in scores if s.structure == name and s.modality == "hidden"]
            for scores in results.values()
        ]
        if hidden[0]:
            means = " | ".join(f"{np.mean(values):.1f}" for values in hidden)
            lines.append(f"| {name} | {100 * annotated[c] / cases:.0f} % | {len(hidden[0])} | {means} |")
    return "\n".join(lines)


def interval(scores: Sequence[Score]) -> str:
    """Return the mean by subject with its 95 % interval."""
    values = np.array(list(by_subject(scores).values()))
    drawn = np.random.default_rng(0).choice(values, (4000, values.size)).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    """Train and score what was asked for; print a table of what is done so far after each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="complete labels;self_disambiguation;background;dodnet;clip_driven")
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asked = [name.strip() for name in options.rows.split(";")]
    workspaces = prepare(options.folder, options.cases)
    partly = workspaces["partial"]
    print(f"{len(partly.case_keys())} cases, {len(held_out(partly))} held out", flush=True)
    results: dict[str, list[Score]] = {}
    for row in ROWS:
        if row.name in asked or asked == ["all"]:
            results[row.name] = scores_of(row, options.steps, options.seed, options.folder, workspaces)
            print(table(results), flush=True)
    print(by_structure(results, partly), flush=True)


if __name__ == "__main__":
    main()
