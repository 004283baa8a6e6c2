"""Train: from the workspace's cases to weights.

A plain loop. Example number ``step * batch + i`` decides what is seen, so a run that was killed goes on with the
very patches it would have seen.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from filelock import Timeout
from torch import Tensor, nn

from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import AffineSettings
from abdoseg.case import CaseFacts
from abdoseg.checkpoints import load_checkpoint, save_checkpoint, save_tensors
from abdoseg.config import TrainConfig
from abdoseg.devices import choose_device
from abdoseg.errors import RunError, WorkspaceError
from abdoseg.files import write_text
from abdoseg.interrupts import deferred_interrupts
from abdoseg.methods import METHODS
from abdoseg.methods.parts import LossFunction, LossParts, LossSettings, TorchBatch
from abdoseg.networks import build_network
from abdoseg.patches import Batch, PatchSettings, PatchStream, collate, find_candidates
from abdoseg.places import append_text, locked, reason_of, storage_errors
from abdoseg.progress import SILENT, Progress
from abdoseg.runs import Run, read_frozen, read_metrics, start_run
from abdoseg.store import Workspace

PREFETCH = 3
"""Batches cut ahead of the network by one thread; the kernels release Python's lock."""


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
    progress: Progress = SILENT,
) -> TrainReport:
    """Train the run of ``config``: a new one, or the unfinished one from its last checkpoint.

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
    progress
        Told after every step.

    Raises
    ------
    ConfigError, RunError, WorkspaceError
        If there is nothing to learn from, a frozen case changed, the loss is not finite, or nothing can be written.
    KeyboardInterrupt
        On Ctrl-C or a request to terminate, between two steps and after the state was saved.
    """
    run, _ = start_run(workspace, config, name)
    if run.status == "finished":
        return TrainReport(run, config.steps, 0.0, "already finished")
    with _alone(run):
        stream = open_stream(workspace, run)
        _say_what_cannot_be_drawn(run, stream, progress)
        trainer = _Trainer(run, stream, choose_device(device))
        start = time.perf_counter()
        done = trainer.run_to(min(config.steps, stop_after or config.steps), progress)
        seconds = time.perf_counter() - start
        if done < config.steps:
            return TrainReport(run, done, seconds, "stopped")
        save_model(run, trainer.network)
        return TrainReport(run, done, seconds, "trained")


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Refuse to train a run that another process is training."""
    try:
        with locked(run.folder / ".lock"):
            yield
    except Timeout as error:
        raise RunError(f"run {run.name}: another process is training it; wait for it, or choose --name") from error


def _say_what_cannot_be_drawn(run: Run, stream: PatchStream, progress: Progress) -> None:
    annotated = {c for _, annotation in stream.cases for c in annotation.structure_ids}
    drawn = {name for facts, _ in stream.cases for name in facts.voxels}
    for structure in stream.sampler.skipped:
        s = run.anatomy.structure(structure)
        if structure not in annotated:
            reason = "no training case annotates it; it cannot be learnt"
        elif s.name not in drawn:
            reason = "annotated, but no training case holds it; it cannot be learnt"
        else:
            reason = "the view hides all its voxels; it cannot be learnt"
        progress.say(f"{s.title}: {reason}")


def open_stream(workspace: Workspace, run: Run) -> PatchStream:
    """Return the patches of a run's training cases.

    Raises
    ------
    RunError
        If a case the run froze is gone or was taken again with other voxels.
    """
    config = run.config
    cases = training_cases(workspace, run)
    affine = AffineSettings(rotation_degrees=config.rotation_degrees, scale=config.scale)
    settings = PatchSettings(shape=config.patch, affine=affine, sampler=config.sampler, seed=config.seed)
    candidates = find_candidates(cases, workspace, run.anatomy.names)
    return PatchStream(cases, workspace, settings, candidates=candidates)


def training_cases(workspace: Workspace, run: Run) -> list[tuple[CaseFacts, Annotation]]:
    """Return facts and annotation, as the run's view shows it, of its training cases."""
    cases = []
    for frozen in run.data.cases:
        if frozen.side != "train":
            continue
        facts = read_frozen(workspace, run, frozen)
        annotation = facts.groups
        if run.data.view is not None:
            annotation = run.data.view.apply(annotation, facts.source, facts.shape)
        cases.append((facts, annotation))
    return cases


def save_model(run: Run, network: nn.Module) -> None:
    """Write the finished weights; the run is finished once this file is there."""
    facts = {
        "abdoseg_network": run.config.network,
        "structures": json.dumps(run.data.settings.structures),
        "spacing_mm": str(run.data.settings.spacing_mm),
    }
    save_tensors(run.model_file, network.state_dict(), facts)


