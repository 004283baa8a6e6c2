"""Train: from the workspace's cases to weights.

The parts are made here and put into :func:`abdoseg.engine.fit.fit`, which is the loop. Example number
``step * batch + i`` decides what is seen, so a run that was killed goes on with the very patches it would have seen,
with any number of processes and threads.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from platform import node

import torch
from filelock import Timeout
from torch import nn

from abdoseg.checkpoints import load_weights
from abdoseg.config import TrainConfig, check_shares
from abdoseg.engine.checks import base_of, check_run
from abdoseg.engine.feeding import Feed
from abdoseg.engine.files import TrainingFiles
from abdoseg.engine.fit import Validate, fit
from abdoseg.engine.journal import Journal
from abdoseg.engine.memory import memory_shortage
from abdoseg.engine.precision import gradient_scaler, storage_type, validation_precision
from abdoseg.engine.ranks import Ranks, joined_ranks
from abdoseg.engine.state import TrainState, moving_average
from abdoseg.engine.validation import mean_dsc
from abdoseg.errors import ConfigError, RunError, WorkspaceError
from abdoseg.files import remove_drafts
from abdoseg.methods import METHODS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import Predictor
from abdoseg.model_card import model_card
from abdoseg.patches import PatchStream
from abdoseg.places import locked, reason_of
from abdoseg.progress import SILENT, Progress
from abdoseg.pseudo_labels import label_training_cases
from abdoseg.runs import Run, read_frozen, start_run
from abdoseg.steps.plan import not_learnt, not_taken
from abdoseg.store import Workspace
from abdoseg.trained import checkpoint_of
from abdoseg.training_set import open_stream, validation_keys


@dataclass(frozen=True)
class TrainReport:
    """What a call of :func:`train` did.

    Parameters
    ----------
    run
        The run.
    steps_done
        Optimiser steps the weights have seen.
    seconds
        Time of this call's steps.
    outcome
        ``trained``, ``already finished`` or ``stopped`` (before the last step, to be resumed).
    """

    run: Run
    steps_done: int
    seconds: float
    outcome: str


def train(
    workspace: Workspace,
    config: TrainConfig,
    *,
    name: str | None = None,
    device: str = "auto",
    stop_after: int | None = None,
    ignore_memory: bool = False,
    progress: Progress = SILENT,
) -> TrainReport:
    """Train the run of ``config``: a new one, or the unfinished one from its last checkpoint.

    Started by torchrun or ``srun``, this process is one of several that train together; all return the same report.

    Parameters
    ----------
    workspace, config
        What to learn from, and how.
    name
        Name of the run; default: made from the configuration.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    stop_after
        Stop, with a checkpoint, once so many steps of the run are done.
    ignore_memory
        Train although the device has less memory free than the training needs at least.
    progress
        Told after every step.

    Raises
    ------
    ConfigError, RunError, WorkspaceError
        If there is nothing to learn from, a frozen case changed, memory is short, the loss is not finite, or nothing
        can be written.
    KeyboardInterrupt
        On Ctrl-C or a request to terminate, between two steps and after the state was saved.
    """
    with joined_ranks(device) as ranks:
        fits = nullcontext if ignore_memory else _memory_check(ranks)
        run = ranks.first_does(lambda: _start(workspace, config, name, ranks, fits))
        if run.status == "finished":
            return TrainReport(run, config.steps, 0.0, "already finished")
        with ExitStack() as held:
            ranks.first_does(lambda: held.enter_context(_alone(run)))
            return _train(workspace, run, ranks, stop_after, progress if ranks.first else SILENT)


def _memory_check(ranks: Ranks) -> Callable[[Run], object]:
    """Return what refuses a run for which this process and those it shares its device with have too little memory."""
    here = ranks.gather(node()).count(node()) if ranks.device.type == "cpu" else 1

    def check(run: Run) -> None:
        shortage = memory_shortage(run.config, run.task(), ranks.device, ranks.place.size, here)
        if shortage:
            raise ConfigError(shortage)

    return check


def _start(
    workspace: Workspace, config: TrainConfig, name: str | None, ranks: Ranks, fits: Callable[[Run], object]
) -> Run:
    """Return the run to train; what is refused leaves no folder behind."""

    def check(run: Run) -> None:
        check_run(workspace, run, ranks.place.size, ranks.device)
        fits(run)

    run, new = start_run(workspace, config, name, check)
    if not new and run.status != "finished":
        check_shares(config, ranks.place.size)  # settings of what goes on may be others
        fits(run)
    return run


def _train(workspace: Workspace, run: Run, ranks: Ranks, stop_after: int | None, progress: Progress) -> TrainReport:
    config = run.config
    if METHODS[config.method].needs_teacher:
        ranks.first_does(lambda: label_training_cases(workspace, run, str(ranks.device), progress))
    stream = open_stream(workspace, run)
    feed = Feed(stream, config, ranks, list(run.data.annotates))
    _say_what_cannot_be_drawn(run, stream, progress)
    state = _new_state(workspace, run, ranks, progress)
    last = max(state.step, min(config.steps, stop_after or config.steps))
    files = TrainingFiles(run.folder, run.checkpoint_file, run.model_file)
    start = time.perf_counter()
    with ExitStack() as stack:
        watcher = _Nobody() if not ranks.first else stack.enter_context(_journal(run, state.step, feed, progress))
        fit(
            state,
            feed.run(state.step, last),
            method_for(config.network, config.method),
            config,
            ranks,
            keeper=files,
            watcher=watcher,
            validate=_validation(workspace, run, ranks),
        )
    seconds = time.perf_counter() - start
    if feed.caches():
        progress.say(f"caches: {feed.caches()}")
    if last < config.steps:
        return TrainReport(run, last, seconds, "stopped")
    ranks.first_does(lambda: _finish(workspace, run, state, files))
    return TrainReport(run, last, seconds, "trained")


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Refuse to train a run that another process is training."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(run.folder / ".lock"))
        except Timeout as error:
            raise RunError(f"run {run.name}: another process is training it; wait for it, or choose --name") from error
        except OSError as error:
            msg = f"{run.folder}: cannot be written ({reason_of(error)}); check the permissions"
            raise WorkspaceError(msg) from error
        for folder in (run.folder, run.checkpoint_file.parent):
            remove_drafts(folder)
        yield


def _say_what_cannot_be_drawn(run: Run, stream: PatchStream, progress: Progress) -> None:
    annotated = {c for _, annotation in stream.cases for c in annotation.structure_ids}
    held = {name for facts, _ in stream.cases for name in facts.voxels}
    told = not_learnt(run, stream.sampler.skipped, annotated, held)
    for line in [*not_taken(run, len(stream.cases)), *told]:
        progress.say(line)


def _new_state(workspace: Workspace, run: Run, ranks: Ranks, progress: Progress) -> TrainState:
    """Return fresh weights, or those of the run that this one starts from, or the run's own last checkpoint."""
    config = run.config
    # A generator of our own would not reach the layers' initialisers; forked, the caller's state survives.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_model(config.network, config.method, run.task(), checkpointing=config.checkpointing)
    if not run.checkpoint_file.is_file():
        if config.start_from is not None and not METHODS[config.method].needs_teacher:
            load_weights(checkpoint_of(base_of(workspace, run)), network)
        told = method_for(config.network, config.method).prepare(network, run.task())
        if told:
            progress.say(told)
    layout = torch.channels_last_3d if config.channels_last else torch.preserve_format
    network = network.to(ranks.device, storage_type(config.precision)).to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    average = moving_average(network, config.average_decay)
    state = TrainState(network, optimiser, gradient_scaler(config.precision, ranks.device), average)
    if run.checkpoint_file.is_file():
        state.load(run.checkpoint_file)
    if len(set(ranks.gather(state.step))) > 1:
        raise RunError(f"{run.checkpoint_file}: not the same for all processes; the workspace must be on a shared disk")
    return state


