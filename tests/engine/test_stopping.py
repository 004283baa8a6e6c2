"""Whatever ends a training, its state is saved, nothing goes on unseen, and the same command takes it up."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from abdoseg.checkpoints import load_tensors
from abdoseg.config import make_config
from abdoseg.engine import validation
from abdoseg.engine.place import Place
from abdoseg.engine.ranks import Ranks
from abdoseg.errors import RunError
from abdoseg.runs import load_run
from abdoseg.steps.train import train

from .test_training import config, lines, losses

COMMAND = "from abdoseg.cli import main; main()"


def command(workspace, name: str, *others: str) -> list[str]:
    settings = ["patch=[16,16,16]", "batch=2", "log_every=1", "validate_every=0", "checkpoint_seconds=1000", *others]
    start = [sys.executable, "-c", COMMAND, "train", "--name", name, "-w", str(workspace.path)]
    return start + [part for text in settings for part in ("--set", text)]


def started(workspace, name: str, processes: int) -> subprocess.Popen:
    """A training without end in so many processes, once it has done three steps."""
    asked = [*command(workspace, name), "--steps", "100000", "--nproc", str(processes)]
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = workspace.runs_folder / name / "metrics.jsonl"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.1)
    return process


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.2)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_save_and_stop(many_cases, number, processes):
    name = f"signalled-{number.name}-{processes}"
    process = started(many_cases, name, processes)
    children = children_of(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.count("stopped; type the same command to go on") == 1
    assert "death signal" not in err
    run = load_run(many_cases, name)
    done = int(load_tensors(run.checkpoint_file)[1]["step"])
    assert done == lines(run)[-1]["step"]
    assert not any(map(is_alive, children))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for children by /proc")
def test_processes_whose_launcher_was_killed_save_and_stop(many_cases):
    process = started(many_cases, "orphans", 2)
    children = children_of(process)
    assert len(children) == 2
    process.kill()
    run = load_run_once(many_cases, "orphans")
    assert int(load_tensors(run.checkpoint_file)[1]["step"]) >= 3
    assert wait_for(lambda: not any(map(is_alive, children)), 180)
    process.communicate(timeout=30)


def test_a_process_whose_launcher_is_gone_before_it_looks_ends_too():
    code = "import os, time; from abdoseg.cli._launch import end_with_launcher; end_with_launcher(); time.sleep(30)"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": f"abdoseg-{int(gone.stdout)}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGTERM


def load_run_once(workspace, name: str):
    file = workspace.runs_folder / name / "checkpoints" / "last.safetensors"
    assert wait_for(file.is_file, 60)
    return load_run(workspace, name)


@pytest.mark.slow
def test_nproc_starts_processes_that_train_together(many_cases, abdoseg, tmp_path):
    settings = ["patch=[16,16,16]", "batch=2", "validate_every=0"]
    command = [sys.executable, "-c", COMMAND, "train", "--nproc", "2", "--steps", "3", "--name", "nproc"]
    command += ["-w", str(many_cases.path), *(part for text in settings for part in ("--set", text))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run nproc: trained, 3 steps")
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("view full;") == 1
    assert "Warn" not in done.stderr
    assert "launcher" not in done.stderr
    command[command.index("nproc")] = "wrong"
    wrong = subprocess.run([*command, "--set", "batch=3"], capture_output=True, text=True, check=False, timeout=300)
    assert wrong.returncode == 2
    assert "batch 3: cannot be shared by 2 processes" in wrong.stderr
    assert wrong.stderr.count("error:") == 1
    assert "Traceback" not in wrong.stderr


class Signalled(torch.nn.Module):
    """A model that is asked to stop while it looks at the ``at``-th window."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at, self.seen = at, 0

    def forward(self, image):
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGUSR1)
        return torch.zeros(len(image), 17, *image.shape[2:])


def interrupted(many_cases, monkeypatch, name: str):
    """Train, with a signal in the first window of the first validation; return the windows that were looked at."""
    model = Signalled(1)
    real = validation.mean_dsc
    monkeypatch.setattr("abdoseg.steps.train.mean_dsc", lambda _, *others, **options: real(model, *others, **options))
    changes = {"steps": 4, "validate_every": 2, "checkpoint_seconds": 1000}
    with pytest.raises(KeyboardInterrupt):
        train(many_cases, config(**changes), name=name, device="cpu")
    monkeypatch.undo()
    return changes, model.seen