class _Trainer:
    """Network, optimiser and the step they are at."""

    def __init__(self, run: Run, stream: PatchStream, device: torch.device) -> None:
        config = run.config
        self.run = run
        self.stream = stream
        self.device = device
        # A generator of our own would not reach the layers' initialisers; forked, the caller's state survives.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = build_network(config.network, 1 + len(run.anatomy)).to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.loss: LossFunction = METHODS[config.method].loss()
        self.step = 0
        if run.checkpoint_file.is_file():
            self.step = load_checkpoint(run.checkpoint_file, self.network, self.optimiser)
        self.log = _Log(run, self.step)

    def run_to(self, last: int, progress: Progress) -> int:
        """Do the steps up to ``last``; save at the end, every so often, and when interrupted."""
        config = self.run.config
        progress.start(config.steps, "training")
        progress.advance(self.step)
        saved_at = time.monotonic()
        batches = _batches(self.stream, config.batch, self.step, last)
        with closing(batches), deferred_interrupts() as asked_to_stop:
            for batch in batches:
                parts = self._update(batch)
                self.log.add(self.step, parts, config.learning_rate_at(self.step - 1))
                progress.advance(1, self.log.note())
                if asked_to_stop():
                    self.save()
                    raise KeyboardInterrupt
                if time.monotonic() - saved_at > config.checkpoint_seconds and self.step < last:
                    self.save()
                    saved_at = time.monotonic()
        self.save()
        return self.step

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.run.checkpoint_file, self.network, self.optimiser, self.step)

    def _update(self, batch: Batch) -> dict[str, float]:
        config = self.run.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        ramp = config.entropy_factor_at(self.step)
        settings = LossSettings(
            config.entropy_weight * ramp, config.entropy_weight_unannotated * ramp, config.dice_over, config.reduction
        )
        tensors = to_torch(batch, self.device)
        try:
            parts = self.loss(self.network(tensors.image), tensors, settings)
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(parts.total)
        except torch.OutOfMemoryError as error:
            patch = "x".join(str(n) for n in config.patch)
            msg = (
                f"run {self.run.name}: {self.device} has too little memory for {config.batch} patches of {patch} with "
                f"{config.network}; lower --set batch=... or --set patch=..., or choose --preset small"
            )
            raise RunError(msg) from error
        values = _values(parts)
        if not math.isfinite(values["loss"]):
            msg = (
                f"run {self.run.name}: the loss of step {self.step} is {values['loss']} on {', '.join(batch.cases)}; "
                "lower the learning rate (--set learning_rate=...) or look at these cases"
            )
            raise RunError(msg)
        self.optimiser.step()
        self.step += 1
        return values


def _values(parts: LossParts) -> dict[str, float]:
    terms: dict[str, Tensor] = {
        "loss": parts.total,
        "focal": parts.focal,
        "dice": parts.dice,
        "entropy": parts.entropy,
    }
    return {key: float(value.detach()) for key, value in terms.items()}


def to_torch(batch: Batch, device: torch.device) -> TorchBatch:
    """Return a batch's arrays as tensors on ``device``."""
    return TorchBatch(
        torch.from_numpy(batch.image).to(device),
        torch.from_numpy(batch.label).to(device),
        torch.from_numpy(batch.group).to(device),
        torch.from_numpy(batch.annotated).to(device),
    )


def _batches(stream: PatchStream, size: int, first: int, last: int) -> Generator[Batch]:
    """Yield the batches of steps ``first`` to ``last - 1``; one thread cuts a few ahead."""

    def cut(step: int) -> Batch:
        return collate([stream.example(step * size + i) for i in range(size)])

    pool = ThreadPoolExecutor(1, thread_name_prefix="patches")
    waiting: list[Future[Batch]] = []
    try:
        for step in range(first, last):
            waiting += [pool.submit(cut, s) for s in range(step + len(waiting), min(step + PREFETCH, last))]
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Log:
    """Means of the loss terms since the last line of ``metrics.jsonl``."""

    def __init__(self, run: Run, step: int) -> None:
        self.file = run.metrics_file
        self.every = run.config.log_every
        # Lines written after the checkpoint we resume from would be there twice.
        kept = [line for line in read_metrics(self.file) if line["step"] <= step]
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in kept))
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        self.newest: dict[str, float] = {}
        self.since = time.perf_counter()

    def add(self, step: int, values: dict[str, float], learning_rate: float) -> None:
        """Count one step; write a line every few."""
        self.newest = values
        self.count += 1
        for key, value in values.items():
            self.sums[key] += value
        if step % self.every == 0:
            self._write(step, learning_rate)

    def _write(self, step: int, learning_rate: float) -> None:
        now = time.perf_counter()
        means = {key: total / self.count for key, total in self.sums.items()}
        pace = {"seconds_per_step": (now - self.since) / self.count}
        try:
            append_text(self.file, json.dumps({"step": step, "learning_rate": learning_rate, **means, **pace}) + "\n")
        except storage_errors() as error:
            raise WorkspaceError(f"{self.file}: cannot be written ({reason_of(error)}); check the disk") from error
        self.sums.clear()
        self.count, self.since = 0, now

    def note(self) -> str:
        """Return the terms of the newest step for the progress line."""
        return "  ".join(f"{key} {self.newest[key]:.2f}" for key in ("loss", "focal", "dice", "entropy"))
