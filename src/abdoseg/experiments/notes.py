"""What stands under a table: how its numbers were made, and what differs from the paper."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from abdoseg.config import TrainConfig
from abdoseg.experiments.model import Study
from abdoseg.experiments.options import Options, shown
from abdoseg.experiments.results import RowResult, figures_of

PAPER_SPACING_MM = 2.0
"""The paper's grid (section 4.1)."""

_READING = (
    "paper: as printed, one model a row; here: mean ± standard deviation over subjects (over images for a structure), "
    "with the 95 % bootstrap interval of the mean over subjects"
)
_AVERAGE = "the average of structures and its ± are means of the structures' means and deviations, as in the paper"
_PAPER_CASES = "the paper: 2,960 images in all, about 90 % of them for training"
_FULL_ENTROPY = (
    "the entropy term has its full weight from the first step, as in the paper's long training; in short ones this was "
    "measured to cost DSC (docs/results.md, docs/annotation.md), and --set entropy_ramp=1 lets it grow"
)

SHORT_STEPS = 20_000
"""Up to so many steps, a tenth of the paper's, a training is called short."""


@dataclass(frozen=True)
class Ground:
    """What the numbers stand on.

    Parameters
    ----------
    spacing_mm
        Grid of the workspace.
    test_cases
        Source -> number of its cases that were scored, 0 where it has no test case.
    at_hand
        Sources that the workspace holds.
    phantoms
        Sources of these that are known to be synthetic.
    """

    spacing_mm: float
    test_cases: Mapping[str, int]
    at_hand: frozenset[str]
    phantoms: tuple[str, ...]


def notes_of(study: Study, results: Sequence[RowResult], options: Options, ground: Ground) -> tuple[str, ...]:
    """Return the lines under a table."""
    scored = [result for result in results if result.scores]
    lines = [_READING] if scored else []
    if scored and any(column.structure == "average" for column in study.table.columns):
        lines.append(_AVERAGE)
    if scored:
        lines += [_seeds(study, scored, options), *_cases(study, ground)]
    lines += _grouped(study, [(result, line) for result in scored for line in _of_result(result, options, ground)])
    lines += [*_without_score(study, scored), *_same_training(study, scored)]
    misprints = (fill.misprint for e in study.experiments for fill in e.fills if fill.table == study.table.id)
    lines += [f"paper: {text}" for text in misprints if text]
    lines += _grouped(study, [(r, f"no number: {r.reason}") for r in results if r.reason], always_named=True)
    return tuple(lines)


def _seeds(study: Study, scored: Sequence[RowResult], options: Options) -> str:
    if len(options.seeds) == 1:
        return f"one training a row, seed {options.seeds[0]}"
    means = [
        figure.by_seed
        for result in scored
        for figure in figures_of(result.scores, study.table.columns).values()
        if figure is not None
    ]
    seeds = ", ".join(map(str, options.seeds))
    apart = max((max(of) - min(of) for of in means), default=0.0)
    return f"each row is the mean over seeds {seeds}; a cell's seeds are up to {apart:.1f} apart"


def _cases(study: Study, ground: Ground) -> Iterator[str]:
    counts = {source: n for source, n in sorted(ground.test_cases.items()) if n}
    told = ", ".join(f"{source} {n}" for source, n in counts.items())
    paper = f"; {_PAPER_CASES}" if study.origin == "paper" else ""
    yield f"scored on {_counted(sum(counts.values()), 'test case')} ({told}){paper}"
    without = sorted(source for source, n in ground.test_cases.items() if not n)
    if without:
        yield f"without a test case: {', '.join(without)}"
    if ground.phantoms:
        which = "all sources" if set(ground.phantoms) >= ground.at_hand else ", ".join(ground.phantoms)
        yield f"synthetic phantoms, no patients: {which}"
    if ground.spacing_mm != PAPER_SPACING_MM and study.origin == "paper":
        yield f"grid of {ground.spacing_mm:g} mm (paper: {PAPER_SPACING_MM:g} mm)"


def _of_result(result: RowResult, options: Options, ground: Ground) -> Iterator[str]:
    experiment, config = result.experiment, result.configs[0]
    differences = options.differences(experiment, config)
    if not any(line.startswith("steps ") for line in differences):
        yield f"{config.steps:,} steps, as in the paper"
    yield from differences
    yield from options.kept(experiment)
    if _has_full_entropy(config) and config.steps <= SHORT_STEPS:
        yield _FULL_ENTROPY
    yield f"learnt from {_counted(result.cases, 'training case')}"
    for what, sources in (("learnt", experiment.sources), ("scored", experiment.scoring.sources)):
        missing = [source for source in sources if source not in ground.at_hand]
        if missing:
            yield f"{what} without {', '.join(missing)}: not in this workspace"
    yield from (_with_values(note, config) for note in experiment.notes)


def _has_full_entropy(config: TrainConfig) -> bool:
    """Whether the entropy term has all of the paper's weight from the first step."""
    full = config.entropy_weight >= TrainConfig.model_fields["entropy_weight"].default
    return full and not config.entropy_ramp and config.method == "self_disambiguation"


def _with_values(note: str, config: TrainConfig) -> str:
    """Return a note with the run's values in place of ``{setting}``; other braces stay."""
    return re.sub(
        r"\{(\w+)\}",
        lambda found: shown(getattr(config, found[1])) if found[1] in TrainConfig.model_fields else found[0],
        note,
    )


def _grouped(study: Study, lines: Iterable[tuple[RowResult, str]], *, always_named: bool = False) -> list[str]:
    """Return each line once, with the rows it is about unless it is about all that have any."""
    rows: dict[str, list[str]] = defaultdict(list)
    everyone: dict[str, None] = {}
    for result, line in lines:
        names = study.rows_of(result.experiment)
        rows[line] += [name for name in names if name not in rows[line]]
        everyone |= dict.fromkeys(names)
    return [
        line if len(names) == len(everyone) and not always_named else f"{', '.join(names)}: {line}"
        for line, names in rows.items()
    ]


def _without_score(study: Study, scored: Sequence[RowResult]) -> list[str]:
    """Return which columns have no number although the experiment was scored."""
    titles = study.table.titles
    empty = [figures_of(result.scores, study.table.columns) for result in scored]
    columns = [title for title in titles if empty and all(figures[title] is None for figures in empty)]
    return [f"no number: {', '.join(columns)}: no test case has it annotated and holds it"] if columns else []


def _same_training(study: Study, scored: Sequence[RowResult]) -> list[str]:
    """Return which rows are one and the same training here, though they are several in the paper."""
    rows: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for result in scored:
        rows[result.runs] += study.rows_of(result.experiment)
    return [
        f"the same training here, so their numbers do not differ: {', '.join(names)}"
        for names in rows.values()
        if len(names) > 1 and len(set(names)) > 1
    ]


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
