"""What cannot be trained is refused in one line before anything is written."""

import math
import os
import shutil

import numpy as np
import pytest
import torch

from abdoseg.cards import load_card
from abdoseg.checkpoints import save_tensors
from abdoseg.errors import ConfigError, RunError, WorkspaceError
from abdoseg.runs import plan_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.plan import plan_training
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.conftest import word_case

from .test_training import config, load_tensors

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure_weights": {"livr": 2.0}}, "structure 'livr' is not known"),
        ({"structure_weights": {"liver": 0.0}, "mix": {"sparse": 1.0}}, "sparse"),
        ({"accumulate": 2, "batch": 2, "precision": "bf16", "patch": (32, 32, 32)}, "bf16: on a CPU"),
        ({"start_from": "refused-never"}, "refused-never"),
        ({"method": "clip_driven", "text_embeddings": "/nowhere/text.npy"}, "text.npy"),
    ],
)
def test_a_refused_setting_leaves_no_folder_behind(many_cases, changes, message):
    with pytest.raises((ConfigError, KeyError), match=message):
        train(many_cases, config(**changes), name="refused", device="cpu")
    assert not (many_cases.runs_folder / "refused").exists()
    run, new = plan_run(many_cases, config(steps=1), "refused")
    assert new
    assert not run.folder.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, math.inf) for name in ("learning_rate", "entropy_weight", "decay_power", "loader_timeout_seconds")],
        *[("scale", (0.9, math.inf)), ("scale", (math.nan, 1.0)), ("structure_weights", {"liver": math.nan})],
        *[("seed", 2**64), ("seed", 99999999999999999999999), ("loader_timeout_seconds", 86_401.0)],
    ],
)
def test_numbers_beyond_reason_are_no_settings(name, value):
    with pytest.raises(ConfigError, match=f"configuration: {name}"):
        config(**{name: value})
    assert config(seed=2**64 - 1).seed == 2**64 - 1


def test_a_plan_for_processes_that_cannot_share_is_refused(many_cases, abdoseg):
    run, _ = plan_run(many_cases, config(batch=8, accumulate=2))
    assert plan_training(many_cases, run, 4)["memory_bytes"]["total"] > 0
    with pytest.raises(ConfigError, match="batch 8: cannot be shared by 16 processes"):
        plan_training(many_cases, run, 16)
    with pytest.raises(ConfigError, match="accumulate 2: cannot share the 1 patches"):
        plan_training(many_cases, run, 8)
    options = ("--preset", "small", "--set", "batch=8", "--nproc", 16, "--dry-run", "-w", many_cases.path)
    told = abdoseg("train", *options, "--device", "cpu")
    assert told.status == 2
    assert "batch 8: cannot be shared by 16 processes" in told.err


@pytest.mark.parametrize(("sides", "right"), [((32, 64, 64), False), ((16, 48, 48), False), ((33, 16, 16), True)])
def test_bfloat16_on_a_cpu_needs_patches_long_along_x(many_cases, sides, right):
    run, _ = plan_run(many_cases, config(precision="bf16", patch=sides))
    if right:
        plan_training(many_cases, run, 1, CPU)
    else:
        with pytest.raises(ConfigError, match=r"precision bf16: on a CPU.* of at most 32 voxels along X, found"):
            plan_training(many_cases, run, 1, CPU)
    plan_training(many_cases, plan_run(many_cases, config(patch=sides))[0], 1, CPU)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (4, 4, 4), (4, 2, 2)])
def test_bfloat16_gradients_are_right_for_other_maps(shape):
    """What the refusal rests on: maps of 2 voxels along their first axis alone are wrong."""
    torch.manual_seed(0)
    image, weight = torch.randn(2, 32, *shape), torch.randn(32, 32, 3, 3, 3) / 10
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        kernel = weight.clone().requires_grad_()
        made = torch.nn.functional.conv3d(image.to(dtype), kernel.to(dtype), padding=1)
        found.append(torch.autograd.grad(made, kernel, torch.ones_like(made))[0])
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.02


