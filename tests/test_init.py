"""A workspace with the user's own structures, spacing and windows."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN, Structure
from abdoseg.augmentation.flip import partners_of
from abdoseg.cards import load_card
from abdoseg.config import make_config
from abdoseg.runs import list_runs, start_run
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace
from tests.conftest import LPS, body, write_nifti

PAGE = Path(__file__).parents[1] / "docs" / "workspace.md"

LUNGS = """
[[structures]]
name = "liver"

[[structures]]
name = "right_lung"
title = "right lung"
abbreviation = "RLu"
colour = "#3366cc"
partner = "left_lung"

[[structures]]
name = "left_lung"
colour = "#99bbee"
partner = "right_lung"
"""


def structure(**values):
    return "[[structures]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


@pytest.fixture
def given(tmp_path):
    """A function that writes a structures file."""

    def write(text, name="mine.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_own_structures_are_the_papers_and_the_users(abdoseg, given, tmp_path):
    told = abdoseg("init", "--structures", given(LUNGS), "--spacing-mm", 3, "--window-ct", -1000, 400, "-w", "w")
    assert told.status == 0, told.err
    assert told.out.splitlines()[:3] == [
        "workspace w: 3 mm",
        "3 structures: liver, right_lung, left_lung",
        "CT -1000 to 400 HU, MR percentiles 1 to 99; split seed 0",
    ]
    assert told.err == "next: abdoseg cards draft FOLDER\nor: abdoseg ingest CARD FOLDER --workspace w\n"
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.settings.spacing_mm == 3
    assert workspace.settings.windows.ct_hu == (-1000, 400)
    liver, right, left = workspace.anatomy.structures
    assert liver in ABDOMEN.structures
    assert right == Structure("right_lung", "right lung", "RLu", "#3366cc", "left_lung")
    assert left == Structure("left_lung", "left lung", "LL", "#99bbee", "right_lung")
    assert partners_of(workspace.anatomy) == (1, 3, 2)


def test_one_side_of_the_papers_pairs_may_have_another_colour(abdoseg, given):
    assert abdoseg("init", "--structures", given(structure(name="right_kidney", colour="#123456"))).status == 0
    (kidney,) = Workspace.open("workspace").anatomy.structures
    assert (kidney.title, kidney.colour, kidney.partner) == ("right kidney", "#123456", "left_kidney")


def test_json_says_the_same(abdoseg, given, tmp_path):
    facts = json.dumps(tomllib.loads(LUNGS))
    assert abdoseg("init", "--structures", given(LUNGS), "-w", "a").status == 0
    assert abdoseg("init", "--structures", given(facts, "mine.json"), "-w", "b").status == 0
    assert Workspace.open("a").settings == Workspace.open("b").settings


def test_the_example_of_the_docs(abdoseg, given):
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    told = abdoseg("init", "--structures", given(block), "-w", "w")
    assert told.status == 0, told.err
    anatomy = Workspace.open("w").anatomy
    assert anatomy.names == ("liver", "right_lung", "left_lung")
    assert partners_of(anatomy) == (1, 3, 2)


def test_the_usual_workspace_is_what_ingest_makes(abdoseg, tmp_path):
    assert abdoseg("init").status == 0
    Workspace.create(tmp_path / "usual")
    name = "abdoseg.toml"
    assert (tmp_path / "workspace" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()
    assert "own_structures" not in (tmp_path / "usual" / name).read_text()


def test_cards_that_fit_are_named(abdoseg, given):
    told = abdoseg("init", "--structures", given(structure(name="postcava")), "-w", "w")
    listed = " ".join(told.out.split()).partition("annotate some of them: ")[2].split(", ")
    assert "btcv" in listed
    assert "word" not in listed
    assert told.err.splitlines()[0] == "next: abdoseg ingest CARD FOLDER --workspace w"


CARD = """
id = "chest"
title = "Lungs of the ward"
modality = "CT"
annotated = ["left_lung", "liver"]
labels = {1 = "left_lung", 2 = "liver"}

