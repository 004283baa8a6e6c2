"""Kill -9 at random moments: a case is there whole or not at all, and the same command again finishes the work."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from abdoseg.store import Settings, Workspace
from tests.conftest import body, word_case, write_nifti

pytestmark = pytest.mark.slow

CASES = 8
LIMIT_S = 120

# Starting Python and importing takes seconds, writing eight small cases half a second: kills would land in imports.
# So one process imports everything once, and each attempt is a fork of it that runs the command line from there, as
# the leader of a process group of its own. Workers are forked too: only how they start is another.
LAUNCHER = """
import os, sys
os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # OpenMP ends a process that forks after using it
import multiprocessing
import nibabel, numba, zarr
import abdoseg.cli, abdoseg.steps.ingest as step, abdoseg.steps.review, abdoseg.harmonise, abdoseg.relabel
step.get_context = lambda _: multiprocessing.get_context("fork")
from pathlib import Path
from abdoseg.relabel import body_mask
from abdoseg.store import Workspace
from abdoseg.cards import load_card
from abdoseg.readers.layouts import find_cases
card, folder, nowhere = load_card("word"), Path(sys.argv[1]), Path(sys.argv[2])
from abdoseg.intake import build_case
files = find_cases(card, folder).cases[0]
build_case(card, files, {}, Workspace.create(nowhere))  # loads the compiled kernels; nothing of it is written
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.argv = ["abdoseg", *line.rstrip("\\n").split("\\t")]
        abdoseg.cli.main()
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Launcher:
    """Starts the command line from a process that has imported everything."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(source), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, *arguments: object) -> int:
        """Run a command; return the id of its process group."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, arguments)) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Return the exit status of the command."""
        return int(self._line())

    def run(self, *arguments: object) -> int:
        self.start(*arguments)
        return self.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LIMIT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        os.killpg(group, signal.SIGKILL)


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def command(workspace: Path, source: Path, jobs: int, *more: str) -> list[object]:
    return ["ingest", "word", source, "-w", workspace, "--jobs", jobs, *more]


