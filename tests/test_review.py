"""Doubtful splits of right and left: shown, decided by the user or a model, and kept."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.model import SegmentationModel
from abdoseg.reviews import SideDecision, load_reviews, require_action, reviews_file
from abdoseg.steps.assist import assist
from abdoseg.steps.ingest import ingest
from abdoseg.steps.review import decide, draw_flagged, flagged_cases
from abdoseg.store import Settings, Workspace
from abdoseg.windows import Windows

from .conftest import LPS, body, write_nifti

RIGHT, LEFT = ABDOMEN.id_of("right_adrenal_gland"), ABDOMEN.id_of("left_adrenal_gland")
PAIR = "right_adrenal_gland+left_adrenal_gland"


def horseshoe_case(root, number=1):
    """One joined label across the midline, a little more of it on the patient's right."""
    shape = (30, 28, 20)
    label = np.zeros(shape, dtype=np.uint8)
    label[7:21, 10:13, 8:11] = 12  # LPS: small x is right
    label[5:12, 16:20, 8:16] = 1
    write_nifti(root / "imagesTr" / f"word_{number:04d}.nii.gz", body(shape, number), LPS)
    write_nifti(root / "labelsTr" / f"word_{number:04d}.nii.gz", label, LPS)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "raw" / "WORD-V0.1.0"
    horseshoe_case(root)
    return tmp_path / "raw"


@pytest.fixture
def workspace(tmp_path, source):
    store = Workspace.create(tmp_path / "workspace", Settings())
    ingest(store, load_card("word"), source)
    return store


def sides_of(store, key="word/word_0001"):
    label = store.read_case(key).label
    return [int((label == value).sum()) for value in (RIGHT, LEFT, 255)]


def test_a_doubtful_split_is_unknown_until_somebody_decides(workspace):
    (item,) = flagged_cases(workspace)
    assert item.key == "word/word_0001"
    assert item.split.pair == PAIR
    assert item.split.values == (12,)
    assert any("crosses the midline" in flag for flag in item.split.flags)
    right, left, unknown = sides_of(workspace)
    assert (right, left) == (0, 0)
    assert unknown > 0


@pytest.mark.parametrize(
    ("action", "sides"),
    [
        ("keep", (False, False, True)),
        ("cut", (True, True, False)),
        ("right", (True, False, False)),
        ("left", (False, True, False)),
        ("unknown", (False, False, True)),
    ],
)
def test_decisions_are_applied_at_once(workspace, action, sides):
    (item,) = flagged_cases(workspace)
    before = sum(sides_of(workspace))
    done = decide(workspace, item, SideDecision(action=action, by="user"))
    assert done.applied
    assert tuple(n > 0 for n in sides_of(workspace)) == sides
    assert sum(sides_of(workspace)) == before  # no voxel is lost
    assert not flagged_cases(workspace)
    (closed,) = flagged_cases(workspace, decided=True)
    assert closed.split.decided == (action, "user")


def test_a_cut_is_at_the_midline_in_the_world(workspace):
    (item,) = flagged_cases(workspace)
    decide(workspace, item, SideDecision(action="cut", by="user"))
    case = workspace.read_case(item.key)
    x = [np.nonzero(case.label == value)[0] for value in (RIGHT, LEFT)]
    assert x[0].min() > x[1].max()  # RAS+: larger x is the patient's right


def test_a_decision_survives_another_ingest_and_removal(workspace, source):
    (item,) = flagged_cases(workspace)
    decide(workspace, item, SideDecision(action="left", by="user"))
    decided = sides_of(workspace)
    ingest(workspace, load_card("word"), source, replace=True)
    assert sides_of(workspace) == decided
    workspace.remove("word")
    ingest(workspace, load_card("word"), source)
    assert sides_of(workspace) == decided
    assert not flagged_cases(workspace)


def test_other_cases_are_left_alone(workspace, source):
    horseshoe_case(source / "WORD-V0.1.0", 2)
    broken = source / "WORD-V0.1.0" / "imagesTr" / "word_0003.nii.gz"
    broken.write_bytes(b"no scan")
    (source / "WORD-V0.1.0" / "labelsTr" / "word_0003.nii.gz").write_bytes(b"no scan")
    ingest(workspace, load_card("word"), source)
    second = workspace.read_facts("word/word_0002").digest
    item = next(f for f in flagged_cases(workspace) if f.key == "word/word_0001")
    decide(workspace, item, SideDecision(action="cut", by="user"))
    assert workspace.read_facts("word/word_0002").digest == second
    assert [f.key for f in flagged_cases(workspace)] == ["word/word_0002"]
    assert "word_0003" in workspace.records()["word"].quarantined


