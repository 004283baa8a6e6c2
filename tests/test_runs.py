"""What a run freezes, and what the workspace says of it later."""

import json
import os
import re
import shlex
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
from abdoseg.steps.sparsify import sparsify
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


# -- a name that is taken ----------------------------------------------------------------------------------------------


def refusal(workspace, name, **changes) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_run(workspace, make_config("small", {**TINY, **changes}), name)
    assert str(caught.value).startswith(f"run {name}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("config.toml", None, r"runs/x/config\.toml: not a run that can be read \(No such file or directory\)"),
        ("config.toml", b"", r"config\.toml: .*\(the file is empty\)"),
        ("config.toml", b"steps = ", r"config\.toml: .*\(Invalid value"),
        ("config.toml", b"colour = 'red'", r"config\.toml: .*colour: found an unknown name"),
        ("data.json", None, r"runs/x/data\.json: .*\(No such file or directory\)"),
        ("data.json", b"", r"data\.json: .*\(Invalid JSON"),
    ],
)
def test_a_damaged_run_of_that_name_is_said_to_be_damaged(workspace, file, content, told):
    run, _ = start_run(workspace, make_config("small", TINY), "x")
    run.checkpoint_file.parent.mkdir()
    (run.folder / file).unlink()
    if content is not None:
        (run.folder / file).write_bytes(content)
    text = refusal(workspace, "x", seed=1)
    assert re.search(told, text)
    assert text.endswith("mend the file, or remove the folder, or choose another --name")
    assert re.search(told, status(workspace)["damaged_runs"]["x"])


def test_a_file_of_that_name_is_said_to_be_one(workspace):
    (workspace.runs_folder / "x").write_text("notes")
    assert "x is a file, no run; move it away" in refusal(workspace, "x")


def test_what_a_kill_left_before_the_run_began_is_taken_over(workspace):
    (workspace.runs_folder / "empty").mkdir()
    begun = workspace.runs_folder / "begun"
    begun.mkdir()
    (begun / "data.json").write_text("{")
    (begun / ".12345678.config.toml").write_text("")
    for name in ("empty", "begun"):
        run, new = start_run(workspace, make_config("small", TINY | {"seed": 9}), name)
        assert new
        assert run.status == "not started"
        (run.folder / "config.toml").unlink()  # so that the second is no resumption of the first
    notes = workspace.runs_folder / "notes"
    notes.mkdir()
    (notes / "todo.txt").write_text("")
    assert "config.toml: not a run" in refusal(workspace, "notes")


def test_another_configuration_is_told_with_both_values_and_the_way_back(workspace):
    start_run(workspace, make_config("small", {**TINY, "fold": (1, 2), "sources": ("word",)}), "x")
    text = refusal(workspace, "x", steps=3, patch=(16, 16, 24), workers=7)
    assert text.startswith("run x: exists with other settings: sources: found all, the run has word (--sources word); ")
    assert "steps: found 3, the run has 2 (--steps 2); " in text
    assert "patch: found 16, 16, 24, the run has 16, 16, 16 (--set 'patch=[16, 16, 16]')" in text
    assert "and 1 more" in text  # the fold; workers make no other run
    assert f"--config {workspace.runs_folder / 'x' / 'config.toml'} gives all" in text
    assert "fold: found none, the run has 1, 2 (--fold 1/2)" in refusal(workspace, "x", sources=("word",))
    text = refusal(workspace, "x", sources=("word",), fold=(1, 2), structure_weights={"liver": 2})
    assert "structure_weights: found {liver = 2.0}, the run has none (--set 'structure_weights={}')" in text


def test_the_options_told_bring_the_runs_values_back(workspace, abdoseg):
    given = ("train", "--device", "cpu", "-w", workspace.path, "--dry-run", "--name", "x")
    start_run(workspace, make_config("small", {**TINY, "source_weights": {"word": 2}}), "x")
    told = abdoseg(*given, "--steps", 7).err
    options = [word for part in re.findall(r"\((-[^()]*)\)", told) for word in shlex.split(part)]
    shown = abdoseg(*given, *options)
    assert shown.status == 0, shown.err
    assert "run x: begins anew" in shown.err


