"""Laws of the engine: what must not change the weights, what must, and what is kept."""

import copy
import json
import math
import multiprocessing
import os
import re
import shutil
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from abdoseg.cards import load_card
from abdoseg.checkpoints import load_tensors
from abdoseg.config import TrainConfig, make_config
from abdoseg.engine import fit as engine
from abdoseg.engine.journal import Journal
from abdoseg.engine.precision import slow_precision, validation_precision
from abdoseg.engine.state import Validation
from abdoseg.errors import ConfigError, RunError, UnknownNameError, WorkspaceError
from abdoseg.methods import METHODS
from abdoseg.networks import checkpointing
from abdoseg.progress import Silent
from abdoseg.runs import load_run, open_run
from abdoseg.steps import train as steps
from abdoseg.steps.ingest import ingest
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from abdoseg.trained import load_model
from tests.conftest import Heard, word_case

TERMS = ("loss", *METHODS["self_disambiguation"].load().terms)
TINY = {"steps": 20, "patch": (16, 16, 16), "batch": 4, "log_every": 1, "validate_every": 0}


def config(**changes) -> TrainConfig:
    return make_config("small", {**TINY, **changes})


def lines(run) -> list[dict]:
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def losses(run) -> np.ndarray:
    return np.array([[line[key] for key in TERMS] for line in lines(run) if "loss" in line])


def _one_of_two(rank: int, port: int, path: str, name: str, changes: dict) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train(Workspace.open(path), config(**changes), name=name, device="cpu")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train_with_two(workspace, name: str, **changes) -> None:
    port = free_port()
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_one_of_two, args=(rank, port, str(workspace.path), name, changes)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance", "side"), [("float64", 1e-9, 16), ("float32", 1e-5, 32)])
def test_two_processes_learn_what_one_does(many_cases, precision, tolerance, side):
    """At 16^3 the deepest level normalises one voxel, which turns float32's rounding into differences of 1e-3."""
    changes = {"precision": precision, "seed": 3, "steps": 20, "patch": (side,) * 3}
    one = train(many_cases, config(**changes), name=f"one-{precision}", device="cpu")
    train_with_two(many_cases, f"two-{precision}", **changes)
    two = load_run(many_cases, f"two-{precision}")
    assert len(losses(two)) == 20
    np.testing.assert_allclose(losses(two), losses(one.run), rtol=tolerance)


def seen_by_the_network(monkeypatch) -> list[torch.Tensor]:
    """A list that grows by the images of each pass."""
    images, real = [], engine._forward

    def forward(network, part, *others):
        images.append(part.image)
        return real(network, part, *others)

    monkeypatch.setattr(engine, "_forward", forward)
    return images


def test_accumulation_is_a_larger_batch(many_cases, monkeypatch):
    images = seen_by_the_network(monkeypatch)
    whole = train(many_cases, config(precision="float64", steps=8), name="whole", device="cpu")
    assert [len(image) for image in images] == [4] * 8
    images.clear()
    parts = train(many_cases, config(precision="float64", steps=8, accumulate=4), name="parts", device="cpu")
    assert [len(image) for image in images] == [1] * 32
    np.testing.assert_allclose(losses(parts.run), losses(whole.run), rtol=1e-9)
    assert config(accumulate=4).digest() == config().digest()


def test_an_accumulation_that_does_not_fit_is_told(many_cases):
    with pytest.raises(ConfigError, match=r"^configuration: batch 4: cannot be shared evenly by accumulate = 3"):
        config(accumulate=3)


def test_workers_do_not_change_what_is_seen(many_cases):
    runs = [train(many_cases, config(steps=4, workers=n), name=f"workers{n}", device="cpu").run for n in (1, 4)]
    assert np.array_equal(losses(runs[0]), losses(runs[1]))


