"""What a training writes down as it goes: a line of ``metrics.jsonl`` every few steps, and TensorBoard's files."""

import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from abdoseg.engine.state import Validation
from abdoseg.errors import WorkspaceError
from abdoseg.files import write_text
from abdoseg.places import append_text, is_local, reason_of, storage_errors
from abdoseg.progress import Progress
from abdoseg.run_files import read_metrics

_RECENT = 50  # steps that the pace on the screen is measured over


class Journal:
    """Means of the terms since the last line, the pace, and what part of the time patches were waited for.

    Parameters
    ----------
    file
        ``metrics.jsonl``. Lines beyond ``step`` are dropped: they would be there twice.
    step
        Step the training goes on from.
    every
        Steps a line.
    last
        The run's last step, after which there is a line too.
    batch
        Patches a step, of all processes.
    terms
        Names of the loss's terms.
    waited_seconds
        Returns how long patches have been waited for since the start.
    schedule
        Returns further facts of a step, such as the learning rate.
    progress
        Told after every step.
    """

    def __init__(
        self,
        file: Path,
        step: int,
        *,
        every: int,
        last: int,
        batch: int,
        terms: Sequence[str],
        waited_seconds: Callable[[], float],
        schedule: Callable[[int], dict[str, float]],
        progress: Progress,
    ) -> None:
        self.file, self.every, self.last, self.batch = file, every, last, batch
        self.terms = ("loss", *terms)
        self._waited_seconds, self._schedule, self._progress = waited_seconds, schedule, progress
        kept = [line for line in read_metrics(file) if line["step"] <= step]
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
        # An object store cannot be appended to event by event.
        self._board = _board(file.parent / "tensorboard", step + 1) if is_local(file) else None
        self._sums: dict[str, float] = defaultdict(float)
        self._since = self._now()
        self._begin_line()
        self._recent: deque[tuple[float, float]] = deque([self._now()], maxlen=_RECENT + 1)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._board is not None:
            self._board.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Count one step; write a line every few."""
        self._count += 1
        now = self._now()
        self._recent.append(now)
        self._spent = now[0] - self._since[0], now[1] - self._since[1]
        for key, value in values.items():
            self._sums[key] += value
        if step % self.every == 0 or step == self.last:
            self._write_means(step)
        self._progress.advance(1, self._note(values))

    def validation(self, done: Validation, best: Validation | None) -> None:
        """Write a line of its own for a validation; its time is no part of the pace."""
        known = {} if best is None else {"best_dsc": best.score, "best_step": best.step}
        self._write({"step": done.step, "validation_dsc": done.score, **known})
        self._progress.say(f"step {done.step}: validation {_in_words(done, best)}")
        now = self._now()
        self._since = now[0] - self._spent[0], now[1] - self._spent[1]
        self._recent = deque([self._now()], maxlen=_RECENT + 1)

    def _now(self) -> tuple[float, float]:
        """Return the time, and how long patches have been waited for, in seconds."""
        return time.perf_counter(), self._waited_seconds()

    def _begin_line(self) -> None:
        self._sums.clear()
        self._count, self._since = 0, self._now()
        self._spent = (0.0, 0.0)

    def _write_means(self, step: int) -> None:
        seconds, waited = (now - before for now, before in zip(self._now(), self._since, strict=True))
        means = {key: total / self._count for key, total in self._sums.items()}
        pace = {
            "seconds_per_step": seconds / self._count,
            "patches_per_second": self.batch * self._count / seconds,
            "wait_percent": 100 * waited / seconds,
        }
        self._write({"step": step, **self._schedule(step - 1), **means, **pace})
        self._begin_line()

    def _write(self, facts: dict[str, Any]) -> None:
        # JSON has no infinity: the norm of a float16 gradient that overflowed, a validation without a structure.
        facts = {key: value if math.isfinite(value) else None for key, value in facts.items()}
        try:
            append_text(self.file, json.dumps(facts) + "\n")
            if self._board is not None:
                for key, value in facts.items():
                    if key != "step" and value is not None:
                        self._board.add_scalar(self._tag(key), value, facts["step"])
        except storage_errors() as error:
            raise WorkspaceError(f"{self.file}: cannot be written ({reason_of(error)}); check the disk") from error

    def _note(self, values: dict[str, float]) -> str:
        """Return the newest terms and the pace of the last steps."""
        seconds, waited = (now - before for now, before in zip(self._recent[-1], self._recent[0], strict=True))
        pace = self.batch * (len(self._recent) - 1) / max(seconds, 1e-9)
        terms = "  ".join(f"{key} {values[key]:.2f}" for key in self.terms)
        return f"{terms}  {pace:.1f} patches/s, wait {100 * waited / max(seconds, 1e-9):.0f} %"

    def _tag(self, key: str) -> str:
        """Return a name under which TensorBoard groups related curves."""
        if "dsc" in key or key == "best_step":
            return f"validation/{key}"
        return f"loss/{key}" if key in self.terms else f"training/{key}"


def _board(folder: Path, step: int) -> SummaryWriter:
    """Return TensorBoard's file of a training that goes on with a step."""
    try:
        return SummaryWriter(str(folder), purge_step=step)
    except OSError as error:
        raise WorkspaceError(f"{folder}: cannot be written ({reason_of(error)}); move it away") from error


def _in_words(done: Validation, best: Validation | None) -> str:
    if not math.isfinite(done.score):
        return "gives no DSC: no case of it holds an annotated structure"
    if best is None or best.step == done.step:
        return f"DSC {done.score:.1f} %, the best so far"
    return f"DSC {done.score:.1f} %, best {best.score:.1f} at step {best.step}"