[[layouts]]
name = "flat"
image = "{case}_image.nii.gz"
label = "{case}_label.nii.gz"
case = "{case}"
groups = {case = "[a-z]+"}
"""


def test_a_users_card_is_ingested_and_a_run_keeps_the_structures(abdoseg, given, tmp_path):
    card = given(CARD, "chest.toml")
    assert "structure 'left_lung' is not known" in abdoseg("cards", "check", card).err
    abdoseg("init", "--structures", given(LUNGS), "--spacing-mm", 3)
    label = np.zeros((20, 20, 20), np.uint8)
    label[4:9, 4:9, 4:9], label[12:17, 4:9, 4:9] = 1, 2
    for case in ("a", "b"):
        write_nifti(tmp_path / "raw" / f"{case}_image.nii.gz", body(label.shape), LPS)
        write_nifti(tmp_path / "raw" / f"{case}_label.nii.gz", label, LPS)
    assert "chest: good" in abdoseg("cards", "check", card).out
    taken = abdoseg("ingest", card, tmp_path / "raw")
    assert taken.status == 0, taken.err
    told = json.loads(abdoseg("status", "--json").out)["structures"]
    assert told["left_lung"] == {"annotated": 2, "present": 2}
    assert told["right_lung"] == {"annotated": 0, "present": 0}
    workspace = Workspace.open("workspace")
    assert set(np.unique(workspace.read_case("chest/a").label)) == {0, 1, 3}
    start_run(workspace, make_config("small", {"steps": 1, "patch": (16, 16, 16), "validate_every": 0}))
    (run,) = list_runs(workspace)
    assert run.anatomy == workspace.anatomy
    done = abdoseg("train", "--config", run.folder / "config.toml", "--name", run.name, "--device", "cpu")
    assert done.status == 0, done.err
    scan = tmp_path / "raw" / "a_image.nii.gz"
    assert abdoseg("predict", scan, "-o", "out.nii.gz", "--device", "cpu").status == 0
    assert nib.load("out.nii.gz").shape == label.shape
    legend = json.loads(Path("out.labels.json").read_text())["structures"]
    assert [one["name"] for one in legend] == ["liver", "right_lung", "left_lung"]


def test_a_workspace_that_holds_something_is_kept(abdoseg, given, word_source):
    usual, own = ("init", "-w", "w"), ("init", "--structures", given(LUNGS), "-w", "w")
    assert abdoseg(*usual).status == 0
    told = abdoseg(*own)
    assert (told.status, told.out.splitlines()[0]) == (0, "workspace w (it was empty, with other settings): 2 mm")
    assert abdoseg(*usual).status == 0
    ingest(Workspace.open("w"), load_card("word"), word_source)
    told = abdoseg(*own)
    assert told.status == 2
    assert "w: a workspace with other settings and 4 cases is there; choose another by --workspace" in told.err
    assert Workspace.open("w").settings == Settings()
    assert len(Workspace.open("w").case_keys()) == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "structures: found nothing, expected a value"),
        ("structures = []", "found 0 structures, expected 1 to 254"),
        ("structures = 'liver'", "structures: found 'liver', expected a list"),
        ("structures = ", "cannot be read ("),
        ("colour = 'red'\n" + structure(name="liver"), "colour: found an unknown name"),
        (structure(title="lung"), "structures.0.name: found nothing, expected a value"),
        (structure(name="Right Lung"), "structures.0.name: found 'Right Lung', expected lower case letters"),
        (structure(name="background"), "structures.0.name: found 'background', which stands for something else"),
        (structure(name="lung", colour="blue"), "structures.0.colour: found 'blue', expected #rrggbb"),
        (structure(name="lung", color="#ffffff"), "structures.0.color: found an unknown name"),
        (structure(name="lung", abbreviation="left lung"), "structures.0.abbreviation: found 'left lung', expected 1"),
        (structure(name="lung", title="a\nb"), "structures.0.title: found 'a\\nb', expected 1 to 60"),
        (structure(name="lung") * 2, "name lung: found more than once"),
        (structure(name="lower_lobe") + structure(name="left_lung"), "abbreviation LL: found more than once"),
        (structure(name="lung", partner="liver"), "lung: partner 'liver' is not among the structures"),
        (structure(name="lung", partner="lung"), "lung: partner 'lung' is itself"),
        (
            structure(name="left_lung", partner="right_lung") + structure(name="right_lung"),
            "left_lung: partner 'right_lung' has no partner; expected partner = 'left_lung' there",
        ),
        ("".join(structure(name=f"s{i}", abbreviation=f"s{i}") for i in range(255)), "found 255 structures, expected"),
    ],
)
def test_a_bad_file_is_one_line_and_makes_nothing(abdoseg, given, text, told):
    file = given(text)
    out = abdoseg("init", "--structures", file, "-w", "w")
    assert out.status == 2
    assert out.err.startswith(f"error: --structures {file}: ")
    assert told in out.err
    assert out.err.count("\n") == 1
    assert not Path("w").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--structures", "none.toml"), "--structures none.toml: no such file"),
        (("--structures", "liver,spleen"), "expected a .toml or .json file"),
        (("--spacing-mm", 0), "--spacing-mm: found 0, expected 0.1 to 50 mm"),
        (("--spacing-mm", "nan"), "--spacing-mm: found nan"),
        (("--window-ct", 400, -400), "--window-ct: found 400 -400, expected LOW HIGH in HU, LOW below HIGH"),
        (("--window-ct", "-inf", 400), "--window-ct: found -inf 400"),
        (("--window-mr", 1, 101), "--window-mr: found 1 101, expected LOW HIGH in per cent"),
    ],
)
def test_bad_values_are_one_line_and_make_nothing(abdoseg, options, told):
    out = abdoseg("init", *options)
    assert out.status == 2
    assert told in out.err
    assert out.err.count("\n") == 1
    assert not Path("workspace").exists()


def test_bytes_that_are_no_text_are_told(abdoseg, tmp_path):
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe{}")
    assert "cannot be read (" in abdoseg("init", "--structures", "mine.json").err


def test_a_path_with_spaces_can_be_copied(abdoseg):
    told = abdoseg("init", "-w", "my cases")
    assert shlex.split(told.err.splitlines()[0].removeprefix("next: ")) == [
        *("abdoseg", "ingest", "CARD", "FOLDER", "--workspace", "my cases")
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('structures = ["livr"]', "Did you mean liver"),
        ('structures = ["liver", "liver"]', "name liver: found more than once"),
        ('structures = ["liver"]\n[[own_structures]]\nname = "lung"', "found lung, which structures does not list"),
    ],
)
def test_settings_that_do_not_fit_together_are_one_line(abdoseg, tmp_path, settings, told):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "abdoseg.toml").write_text(settings)
    out = abdoseg("status")
    assert out.status == 2
    assert told in out.err
    assert out.err.count("\n") == 1
