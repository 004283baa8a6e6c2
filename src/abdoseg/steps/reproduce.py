"""Reproduce: train and score the experiments of a table, and set our numbers beside the paper's.

Each experiment is a run like any other: it resumes, it is found again when it is finished, and rows of several tables
that are the same training share it. All experiments of a table are scored on the same test cases of the workspace,
whatever they learnt from.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from abdoseg.config import TrainConfig
from abdoseg.devices import choose_device
from abdoseg.errors import ConfigError, RunError, unknown_name
from abdoseg.experiments import (
    Experiment,
    Ground,
    Options,
    Page,
    RowResult,
    Study,
    cells_of,
    missing_names,
    notes_of,
    to_csv,
    to_json,
    to_markdown,
)
from abdoseg.experiments.phantoms import phantom_sources
from abdoseg.files import whole_files
from abdoseg.frozen import FrozenCase
from abdoseg.metrics import Score
from abdoseg.progress import SILENT, Progress
from abdoseg.runs import Run, decide_sides, freeze, list_runs, plan_run
from abdoseg.steps.evaluate_run import evaluate_run
from abdoseg.steps.plan import lacks_memory, long_on_a_cpu
from abdoseg.steps.train import train
from abdoseg.store import CaseBrief, Workspace
from abdoseg.views import View

Trainer = Callable[[TrainConfig], None]
"""Trains the run of a configuration to its end, from its last checkpoint where there is one."""

_ROWS_NAMED = 6
"""Reasons told in one line; more are counted."""


@dataclass(frozen=True)
class Reproduction:
    """What a call of :func:`reproduce` made.

    Parameters
    ----------
    page
        The table.
    files
        Markdown, CSV and JSON of it.
    incomplete
        Rows asked for that have no number, with the reason of each.
    """

    page: Page
    files: tuple[Path, ...]
    incomplete: dict[str, str]


@dataclass(frozen=True)
class Stand:
    """Whether an experiment can be run here, and how far it is.

    Parameters
    ----------
    experiment, rows
        Which, and the names of the rows it fills in the table.
    missing
        Why it cannot be run; empty where it can.
    configs
        Configuration of each seed, where it can.
    runs
        Newest run of each configuration; ``None`` where there is none yet, or it is finished on other cases.
    """

    experiment: Experiment
    rows: tuple[str, ...]
    missing: tuple[str, ...]
    configs: tuple[TrainConfig, ...] = ()
    runs: tuple[Run | None, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the runs of all seeds are finished."""
        return bool(self.runs) and all(run is not None and run.status == "finished" for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON facts."""
        runs = [
            {
                "seed": config.seed,
                "run": None if run is None else run.name,
                "status": "not started" if run is None else run.status,
                "step": 0 if run is None else run.last_metrics().get("step", 0),
                "steps": config.steps,
            }
            for config, run in zip(self.configs, self.runs, strict=True)
        ]
        return {
            "experiment": self.experiment.id,
            "title": self.experiment.title,
            "rows": list(self.rows),
            "can_run": not self.missing,
            "missing": list(self.missing),
            "runs": runs,
        }


def stands_of(workspace: Workspace, study: Study, options: Options) -> list[Stand]:
    """Return how each experiment of a study stands in a workspace; nothing is made.

    Raises
    ------
    ConfigError
        If a configuration is not allowed.
    """
    return _Stage(workspace, study, options).stands()


def reproduce(
    workspace: Workspace,
    study: Study,
    options: Options | None = None,
    *,
    rows: Sequence[str] = (),
    device: str = "auto",
    processes: int = 1,
    ignore_memory: bool = False,
    trainer: Trainer | None = None,
    progress: Progress = SILENT,
) -> Reproduction:
    """Train and score the experiments of a table that can be run here; finished ones are not trained again.

    The table is written after each experiment: ``reproduce/<table>/<options>/table.md``, ``.csv`` and ``.json``.

    Parameters
    ----------
    workspace
        Cases to learn from and to be scored on.
    study
        The table, by :func:`abdoseg.experiments.load_study`.
    options
        How to run them; default: as in the paper.
    rows
        Names of rows or ids of experiments; empty: all. Of others, those that are finished are shown.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    processes
        How many of this machine share a training.
    ignore_memory
        Train also what needs more memory than is free; a row that does cannot be run otherwise.
    trainer
        How to train; default: :func:`abdoseg.steps.train.train` in this process.
    progress
        Told what is done.

    Raises
    ------
    UnknownNameError
        If a row is not in the table.
    ConfigError
        If no row can be run here, or one that was named cannot.
    RunError
        If every experiment failed.
    KeyboardInterrupt
        As :func:`abdoseg.steps.train.train`; the same call goes on.
    """
    options = options or Options()

    def in_this_process(config: TrainConfig) -> None:
        train(workspace, config, device=device, ignore_memory=ignore_memory, progress=progress)

    stage = _Stage(workspace, study, options)
    chosen, where = _chosen(study, rows), choose_device(device)
    stands = stage.stands()
    waiting = [s for s in stands if s.experiment.id in chosen and s.configs and not s.finished]
    if not ignore_memory:
        lacks = {s.experiment.id: lacks_memory(workspace, s.configs[0], processes, where) for s in waiting}
        stands = [replace(s, missing=(*s.missing, *lacks.get(s.experiment.id, ()))) for s in stands]
    _refuse_what_cannot_run(study, [stand for stand in stands if stand.experiment.id in chosen], named=bool(rows))
    for line in long_on_a_cpu([config for s in waiting for config in s.configs], where):
        progress.say(line)
    results: list[RowResult] = []
    for stand in stands:
        results.append(_result(stage, stand, chosen, trainer or in_this_process, device, progress))
        page = stage.page(results)
        files = _write(workspace, study, options, page)
    failed = [r for r in results if r.reason and r.experiment.id in chosen]
    if not any(result.scores for result in results):
        raise RunError(f"{study.table.id}: no row was completed: {failed[0].reason}")
    incomplete = {row: r.reason for r in failed for row in study.rows_of(r.experiment)}
    return Reproduction(page, files, incomplete)


class _Stage:
    """A workspace as the experiments of a study see it: its sources, and the test cases that all are scored on."""

    def __init__(self, workspace: Workspace, study: Study, options: Options) -> None:
        self.workspace, self.study, self.options = workspace, study, options
        self._briefs = workspace.briefs()
        self._sides = decide_sides(workspace, self._briefs, workspace.settings.split_seed)
        self.at_hand = frozenset(brief.source for brief in self._briefs)

    def stands(self) -> list[Stand]:
        """Return how each experiment stands."""
        by_digest = {run.config.digest(): run for run in list_runs(self.workspace)}  # the newest comes last
        stands = []
        for experiment in self.study.experiments:
            rows = tuple(self.study.rows_of(experiment))
            missing = self._missing(experiment)
            if missing:
                stands.append(Stand(experiment, rows, tuple(missing)))
                continue
            configs = tuple(self._config(experiment, seed) for seed in self.options.seeds)
            runs = tuple(self._standing(by_digest.get(config.digest())) for config in configs)
            stands.append(Stand(experiment, rows, (), configs, runs))
        return stands

    def _standing(self, run: Run | None) -> Run | None:
        """Return a run that training would go on with or find finished; not one that is finished on other cases."""
        if run is None or run.status != "finished":
            return run
        sides = self._sides
        if run.config.fold is not None:
            sides = decide_sides(self.workspace, self._briefs, self.workspace.settings.split_seed, run.config.fold)
        chosen = [brief for brief in self._briefs if _named(run.config.sources, brief.source)]
        cases = tuple(FrozenCase(key=b.key, side=sides[b.key], digest=b.digest) for b in chosen)
        return run if run.data.cases == cases else None

    def _config(self, experiment: Experiment, seed: int) -> TrainConfig:
        sources = tuple(source for source in experiment.sources if source in self.at_hand)
        return self.options.config(experiment, seed, sources)

    def _missing(self, experiment: Experiment) -> list[str]:
        """Return why an experiment cannot be run here."""
        missing = missing_names(experiment, self.options.network)
        lacking = self.lacking(experiment)
        if lacking and not self.options.sources_at_hand:
            missing.append(f"no case of {', '.join(lacking)}; ingest it, or go without it by --sources-at-hand")
        for what, sources in self._needed(experiment).items():
            if not any(_named(sources, brief.source) and self._fits(what, brief) for brief in self._briefs):
                missing.append(f"no {what} case of {', '.join(sources) or 'any source'}")
        return missing

    def lacking(self, experiment: Experiment) -> list[str]:
        """Return the sources an experiment names and the workspace does not hold."""
        named = dict.fromkeys((*experiment.sources, *experiment.scoring.sources))
        return [source for source in named if source not in self.at_hand]

    def _needed(self, experiment: Experiment) -> dict[str, tuple[str, ...]]:
        """Return the side of the split -> sources of which a case must be on it."""
        needed = {"training": experiment.sources, "test": experiment.scoring.sources}
        return needed | ({"sparse training": experiment.view.sources} if experiment.view is not None else {})

    def _fits(self, what: str, brief: CaseBrief) -> bool:
        return (self._sides[brief.key] == "test") == (what == "test") and self._sides[brief.key] != "val"

    def test_cases(self, experiment: Experiment) -> tuple[FrozenCase, ...]:
        """Return the cases that an experiment is scored on."""
        return tuple(
            FrozenCase(key=brief.key, side="test", digest=brief.digest)
            for brief in self._briefs
            if self._sides[brief.key] == "test" and _named(experiment.scoring.sources, brief.source)
        )

    def page(self, results: Sequence[RowResult]) -> Page:
        """Return the table as far as it is filled."""
        study = self.study
        options = asdict(self.options) | {"settings": dict(self.options.settings), "seeds": list(self.options.seeds)}
        notes = notes_of(study, results, self.options, self._ground())
        return Page(study, cells_of(study, results), notes, options)

    def _ground(self) -> Ground:
        named = {source for e in self.study.experiments for source in e.scoring.sources} or self.at_hand
        counted = Counter(brief.source for brief in self._briefs if self._sides[brief.key] == "test")
        used = named | {source for e in self.study.experiments for source in e.sources or self.at_hand}
        return Ground(
            self.workspace.settings.spacing_mm,
            {source: counted[source] for source in sorted(named & self.at_hand)},
            self.at_hand,
            tuple(source for source in phantom_sources(self.workspace) if source in used),
        )


def _named(sources: Collection[str], source: str) -> bool:
    return not sources or source in sources


def _chosen(study: Study, rows: Sequence[str]) -> set[str]:
    """Return the ids of the experiments that were asked for."""
    if not rows:
        return {experiment.id for experiment in study.experiments}
    by_name: dict[str, set[str]] = {}
    for experiment in study.experiments:
        plain = [" ".join(fill.row) for fill in experiment.fills if fill.table == study.table.id]
        for name in (experiment.id, *study.rows_of(experiment), *plain):
            by_name.setdefault(name.casefold(), set()).add(experiment.id)
    for row in rows:
        if row.casefold() not in by_name:
            raise unknown_name(f"row of {study.table.id}", row, list(by_name))
    return {id_ for row in rows for id_ in by_name[row.casefold()]}


def _refuse_what_cannot_run(study: Study, stands: Sequence[Stand], *, named: bool) -> None:
    """Raise ConfigError when no row can be run, or one that was named cannot."""
    cannot = [stand for stand in stands if stand.missing]
    if not cannot or (not named and len(cannot) < len(stands)):
        return
    rows_by_reason: dict[str, list[str]] = {}
    for stand in cannot:
        rows_by_reason.setdefault("; ".join(stand.missing), []).extend(stand.rows)
    reasons = [f"{', '.join(rows)}: {reason}" for reason, rows in rows_by_reason.items()]
    more = f" (and {len(reasons) - _ROWS_NAMED} more)" if len(reasons) > _ROWS_NAMED else ""
    raise ConfigError(f"{study.table.id}: cannot be run here; {' | '.join(reasons[:_ROWS_NAMED])}{more}")


def _result(
    stage: _Stage, stand: Stand, chosen: Collection[str], trainer: Trainer, device: str, progress: Progress
) -> RowResult:
    """Train and score an experiment, or say why not."""
    experiment = stand.experiment
    if stand.missing:
        return RowResult(experiment, reason="; ".join(stand.missing))
    if experiment.id not in chosen and not stand.finished:
        return RowResult(experiment, stand.configs, reason="not asked for, and not finished before")
    runs: list[Run] = []
    scores: list[Sequence[Score]] = []
    try:
        for config in stand.configs:
            progress.say(f"{experiment.title}: seed {config.seed}, {config.steps:,} steps")
            runs.append(_trained(stage.workspace, experiment.view, config, trainer))
            scores.append(_scores(stage, experiment, runs[-1], device, progress))
    except (RunError, ConfigError) as error:
        if error.told_elsewhere:
            raise
        # One experiment that fails, with a loss that is not finite say, should not cost the others.
        progress.say(f"{experiment.title}: failed: {error}")
        return RowResult(experiment, stand.configs, reason=str(error))
    names, cases = tuple(run.name for run in runs), len(runs[0].data.keys("train"))
    return RowResult(experiment, stand.configs, names, tuple(scores), cases)


def _trained(workspace: Workspace, view: View | None, config: TrainConfig, trainer: Trainer) -> Run:
    """Return the finished run of a configuration on the cases that the workspace holds now.

    Raises
    ------
    RunError
        If an unfinished run of it began on other cases, or it was not finished.
    """
    if view is not None:
        workspace.save_view(view)
    run, new = plan_run(workspace, config)
    if not new and run.status == "finished":
        return run
    if not new and not run.data.is_of(freeze(workspace, config)):
        msg = (
            f"run {run.name}: is unfinished and froze other cases than {workspace.path} holds now; finish it by "
            f"`abdoseg train --config {run.folder / 'config.toml'}`, or delete {run.folder}"
        )
        raise RunError(msg)
    trainer(config)
    run, new = plan_run(workspace, config)
    if new or run.status != "finished":
        raise RunError(
            f"run {run.name}: is not finished, or the workspace changed meanwhile; type the same command again"
        )
    return run


def _scores(stage: _Stage, experiment: Experiment, run: Run, device: str, progress: Progress) -> list[Score]:
    """Score a run on the study's test cases: also those of sources it did not learn from."""
    data = run.data.model_copy(update={"cases": stage.test_cases(experiment)})
    settings = experiment.scoring.settings()
    found = evaluate_run(
        stage.workspace, replace(run, data=data), "test", device=device, settings=settings, progress=progress
    )
    return found.scores


def _write(workspace: Workspace, study: Study, options: Options, page: Page) -> tuple[Path, ...]:
    folder = workspace.path / "reproduce" / study.table.id / options.name
    texts = {"table.md": to_markdown(page), "table.csv": to_csv(page), "table.json": to_json(page)}
    files = tuple(folder / name for name in texts)
    with whole_files(*files) as drafts:
        for draft, text in zip(drafts, texts.values(), strict=True):
            draft.write_text(text, encoding="utf-8")
    return files