def few_cases(tmp_path, *, validation: bool) -> Workspace:
    for number in (1, 2):
        word_case(tmp_path / "raw" / "WORD-V0.1.0", number)
    if validation:
        word_case(tmp_path / "raw" / "WORD-V0.1.0", 3, "Val")
        import nibabel as nib

        (path,) = (tmp_path / "raw" / "WORD-V0.1.0" / "labelsVal").iterdir()
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), tmp_path / "raw")
    return workspace


@pytest.mark.parametrize("validation", [False, True])
def test_the_best_weights_need_a_validation_that_gives_a_score(tmp_path, validation):
    workspace = few_cases(tmp_path, validation=validation)
    message = "none of 1 validation cases holds" if validation else "there is no validation case"
    best = config(steps=2, validate_every=1, final_weights="best")
    with pytest.raises(ConfigError, match=f"final_weights best: {message}"):
        train(workspace, best, device="cpu")
    assert list(workspace.runs_folder.glob("*")) == []


def test_validations_without_a_score_are_told_and_never_the_best(many_cases, monkeypatch):
    from tests.conftest import Heard

    monkeypatch.setattr("abdoseg.steps.train.mean_dsc", lambda *_, **__: math.nan)
    told = Heard()
    changes = {"steps": 2, "validate_every": 2}
    train(many_cases, config(**changes), name="nan-last", device="cpu", progress=told)
    assert "step 2: validation gives no DSC: no case of it holds an annotated structure" in told.lines
    with pytest.raises(RunError, match=r"best.safetensors: not there, no validation gave a score"):
        train(many_cases, config(**changes, final_weights="best"), name="nan-best", device="cpu")
    assert not (many_cases.runs_folder / "nan-best" / "model.safetensors").exists()


def test_float16_gradients_that_never_become_finite_end_the_run(many_cases, monkeypatch):
    from abdoseg.engine import fit as engine

    made = []
    scaler = torch.amp.GradScaler

    def scaler_of(device, enabled):
        made.append(scaler(device, enabled=enabled, init_scale=4.0))
        return made[-1]

    monkeypatch.setattr("abdoseg.engine.precision.torch.amp.GradScaler", scaler_of)
    genuine, step = engine._accumulate_gradients, 0

    def accumulate(network, state, *others):
        nonlocal step
        values = genuine(network, state, *others)
        step += 1
        if step > 3:
            for parameter in state.network.parameters():
                parameter.grad.fill_(math.nan)
        return values

    monkeypatch.setattr(engine, "_accumulate_gradients", accumulate)
    changes = {"precision": "fp16", "steps": 100, "batch": 1}
    with pytest.raises(RunError, match=r"step 6: the loss or its gradient is not finite on word/"):
        train(many_cases, config(**changes), name="never", device="cpu")
    assert made[0].get_scale() == 0.5
    assert not (many_cases.runs_folder / "never" / "model.safetensors").exists()


def test_steps_that_are_left_out_do_not_move_the_average(many_cases, monkeypatch):
    from abdoseg.engine import fit as engine

    genuine, step = engine._accumulate_gradients, 0

    def accumulate(network, state, *others):
        nonlocal step
        values = genuine(network, state, *others)
        step += 1
        if step > 2:
            for parameter in state.network.parameters():
                parameter.grad.fill_(math.inf)
        return values

    monkeypatch.setattr(engine, "_accumulate_gradients", accumulate)
    changes = {"precision": "fp16", "steps": 4, "batch": 1, "average_decay": 0.5}
    run = train(many_cases, config(**changes), name="left-out", device="cpu").run
    state = load_tensors(run.checkpoint_file)[0]
    assert int(state["average..updates"]) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("entropy_weight", 1e300), ("learning_rate", 1e300), ("workers", 100_000), ("batch", 10**10)],
        *[("patch", (10**6,) * 3), ("batch", True), ("learning_rate", True), ("steps", False)],
    ],
)
def test_what_no_machine_can_do_is_no_setting(name, value):
    with pytest.raises(ConfigError, match=f"configuration: {name}"):
        config(**{name: value})