def test_checkpointing_recomputes_and_does_not_change_the_weights(many_cases, monkeypatch):
    calls, real = [], checkpointing.checkpoint
    monkeypatch.setattr(checkpointing, "checkpoint", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    plain = train(many_cases, config(steps=3, precision="float64"), name="plain", device="cpu").run
    assert not calls
    other = train(many_cases, config(steps=3, precision="float64", checkpointing=True), name="again", device="cpu").run
    assert calls
    np.testing.assert_allclose(losses(other), losses(plain), rtol=1e-9)


def test_the_layout_is_another_and_does_not_change_the_weights(many_cases, monkeypatch):
    torch.manual_seed(0)
    start = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 17, 3, padding=1)
    )
    made = []

    def build(*_, **__):
        made.append(copy.deepcopy(start))
        return made[-1]

    monkeypatch.setattr("abdoseg.steps.train.build_model", build)
    runs = [
        train(
            many_cases, config(steps=3, precision="float64", channels_last=last), name=f"last-{last}", device="cpu"
        ).run
        for last in (False, True)
    ]
    laid_out = [network[2].weight.is_contiguous(memory_format=torch.channels_last_3d) for network in made]
    assert laid_out == [False, True]
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=1e-9)


def test_mixed_precision_learns_about_the_same(many_cases):
    # 48 voxels a side: oneDNN's bfloat16 gradients are wrong where a map has 2 voxels along its first axis
    changes = {"steps": 4, "patch": (48, 32, 16), "batch": 2}
    plain = train(many_cases, config(**changes), name="float", device="cpu").run
    mixed = train(many_cases, config(**changes, precision="bf16"), name="bf16", device="cpu").run
    assert not np.array_equal(losses(mixed), losses(plain))
    np.testing.assert_allclose(losses(mixed), losses(plain), rtol=0.1, atol=0.02)


def test_clipping_limits_the_step_and_is_off_by_default(many_cases):
    assert config().clip_gradient_norm == 0
    run = train(many_cases, config(steps=3, clip_gradient_norm=1e-3), name="clipped", device="cpu").run
    free = train(many_cases, config(steps=3), name="free", device="cpu").run
    assert lines(run)[0]["gradient_norm"] == lines(free)[0]["gradient_norm"]  # told before clipping
    assert not np.array_equal(losses(run)[1:], losses(free)[1:])

    seen = []
    real = engine.nn.utils.clip_grads_with_norm_

    def spy(parameters, limit, norm):
        real(parameters, limit, norm)
        seen.append(float(engine.nn.utils.get_total_norm([p.grad for p in parameters])))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.nn.utils, "clip_grads_with_norm_", spy)
        train(many_cases, config(steps=3, clip_gradient_norm=1e-3), name="spied", device="cpu")
    assert seen == pytest.approx([1e-3] * 3, rel=1e-2)


def test_the_moving_average_is_the_moving_average(many_cases, monkeypatch):
    after_step = []
    real = engine._update

    def update(state, *others):
        norm = real(state, *others)
        after_step.append({key: value.clone() for key, value in state.network.state_dict().items()})
        return norm

    monkeypatch.setattr(engine, "_update", update)
    run = train(many_cases, config(steps=5, average_decay=0.7), name="averaged", device="cpu").run
    expected = dict(after_step[0])
    for weights in after_step[1:]:
        expected = {key: 0.7 * expected[key] + 0.3 * weights[key] for key in expected}
    found, _ = load_tensors(run.model_file)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    assert any(not torch.equal(found[key], after_step[-1][key]) for key in found)


def test_resume_takes_up_the_average_too(many_cases):
    changes = {"steps": 8, "average_decay": 0.9, "seed": 5}
    whole = train(many_cases, config(**changes), name="average-whole", device="cpu")
    train(many_cases, config(**changes), name="average-parts", device="cpu", stop_after=3)
    rest = train(many_cases, config(**changes), name="average-parts", device="cpu")
    a, b = (load_tensors(report.run.model_file)[0] for report in (whole, rest))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_another_number_of_processes_may_take_over(many_cases):
    changes = {"steps": 6, "seed": 7, "precision": "float64", "learning_rate": 1e-3}
    whole = train(many_cases, config(**changes), name="taken-whole", device="cpu")
    train(many_cases, config(**changes), name="taken", device="cpu", stop_after=3)
    train_with_two(many_cases, "taken", **changes)
    np.testing.assert_allclose(losses(load_run(many_cases, "taken")), losses(whole.run), rtol=1e-9)