def test_a_signal_is_heeded_within_a_validation_which_is_done_again(many_cases, monkeypatch):
    changes, seen = interrupted(many_cases, monkeypatch, "validating")
    assert seen == 1
    run = load_run(many_cases, "validating")
    assert load_tensors(run.checkpoint_file)[1]["step"] == "2"
    assert not [line for line in lines(run) if "validation_dsc" in line]
    rest = train(many_cases, config(**changes), name="validating", device="cpu").run
    assert [line["step"] for line in lines(rest) if "validation_dsc" in line] == [2, 4]
    whole = train(many_cases, config(**changes), name="not-interrupted", device="cpu").run
    assert (losses(rest) == losses(whole)).all()
    assert [line["validation_dsc"] for line in lines(rest) if "validation_dsc" in line] == [
        line["validation_dsc"] for line in lines(whole) if "validation_dsc" in line
    ]


def test_a_validation_that_ended_is_not_done_again(many_cases):
    changes = {"steps": 4, "validate_every": 2}
    train(many_cases, config(**changes), name="validated", device="cpu", stop_after=2)
    run = train(many_cases, config(**changes), name="validated", device="cpu").run
    assert [line["step"] for line in lines(run) if "validation_dsc" in line] == [2, 4]


class TwoRanks(Ranks):
    """The first of two processes; the other one answers what it is told to."""

    def __init__(self, answers) -> None:
        super().__init__(Place(0, 2, 0), torch.device("cpu"))
        self.answers = iter(answers)

    def gather(self, value):
        return [value, next(self.answers)]


def test_all_processes_leave_a_validation_together(many_cases):
    keys = many_cases.case_keys()
    blank = Signalled(math.nan)

    def scored(*answers):
        return validation.mean_dsc(blank, keys[:4], many_cases.read_case, (16, 16, 16), TwoRanks(answers))

    assert scored(validation._Told(100.0), validation._Told(100.0)) > 0
    blank.seen = 0
    assert scored(validation._Told(stopped=True)) is None
    once = blank.seen
    assert scored(validation._Told(100.0), validation._Told(stopped=True)) is None
    assert blank.seen > once
    with pytest.raises(RunError, match="its own reason"):
        scored(validation._Told(error=RunError("its own reason")))


def test_a_validation_that_overflows_in_float16_is_done_in_float32(many_cases):
    class Narrow(torch.nn.Module):
        def __init__(self, most: float) -> None:
            super().__init__()
            self.most = most

        def forward(self, image):
            logits = torch.zeros(len(image), 17, *image.shape[2:])
            if torch.is_autocast_enabled("cpu"):
                logits[:, 1] = math.inf
            return logits + self.most

    key = many_cases.case_keys()[:1]
    one = Ranks(Place(), torch.device("cpu"))
    score = validation.mean_dsc(Narrow(0.0), key, many_cases.read_case, (16, 16, 16), one, "fp16")
    assert score == 0
    with pytest.raises(RunError, match="its output is NaN or infinite"):
        validation.mean_dsc(Narrow(math.nan), key, many_cases.read_case, (16, 16, 16), one, "fp16")
    with pytest.raises(RunError, match="its output is NaN or infinite"):
        validation.mean_dsc(Narrow(0.0), key, many_cases.read_case, (16, 16, 16), one, "bf16")


def test_a_run_without_a_checkpoint_is_not_said_to_have_one(many_cases, abdoseg):
    from abdoseg.runs import start_run

    place = ("--name", "bare", "-w", many_cases.path, "--device", "cpu")
    settings = ("--set", "patch=[16,16,16]", "--set", "validate_every=0")
    start_run(many_cases, make_config("small", {"steps": 2, "patch": (16, 16, 16), "validate_every": 0}), "bare")
    told = abdoseg("train", "--preset", "small", "--steps", 2, *settings, *place)
    assert told.status == 0, told.err
    assert "run bare: begins anew" in told.err
    assert "checkpoint" not in told.err


def test_metrics_with_bytes_that_are_no_text_are_taken_up_to_them(many_cases, abdoseg):
    run = train(many_cases, config(steps=4), name="bytes", device="cpu", stop_after=2).run
    with run.metrics_file.open("ab") as file:
        file.write(b'{"step": 2, "loss": \xff}\n')
    assert run.last_metrics()["step"] == 2
    assert abdoseg("status", "-w", many_cases.path).status == 0
    train(many_cases, config(steps=4), name="bytes", device="cpu")
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [1, 2, 3, 4]