def test_truth_stays_a_value_where_it_is_one():
    assert config(checkpointing=True).checkpointing
    assert config(channels_last=False).channels_last is False


def test_weights_of_another_method_are_refused_before_anything_is_made(many_cases):
    train(many_cases, config(steps=1, method="sigmoid"), name="sigmoid-first", device="cpu")
    with pytest.raises(ConfigError, match="was trained by sigmoid, whose weights do not fit self_disambiguation's"):
        train(many_cases, config(steps=1, start_from="sigmoid-first"), name="from-sigmoid", device="cpu")
    assert not (many_cases.runs_folder / "from-sigmoid").exists()
    train(many_cases, config(steps=1, method="sigmoid", start_from="sigmoid-first", seed=3), name="on", device="cpu")


def test_an_unfinished_run_labels_nothing(many_cases):
    train(many_cases, config(steps=3), name="half-way", device="cpu", stop_after=1)
    with pytest.raises(ConfigError, match="half-way: is unfinished; labels are taken from a finished run"):
        train(many_cases, config(steps=1, method="pseudo_label", start_from="half-way"), name="pupil", device="cpu")
    assert not (many_cases.runs_folder / "pupil").exists()


def test_a_place_for_curves_that_is_a_file_is_told(many_cases):
    train(many_cases, config(steps=2), name="curves", device="cpu", stop_after=1)
    board = many_cases.runs_folder / "curves" / "tensorboard"
    shutil.rmtree(board)
    board.touch()
    with pytest.raises(WorkspaceError, match=r"tensorboard: cannot be written \([^\n]*\); move it away"):
        train(many_cases, config(steps=2), name="curves", device="cpu")


def test_half_written_files_of_a_killed_process_are_removed(many_cases):
    train(many_cases, config(steps=2), name="killed", device="cpu", stop_after=1)
    folder = many_cases.runs_folder / "killed"
    drafts = [folder / "checkpoints" / ".0a1b2c3d.last.safetensors", folder / ".0a1b2c3d.model.json"]
    others = [folder / ".hidden", folder / ".0a1b2c3", folder / "checkpoints" / "0a1b2c3d.last.safetensors"]
    for path in (*drafts, *others):
        path.write_bytes(b"half")
    train(many_cases, config(steps=2), name="killed", device="cpu")
    assert not any(path.exists() for path in drafts)
    assert all(path.exists() for path in others)


def test_weights_may_be_read_by_whom_the_umask_lets(many_cases):
    before = os.umask(0o027)
    try:
        report = train(many_cases, config(steps=1), name="shared", device="cpu")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in report.run.folder.rglob("*.safetensors")}
    assert set(modes.values()) == {0o640}, modes


def test_a_damaged_checkpoint_is_told_with_the_ways_out(many_cases):
    train(many_cases, config(steps=2), name="damaged", device="cpu", stop_after=1)
    last = many_cases.runs_folder / "damaged" / "checkpoints" / "last.safetensors"
    last.write_bytes(b"rubbish")
    with pytest.raises(RunError, match=r"last\.safetensors: cannot be read \([^\n]*\); bring it back, or delete it"):
        train(many_cases, config(steps=2), name="damaged", device="cpu")
    save_tensors(last, {"model.nothing": torch.zeros(1)}, {"step": "1"})
    with pytest.raises(RunError, match=r"holds the state of another training \([^\n]{10,200}\); bring it back"):
        train(many_cases, config(steps=2), name="damaged", device="cpu")
    last.unlink()
    assert train(many_cases, config(steps=2), name="damaged", device="cpu").steps_done == 2