def test_a_broken_batch_is_saved_before_it_harms(many_cases):
    with pytest.raises(RunError, match=r"step (\d+): the loss or its gradient is not finite on word/") as told:
        train(many_cases, config(learning_rate=1e30), name="broken", device="cpu")
    run = load_broken(many_cases, "broken")
    (file,) = run.folder.glob("broken-step-*.safetensors")
    assert str(file) in str(told.value)
    with safe_open(file, framework="pt") as saved:
        facts = saved.metadata()
        image = saved.get_tensor("part0.image")
        assert set(json.loads(facts["cases"])) <= set(run.data.keys("train"))
        assert image.shape == (4, 1, 16, 16, 16)
        assert {key.split(".")[0] for key in saved.keys()} == {"model", "part0"}  # noqa: SIM118


def load_broken(workspace, name):
    return open_run(workspace.runs_folder / name)


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(many_cases, monkeypatch):
    real = engine._accumulate_gradients

    def poisoned(network, state, *others):
        values = real(network, state, *others)
        next(state.network.parameters()).grad.fill_(math.inf)
        return values

    monkeypatch.setattr(engine, "_accumulate_gradients", poisoned)
    with pytest.raises(RunError, match="step 0: the loss or its gradient is not finite"):
        train(many_cases, config(), name="poisoned", device="cpu")
    assert not load_broken(many_cases, "poisoned").checkpoint_file.is_file()


def test_validation_is_on_validation_cases_and_keeps_the_best(many_cases, monkeypatch):
    scores = iter([40.0, 60.0, 50.0])
    seen = []

    def scored(network, keys, *others, **options):
        seen.append((tuple(keys), network.training, network))
        return next(scores)

    monkeypatch.setattr("abdoseg.steps.train.mean_dsc", scored)
    changes = {"steps": 6, "validate_every": 2, "final_weights": "best", "checkpoint_seconds": 0.0}
    run = train(many_cases, config(**changes), name="best", device="cpu").run
    assert [keys for keys, _, _ in seen] == [tuple(run.data.keys("val"))] * 3
    assert run.data.keys("val")
    assert not set(run.data.keys("val")) & {*run.data.keys("test"), *run.data.keys("train")}
    told = [(line["step"], line["validation_dsc"]) for line in lines(run) if "validation_dsc" in line]
    assert told == [(2, 40.0), (4, 60.0), (6, 50.0)]
    card = json.loads((run.folder / "model.json").read_text())
    assert (card["validation"], card["steps"]) == ({"dsc_percent": 60.0, "step": 4}, 4)
    assert card["best_validation"] == {"dsc_percent": 60.0, "step": 4, "file": "checkpoints/best.safetensors"}
    best, _ = load_tensors(run.folder / "checkpoints" / "best.safetensors")
    model, facts = load_tensors(run.model_file)
    assert facts["step"] == "4"
    assert all(torch.equal(best[key], model[key]) for key in model)
    last, _ = load_tensors(run.checkpoint_file)
    assert any(not torch.equal(last[f"model.{key}"], model[key]) for key in model)
    assert load_model(run, torch.device("cpu"))[1] == 4


def test_the_card_of_the_last_weights_has_their_validation(many_cases, monkeypatch):
    scores = iter([40.0, 60.0, 50.0])
    monkeypatch.setattr("abdoseg.steps.train.mean_dsc", lambda *_, **__: next(scores))
    changes = {"steps": 6, "validate_every": 2}
    train(many_cases, config(**changes), name="last-card", device="cpu", stop_after=5)
    run = train(many_cases, config(**changes), name="last-card", device="cpu").run
    card = json.loads((run.folder / "model.json").read_text())
    assert (card["validation"], card["steps"]) == ({"dsc_percent": 50.0, "step": 6}, 6)
    assert card["best_validation"] == {"dsc_percent": 60.0, "step": 4, "file": "checkpoints/best.safetensors"}
    text = (run.folder / "MODEL_CARD.md").read_text()
    assert "- Validation: mean DSC 50.0 % at step 6" in text
    assert "mean DSC 60.0 % at step 4; those are in checkpoints/best.safetensors" in text