def test_a_change_of_the_active_view_is_told_as_that(workspace, abdoseg):
    given = ("train", "--device", "cpu", "--steps", 2, "-w", workspace.path, "--name", "x", "--dry-run")
    start_run(workspace, make_config("small", {"steps": 2}), "x")
    assert abdoseg(*given).status == 0
    abdoseg("sparsify", "--view", "axial", "-w", workspace.path)
    told = abdoseg(*given)
    assert told.status == 2
    assert "view: found axial-20, the run has full (--view full)" in told.err
    assert abdoseg(*given, "--view", "full").status == 0


def test_a_preset_chosen_for_another_machine_is_told_first(workspace):
    start_run(workspace, make_config("small", TINY), "x")
    with pytest.raises(ConfigError, match=r"preset: found paper, the run has small \(--preset small\); "):
        plan_run(workspace, make_config("paper", TINY), "x")


def test_other_cases_of_a_finished_run_are_counted(workspace, tmp_path):
    train(workspace, make_config("small", TINY), name="x", device="cpu")
    path = next((tmp_path / "raw").rglob("labelsTr/word_0001.nii.gz"))
    label = np.asanyarray(nib.load(path).dataobj)
    write_nifti(path, np.where(label == 1, 2, label).astype(np.uint8), LPS)
    workspace.remove("word", "word_0001")
    workspace.remove("word", "word_0002")
    ingest(workspace, load_card("word"), tmp_path / "raw")
    workspace.remove("word", "word_0002")
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 7)
    (tmp_path / "raw" / "WORD-V0.1.0" / "imagesTr" / "word_0002.nii.gz").unlink()
    (tmp_path / "raw" / "WORD-V0.1.0" / "labelsTr" / "word_0002.nii.gz").unlink()
    ingest(workspace, load_card("word"), tmp_path / "raw")
    text = refusal(workspace, "x")
    assert "is finished, and the workspace has changed since: cases: 1 gone, 1 new, 1 with other voxels" in text


def test_long_names(workspace, abdoseg):
    for name in ("n" * 300, "n" * 101):
        told = abdoseg("train", "--name", name, "--device", "cpu", "-w", workspace.path)
        assert told.status == 2
        assert told.err.startswith("error: --name: found 'nnnnnnnnnnnnnnnnnnnn...' of")
        assert told.err.count("\n") == 1
    names = workspace.anatomy.names
    view = sparsify(workspace, ["axial"], 0.5, structures=names[:15], sources=["word"]).view
    assert len(view.name) <= 120
    assert view.name != sparsify(workspace, ["axial"], 0.5, structures=names[1:], sources=["word"]).view.name
    run, _ = start_run(workspace, make_config("small", {**TINY, "view": view.name}))
    assert len(run.name) <= 100
    assert run.folder.is_dir()


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_tells_the_step_of_the_weights(workspace, abdoseg):
    config = make_config("small", {**TINY, "steps": 4})
    run = train(workspace, config, device="cpu", stop_after=2).run
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4}\n')  # a kill came after the line and before the checkpoint
    assert status(workspace)["runs"][0]["step"] == 2
    run.metrics_file.unlink()
    told = abdoseg("status", "-w", workspace.path)
    assert f"run {run.name}: unfinished, 2/4 steps" in told.out
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:20])
    assert status(workspace)["runs"][0]["step"] is None
    told = abdoseg("status", "-w", workspace.path)
    assert f"run {run.name}: unfinished, ?/4 steps" in told.out
    assert "checkpoints/last.safetensors is damaged" in " ".join(told.err.split())
    run.checkpoint_file.unlink()
    run.metrics_file.write_text('{"step": 4}\n')
    assert [(r["status"], r["step"]) for r in status(workspace)["runs"]] == [("not started", 0)]


