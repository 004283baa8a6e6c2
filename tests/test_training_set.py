"""What a run draws from, by the index, is what a look at every labelled voxel finds."""

import json

import numpy as np
import pytest

from abdoseg.cards import load_card
from abdoseg.config import make_config
from abdoseg.errors import RunError, UnknownNameError
from abdoseg.patches import find_candidates
from abdoseg.runs import plan_run, start_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.plan import plan_training
from abdoseg.steps.sample import sample
from abdoseg.steps.sparsify import sparsify
from abdoseg.store import Settings, Workspace
from abdoseg.training_set import open_sampler, open_stream, training_cases
from tests.conftest import LPS, word_case, write_nifti

TINY = {"patch": (16, 16, 16), "batch": 2}


@pytest.fixture
def workspace(tmp_path, word_source, total_source) -> Workspace:
    made = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), word_source)
    ingest(made, load_card("totalsegmentator"), total_source)
    return made


def planned(workspace, **changes):
    return plan_run(workspace, make_config("small", {**TINY, **changes}))[0]


VIEWS = [
    {},
    {"view": ["axial"], "fraction": 0.2},
    {"view": ["axial", "sagittal"], "every": 7},
    {"view": ["coronal"], "fraction": 0.1, "seed": 1, "sources": ("word",)},
    {"view": ["axial"], "fraction": 0.1, "per_structure": True},
]


@pytest.mark.parametrize("recipe", VIEWS)
@pytest.mark.parametrize("annotated_from", ["card", "labels"])
def test_candidates_by_the_index_are_those_among_the_voxels(workspace, recipe, annotated_from):
    view = sparsify(workspace, recipe.pop("view"), **recipe).view.name if (recipe := dict(recipe)) else "full"
    run = planned(workspace, view=view, annotated_from=annotated_from)
    by_index = open_sampler(workspace, run).candidates
    by_voxels = find_candidates(training_cases(workspace, run), workspace)
    assert by_index.keys == by_voxels.keys
    assert by_index.kinds == by_voxels.kinds
    assert np.array_equal(by_index.has, by_voxels.has)


def test_cases_of_older_versions_are_looked_at(workspace):
    """Their facts do not say which slices hold a structure."""
    sparsify(workspace, ["axial"], 0.2, name="thin")
    run = planned(workspace, view="thin")
    expected = open_sampler(workspace, run).candidates.has
    for key in workspace.case_keys():
        file = workspace.case_folder(key) / "zarr.json"
        group = json.loads(file.read_text())
        del group["attributes"]["facts"]["occupied"]
        file.write_text(json.dumps(group))
    assert np.array_equal(open_sampler(workspace, run).candidates.has, expected)


def test_the_stream_draws_what_the_sampler_says(workspace):
    run = planned(workspace, structure_weights={"liver": 3.0}, source_weights={"word": 0.5})
    sampler, patches = open_sampler(workspace, run), open_stream(workspace, run)
    for t in range(20):
        draw = sampler.draw(t)
        patch = patches.example(t)
        assert (patch.structure, patch.case) == (draw.structure, sampler.candidates.keys[draw.case_index])
        assert patches.case_of(t) == patch.case
    assert sampler.probabilities().structure[run.anatomy.id_of("liver")] == pytest.approx(
        3 * sampler.probabilities().structure[run.anatomy.id_of("spleen")]
    )


def test_annotated_from_labels_takes_only_what_is_there(workspace):
    card = training_cases(workspace, planned(workspace))
    labels = training_cases(workspace, planned(workspace, annotated_from="labels"))
    assert [f.key for f, _ in card] == [f.key for f, _ in labels]
    for (facts, by_card), (_, by_labels) in zip(card, labels, strict=True):
        there = {planned(workspace).anatomy.id_of(name) for name in facts.voxels}
        assert set(by_labels.structure_ids) == set(by_card.structure_ids) & there
        assert set(by_labels.structure_ids) < set(by_card.structure_ids)