def test_validation_scores_are_those_of_a_prediction(many_cases):
    from abdoseg.engine.place import Place
    from abdoseg.engine.ranks import Ranks
    from abdoseg.engine.validation import mean_dsc

    run = train(many_cases, config(steps=2), name="scored", device="cpu").run
    truth = {key: many_cases.read_case(key) for key in run.data.keys("val")}
    n = 1 + len(run.anatomy)

    class Oracle(torch.nn.Module):
        """Answers with the label, but swaps two structures."""

        def forward(self, image):
            (case,) = (c for c in truth.values() if c.label.shape == tuple(image.shape[2:]))
            label = torch.from_numpy(case.label).long()
            swapped = torch.where(label == 6, 1, torch.where(label == 1, 6, label))
            return torch.nn.functional.one_hot(swapped, n).movedim(-1, 0)[None].float()

    (case,) = truth.values()
    ranks = Ranks(Place(), torch.device("cpu"))
    score = mean_dsc(Oracle(), list(truth), truth.get, case.label.shape, ranks)
    there = [c for c in case.facts.groups.structure_ids if (case.label == c).any()]
    assert score == pytest.approx(100 * (len(there) - 2) / len(there))


def test_a_card_tells_what_the_first_weights_learnt_from(many_cases):
    changes = {"steps": 2, "learning_rate": 1e-3}
    first = train(many_cases, config(**changes), name="grand", device="cpu").run
    second = train(many_cases, config(**changes, start_from="grand"), name="parent", device="cpu", stop_after=1).run
    shutil.rmtree(first.folder)  # what it was is frozen
    third = train(many_cases, config(**changes, start_from="parent"), name="child", device="cpu", stop_after=1).run
    shutil.rmtree(second.folder)  # needed no more: the run has its own checkpoint
    assert train(many_cases, config(**changes, start_from="parent"), name="child", device="cpu").outcome == "trained"
    assert train(many_cases, config(**changes, start_from="parent"), device="cpu").outcome == "already finished"
    card = json.loads((third.folder / "model.json").read_text())
    base = card["started_from"]
    assert (base["run"], base["gives"], base["steps"]) == ("parent", "weights", 1)
    assert (base["started_from"]["run"], base["started_from"]["steps"]) == ("grand", 2)
    assert "GPL" in base["started_from"]["sources"]["word"]["licence"]
    text = (third.folder / "MODEL_CARD.md").read_text()
    for through in ("this run", "weights of run parent", "weights of run grand"):
        assert re.search(rf"\| .*GPL.* \| {through} \|", text), through
    assert "- Started from: run parent after 1 steps; its weights were the first" in text


def test_a_run_may_start_from_anothers_weights(many_cases):
    first = train(many_cases, config(steps=3), name="first", device="cpu").run
    fine = train(many_cases, config(steps=1, learning_rate=1e-12, start_from="first"), name="fine", device="cpu").run
    a, b = (load_tensors(run.model_file)[0] for run in (first, fine))
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], atol=1e-9, rtol=1e-6)
    with pytest.raises(ConfigError, match="needs the same"):
        train(many_cases, config(network="transunet3d", start_from="first"), name="other", device="cpu")
    with pytest.raises(UnknownNameError, match=r"run 'fist' is not known\. Did you mean first"):
        train(many_cases, config(start_from="fist"), name="nothing", device="cpu")
    assert not (many_cases.runs_folder / "nothing").exists()