def test_a_damaged_case_does_not_hide_the_rest(workspace, abdoseg):
    run, _ = start_run(workspace, make_config("small", TINY), "mine")
    sparsify(workspace)
    (workspace.case_folder("word/word_0002") / "zarr.json").write_text("{")
    facts = status(workspace)
    assert facts["sources"][0]["cases"] == 3
    assert facts["views"][0]["annotated_cases"] == 2
    assert list(facts["damaged_cases"]) == ["word/word_0002"]
    told = " ".join(abdoseg("status", "-w", workspace.path).err.split())
    assert "word_0002: not a stored case" in told
    assert f"run {run.name}: 1 case is gone or changed since it began: word/word_0002" in told


def test_status_says_what_comes_next_in_the_same_workspace(workspace, abdoseg, tmp_path):
    def next_of(path):
        lines = abdoseg("status", "-w", path).err.splitlines()
        return [shlex.split(line.partition(":")[2]) for line in lines if line.startswith(("next:", "or:"))]

    Workspace.create(tmp_path / "empty")
    at = ["--workspace", str(workspace.path)]
    assert next_of(tmp_path / "empty")[0][:4] == ["abdoseg", "ingest", "CARD", "FOLDER"]
    assert next_of(workspace.path) == [["abdoseg", "train", *at]]
    config = make_config("small", TINY)
    run = train(workspace, config, device="cpu", stop_after=1).run
    ((_, *command),) = next_of(workspace.path)
    plan = json.loads(abdoseg(*command, "--device", "cpu", "--dry-run", "--json").out)
    assert (plan["run"], plan["status"]) == (run.name, "unfinished")
    train(workspace, config, device="cpu")
    first, *others = next_of(workspace.path)
    assert [command[1] for command in (first, *others)] == ["eval", "report", "predict"]
    assert all(command[-2:] == at for command in (first, *others))
    assert abdoseg(*first[1:], "--device", "cpu").status == 0


def test_train_says_what_comes_next_in_the_same_workspace(workspace, abdoseg):
    told = abdoseg("train", "--device", "cpu", "--steps", 1, "--set", "patch=[16,16,16]", "-w", workspace.path)
    eval_, predict = told.err.splitlines()[-2:]
    (run,) = list_runs(workspace)
    at = f"--run {run.name} --workspace {shlex.quote(str(workspace.path))}"
    assert eval_ == f"next: abdoseg eval --by structure {at}"
    assert predict == f"or: abdoseg predict SCAN -o OUT.nii.gz {at}"


# -- remove ------------------------------------------------------------------------------------------------------------


def test_removing_what_an_unfinished_run_needs_is_warned_of(workspace, abdoseg, tmp_path):
    train(workspace, make_config("small", TINY), name="done", device="cpu")
    start_run(workspace, make_config("small", {**TINY, "seed": 1}), "begun")
    told = abdoseg("remove", "word", "word_0001", "-w", workspace.path)
    assert told.status == 0
    warnings = " ".join(told.err.split())
    assert "run begun: is not finished, and cannot go on without 1 of them" in warnings
    assert "run done" not in warnings
    again = shlex.split(told.err.splitlines()[-1].removeprefix("or: "))
    assert abdoseg(*again[1:]).status == 0
    assert status(workspace)["runs"][1]["changed_cases"] == []


def test_a_view_can_be_removed_unless_it_is_needed(workspace, abdoseg):
    def remove(name):
        return abdoseg("remove", "--view", name, "-w", workspace.path)

    sparsify(workspace)
    assert "is the active one; choose another first" in remove("axial-20").err
    start_run(workspace, make_config("small", {**TINY, "view": "axial-20"}), "begun")
    workspace.activate_view("full")
    assert "view axial-20: unfinished run begun cannot go on without it" in remove("axial-20").err
    shutil.rmtree(workspace.runs_folder / "begun")
    told = remove("axial-20")
    assert (told.status, told.out) == (0, "removed view axial-20; no case is touched\n")
    assert workspace.views() == []
    assert "view 'axial-20' is not known" in remove("axial-20").err
    assert "shows all labels, and is always there" in remove("full").err
    assert "expected a source, or --view NAME" in abdoseg("remove", "-w", workspace.path).err
