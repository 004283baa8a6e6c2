"""What a run freezes, and what the workspace says of it later."""

import os
import shutil
import signal
import time

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock

from abdoseg import interrupts
from abdoseg.cards import load_card
from abdoseg.config import make_config
from abdoseg.errors import ConfigError, RunError
from abdoseg.interrupts import deferred_interrupts
from abdoseg.runs import freeze, list_runs, plan_run, start_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.status import status
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.conftest import LPS, Heard, body, word_case, write_nifti

TINY = {"steps": 2, "patch": (16, 16, 16)}


@pytest.fixture
def workspace(tmp_path, word_source) -> Workspace:
    made = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), word_source)
    return made


def copy_as_btcv(tmp_path, word_source, part: str) -> None:
    """The very scan of WORD's case 1 (training) or 4 (test) again, as the only case of BTCV."""
    number = {"train": "0001", "test": "0004"}[part]
    scan = next(word_source.rglob(f"images*/word_{number}.nii.gz"))
    folder = tmp_path / "btcv" / "Training"
    (folder / "img").mkdir(parents=True)
    shutil.copy(scan, folder / "img" / "img0001.nii.gz")
    write_nifti(folder / "label" / "label0001.nii.gz", np.ones(nib.load(scan).shape, np.uint8), LPS)


def test_the_side_of_a_case_does_not_depend_on_the_sources_chosen(workspace, tmp_path, word_source):
    copy_as_btcv(tmp_path, word_source, "test")
    ingest(workspace, load_card("btcv"), tmp_path / "btcv")
    everything = freeze(workspace, make_config("small"))
    assert "btcv/img0001" in everything.keys("test")
    with pytest.raises(ConfigError, match="all 1 cases are validation or test"):
        freeze(workspace, make_config("small", {"sources": ("btcv",)}))


def test_status_flags_a_run_that_trained_on_what_is_test_today(workspace, tmp_path):
    train(workspace, make_config("small", TINY), device="cpu")
    assert status(workspace)["runs"][0]["leaks"] == []
    raw = tmp_path / "raw" / "WORD-V0.1.0"
    for kind in ("images", "labels"):
        shutil.copy(raw / f"{kind}Tr" / "word_0001.nii.gz", raw / f"{kind}Ts" / "word_0009.nii.gz")
    ingest(workspace, load_card("word"), tmp_path / "raw")
    assert status(workspace)["runs"][0]["leaks"] == ["word/word_0001"]


def test_planning_writes_nothing(workspace):
    run, new = plan_run(workspace, make_config("small", TINY))
    assert new
    assert not run.folder.exists()
    assert list_runs(workspace) == []


@pytest.mark.parametrize("name", ["a/b", "../x", "", ".hidden", "with space"])
def test_names_that_are_no_folders_are_refused(workspace, name):
    with pytest.raises(ConfigError, match="--name: found"):
        start_run(workspace, make_config("small", TINY), name)


def test_a_run_that_another_process_trains_is_left_alone(workspace):
    run, _ = start_run(workspace, make_config("small", TINY))
    with FileLock(run.folder / ".lock"), pytest.raises(RunError, match="another process is training it"):
        train(workspace, make_config("small", TINY), device="cpu")


@pytest.mark.parametrize("damage", [b"steps = 'many'", b"steps = 2 # \xff", b"steps = "])
def test_a_damaged_run_does_not_hide_the_others(workspace, damage):
    first = train(workspace, make_config("small", TINY), device="cpu").run
    second, _ = start_run(workspace, make_config("small", {**TINY, "seed": 1}))
    (second.folder / "config.toml").write_bytes(damage)
    assert [run.name for run in list_runs(workspace)] == [first.name]
    facts = status(workspace)
    assert list(facts["damaged_runs"]) == [second.name]


def test_corrected_labels_make_a_new_run(workspace, tmp_path):
    first = train(workspace, make_config("small", TINY), device="cpu")
    path = next((tmp_path / "raw").rglob("labelsTr/word_0001.nii.gz"))
    label = np.asanyarray(nib.load(path).dataobj)
    write_nifti(path, np.where(label == 1, 2, label).astype(np.uint8), LPS)
    ingest(workspace, load_card("word"), tmp_path / "raw", replace=True)
    second = train(workspace, make_config("small", TINY), device="cpu")
    assert second.outcome == "trained"
    assert second.run.name != first.run.name


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_second_signal_interrupts_at_once(monkeypatch, second):
    monkeypatch.setattr(interrupts, "TOGETHER_SECONDS", 0.05)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as asked:  # noqa: PT012
        assert not asked()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked()
        time.sleep(0.1)
        os.kill(os.getpid(), second)
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_that_come_together_are_one():
    with deferred_interrupts() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()


def test_what_cannot_be_drawn_is_said_rightly(tmp_path):
    word_case(tmp_path / "raw", 1)
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), tmp_path / "raw")
    heard = Heard()
    train(workspace, make_config("small", TINY), device="cpu", progress=heard)
    assert "aorta: no training case annotates it; it cannot be learnt" in heard.lines
    assert "gallbladder: annotated, but no training case holds it; it cannot be learnt" in heard.lines
    assert not [line for line in heard.lines if line.startswith("liver")]


def test_a_source_of_which_nothing_could_be_taken_can_be_removed(tmp_path):
    write_nifti(tmp_path / "raw/imagesTr/word_0001.nii.gz", body((12, 12, 12)), LPS)
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, load_card("word"), tmp_path / "raw")
    assert list(workspace.records()) == ["word"]
    assert workspace.remove("word") == []
    assert workspace.records() == {}
