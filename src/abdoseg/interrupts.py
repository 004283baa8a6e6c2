"""Ctrl-C and termination, between steps instead of in the middle of one."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TOGETHER_SECONDS = 1.0
"""Signals within this time are one request."""


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C, SIGTERM or SIGUSR1 came while the block runs.

    SIGUSR1 is what SLURM sends some minutes before a job's time is over (``--signal=USR1@300``). A second signal
    interrupts at once, unless it comes with the first: batch systems and launchers send several. Outside the main
    thread, where Python delivers no signals, the function is always False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    first: float | None = None

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal first
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > TOGETHER_SECONDS:
            raise KeyboardInterrupt

    handled = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield lambda: first is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