def test_annotated_from_labels_sees_nothing_that_a_view_hides(workspace):
    view = sparsify(workspace, ["axial"], 0.05, name="one").view
    run = planned(workspace, view=view.name, annotated_from="labels", method="multi_head")
    hidden = 0
    by_source = {}
    for facts, annotation in training_cases(workspace, run):
        label = workspace.read_case(facts.key).label
        (groups,) = annotation.slices.values()
        (full,) = (a for f, a in training_cases(workspace, planned(workspace, view=view.name)) if f.key == facts.key)
        kept = full.rows[groups].any(axis=1)
        seen = set(np.unique(label[:, :, kept]).tolist()) & set(full.structure_ids)
        assert set(annotation.structure_ids) == seen
        hidden += len(set(np.unique(label).tolist()) & set(full.structure_ids)) - len(seen)
        by_source.setdefault(facts.source, set()).update(seen)
    assert hidden > 0
    assert {s: {run.anatomy.id_of(n) for n in names} for s, names in run.data.annotates.items()} == by_source


@pytest.mark.parametrize("annotated_from", ["card", "labels"])
def test_dynamic_heads_leave_out_what_holds_nothing(workspace, tmp_path, annotated_from):
    """Such as a scan of legs, whose annotators looked for all structures: as the paper did with TotalSegmentator's."""
    for number in (8, 9):
        word_case(tmp_path / "legs", number)
        label = tmp_path / "legs" / "labelsTr" / f"word_{number:04}.nii.gz"
        write_nifti(label, np.zeros((30, 28, 20), dtype=np.uint8), LPS)
    ingest(workspace, load_card("word"), tmp_path / "legs")
    all_cases = set(planned(workspace).data.keys("train"))
    legs = {"word/word_0008", "word/word_0009"} & all_cases
    assert legs
    for method, expected in (("sigmoid", all_cases), ("dodnet", all_cases - legs), ("clip_driven", all_cases - legs)):
        run = planned(workspace, method=method, annotated_from=annotated_from)
        assert {facts.key for facts, _ in training_cases(workspace, run)} == expected
        assert set(open_sampler(workspace, run).candidates.keys) == expected
        assert {open_stream(workspace, run).case_of(t) for t in range(200)} <= expected


def test_dynamic_heads_leave_out_what_a_view_hides(workspace):
    """The only slice that stays annotated holds no structure: what the others hold, nothing may see."""
    view = sparsify(workspace, ["axial"], 0.01, name="one").view
    run = planned(workspace, view=view.name, method="dodnet")
    taken = {facts.key for facts, _ in training_cases(workspace, run)}
    held = set()
    for facts, annotation in training_cases(workspace, planned(workspace, view=view.name)):
        label = workspace.read_case(facts.key).label
        (groups,) = annotation.slices.values()
        kept = label[:, :, annotation.rows[groups].any(axis=1)]
        if set(np.unique(kept).tolist()) & set(annotation.structure_ids):
            held.add(facts.key)
    assert taken == held
    assert taken == set(open_sampler(workspace, run).candidates.keys)


def test_a_weight_of_an_unknown_structure_proposes_a_near_one(workspace):
    with pytest.raises(UnknownNameError, match=r"structure 'livr' is not known\. Did you mean liver"):
        open_sampler(workspace, planned(workspace, structure_weights={"livr": 2.0}))


def test_a_case_that_is_gone_is_told(workspace):
    run, _ = start_run(workspace, make_config("small", TINY))
    workspace.remove("word", "word_0002")
    with pytest.raises(RunError, match="its case word/word_0002 is gone"):
        open_sampler(workspace, run)


def test_sample_counts_the_draws_of_the_training(workspace):
    run = planned(workspace)
    found = sample(workspace, run, 200)
    patches = open_stream(workspace, run)
    draws = [patches.sampler.draw(t) for t in range(200)]
    names = ("background", *run.anatomy.names)
    for i, name in enumerate(names):
        assert found["structure"][name]["drawn"] == sum(draw.structure == i for draw in draws)
    for level in ("modality", "source"):
        for name, row in found[level].items():
            assert row["drawn"] == sum(getattr(draw, level) == name for draw in draws)
    assert {key: row["drawn"] for key, row in found["case"].items()} == {
        key: sum(patches.cases[draw.case_index][0].key == key for draw in draws) for key in found["case"]
    }
    for level in ("structure", "modality", "source", "case", "kind"):
        assert sum(row["expected"] for row in found[level].values()) == pytest.approx(200)
    assert found["structure"]["liver"]["present"] == 4
    assert found["source"]["word"]["present"] == 3
    assert "gallbladder" in found["skipped"]


