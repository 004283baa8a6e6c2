"""Each method from workspace to scores: training, validation, resuming, predicting."""

import json
import shutil

import numpy as np
import pytest
import torch
from scipy.special import expit

from abdoseg.cards import load_card
from abdoseg.checkpoints import load_tensors
from abdoseg.config import make_config
from abdoseg.errors import ConfigError, RunError, UnknownNameError
from abdoseg.inference import sliding_window_logits
from abdoseg.methods import METHODS, clip_driven, dynamic, text_embeddings
from abdoseg.runs import load_run
from abdoseg.steps.evaluate_run import evaluate_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.plan import plan_training
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from abdoseg.trained import load_model
from abdoseg.training_set import derived_cases, open_stream
from tests.conftest import Heard, word_case

from .test_training import free_port, train_with_two  # noqa: F401 -- free_port is used by train_with_two

every_method = pytest.mark.parametrize("method", list(METHODS))
TINY = {"steps": 4, "patch": (16, 16, 16), "batch": 4, "log_every": 1}

OTHER = {
    "id": "other",
    "annotated": ("liver", "spleen", "aorta"),
    "labels": {"1": "liver", "2": "spleen", "8": "aorta"},
}


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """Six WORD cases, one of them without labels, and six that annotate three structures; tests must not change it."""
    folder = tmp_path_factory.mktemp("two")
    for number in range(1, 7):
        word_case(folder / "raw" / "WORD-V0.1.0", number, "Val" if number == 6 else "Tr")
    shutil.copytree(folder / "raw", folder / "again")
    (folder / "raw" / "WORD-V0.1.0" / "labelsTr" / "word_0003.nii.gz").unlink()
    word = load_card("word")
    labels = {key: value if key in OTHER["labels"] else "ignore" for key, value in word.labels.items()}
    other = word.model_copy(update={**OTHER, "labels": {**labels, **OTHER["labels"]}})
    workspace = Workspace.create(folder / "w", Settings(spacing_mm=4.0))
    ingest(workspace, word, folder / "raw", unlabelled=True)
    assert len(ingest(workspace, other, folder / "again").taken) == 6
    return workspace


@pytest.fixture(scope="module", autouse=True)
def teacher(two_sources):
    """A finished run that labels for `pseudo_label`."""
    return train(two_sources, make_config("small", TINY), name="teacher", device="cpu").run


def config(method, **changes):
    labelled_by = {"start_from": "teacher"} if METHODS[method].needs_teacher else {}
    return make_config("small", {**TINY, "method": method, **labelled_by, **changes})


def lines(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


@every_method
def test_from_training_to_scores(two_sources, method):
    report = train(two_sources, config(method, validate_every=2), name=f"all-{method}", device="cpu")
    told = lines(report.run)
    terms = METHODS[method].load().terms
    steps = [line for line in told if "loss" in line]
    assert len(steps) == 4
    for line in steps:
        assert all(np.isfinite(line[term]) for term in terms)
    assert [line["step"] for line in told if "validation_dsc" in line] == [2, 4]
    scores = evaluate_run(two_sources, report.run, "val", device="cpu")
    assert scores.steps == 4
    assert {score.structure for score in scores.scores if score.value is not None}


@every_method
def test_a_resumed_run_is_the_same_to_the_bit(two_sources, method):
    whole = train(two_sources, config(method), name=f"whole-{method}", device="cpu").run
    train(two_sources, config(method), name=f"parts-{method}", device="cpu", stop_after=2)
    parts = train(two_sources, config(method), name=f"parts-{method}", device="cpu").run
    weights, again = load_tensors(whole.model_file)[0], load_tensors(parts.model_file)[0]
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["multi_head", "dodnet"])
def test_two_processes_learn_what_one_does(two_sources, method):
    changes = {"precision": "float64", "steps": 6, "method": method, "seed": 1, **TINY, "validate_every": 0}
    one = train(two_sources, make_config("small", changes), name=f"one-{method}", device="cpu").run
    train_with_two(two_sources, f"two-{method}", **changes)
    two = load_run(two_sources, f"two-{method}")
    np.testing.assert_allclose([line["loss"] for line in lines(two)], [line["loss"] for line in lines(one)], rtol=1e-9)