def test_a_decision_is_kept_when_the_files_are_gone(workspace, source):
    (item,) = flagged_cases(workspace)
    source.rename(source.with_name("moved"))
    done = decide(workspace, item, SideDecision(action="cut", by="user"))
    assert not done.applied
    assert "no such folder" in done.reason
    assert load_reviews(workspace.path, "word").of("word_0001")[PAIR].action == "cut"


def test_the_picture_shows_both_sides(workspace, tmp_path):
    (item,) = flagged_cases(workspace)
    path = draw_flagged(workspace, item, tmp_path / "p" / "case.png")
    assert path.read_bytes().startswith(b"\x89PNG")


class ByBrightness(nn.Module):
    """A network that calls what is brighter than 50 HU the right gland, and the rest the left one."""

    divisor = 16

    def forward(self, x):
        scores = torch.zeros((x.shape[0], 1 + len(ABDOMEN), *x.shape[2:]))
        scores[:, RIGHT] = 1 + 100 * (x[:, 0] - 450 / 800)
        scores[:, LEFT] = 1 - 100 * (x[:, 0] - 450 / 800)
        return scores


MODEL = SegmentationModel(
    network=ByBrightness(),
    anatomy=ABDOMEN,
    spacing_mm=2.0,
    windows=Windows(),
    patch_shape=(32, 32, 32),
    device="cpu",
    name="m",
)


def bright_to(root, column, label):
    """A case whose voxels up to an array column (the patient's right side in LPS) are 100 HU, the others 0."""
    image = np.zeros(label.shape, dtype=np.int16)
    image[:column] = 100
    write_nifti(root / "imagesTr" / "word_0001.nii.gz", image, LPS)
    write_nifti(root / "labelsTr" / "word_0001.nii.gz", label, LPS)


def test_a_model_decides_by_component(tmp_path):
    """Two glands on one side of the body: position calls both left, the model knows better."""
    root = tmp_path / "raw"
    label = np.zeros((30, 28, 20), dtype=np.uint8)
    label[16:18, 10:13, 8:11] = label[24:26, 10:13, 8:11] = 12
    bright_to(root, 21, label)
    store = Workspace.create(tmp_path / "workspace", Settings())
    ingest(store, load_card("word"), root)
    (item,) = flagged_cases(store)
    assert "all components lie on the left" in item.split.flags
    (done,) = assist(store, MODEL, [item])
    assert done.applied
    right, left, unknown = sides_of(store)
    assert right > 0
    assert left > 0
    assert unknown == 0
    assert flagged_cases(store, decided=True)[0].split.decided == ("components", "run m")
    before = store.read_facts(item.key).digest
    ingest(store, load_card("word"), root, replace=True)
    assert store.read_facts(item.key).digest == before


def test_what_the_model_does_not_tell_apart_stays_open(tmp_path):
    root = tmp_path / "raw"
    label = np.zeros((30, 28, 20), dtype=np.uint8)
    label[7:21, 10:13, 8:11] = 12
    bright_to(root, 14, label)  # the model sees half of the component on either side
    store = Workspace.create(tmp_path / "workspace", Settings())
    ingest(store, load_card("word"), root)
    (item,) = flagged_cases(store)
    assert not assist(store, MODEL, [item])
    assert flagged_cases(store)


def test_names_are_checked(workspace):
    with pytest.raises(UnknownNameError, match="word_0009"):
        flagged_cases(workspace, "word", "word_0009")
    with pytest.raises(ConfigError, match="expected one of keep, cut, right, left, unknown"):
        require_action("components")


def test_a_damaged_decision_file_is_one_line(workspace, source, abdoseg):
    path = reviews_file(workspace.path, "word")
    path.parent.mkdir()
    path.write_text("{")
    outcome = abdoseg("ingest", "word", source, "-w", workspace.path)
    assert outcome.status == 2
    assert "the decisions cannot be read" in outcome.err.replace("\n", " ")


def test_the_command(abdoseg, source, tmp_path):
    assert "1 split of right and left in doubt" in abdoseg("ingest", "word", source).err.replace("\n", " ")
    shown = abdoseg("review")
    assert shown.status == 0
    assert "crosses the midline" in " ".join(shown.out.split())
    assert (tmp_path / "workspace" / "review" / "word" / "word_0001.png").is_file()
    (facts,) = json.loads(abdoseg("review", "--json").out)
    assert facts["case"] == "word/word_0001"
    assert facts["pair"] == PAIR
    assert "cut, taken again" in abdoseg("review", "word", "word_0001", "--decide", "cut").err.replace("\n", " ")
    assert "no split is in doubt" in abdoseg("review").err
    assert abdoseg("review", "word", "word_0001", "--decide", "both").status == 2