def test_memory_does_not_grow_with_the_length_of_a_run(many_cases, monkeypatch):
    """Some thousand steps: what a step leaves behind would show. The network is next to nothing, for time's sake."""
    monkeypatch.setattr("abdoseg.steps.train.build_model", lambda *_, **__: torch.nn.Conv3d(1, 17, 1))
    held = []

    class Watching(Silent):
        def advance(self, amount=1, note=""):
            held.append(resident())

    changes = {"steps": 3000, "patch": (8, 8, 8), "batch": 1, "log_every": 100}
    train(many_cases, config(**changes), name="long", device="cpu", progress=Watching())
    early, late = np.median(held[800:1000]), np.median(held[-200:])
    assert late - early < 8 * 2**20


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def read_events(folder: Path) -> list[tuple[str, int, float]]:
    """Read TensorBoard's records by hand: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + size
    return found


def test_no_step_is_lost_between_two_lines(many_cases):
    """A validation between them has a line of its own, and its time counts for nothing."""
    changes = {"steps": 6, "seed": 8}
    each = train(many_cases, config(**changes, log_every=1), name="each", device="cpu").run
    four = train(many_cases, config(**changes, log_every=4, validate_every=3), name="four", device="cpu").run
    loss = losses(each)[:, 0]
    found = [line["loss"] for line in lines(four) if "loss" in line]
    np.testing.assert_allclose(found, [loss[:4].mean(), loss[4:].mean()], rtol=1e-9)


def test_the_time_of_a_validation_is_no_part_of_the_pace(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("abdoseg.engine.journal.time.perf_counter", lambda: now)
    journal = Journal(
        tmp_path / "metrics.jsonl", 0, every=2, last=2, batch=1, terms=(), waited_seconds=lambda: 0.0,
        schedule=lambda step: {}, progress=Silent(),
    )  # fmt: skip
    now = 1.0
    journal.step(1, {"loss": 1.0})
    now = 100.0
    journal.validation(Validation(50.0, 1), None)
    now = 102.0
    journal.step(2, {"loss": 2.0})
    journal.close()
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told[-1]["seconds_per_step"] == 1.5
    assert told[-1]["loss"] == 1.5


def test_tensorboard_has_the_curves(many_cases):
    run = train(many_cases, config(steps=3), name="board", device="cpu").run
    events = {(tag, step): value for tag, step, value in read_events(run.folder / "tensorboard")}
    for line in lines(run):
        for key in TERMS:
            assert events[f"loss/{key}", line["step"]] == pytest.approx(line[key], rel=1e-5)
        assert events["training/learning_rate", line["step"]] == pytest.approx(line["learning_rate"], rel=1e-5)


def test_the_last_steps_of_a_run_are_logged_too(many_cases):
    run = train(many_cases, config(steps=5, log_every=3), name="logged", device="cpu").run
    assert [line["step"] for line in lines(run)] == [3, 5]
    assert {"patches_per_second", "wait_percent", "gradient_norm", "entropy_weight"} <= set(lines(run)[0])


def test_the_model_card_says_what_the_weights_are(many_cases):
    run = train(many_cases, config(steps=1), name="card", device="cpu").run
    card = json.loads((run.folder / "model.json").read_text())
    assert card["structures"] == list(run.data.settings.structures)
    assert card["spacing_mm"] == 4.0
    assert card["windows"]["ct_hu"] == [-400, 400]
    assert card["sources"]["word"]["training_cases"] == len(run.data.keys("train"))
    assert "GPL" in card["sources"]["word"]["licence"]
    assert card["abdoseg"]
    text = (run.folder / "MODEL_CARD.md").read_text()
    assert "6. liver" in text
    assert "Not a medical device" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's compiler about PyTorch
def test_compiled_training_learns_the_same(many_cases, monkeypatch):
    """Of a network that compiles quickly; the loss is not compiled."""
    layers = torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 17, 1)
    torch.manual_seed(0)
    start = copy.deepcopy(torch.nn.Sequential(*layers))
    monkeypatch.setattr("abdoseg.steps.train.build_model", lambda *_, **__: copy.deepcopy(start))
    compiled_modules, real = [], torch.compile
    monkeypatch.setattr(engine.torch, "compile", lambda module: (compiled_modules.append(module), real(module))[1])
    plain = train(many_cases, config(steps=3), name="uncompiled", device="cpu").run
    assert not compiled_modules
    compiled = train(many_cases, config(steps=3, compile=True), name="compiled", device="cpu").run
    assert len(compiled_modules) == 1
    np.testing.assert_allclose(losses(compiled), losses(plain), rtol=1e-4)


def test_a_compiler_that_is_not_there_is_told(many_cases, monkeypatch):
    class InductorError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def refuse(module):
        def forward(*_):
            raise InductorError("No working C++ compiler found")

        return forward

    monkeypatch.setattr(engine.torch, "compile", refuse)
    with pytest.raises(RunError, match=r"compile=true: No working C\+\+ compiler found; leave it out"):
        train(many_cases, config(compile=True), name="no-compiler", device="cpu")


def test_a_disk_that_hangs_ends_the_run_with_the_case(many_cases, monkeypatch):
    released = threading.Event()

    def hang(self, t):
        released.wait(120)

    monkeypatch.setattr("abdoseg.patches.PatchStream.example", hang)
    start = time.monotonic()
    with pytest.raises(RunError, match=r"word/word_\d{4}: reading it has not ended after 0\.5 s"):
        train(many_cases, config(loader_timeout_seconds=0.5), name="hanging", device="cpu")
    assert time.monotonic() - start < 30
    released.set()


def test_a_shard_cut_off_while_it_is_open_ends_the_run_with_its_name(tmp_path):
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 1)
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), tmp_path / "raw")
    file = workspace.case_folder("word/word_0001") / "image" / "c" / "0" / "0" / "0"

    class CutsOff(Silent):
        def advance(self, amount=1, note=""):
            if note:  # after a step: the case is open
                os.truncate(file, 100)

    with pytest.raises(WorkspaceError, match=r"word_0001.*image.*damaged \(the chunk at byte \d+ is cut off\)"):
        train(workspace, config(), device="cpu", progress=CutsOff())


def test_a_damaged_case_ends_the_run_with_its_name(many_cases, monkeypatch):
    def fail(self, t):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("abdoseg.patches.PatchStream.example", fail)
    with pytest.raises(RunError, match=r"word/word_\d{4}: cannot be read .*Input/output error"):
        train(many_cases, config(), name="failing", device="cpu")


def test_caches_do_not_change_what_is_seen_and_keep_to_their_budget(many_cases):
    plain = train(many_cases, config(steps=4), name="uncached", device="cpu").run
    told = Heard()
    ram = train(many_cases, config(steps=4, cache_mb=1), name="cached", device="cpu", progress=told).run
    assert np.array_equal(losses(ram), losses(plain))
    assert any(line.startswith("caches:") and "of 1 MiB" in line for line in told.lines), told.lines
    device = train(many_cases, config(steps=4, device_cache_mb=1), name="device", device="cpu", progress=told).run
    np.testing.assert_allclose(losses(device), losses(plain), rtol=1e-3)
    assert any("on cpu" in line and "of 1 MiB" in line for line in told.lines)


def test_intensities_change_as_the_settings_say(many_cases):
    noisy = {"intensity": {"noise_probability": 1.0, "noise_std": (0.2, 0.3)}}
    plain = train(many_cases, config(steps=2), name="clean", device="cpu").run
    changed = [train(many_cases, config(steps=2, **noisy), name=f"noisy{i}", device="cpu").run for i in (1, 2)]
    assert not np.array_equal(losses(changed[0]), losses(plain))
    assert np.array_equal(losses(changed[0]), losses(changed[1]))  # a pure function of seed and example
    with pytest.raises(ConfigError, match="noise_probability: found 2"):
        config(intensity={"noise_probability": 2.0})
    with pytest.raises(ConfigError, match=r"intensity.*noise_prob"):
        config(intensity={"noise_prob": 1.0})


def test_padding_and_flips_reach_the_patches(many_cases):
    plain = train(many_cases, config(steps=2), name="unpadded", device="cpu").run
    for name, changes in (("padded", {"padding": "background"}), ("flipped", {"flip": (1.0, 0.0, 0.0)})):
        other = train(many_cases, config(steps=2, **changes), name=name, device="cpu").run
        assert not np.array_equal(losses(other), losses(plain)), name
    with pytest.raises(ConfigError, match="three probabilities"):
        config(flip=(2.0, 0.0, 0.0))


def _one_of_two_fails(rank: int, port: int, path: str, told) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if rank == 1:
        from abdoseg.patches import PatchStream

        real = PatchStream.example

        def example(self, t):
            if t >= 20:
                raise OSError(5, "Input/output error")
            return real(self, t)

        PatchStream.example = example
    try:
        train(Workspace.open(path), config(steps=50), name="half-broken", device="cpu")
    except RunError as error:
        told.put((rank, str(error), error.told_elsewhere))


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_soon(many_cases):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    port = free_port()
    processes = [
        context.Process(target=_one_of_two_fails, args=(rank, port, str(many_cases.path), told)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    errors = {rank: message for rank, message, _ in (told.get(timeout=120), told.get(timeout=60))}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert re.search(r"word/word_\d{4}: cannot be read .*Input/output error", errors[1])
    assert "another process of this training stopped" in errors[0]


@pytest.mark.parametrize("every", [1, 3])
def test_each_step_has_its_own_learning_rate(many_cases, monkeypatch, every):
    used = []
    real = engine._update

    def update(state, *others):
        used.append(state.optimiser.param_groups[0]["lr"])
        return real(state, *others)

    monkeypatch.setattr(engine, "_update", update)
    c = config(steps=7, learning_rate_every=every)
    train(many_cases, c, name=f"rates-{every}", device="cpu")
    assert used == [1e-2 * (1 - (step - step % every) / 7) ** 0.9 for step in range(7)]


def test_float16_scales_its_gradients_and_leaves_overflows_out(many_cases, monkeypatch):
    made = []
    real = torch.amp.GradScaler

    def scaler(device, enabled):
        made.append(real(device, enabled=enabled, init_scale=2.0**120))  # overflows at first
        return made[-1]

    monkeypatch.setattr("abdoseg.engine.precision.torch.amp.GradScaler", scaler)
    changes = {"precision": "fp16", "steps": 4}
    run = train(many_cases, config(**changes), name="fp16", device="cpu", stop_after=3).run
    assert made[0].get_scale() == 2.0**117  # halved by each step that was left out
    told = [json.loads(line, parse_constant=pytest.fail) for line in run.metrics_file.read_text().splitlines()]
    assert [line["gradient_norm"] for line in told] == [None] * 3
    start = load_tensors(run.checkpoint_file)[0]
    rest = train(many_cases, config(**changes), name="fp16", device="cpu")
    assert rest.steps_done == 4
    assert made[1].get_scale() == 2.0**116  # the scale was taken up
    untouched = load_tensors(rest.run.model_file)[0]
    assert all(torch.equal(start[f"model.{key}"], untouched[key]) for key in untouched)


def test_float16_on_a_cpu_is_validated_in_float32_and_warned_of(many_cases, monkeypatch):
    heard = []
    real = steps.mean_dsc

    def mean_dsc(model, keys, read, patch, ranks, precision, asked_to_stop):
        heard.append(precision)
        return real(model, keys, read, patch, ranks, precision, asked_to_stop=asked_to_stop)

    monkeypatch.setattr(steps, "mean_dsc", mean_dsc)
    train(many_cases, config(precision="fp16", steps=1, validate_every=1), name="narrow", device="cpu")
    train(many_cases, config(precision="bf16", steps=1, validate_every=1, patch=(48, 16, 16)), name="b", device="cpu")
    assert heard == ["float32", "bf16"]
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [len(slow_precision(p, d)) for p in ("fp16", "bf16", "float32") for d in (cpu, gpu)] == [1, 0, 0, 0, 0, 0]
    assert validation_precision("fp16", gpu) == "fp16"


def test_the_loss_hears_of_the_ramp():
    config = make_config("small", {"steps": 100, "entropy_weight": 2.0, "entropy_weight_unannotated": 4.0})
    told = [engine.loss_settings(config, step) for step in (0, 50, 100)]
    assert [(t.entropy_weight, t.entropy_weight_unannotated) for t in told] == [(0, 0), (1, 2), (2, 4)]
