"""Batches ahead of the network: threads that cut patches, and nothing that can hang.

Threads, because the kernels release Python's lock, share one cache and copy nothing between processes. They are
daemons: a thread that waits for a dead file server for ever does not keep the process from ending.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from abdoseg.errors import AbdosegError, RunError

T = TypeVar("T")

Tell = Callable[[str], None]
"""Takes what is worked on now, for the message should it never end."""


@dataclass
class _Job(Generic[T]):
    """One batch to make."""

    number: int
    done: threading.Event = field(default_factory=threading.Event)
    result: T | None = None
    error: BaseException | None = None
    at: str = "a patch that no thread has begun"

    def tell(self, at: str) -> None:
        """Note what is worked on."""
        self.at = at


class Loader(Generic[T]):
    """Makes numbered things in order, some of them ahead.

    Parameters
    ----------
    make
        ``make(number, tell)`` returns thing ``number``; it tells what it works on (a case).
    threads
        How many are made at once.
    ahead
        How many more than that may be waiting.
    timeout_seconds
        How long to wait for the next one before giving up.
    """

    def __init__(
        self, make: Callable[[int, Tell], T], threads: int = 1, ahead: int = 2, timeout_seconds: float = 50.0
    ) -> None:
        self._make = make
        self._threads = threads
        self._ahead = ahead
        self._timeout = timeout_seconds
        self.waited_seconds = 0.0

    def run(self, first: int, stop: int) -> Generator[T]:
        """Yield things ``first`` to ``stop - 1``; ``waited_seconds`` grows by what the caller had to wait.

        Raises
        ------
        RunError
            If one is not there in time, with what was worked on. Errors of ``make`` are raised where it was due.
        """
        jobs: queue.SimpleQueue[_Job[T] | None] = queue.SimpleQueue()
        over = threading.Event()
        threads = [threading.Thread(target=self._work, args=(jobs, over), daemon=True) for _ in range(self._threads)]
        _start(threads)
        waiting: list[_Job[T]] = []
        try:
            for number in range(first, stop):
                for later in range(number + len(waiting), min(number + self._threads + self._ahead, stop)):
                    waiting.append(_Job(later))
                    jobs.put(waiting[-1])
                yield self._result_of(waiting.pop(0))
        finally:
            over.set()
            for _ in threads:
                jobs.put(None)

    def _work(self, jobs: "queue.SimpleQueue[_Job[T] | None]", over: threading.Event) -> None:
        while (job := jobs.get()) is not None and not over.is_set():
            try:
                job.result = self._make(job.number, job.tell)
            except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
                job.error = error
            job.done.set()

    def _result_of(self, job: _Job[T]) -> T:
        start = time.perf_counter()
        there = job.done.wait(self._timeout)
        self.waited_seconds += time.perf_counter() - start
        if not there:
            msg = (
                f"{job.at}: reading it has not ended after {self._timeout:g} s; look at its disk or network, or "
                "give it longer with --set loader_timeout_seconds=..."
            )
            raise RunError(msg)
        if job.error is not None:
            raise _with_case(job.error, job.at)
        return cast("T", job.result)


def _start(threads: list[threading.Thread]) -> None:
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        raise RunError(f"workers {len(threads)}: this machine cannot start so many threads; choose fewer") from error


def _with_case(error: BaseException, at: str) -> BaseException:
    """Return the error to raise: what a user can mend as one line that names the case, bugs with a note."""
    if isinstance(error, AbdosegError):
        return error
    if isinstance(error, MemoryError):
        return RunError(
            f"{at}: not enough memory for its patch ({str(error) or 'refused'}); choose a smaller --set patch=..., "
            "fewer --set workers=... or a smaller --set cache_mb=..."
        )
    if isinstance(error, OSError):
        return RunError(
            f"{at}: cannot be read ({str(error) or type(error).__name__}); check its disk, or ingest it again"
        )
    error.add_note(f"while cutting a patch of {at}")
    return error