class _Nobody:
    """Hears of everything and does nothing: the watcher of all processes but the first."""

    def step(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def validation(self, done: object, best: object) -> None:
        """Do nothing."""


@contextmanager
def _journal(run: Run, step: int, feed: Feed, progress: Progress) -> Iterator[Journal]:
    config = run.config

    def schedule(at: int) -> dict[str, float]:
        return {
            "learning_rate": config.learning_rate_at(at),
            "entropy_weight": config.entropy_weight * config.entropy_factor_at(at),
        }

    progress.start(config.steps, "training")
    progress.advance(step)
    journal = Journal(
        run.metrics_file,
        step,
        every=config.log_every,
        last=config.steps,
        batch=config.batch,
        terms=method_for(config.network, config.method).terms,
        waited_seconds=lambda: feed.waited_seconds,
        schedule=schedule,
        progress=progress,
    )
    try:
        yield journal
    finally:
        journal.close()


def _validation(workspace: Workspace, run: Run, ranks: Ranks) -> Validate | None:
    """Return what scores a network on validation cases, never on test cases; ``None`` where there are none."""
    config, keys = run.config, validation_keys(run)
    if not keys:
        return None
    frozen = {case.key: case for case in run.data.cases}
    for key in keys:
        read_frozen(workspace, run, frozen[key])
    scores = method_for(config.network, config.method).scores

    def validate(network: nn.Module, asked_to_stop: Callable[[], bool]) -> float | None:
        model = Predictor(network, scores)
        precision = validation_precision(config.precision, ranks.device)
        return mean_dsc(model, keys, workspace.read_case, config.patch, ranks, precision, asked_to_stop=asked_to_stop)

    return validate


def _finish(workspace: Workspace, run: Run, state: TrainState, files: TrainingFiles) -> None:
    facts = {
        "abdoseg_network": run.config.network,
        "structures": json.dumps(run.data.settings.structures),
        "spacing_mm": str(run.data.settings.spacing_mm),
    }
    card = model_card(workspace, run)
    files.finish(state, facts, card, best=run.config.final_weights == "best")
