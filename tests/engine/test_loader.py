"""Batches come in order, whatever the threads do; what is stuck or broken ends the run with its name."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.engine.loader import Loader
from abdoseg.errors import RunError, WorkspaceError


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 5), st.integers(0, 12))
def test_things_come_in_order_whatever_the_threads_do(threads, ahead, first, n):
    def make(number, tell):
        time.sleep(0.001 * ((number * 7) % 3))  # later ones may be ready first
        return number * number

    assert list(Loader(make, threads, ahead).run(first, first + n)) == [i * i for i in range(first, first + n)]


def test_no_more_is_made_than_asked_for():
    made = []

    def make(number, tell):
        made.append(number)
        return number

    things = Loader(make, threads=2, ahead=3).run(0, 100)
    assert [next(things) for _ in range(4)] == [0, 1, 2, 3]
    time.sleep(0.1)
    assert max(made) <= 3 + 2 + 3
    things.close()


def test_threads_end_with_the_loop():
    workers = set()

    def make(number, tell):
        workers.add(threading.current_thread())
        time.sleep(0.01)

    things = Loader(make, threads=3).run(0, 50)
    for _ in range(9):
        next(things)
    assert len(workers) == 3
    things.close()
    for worker in workers:
        worker.join(5)
    assert not any(worker.is_alive() for worker in workers)


def test_a_stuck_thread_ends_the_run_with_what_it_worked_on():
    released = threading.Event()

    def make(number, tell):
        tell(f"word/word_000{number}")
        if number == 2:
            released.wait(60)
        return number

    things = Loader(make, threads=2, timeout_seconds=0.3).run(0, 10)
    assert [next(things), next(things)] == [0, 1]
    start = time.monotonic()
    with pytest.raises(RunError, match=r"word/word_0002: reading it has not ended after 0\.3 s"):
        next(things)
    assert time.monotonic() - start < 5
    released.set()


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(5, "Input/output error"), RunError, "btcv/img1: cannot be read .*Input/output error"),
        (MemoryError(), RunError, "btcv/img1: not enough memory for its patch .refused.; choose a smaller"),
        (WorkspaceError("btcv/img1: damaged"), WorkspaceError, "^btcv/img1: damaged$"),
    ],
)
def test_errors_a_user_can_mend_name_the_case(error, raised, message):
    def make(number, tell):
        tell("btcv/img1")
        if number == 1:
            raise error
        return number

    things = Loader(make).run(0, 3)
    assert next(things) == 0
    with pytest.raises(raised, match=message):
        next(things)


def test_bugs_keep_their_traceback_and_are_told_the_case():
    def make(number, tell):
        tell("btcv/img1")
        return 1 / number

    with pytest.raises(ZeroDivisionError) as told:
        next(Loader(make).run(0, 3))
    assert told.value.__notes__ == ["while cutting a patch of btcv/img1"]


def test_waiting_is_measured():
    loader = Loader(lambda number, tell: time.sleep(0.05), threads=1, ahead=0)
    for _ in loader.run(0, 4):
        pass
    assert 0.1 < loader.waited_seconds < 2