def test_cases_without_annotation_are_skipped_with_a_word(two_sources):
    told = Heard()
    run = train(two_sources, config("dodnet"), name="skips", device="cpu", progress=told).run
    assert "1 training case holds no annotated structure and is left out: dodnet cannot learn from it" in told.lines
    assert "word/word_0003" in run.data.keys("train")
    told = Heard()
    train(two_sources, config("sigmoid"), name="takes", device="cpu", progress=told)
    assert not any("left out" in line for line in told.lines)


def test_a_method_that_needs_annotation_says_so(tmp_path):
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 1)
    shutil.rmtree(tmp_path / "raw" / "WORD-V0.1.0" / "labelsTr")
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("flare22-unlabelled").model_copy(update={"layouts": load_card("word").layouts}),
           tmp_path / "raw", unlabelled=True)  # fmt: skip
    none = "none of its 1 training cases holds an annotated structure; clip_driven needs one"
    with pytest.raises(RunError, match=none):
        train(workspace, config("clip_driven"), device="cpu")
    with pytest.raises(ConfigError, match="multi_head: no source annotates a structure"):
        train(workspace, config("multi_head"), device="cpu")


def test_a_head_for_each_source_is_frozen_with_the_run(two_sources):
    run = train(two_sources, config("multi_head"), name="heads", device="cpu").run
    assert run.data.annotates["other"] == ("spleen", "liver", "aorta")
    assert len(run.data.annotates["word"]) > 10
    assert load_run(two_sources, "heads").task().sources == run.task().sources
    assert train(two_sources, config("sigmoid"), name="none", device="cpu").run.data.annotates == {}


def test_text_embeddings_come_from_a_file_once(two_sources, tmp_path):
    file = tmp_path / "text.npy"
    np.save(file, np.random.default_rng(0).normal(size=(16, 512)).astype(np.float32))
    told = Heard()
    chosen = config("clip_driven", text_embeddings=str(file))
    train(two_sources, chosen, name="text", device="cpu", stop_after=2, progress=told)
    assert f"text embeddings: from {file}" in told.lines
    file.unlink()
    run = train(two_sources, chosen, name="text", device="cpu").run
    assert evaluate_run(two_sources, run, "val", device="cpu").steps == 4
    with pytest.raises(ConfigError, match=r"text.npy: .*No such file"):
        train(two_sources, chosen, name="text2", device="cpu")


@pytest.mark.parametrize("there", [True, False])
def test_text_embeddings_that_were_found_are_frozen_with_the_run(two_sources, monkeypatch, there):
    """`auto` takes what this machine has when a run begins; what it has later changes no run."""
    made = torch.randn(16, 512)

    def at_hand(setting, structures):
        assert (setting, len(structures)) == ("clip", 16)
        if not there:
            raise ConfigError("text_embeddings: CLIP needs the package transformers")
        return made

    for module in (text_embeddings, clip_driven):
        monkeypatch.setattr(module, "read_embeddings", at_hand)
    chosen, name, told = config("clip_driven", text_embeddings="auto"), f"auto-{there}", Heard()
    run = train(two_sources, chosen, name=name, device="cpu", stop_after=2, progress=told).run
    found = "text embeddings: from clip" if there else "text embeddings: a learned table"
    assert any(line.startswith(found) for line in told.lines)
    assert load_run(two_sources, name).task().text_embeddings == ("clip" if there else "learned")
    weights = load_tensors(run.checkpoint_file)[0]
    assert any(key.endswith("controller.text") for key in weights) == there
    there = not there
    run = train(two_sources, chosen, name=name, device="cpu").run
    assert evaluate_run(two_sources, run, "val", device="cpu").steps == 4
    assert train(two_sources, chosen, name=name, device="cpu").outcome == "already finished"


@every_method
def test_the_plan_knows_the_methods_memory(two_sources, method):
    from abdoseg.runs import plan_run

    run, _ = plan_run(two_sources, config(method), f"plan-{method}")
    memory = plan_training(two_sources, run)["memory_bytes"]
    assert memory["weights"] > 4 * 4 * 900_000
    assert memory["activations"] > 0


