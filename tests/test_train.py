"""The training engine: resume, freeze, refuse."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from abdoseg.cards import load_card
from abdoseg.checkpoints import load_tensors
from abdoseg.config import TrainConfig, make_config
from abdoseg.errors import ConfigError, RunError, UnknownNameError
from abdoseg.runs import freeze, list_runs, load_run, open_run, start_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import sparsify
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from abdoseg.training_set import open_stream, training_cases

TINY = {"steps": 20, "patch": (16, 16, 16), "batch": 2, "log_every": 5}


@pytest.fixture
def workspace(tmp_path, word_source) -> Workspace:
    made = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), word_source)
    return made


def config(**changes) -> TrainConfig:
    return make_config("small", {**TINY, **changes})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_tensors(path)[0].items() if not k.startswith("optimiser.")}


def assert_equal_to_the_bit(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


def _train_and_die(path: str) -> None:
    from abdoseg.engine import fit as engine
    from abdoseg.steps import train as module

    real = engine._update

    def update(state, *others):
        if state.step == 14:  # four steps after the checkpoint: they are lost and done again
            os.kill(os.getpid(), 9)
        return real(state, *others)

    engine._update = update
    workspace = Workspace.open(path)
    module.train(workspace, config(), name="killed", device="cpu", stop_after=10)
    module.train(workspace, config(), name="killed", device="cpu")


@pytest.mark.slow
def test_twenty_steps_are_ten_a_kill_and_ten_to_the_bit(workspace):
    whole = train(workspace, config(), name="whole", device="cpu")
    assert whole.outcome == "trained"
    process = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(str(workspace.path),))
    process.start()
    process.join(300)
    assert process.exitcode == -9
    assert load_run(workspace, "killed").status == "unfinished"
    rest = train(workspace, config(), name="killed", device="cpu")
    assert (rest.outcome, rest.steps_done) == ("trained", 20)
    assert_equal_to_the_bit(weights(whole.run.model_file), weights(rest.run.model_file))
    lines = [json.loads(line) for line in rest.run.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    expected = [json.loads(line) for line in whole.run.metrics_file.read_text().splitlines()]
    for key in ("loss", "focal", "dice", "entropy", "learning_rate"):
        assert [line[key] for line in lines] == [line[key] for line in expected]


def test_training_learns_and_says_what_it_did(workspace):
    report = train(workspace, config(learning_rate=1e-2, steps=30), device="cpu")
    lines = [json.loads(line) for line in report.run.metrics_file.read_text().splitlines()]
    assert lines[-1]["focal"] < 0.5 * lines[0]["focal"]
    assert report.run.status == "finished"
    assert set(load_tensors(report.run.model_file)[1]) == {"abdoseg_network", "structures", "spacing_mm", "step"}


def test_the_same_command_again_is_finished_and_another_configuration_is_another_run(workspace):
    first = train(workspace, config(steps=2), device="cpu")
    assert train(workspace, config(steps=2), device="cpu").outcome == "already finished"
    other = train(workspace, config(steps=3), device="cpu")
    assert other.run.name != first.run.name
    assert {run.name for run in list_runs(workspace)} == {first.run.name, other.run.name}
    assert load_run(workspace).name == other.run.name


def test_how_often_to_log_and_save_does_not_make_another_run():
    assert config().digest() == config(log_every=7, checkpoint_seconds=1).digest()
    assert config().digest() != config(seed=1).digest()


def test_a_run_keeps_the_cases_it_froze(workspace, tmp_path):
    from tests.conftest import word_case

    stopped = train(workspace, config(), device="cpu", stop_after=1)
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 5)
    ingest(workspace, load_card("word"), tmp_path / "raw")
    rest = train(workspace, config(), device="cpu", stop_after=2)
    assert rest.run.name == stopped.run.name
    assert "word/word_0005" not in rest.run.data.keys("all")
    assert "word/word_0005" in freeze(workspace, config()).keys("all")


def test_a_finished_run_whose_cases_changed_gives_way_to_a_new_one(workspace, tmp_path):
    from tests.conftest import word_case

    first = train(workspace, config(steps=1), device="cpu")
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 5)
    ingest(workspace, load_card("word"), tmp_path / "raw")
    second = train(workspace, config(steps=1), device="cpu")
    assert second.outcome == "trained"
    assert second.run.name != first.run.name


def test_a_case_with_other_voxels_stops_the_run(workspace, tmp_path):
    from tests.conftest import word_case

    train(workspace, config(), device="cpu", stop_after=1)
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 1, shape=(31, 29, 21))
    ingest(workspace, load_card("word"), tmp_path / "raw", replace=True)
    with pytest.raises(RunError, match="word/word_0001 has other voxels or labels now"):
        train(workspace, config(), device="cpu")
    workspace.remove("word", "word_0001")
    with pytest.raises(RunError, match="word/word_0001 is gone"):
        train(workspace, config(), device="cpu")


def test_official_test_cases_are_never_learnt_from(workspace):
    run, _ = start_run(workspace, config())
    assert run.data.keys("test") == ["word/word_0004"]
    stream = open_stream(workspace, run)
    assert {stream.example(t).case for t in range(60)} == {f"word/word_000{i}" for i in (1, 2, 3)}


def test_the_view_thins_what_the_run_sees(workspace):
    view = sparsify(workspace, ["axial"], 0.2).view
    run, _ = start_run(workspace, config(view=view.name))
    for facts, annotation in training_cases(workspace, run):
        (axis,) = annotation.axes()
        known = annotation.rows[annotation.slices[axis]].any(axis=1)
        assert axis == 2
        assert known.sum() == max(1, int(0.2 * facts.shape[2] + 0.5))
    full, _ = start_run(workspace, config())
    assert all(not annotation.slices for _, annotation in training_cases(workspace, full))


def test_a_loss_that_is_not_finite_stops_with_step_and_cases(workspace):
    with pytest.raises(RunError, match=r"step \d+: the loss or its gradient is not finite on word/"):
        train(workspace, config(learning_rate=1e30), device="cpu")


def test_an_interrupt_saves_the_state(workspace):
    class Impatient:
        """Presses Ctrl-C while the third step is being told."""

        steps = 0

        def start(self, total, title):
            pass

        def say(self, text):
            pass

        def advance(self, amount=1, note=""):
            self.steps += amount
            if self.steps == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(workspace, config(), device="cpu", progress=Impatient())
    (run,) = list_runs(workspace)
    assert run.status == "unfinished"
    assert load_tensors(run.checkpoint_file)[1]["step"] == "3"


def test_damaged_files_are_told(workspace):
    report = train(workspace, config(), device="cpu", stop_after=1)
    report.run.checkpoint_file.write_bytes(b"damaged")
    with pytest.raises(RunError, match="cannot be read"):
        train(workspace, config(), device="cpu")
    (report.run.folder / "data.json").write_text("{")
    with pytest.raises(RunError, match=r"not a run that can be read \(Invalid JSON: [^\n]*\); mend the file") as caught:
        open_run(report.run.folder)
    assert "pydantic" not in str(caught.value)
    (report.run.folder / "data.json").write_text("{}")
    with pytest.raises(RunError, match=r"cases: found nothing, expected a value"):
        open_run(report.run.folder)


def test_nothing_to_learn_from_is_told(tmp_path, workspace):
    empty = Workspace.create(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no cases"):
        train(empty, config())
    with pytest.raises(RunError, match="no trained weights yet"):
        load_run(workspace)
    with pytest.raises(UnknownNameError, match="run 'x' is not known"):
        load_run(workspace, "x")
    with pytest.raises(UnknownNameError, match=r"source 'wrod' is not known\. Did you mean word"):
        train(workspace, config(sources=("wrod",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "transunet"}, "Did you mean transunet3d"),
        ({"method": "backgrund"}, "Did you mean background"),
        ({"sampler": "cdm"}, "sampler"),
        ({"steps": 0}, "steps"),
        ({"patch": (4, 64, 64)}, "at least 8"),
        ({"scale": (1.1, 0.9)}, "low <= high"),
        ({"learning_rate": -1, "batch": 0}, "learning_rate.*batch|batch.*learning_rate"),
    ],
)
def test_wrong_settings_are_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_config("small", changes)


def test_unknown_settings_and_presets_propose_near_ones():
    with pytest.raises(UnknownNameError, match="Did you mean learning_rate"):
        make_config("small", {"learning_rat": 1})
    with pytest.raises(UnknownNameError, match=r"preset 'papr' is not known\. Did you mean paper"):
        make_config("papr")


def test_schedules():
    c = config(steps=100, learning_rate=2.0, entropy_ramp=0.5)
    assert c.learning_rate_at(0) == 2.0
    assert c.learning_rate_at(50) == pytest.approx(2 * 0.5**0.9)
    assert [c.entropy_factor_at(s) for s in (0, 25, 50, 99)] == [0, 0.5, 1, 1]
    assert make_config("paper").entropy_factor_at(0) == 1


def test_paper_preset_is_the_papers():
    c = make_config("paper")
    assert (c.steps, c.batch, c.patch, c.learning_rate, c.weight_decay) == (200_000, 8, (112, 112, 112), 1e-3, 1e-5)
    assert (c.network, c.sampler, c.rotation_degrees, c.scale) == ("transunet3d", "cmd", 15.0, (0.9, 1.1))
    assert (c.entropy_weight, c.entropy_weight_unannotated, c.entropy_ramp, c.decay_power) == (1.0, 3.0, 0.0, 0.9)


def test_methods_differ_where_nothing_is_annotated():
    from abdoseg.methods import METHODS
    from abdoseg.methods.parts import LossSettings, TorchBatch

    torch.manual_seed(0)
    logits = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    label = torch.randint(0, 2, (1, 4, 4, 4))
    batch = TorchBatch(
        torch.zeros(1, 1, 4, 4, 4),
        label,
        torch.zeros(1, 4, 4, 4, dtype=torch.long),
        torch.tensor([[[True, False, False]]]),
        source=torch.tensor([0]),
        number=torch.tensor([0]),
    )
    weights_ = LossSettings(0.0, 0.0)
    ours = METHODS["self_disambiguation"].load().loss(logits, batch, weights_)
    naive = METHODS["background"].load().loss(logits, batch, weights_)
    (gradient,) = torch.autograd.grad(ours.total, logits, retain_graph=True)
    (naive_gradient,) = torch.autograd.grad(naive.total, logits)
    # ours: raising an unannotated class in a background voxel costs nothing against background; naive: it does
    background = label[0] == 0
    share = torch.softmax(logits[0].detach(), 0)
    for c in (2, 3):
        ratio = gradient[0, c][background] / gradient[0, 0][background]
        np.testing.assert_allclose(ratio, share[c][background] / share[0][background], rtol=1e-3)
    assert (naive_gradient[0, 2][background] > 0).all()
    assert (gradient[0, 2][background] < 0).all()