def cold(arguments: list[object]) -> subprocess.Popen[bytes]:
    """Start the command as a user does, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "abdoseg", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw") / "WORD-V0.1.0"
    for number in range(1, CASES + 1):
        word_case(root, number)
    return root.parent


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, source):
    launcher = Launcher(source, tmp_path_factory.mktemp("scratch"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def second(tmp_path_factory, source):
    """Another one, for two commands at once."""
    launcher = Launcher(source, tmp_path_factory.mktemp("scratch"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, source, launcher) -> tuple[Workspace, float]:
    """A workspace that nobody disturbed, and how long it took to make it."""
    workspace = Workspace.create(tmp_path_factory.mktemp("undisturbed") / "w", Settings(spacing_mm=4.0))
    begin = time.monotonic()
    assert launcher.run(*command(workspace.path, source, 1)) == 0
    taken_s = time.monotonic() - begin
    assert len(workspace.case_keys()) == CASES
    return workspace, taken_s


def require_same(workspace: Workspace, sound: Workspace, keys: list[str]) -> None:
    """Every one of these cases is the undisturbed one: facts, voxels, and each byte on disk."""
    for key in keys:
        one, other = workspace.read_case(key), sound.read_case(key)
        assert one.facts == other.facts
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)
        stored, expected = workspace.read_foreground(key), sound.read_foreground(key)
        np.testing.assert_array_equal(stored.index, expected.index)
        np.testing.assert_array_equal(stored.start, expected.start)
        assert contents(workspace.case_folder(key)) == contents(sound.case_folder(key))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def require_whole_at_any_time(path: Path, sound: Workspace) -> int:
    """What stands in the workspace after a kill can be used as it is; return how many cases that are."""
    if not (path / "abdoseg.toml").exists():
        return 0
    workspace = Workspace.open(path)
    keys = workspace.case_keys()
    require_same(workspace, sound, keys)
    workspace.records()
    return len(keys)


def require_finished(path: Path, sound: Workspace) -> None:
    """Every case once, and nothing besides what an undisturbed ingest leaves."""
    workspace = Workspace.open(path)
    assert workspace.case_keys() == sound.case_keys()
    require_same(workspace, sound, workspace.case_keys())
    assert not list(workspace.incoming.rglob("*"))
    assert files_in(path) == files_in(sound.path)
    record, expected = workspace.records()["word"], sound.records()["word"]
    assert record == expected


def files_in(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


@pytest.mark.parametrize(("jobs", "rounds", "kills"), [(1, 3, 8), (2, 3, 8)])
def test_killed_at_any_moment(tmp_path, source, launcher, undisturbed, jobs, rounds, kills):
    """Several kills a round, in the second half of it while all cases are taken again.

    Every other kill comes somewhere within the time an ingest takes; the rest come while cases are written, which is
    the shorter part.
    """
    sound, taken_s = undisturbed
    rng = random.Random(100 + jobs)
    standing, amid = [], 0
    for number in range(rounds):
        path = tmp_path / f"w{number}"
        building = Workspace.create(path, Settings(spacing_mm=4.0)).incoming / "word"
        for attempt in range(kills):
            left_over = set(building.glob("*"))
            more = ("--replace",) if attempt >= kills // 2 else ()
            group = launcher.start(*command(path, source, jobs, *more))
            if attempt % 2:
                time.sleep(rng.uniform(0, taken_s))
            else:
                wait_for(lambda g=group, d=building, old=left_over: set(d.glob("*")) - old or not is_alive(g))
                time.sleep(rng.uniform(0, 0.1))
            kill_group(group)
            launcher.wait()
            standing.append(require_whole_at_any_time(path, sound))
            amid += any(building.glob("*"))
        assert launcher.run(*command(path, source, jobs)) == 0
        require_finished(path, sound)
    assert amid > 0, "no kill landed while a case was written"


@pytest.mark.parametrize(("jobs", "kills"), [(1, 1), (2, 1)])
def test_the_real_command_killed_while_it_writes(tmp_path, source, launcher, undisturbed, jobs, kills):
    """The command as a user starts it, killed a moment after its first case began to be written."""
    sound, _ = undisturbed
    rng = random.Random(jobs)
    path = tmp_path / "w"
    workspace = Workspace.create(path, Settings(spacing_mm=4.0))
    building = workspace.incoming / "word"
    for _ in range(kills):
        left_over = set(building.glob("*"))
        process = cold(command(path, source, jobs, "--replace"))
        try:
            wait_for(lambda old=left_over: bool(set(building.glob("*")) - old))
            time.sleep(rng.uniform(0, 0.3))
        finally:
            kill_group(process.pid)
            process.wait(LIMIT_S)
        require_whole_at_any_time(path, sound)
    assert launcher.run(*command(path, source, jobs)) == 0
    require_finished(path, sound)


def total_source(root: Path) -> Path:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for number in range(1, 7):
        folder = root / f"s{number:04d}"
        write_nifti(folder / "ct.nii.gz", body((24, 22, 20), number), affine)
        liver = np.zeros((24, 22, 20), dtype=np.uint8)
        liver[14:20, 6:14, 10:16] = 1
        write_nifti(folder / "segmentations" / "liver.nii.gz", liver, affine)
    return root


def test_two_sources_at_once_into_one_workspace(tmp_path, source, launcher, second, undisturbed):
    """Neither cleans up what the other builds, and a kill of one is no harm to the other."""
    sound, _ = undisturbed
    other = total_source(tmp_path / "total")
    path = tmp_path / "w"
    workspace = Workspace.create(path, Settings(spacing_mm=4.0))
    ours = command(path, source, 1)
    theirs = ["ingest", "totalsegmentator", other, "-w", path, "--jobs", 1]
    launcher.start(*ours)
    group = second.start(*theirs)
    wait_for(lambda: any((workspace.incoming / "totalsegmentator").glob("*")))
    kill_group(group)
    assert second.wait() == -signal.SIGKILL
    assert launcher.wait() == 0
    launcher.start(*ours, "--replace")
    second.start(*theirs)
    assert (launcher.wait(), second.wait()) == (0, 0)
    assert len(workspace.case_keys(["totalsegmentator"])) == 6
    for key in workspace.case_keys(["totalsegmentator"]):
        assert (workspace.read_case(key).label > 0).any()
        assert workspace.read_foreground(key).index.size
    assert workspace.case_keys(["word"]) == sound.case_keys()
    require_same(workspace, sound, sound.case_keys())
    assert not list((workspace.incoming).rglob("*"))
    assert sorted(workspace.records()) == ["totalsegmentator", "word"]


def test_two_runs_of_one_source_at_once(tmp_path, source, launcher, second, undisturbed):
    """The second is refused, or finds all cases there; the first is not disturbed."""
    sound, _ = undisturbed
    path = tmp_path / "w"
    workspace = Workspace.create(path, Settings(spacing_mm=4.0))
    launcher.start(*command(path, source, 1))
    wait_for(lambda: any((workspace.incoming / "word").glob("*")))
    assert second.run(*command(path, source, 1)) in (0, 2)
    assert launcher.wait() == 0
    require_finished(path, sound)