def test_a_run_labels_for_another_and_only_once(two_sources, monkeypatch):
    told = Heard()
    chosen = config("pseudo_label", confidence=0.2)
    run = train(two_sources, chosen, name="student", device="cpu", stop_after=2, progress=told).run
    keys = run.data.keys("train")
    assert any(line.startswith(f"{len(keys)} training cases labelled by teacher, all but ") for line in told.lines)
    cases = derived_cases(run)
    known = 0
    for key in keys:
        before, facts = two_sources.read_case(key), cases.read_facts(key)
        label, image = cases.open_case(key).label[...], cases.open_case(key).image[...]
        assert np.array_equal(image, before.image)
        drawn = (before.label > 0) & (before.label < 255)
        assert np.array_equal(label[drawn], before.label[drawn])
        assert facts.groups.rows.all()
        known += int((label < 255).sum())
    assert known > 0
    for untouched in ("teacher", "student"):
        assert load_run(two_sources, untouched).status in ("finished", "unfinished")
    monkeypatch.setattr("abdoseg.pseudo_labels.label_case", None)  # nothing is labelled again
    assert train(two_sources, chosen, name="student", device="cpu").outcome == "trained"


def test_heads_that_are_independent_label_by_their_own_probabilities(two_sources):
    """Background is 1 - the most probable structure, not a softmax over 17 classes."""
    train(two_sources, config("sigmoid", steps=30, learning_rate=0.03), name="heads-teacher", device="cpu")
    chosen = config("pseudo_label", start_from="heads-teacher", confidence=0.51)
    run = train(two_sources, chosen, name="heads-student", device="cpu", stop_after=1).run
    model, _ = load_model(load_run(two_sources, "heads-teacher"), torch.device("cpu"))
    key = "word/word_0003"  # annotates nothing
    scores = sliding_window_logits(model.network, two_sources.read_case(key).intensity(), model.settings())
    p = expit(scores[1:].astype(np.float64))
    highest = p.max(axis=0)
    expected = np.where(highest >= 0.51, p.argmax(axis=0) + 1, np.where(highest <= 0.49, 0, 255))
    found = derived_cases(run).open_case(key).label[...]
    assert np.array_equal(found, expected)
    softmax = np.exp(scores - scores.max(axis=0))
    softmax /= softmax.sum(axis=0)
    assert (softmax.max(axis=0)[found == 0] < 0.51).any()


@pytest.mark.parametrize("sampler", ["cmd", "random"])
def test_a_step_learns_the_structure_that_the_sampler_drew(two_sources, monkeypatch, sampler):
    seen = []
    genuine = dynamic.learnt_structures

    def noted(looked_for, drawn, at_most, generator):
        ids = genuine(looked_for, drawn, at_most, generator)
        seen.append((drawn, ids))
        return ids

    monkeypatch.setattr(dynamic, "learnt_structures", noted)
    chosen = config("dodnet", tasks_per_step=1, sampler=sampler, flip=[0.5, 0.0, 0.0], steps=8)
    run = train(two_sources, chosen, name=f"one-task-{sampler}", device="cpu").run
    draws = [open_stream(two_sources, run).example(t).shown for t in range(32)]
    assert [drawn for drawn, _ in seen] == [-1 if shown is None else shown for shown in draws]
    assert all(ids == [drawn] for drawn, ids in seen if drawn > 0)
    assert all(len(ids) == 1 for _, ids in seen)
    assert any(drawn > 0 for drawn, _ in seen) == (sampler == "cmd")


def test_who_labels_is_needed_until_all_is_labelled(two_sources, monkeypatch):
    gone = train(two_sources, make_config("small", {**TINY, "seed": 4}), name="gone", device="cpu").run
    chosen = config("pseudo_label", start_from="gone", confidence=0.3)
    monkeypatch.setattr("abdoseg.steps.train.open_stream", fail_with(ConfigError("once all is labelled")))
    with pytest.raises(ConfigError, match="once all is labelled"):
        train(two_sources, chosen, name="orphan", device="cpu")
    monkeypatch.undo()
    shutil.rmtree(gone.folder)
    run = train(two_sources, chosen, name="orphan", device="cpu").run
    card = json.loads((run.folder / "model.json").read_text())
    assert (card["started_from"]["run"], card["started_from"]["gives"]) == ("gone", "labels")
    assert "its labels were learnt from" in (run.folder / "MODEL_CARD.md").read_text()
    with pytest.raises(UnknownNameError, match="run 'gone' is not known"):
        train(two_sources, config("pseudo_label", start_from="gone", confidence=0.4), device="cpu")


def fail_with(error):
    def fail(*_):
        raise error

    return fail


def test_who_labels_must_be_said(two_sources):
    with pytest.raises(ConfigError, match="method pseudo_label: needs a finished run that labels the training cases"):
        make_config("small", {**TINY, "method": "pseudo_label"})
    with pytest.raises(UnknownNameError, match="run 'teecher' is not known"):
        train(two_sources, config("pseudo_label", start_from="teecher"), device="cpu")