def test_the_plan_says_what_will_be_seen(workspace):
    run = planned(workspace, steps=100)
    plan = plan_training(workspace, run)
    assert sum(row["patches"] for row in plan["structures"].values()) == pytest.approx(200)
    memory = plan["memory_bytes"]
    assert memory["total"] == memory["weights"] + memory["activations"] + memory["logits"]
    assert memory["logits"] == 2 * 2 * 17 * 16**3 * 4
    assert plan_training(workspace, run, 2)["memory_bytes"]["logits"] == memory["logits"] // 2
    random = plan_training(workspace, planned(workspace, sampler="random"))
    assert {row["patches"] for row in random["structures"].values()} == {None}


def test_sample_on_the_command_line(workspace, abdoseg):
    place = ("-w", workspace.path)
    found = json.loads(abdoseg("sample", "--n", 50, "--json", *place).out)
    assert {"structure", "modality", "source", "case"} <= set(found)
    assert sum(row["drawn"] for row in found["source"].values()) == 50
    shown = abdoseg("sample", "--n", 50, *place)
    assert shown.status == 0
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "gallbladder: no training case shows it; it is never drawn" in shown.err
    one = abdoseg("sample", "--n", 50, "--sources", "word", "--set", "structure_weights.liver=0", "--json", *place)
    assert json.loads(one.out)["structure"]["liver"]["drawn"] == 0
    assert set(json.loads(one.out)["source"]) == {"word"}
    for wrong, message in (
        (("--sampler", "cdm"), "Did you mean cmd"),
        (("--set", "source_weights.wrod=2"), "weight of source wrod"),
        (("--set", "structure_weights.liver=-2"), "at least 0"),
        (("--set", "mix.partial=1", "--set", "mix=3"), "mix"),
        (("--run", "x"), "run 'x' is not known"),
        (("--run", "x", "--seed", "3"), "leave the other options out"),
        (("--config", "missing.toml"), "missing.toml: cannot be read"),
    ):
        failed = abdoseg("sample", *wrong, *place)
        assert failed.status == 2
        assert message in failed.err


def test_dry_run_prints_the_plan_and_stops(workspace, abdoseg):
    place = ("-w", workspace.path, "--set", "patch=[16,16,16]")
    plan = json.loads(abdoseg("train", "--dry-run", "--json", "--steps", 10, *place).out)
    assert plan["memory_bytes"]["total"] > 0
    assert plan["structures"]["liver"]["patches"] > 0
    shown = abdoseg("train", "--dry-run", "--nproc", 2, *place)
    assert shown.status == 0
    assert "memory in each of 2 processes" in shown.err
    cached = abdoseg("train", "--dry-run", "--set", "cache_mb=2048", "--set", "device_cache_mb=512", *place)
    assert "up to 2.0 GiB of main memory" in cached.err
    assert "up to 512 MB of the device's memory" in cached.err
    assert not list(workspace.runs_folder.iterdir())


def test_settings_from_a_file(workspace, abdoseg, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('preset = "demo"\nsteps = 7\nlearning_rate = 0.5\n[structure_weights]\nliver = 2.0\n')
    place = ("-w", workspace.path, "--config", file)
    plan = json.loads(abdoseg("train", "--dry-run", "--json", "--set", "learning_rate=0.25", *place).out)["config"]
    assert (plan["preset"], plan["steps"], plan["learning_rate"]) == ("demo", 7, 0.25)
    assert plan["structure_weights"] == {"liver": 2.0}
    file.write_text("steps = [")
    assert "cannot be read" in abdoseg("train", "--dry-run", *place).err
    file.write_text("stepz = 3")
    assert "Did you mean steps" in abdoseg("train", "--dry-run", *place).err
