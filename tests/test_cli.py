"""The commands, in process, as a newcomer would type them."""

import json
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest

from tests.conftest import body, write_nifti

TINY = ("--steps", 2, "--set", "patch=[16, 16, 16]", "--device", "cpu")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Where the workspace of `line` is kept, which takes seconds to make."""
    return tmp_path_factory.mktemp("trained") / "workspace"


@pytest.fixture
def line(abdoseg, word_source, total_source, tmp_path, trained):
    """A workspace with two sources and a finished run."""
    if trained.is_dir():
        shutil.copytree(trained, tmp_path / "workspace")
        return abdoseg
    assert abdoseg("ingest", "word", word_source).status == 0
    assert abdoseg("ingest", "totalsegmentator", total_source).status == 0
    assert abdoseg("train", *TINY).status == 0
    shutil.copytree(tmp_path / "workspace", trained)
    return abdoseg


def test_the_whole_line(abdoseg, word_source, total_source, tmp_path):
    out = abdoseg("ingest", "word", word_source)
    assert out.status == 0
    assert "abdoseg status" in out.err
    assert abdoseg("ingest", "totalsegmentator", total_source).status == 0
    status = json.loads(abdoseg("status", "--json").out)
    assert [(s["source"], s["cases"], s["test"]) for s in status["sources"]] == [
        ("totalsegmentator", 2, 1),
        ("word", 4, 1),
    ]
    out = abdoseg("sparsify", "--view", "axial", "--frac", "0.2")
    assert out.status == 0
    assert "axial-20" in out.out
    out = abdoseg("train", *TINY)
    assert out.status == 0
    assert out.err.splitlines()[0] == "view axial-20; 4 training, 0 validation, 2 test cases"
    assert "chosen for this machine" in out.err
    assert "already finished" in abdoseg("train", *TINY).out
    scan = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    out = abdoseg("predict", scan, "-o", tmp_path / "organs.nii.gz", "--device", "cpu")
    assert out.status == 0
    label, image = nib.load(tmp_path / "organs.nii.gz"), nib.load(scan)
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine)
    assert np.asanyarray(label.dataobj).dtype == np.uint8
    names = json.loads((tmp_path / "organs.labels.json").read_text())
    assert [s["name"] for s in names["structures"]][:2] == ["spleen", "right_kidney"]
    for by in ("dataset", "structure", "subject", "modality", "structure,dataset"):
        out = abdoseg("eval", "--by", by, "--format", "json", "--device", "cpu")
        assert out.status == 0
        rows = json.loads(out.out)["rows"]
        assert rows
        for row in rows:
            assert set(by.split(",")) <= set(row)
            assert {"metric", "mean", "std", "n", "ci95"} <= set(row)
    assert abdoseg("eval", "--by", "dataset", "--device", "cpu").status == 0


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_eval_of_each_side_counts_its_cases(line, split):
    rows = json.loads(line("eval", "--split", split, "--by", "subject", "--format", "json").out)["rows"]
    subjects = {row["subject"] for row in rows} - {"all"}
    assert len(subjects) == {"train": 4, "test": 2, "all": 6}[split]


def test_an_empty_split_is_said(line):
    out = line("eval", "--split", "val")
    assert out.status == 2
    assert "its val split is empty (train 4, val 0, test 2" in out.err


@pytest.mark.parametrize("format_", ["csv", "markdown", "latex"])
def test_eval_formats(line, format_):
    out = line("eval", "--by", "dataset", "--format", format_)
    assert out.status == 0
    assert "word" in out.out


def test_eval_of_plain_folders(abdoseg, tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:6, 2:6, 2:6] = 6
    write_nifti(tmp_path / "p" / "a.nii.gz", label, np.eye(4))
    write_nifti(tmp_path / "r" / "a.nii.gz", label, np.eye(4))
    out = abdoseg("eval", "--pred", tmp_path / "p", "--ref", tmp_path / "r", "--by", "structure", "--format", "json")
    rows = {row["structure"]: row for row in json.loads(out.out)["rows"]}
    assert rows["liver"]["mean"] == 100
    write_nifti(tmp_path / "r" / "b.nii.gz", label, np.eye(4))
    out = abdoseg("eval", "--pred", tmp_path / "p", "--ref", tmp_path / "r")
    assert out.status == 2
    assert len(out.err.strip().splitlines()) == 1


def test_quarantine_is_status_one_and_stands_in_status(abdoseg, word_source):
    next(word_source.rglob("imagesTr/word_0002.nii.gz")).write_bytes(b"")
    out = abdoseg("ingest", "word", word_source)
    assert out.status == 1
    assert "word_0002" in out.out
    status = json.loads(abdoseg("status", "--json").out)
    assert list(status["sources"][0]["quarantined"]) == ["word_0002"]
    assert "quarantined" in abdoseg("status").err


def test_amos_ingests_two_cards(abdoseg, tmp_path):
    for number in (1, 507):
        affine = np.diag([-2.0, -2.0, 5.0, 1.0])
        write_nifti(tmp_path / f"amos22/imagesTr/amos_{number:04d}.nii.gz", body((10, 10, 10)) + 1100, affine)
        write_nifti(tmp_path / f"amos22/labelsTr/amos_{number:04d}.nii.gz", np.ones((10, 10, 10), np.uint8), affine)
    assert abdoseg("ingest", "amos", tmp_path / "amos22").status == 0
    sources = json.loads(abdoseg("status", "--json").out)["sources"]
    assert [(s["source"], s["modality"]) for s in sources] == [("amos-ct", ["CT"]), ("amos-mri", ["MR"])]


def test_views_switch_like_branches(line):
    line("sparsify", "--view", "coronal,sagittal", "--frac", 0.5, "--sources", "word", "--name", "half")
    facts = json.loads(line("status", "--json").out)
    assert facts["active_view"] == "half"
    assert facts["views"][0]["cases"] == 3  # of training
    assert line("train", "--dry-run").err.startswith("view half;")
    assert line("train", "--view", "full", "--dry-run").err.startswith("view full;")
    assert line("sparsify", "--view", "full").status == 0
    assert json.loads(line("status", "--json").out)["active_view"] == "full"


def test_dry_run_json_and_settings(line):
    plan = json.loads(line("train", "--dry-run", "--json", "--set", "learning_rate=0.5", "--fold", "1/2").out)
    assert plan["config"]["learning_rate"] == 0.5
    assert plan["config"]["fold"] == [1, 2]
    assert plan["cases"] == {"train": 2, "val": 2, "test": 2}


def test_a_preset_is_the_options_then_the_files(line, tmp_path):
    def planned(*options):
        told = line("train", "--dry-run", "--json", "--device", "cpu", *options)
        assert told.status == 0, told.err
        return json.loads(told.out)["config"]

    file = tmp_path / "demo.toml"
    file.write_text('preset = "demo"\nbatch = 1\n[structure_weights]\nliver = 3\npancreas = 2\n')
    by_file, by_option = planned("--config", file), planned("--config", file, "--preset", "small")
    assert (by_file["preset"], by_file["patch"], by_file["batch"]) == ("demo", [48, 48, 48], 1)
    assert (by_option["preset"], by_option["patch"], by_option["batch"]) == ("small", [64, 64, 64], 1)
    assert planned()["preset"] == "small"
    one = planned("--config", file, "--set", "structure_weights.spleen=2", "--set", "structure_weights.liver=4")
    assert one["structure_weights"] == {"liver": 4, "pancreas": 2, "spleen": 2}
    whole = planned("--config", file, "--set", "structure_weights={spleen=2}")
    assert whole["structure_weights"] == {"spleen": 2}


def test_remove_takes_out_and_ingest_takes_in_again(line, word_source):
    assert line("remove", "word", "word_0001").status == 0
    assert json.loads(line("status", "--json").out)["sources"][1]["cases"] == 3
    assert line("ingest", "word", word_source).status == 0
    assert line("remove", "totalsegmentator").status == 0
    facts = json.loads(line("status", "--json").out)
    assert [s["source"] for s in facts["sources"]] == ["word"]
    assert facts["runs"][0]["changed_cases"] == ["totalsegmentator/s0001", "totalsegmentator/s0002"]


def test_lists_and_cards(abdoseg):
    networks = {row["name"]: row["parameters"] for row in json.loads(abdoseg("list", "networks", "--json").out)}
    assert networks["transunet3d"] == 67_379_697
    assert networks["unet_small"] < 1_000_000
    assert {"self_disambiguation", "background"} <= {
        r["name"] for r in json.loads(abdoseg("list", "methods", "--json").out)
    }
    cards = {row["id"]: row for row in json.loads(abdoseg("cards", "list", "--json").out)}
    assert set(cards["word"]) == {"id", "title", "modality", "annotated"}
    assert "12 -> right_adrenal_gland + left_adrenal_gland" in abdoseg("cards", "show", "word").out
    assert abdoseg("cards", "check", "amos").status == 0
    for what in ("networks", "methods", "samplers", "presets"):
        assert abdoseg("list", what).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status",), "no workspace here"),
        (("train",), "no workspace here"),
        (("ingest", "wrod", "."), "Did you mean word"),
        (("ingest", "word", "nowhere"), "no such folder"),
        (("ingest", "word", "."), "the folder is empty"),
        (("ingest", "missing.toml", "."), "no such card file"),
        (("ingest", "word", "full", "-w", "nowhere://bucket/w"), "give a local folder or a URL"),
        (("list", "network"), "Did you mean networks"),
        (("cards", "show", "btvc"), "Did you mean btcv"),
        (("phantom", "x", "--sources", "wrod"), "Did you mean word"),
        (("predict", "nothing.nii.gz", "-o", "out.nii.gz"), "no workspace here"),
        (("eval", "--pred", "a"), "expected both or none"),
        (("eval", "--split", "tset"), "Did you mean test"),
        (("eval", "--by", "organ"), "organ"),
        (("eval", "--format", "jsno"), "Did you mean json"),
    ],
)
def test_wrong_use_is_one_line_and_status_two(abdoseg, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    arguments = tuple("empty" if a == "." else a for a in arguments)
    out = abdoseg(*arguments)
    assert out.status == 2
    assert message in out.err
    assert "Traceback" not in out.err
    assert len([text for text in out.err.splitlines() if text.startswith("error:")]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--network", "transunet"), "Did you mean transunet3d"),
        (("train", "--preset", "smal"), "Did you mean small"),
        (("train", "--set", "learning_rat=1"), "Did you mean learning_rate"),
        (("train", "--set", "steps"), "expected KEY=VALUE"),
        (("train", "--set", "preset=demo"), "choose it by --preset"),
        (("train", "--fold", "x"), "expected K/N"),
        (("train", "--view", "axal-20"), "view 'axal-20' is not known"),
        (("train", "--sources", "wrd"), "Did you mean word"),
        (("train", "--device", "tpu"), "device 'tpu'"),
        (("sparsify", "--view", "axail"), "Did you mean axial"),
        (("sparsify", "--view", "axial", "--frac", "1.5"), "fraction"),
        (("sparsify", "--view", "axial", "--frac", "0"), "fraction"),
        (("remove", "wrd"), "Did you mean word"),
        (("remove", "word", "word_0099"), "word_0099"),
        (("eval", "--run", "nope"), "run 'nope' is not known"),
        (("predict", "nothing.nii.gz", "-o", "out.nii.gz"), "no such file"),
        (("predict", "nothing.nii.gz", "-o", "out.txt"), "out.txt"),
    ],
)
def test_wrong_use_with_a_workspace(line, arguments, message):
    out = line(*arguments)
    assert out.status == 2
    assert message in out.err
    assert len([text for text in out.err.splitlines() if text.startswith("error:")]) == 1


def test_help_and_import_load_neither_torch_nor_monai():
    code = (
        "import sys, abdoseg, abdoseg.cli\n"
        "from abdoseg.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'monai', 'zarr', 'scipy', 'numba', 'SimpleITK'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["cards", "--help"]])
def test_python_m_abdoseg(arguments):
    done = subprocess.run([sys.executable, "-m", "abdoseg", *arguments], capture_output=True, text=True, check=True)
    assert done.stdout


def test_every_line_fits_eighty_columns(line):
    for arguments in (
        ("status",),
        ("cards", "list"),
        ("list", "networks"),
        ("eval", "--by", "structure,dataset"),
        ("--help",),
    ):
        out = line(*arguments)
        assert max(len(text) for text in out.out.splitlines()) <= 80


def test_predict_a_folder_and_what_is_asked_for_beside(line, word_source, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for scan in sorted(word_source.rglob("imagesTr/*.nii.gz"))[:2]:
        (scans / scan.name).write_bytes(scan.read_bytes())
    given = ("predict", scans, "-o", tmp_path / "out", "--device", "cpu", "--largest", "all", "--min-ml", "liver=0.5")
    out = line(*given)
    assert out.status == 0
    assert "2 predicted, 0 there already, 0 failed" in out.err
    (scans / "broken.nii.gz").write_bytes(b"rubbish")
    out = line(*given)
    assert out.status == 1
    assert "0 predicted, 2 there already, 1 failed" in out.err
    assert "broken: failed" in out.err
    one = next(scans.glob("word*.nii.gz"))
    extras = ("--statistics", tmp_path / "s.json", "--uncertainty", "--tta", "--format", "nifti")
    out = line("predict", one, "-o", tmp_path / "o.nii.gz", "--device", "cpu", *extras)
    assert out.status == 0
    assert "5 forward passes" in out.err
    assert json.loads((tmp_path / "s.json").read_text())["structures"]
    assert nib.load(tmp_path / "o.uncertainty.nii.gz").shape == nib.load(one).shape
    again = line("predict", one, "-o", tmp_path / "o.nii.gz", "--device", "cpu", *extras)
    assert again.status == 0
    assert "is there already" in " ".join(again.err.split())
    assert "next:" in again.err
    told = json.loads((tmp_path / "o.manifest.json").read_text())
    (facts,) = told["scans"].values()
    assert (tmp_path / facts["outputs"][0]).is_file()
    assert len(told["header"]["weights_sha256"]) == len(facts["sha256"]) == 64


def test_predict_explains_its_cost_and_writes_nothing(line, word_source, tmp_path):
    scan = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    out = line("predict", scan, "--explain-cost", "--device", "cpu")
    assert out.status == 0
    told = " ".join(out.err.split())
    assert "16 structures in one pass" in told
    assert "as published" not in told  # its method has no heads made for a structure
    assert line("predict", scan, "--device", "cpu").status == 2
    assert line("predict", "--split", "all", "--explain-cost").status == 2


def test_predict_averages_runs_and_paints(line, word_source, tmp_path):
    assert line("train", *TINY, "--seed", 5, "--name", "other").status == 0
    scan = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    names = sorted(run.name for run in (tmp_path / "workspace" / "runs").iterdir() if run.is_dir())
    both = [word for name in names for word in ("--run", name)]
    out = line("predict", scan, "-o", tmp_path / "o.nii.gz", "--device", "cpu", "--preview", *both)
    assert out.status == 0
    assert len(names) == 2
    assert all(name in out.err for name in names)
    assert plt.imread(tmp_path / "o.png").shape[2] == 4
    assert json.loads((tmp_path / "o.manifest.json").read_text())["header"]["model"] == " + ".join(names)


def test_predict_a_split_on_the_grids_of_its_files(line, word_source, tmp_path):
    given = ("predict", "--split", "all", "-o", tmp_path / "out", "--device", "cpu")
    out = line(*given)
    assert out.status == 0
    assert "6 predicted, 0 there already, 0 failed" in out.err
    scan = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    found, image = nib.load(tmp_path / "out" / "word_word_0001.nii.gz"), nib.load(scan)
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
    assert line("predict", scan, "-o", tmp_path / "o.nii.gz", "--device", "cpu").status == 0
    np.testing.assert_array_equal(found.dataobj, nib.load(tmp_path / "o.nii.gz").dataobj)
    assert "0 predicted, 6 there already, 0 failed" in line(*given).err
    assert "2 predicted" in line("predict", "--split", "test", "-o", tmp_path / "t", "--device", "cpu").err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--split", "test", "--preview"), "does not hold the scans"),
        (("--split", "test", "--format", "dicom-seg"), "refers to the files of a scan"),
        (("--split", "tests"), "--split 'tests' is not known"),
        (("--split", "val"), "its val split is empty"),
        ((), "give a scan, or a folder of scans, or --split"),
        (("nothing.nii.gz", "--split", "test"), "one of them"),
    ],
)
def test_predict_refuses_splits_it_cannot_do(line, tmp_path, options, expected):
    out = line("predict", *options, "-o", tmp_path / "out", "--device", "cpu")
    assert out.status == 2
    assert expected in " ".join(out.err.split())


def test_predict_by_several_processes(line, word_source, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for scan in sorted(word_source.rglob("imagesTr/*.nii.gz"))[:3]:
        (scans / scan.name).write_bytes(scan.read_bytes())
    (scans / "a_broken.nii.gz").write_bytes(b"rubbish")
    command = ["predict", str(scans), "-o", str(tmp_path / "out"), "--device", "cpu", "--nproc", "2"]
    # A process of its own: it starts others with the words it was started with.
    out = subprocess.run([sys.executable, "-m", "abdoseg", *command], capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert "3 predicted, 0 there already, 1 failed" in out.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3
    (scans / "a_broken.nii.gz").unlink()
    again = line("predict", scans, "-o", tmp_path / "out", "--device", "cpu")
    assert "0 predicted, 3 there already, 0 failed" in again.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--min-ml", "liver"), "expected NAME=MILLILITRES"),
        (("--min-ml", "livr=2"), "livr"),
        (("--largest", "livr"), "livr"),
        (("--weights", "linear"), "--weights 'linear' is not known"),
        (("--overlap", "1"), "overlap"),
        (("--format", "dicm"), "format 'dicm' is not known"),
        (("--statistics", "s.txt"), "json or"),
        (("--nproc", "2"), "share the scans of a folder"),
        (("--run", "nobody"), "nobody"),
    ],
)
def test_predict_refuses_what_it_cannot_do(line, word_source, tmp_path, options, expected):
    scan = next(word_source.rglob("imagesTr/word_0001.nii.gz"))
    out = line("predict", scan, "-o", tmp_path / "o.nii.gz", "--device", "cpu", *options)
    assert out.status == 2
    assert expected in " ".join(out.err.split())
    assert len(out.err.strip().splitlines()) <= 4
