"""`abdoseg eval` on plain folders, as typed: metrics, comparison, other grids, and strange files told in one line."""

import csv
import gzip
import io
import json
import re
import struct

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import write_nifti

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
LIVER, SPLEEN = 6, 1


def organs(shift=0):
    label = np.zeros((16, 14, 12), np.uint8)
    label[2 + shift : 8 + shift, 3:9, 2:9] = LIVER
    label[11:14, 4:9, 3:8] = SPLEEN
    return label


@pytest.fixture
def folders(tmp_path):
    """Seven references, predictions one voxel off (p) and two (q)."""
    for i in range(7):
        write_nifti(tmp_path / "r" / f"{i}.nii.gz", organs(), AFFINE)
        write_nifti(tmp_path / "p" / f"{i}.nii.gz", organs(1), AFFINE)
        write_nifti(tmp_path / "q" / f"{i}.nii.gz", organs(2), AFFINE)
    return ("--pred", tmp_path / "p", "--ref", tmp_path / "r")


def rows_of(result, *keys):
    assert result.status == 0, result.err
    return {tuple(row[key] for key in keys): row for row in json.loads(result.out)["rows"]}


def test_metrics(abdoseg, folders):
    names = "dsc,nsd,hd95,volume_error,volume_difference"
    rows = rows_of(abdoseg("eval", *folders, "--metrics", names, "--format", "json"), "metric", "structure")
    assert rows["hd95", "liver"]["mean"] == 1.0
    assert rows["dsc", "liver"]["mean"] == pytest.approx(100 * 5 / 6)
    assert rows["nsd", "liver"]["mean"] == 100.0
    assert rows["volume_error", "liver"]["mean"] == rows["volume_difference", "spleen"]["mean"] == 0.0
    strict = abdoseg("eval", *folders, "--metrics", "nsd", "--tolerance", "liver=0.5", "--format", "json")
    assert rows_of(strict, "structure")["liver",]["mean"] < 90
    table = abdoseg("eval", *folders, "--metrics", names)
    assert max(map(len, table.out.splitlines())) <= 80


def test_what_has_no_distance_is_said(abdoseg, folders, tmp_path):
    label = organs()
    label[0, 0, 0] = 255
    write_nifti(tmp_path / "r" / "0.nii.gz", label, AFFINE)
    write_nifti(tmp_path / "p" / "1.nii.gz", organs() * (organs() == LIVER), AFFINE)
    said = abdoseg("eval", *folders, "--metrics", "hd95", "--format", "json")
    text = " ".join(said.err.split())
    assert "hd95: 2 structures (summed over cases) left out: their references are known in part" in text
    assert "hd95: 1 structure (summed over cases) left out: they were not predicted" in text
    assert rows_of(said, "structure")["spleen",]["n"] == 5
    counted = abdoseg("eval", *folders, "--metrics", "hd95", "--one-sided", "diagonal", "--format", "json")
    assert rows_of(counted, "structure")["spleen",]["n"] == 6


def test_comparison_of_folders(abdoseg, folders, tmp_path):
    both = (*folders, "--pred-b", tmp_path / "q")
    rows = rows_of(abdoseg("eval", *both, "--format", "json"), "structure")
    liver = rows["liver",]
    assert (liver["n"], liver["difference"]) == (7, pytest.approx(100 / 6))
    assert liver["p"] == pytest.approx(2 / 2**7)
    assert liver["p_holm"] == pytest.approx(2 * liver["p"])  # two structures
    assert rows["spleen",]["p"] == 1.0
    assert list(rows) == [("spleen",), ("liver",), ("all",)]
    table = abdoseg("eval", *both)
    assert "A − B" in table.out
    assert max(map(len, table.out.splitlines())) <= 80
    assert len(list(csv.reader(io.StringIO(abdoseg("eval", *both, "--format", "csv").out.strip())))) == 4
    for i in range(1, 7):
        for side in "pqr":
            (tmp_path / side / f"{i}.nii.gz").unlink()
    few = abdoseg("eval", *both, "--format", "json")
    assert "no p value in 2 of 3 rows: fewer than 6 pairs differ" in " ".join(few.err.split())
    assert rows_of(few, "structure")["liver",]["p"] is None


def test_comparison_of_runs(abdoseg, word_source):
    assert abdoseg("ingest", "word", word_source).status == 0
    for seed in (1, 2):
        tiny = ("--steps", 2, "--set", "patch=[16, 16, 16]", "--device", "cpu")
        assert abdoseg("train", *tiny, "--seed", seed, "--name", f"run{seed}").status == 0
    common = ("--split", "all", "--device", "cpu", "--format", "json")
    compared = rows_of(abdoseg("eval", "--compare", "run1", "run2", *common), "structure")
    for side, run in (("mean_a", "run1"), ("mean_b", "run2")):
        alone = rows_of(abdoseg("eval", "--run", run, *common), "structure")
        for (structure,), row in compared.items():
            assert structure == "all" or row[side] == pytest.approx(alone[structure,]["mean"])
    assert compared["all",]["n"] == 4


@pytest.mark.parametrize("lacking", "pqr")
def test_comparison_keeps_its_order_where_the_first_case_lacks_a_structure(abdoseg, folders, tmp_path, lacking):
    write_nifti(tmp_path / lacking / "0.nii.gz", organs() * (organs() == LIVER), AFFINE)
    both = (*folders, "--pred-b", tmp_path / "q", "--metrics", "hd95,dsc")
    rows = rows_of(abdoseg("eval", *both, "--format", "json"), "metric", "structure")
    assert list(rows) == [(m, s) for m in ("hd95", "dsc") for s in ("spleen", "liver", "all")]
    assert rows["hd95", "spleen"]["n"] == 6
    alone = rows_of(abdoseg("eval", *folders, "--metrics", "hd95,dsc", "--format", "json"), "metric", "structure")
    assert list(alone) == [(m, s) for m in ("hd95", "dsc") for s in ("spleen", "liver", "average")]


def test_missing_predictions_name_the_option_as_typed(abdoseg, folders, tmp_path):
    (tmp_path / "p" / "0.nii.gz").unlink()
    refused = abdoseg("eval", *folders)
    assert refused.status == 2
    options = re.findall(r"--missing \w+", refused.err)
    assert options == ["--missing zero", "--missing skip"]
    n = {}
    for option in options:
        found = abdoseg("eval", *folders, *option.split(), "--format", "json")
        n[option] = rows_of(found, "structure")["liver",]["n"]
    assert n == {"--missing zero": 7, "--missing skip": 6}


def test_latex_names_the_folder_and_is_laid_out_as_in_the_paper(abdoseg, folders, tmp_path):
    (tmp_path / "p").rename(tmp_path / "my_model")
    folders = ("--pred", tmp_path / "my_model", *folders[2:])
    lines = abdoseg("eval", *folders, "--format", "latex").out.splitlines()
    assert lines[3:] == [
        r"Method & Metric & Sp & L & Average \\",
        r"\midrule",
        r"my\_model & dsc (\%) & 100.0 & 83.3 & 91.7 \\",
        r" &  & $\pm$0.0 & $\pm$0.0 & $\pm$0.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    by_dataset = abdoseg("eval", *folders, "--format", "latex", "--by", "dataset", "--metrics", "dsc,hd95").out
    assert r"Method & Metric & r & Overall \\" in by_dataset
    assert r" & hd95 (mm) & 0.5 & 0.5 \\" in by_dataset
    one = ("--pred", tmp_path / "my_model" / "0.nii.gz", "--ref", tmp_path / "r" / "0.nii.gz")
    assert r"0 & dsc (\%) &" in abdoseg("eval", *one, "--format", "latex").out


def test_averages_tell_their_cases(abdoseg, folders):
    average = rows_of(abdoseg("eval", *folders, "--format", "json"), "structure")["average",]
    assert (average["n"], average["cases"]) == (2, 7)
    assert re.search(r"average .* 2 \(7\)", abdoseg("eval", *folders).out)


def test_other_grids_are_refused_or_resampled(abdoseg, folders, tmp_path):
    coarse = np.zeros((18, 8, 6), np.uint8)  # another origin, spacing and extent; each voxel holds whole ones
    fine = np.zeros((18, 16, 12), np.uint8)
    fine[2:, :14] = organs(1)
    for y in range(8):
        for z in range(6):
            coarse[:, y, z] = fine[:, 2 * y, 2 * z]
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    affine[0, 3] = -2.0
    write_nifti(tmp_path / "p" / "0.nii.gz", coarse, affine)
    refused = abdoseg("eval", *folders)
    assert refused.status == 2
    assert "expected the reference's (16, 14, 12); resample" in " ".join(refused.err.split())
    assert "--resample" in refused.err
    found = abdoseg("eval", *folders, "--resample", "--by", "subject,structure", "--format", "json")
    assert "0.nii.gz: brought to the reference's grid by nearest neighbour" in found.err
    rows = rows_of(found, "subject", "structure")
    assert 70 < rows["0", "liver"]["mean"] < 100
    assert rows["1", "liver"]["mean"] == pytest.approx(100 * 5 / 6)


def test_resampling_an_oblique_grid_back_is_exact(abdoseg, folders, tmp_path):
    """The same voxels in a larger array, turned and flipped: nothing is lost."""
    larger = np.pad(organs(1), 3)[::-1].transpose(1, 0, 2)
    affine = np.zeros((4, 4))
    affine[0, 1], affine[1, 0], affine[2, 2], affine[3, 3] = -1.0, 1.0, 2.0, 1.0
    affine[:3, 3] = 18, -3, -6
    write_nifti(tmp_path / "p" / "0.nii.gz", np.ascontiguousarray(larger), affine)
    found = abdoseg("eval", *folders, "--resample", "--by", "subject,structure", "--format", "json")
    assert rows_of(found, "subject", "structure")["0", "liver"]["mean"] == pytest.approx(100 * 5 / 6)


def edit_header(path, offset, form, *values):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + struct.calcsize(form)] = struct.pack(form, *values)
    path.write_bytes(gzip.compress(bytes(raw)))


def rgb(path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((16, 14, 12), kind), AFFINE), path)


def replaced_by_folder(path):
    path.unlink()
    path.mkdir()


def put(array, affine=AFFINE):
    return lambda path: write_nifti(path, array, affine)


floats = organs().astype(np.float32)
STRANGE = {
    "not a number": (put(np.where(floats > 0, np.nan, 0)), "found the value nan"),
    "huge": (put(np.where(floats > 0, 1e30, 0).astype(np.float32)), "found label values 65536"),
    "probabilities": (put(floats / 7), "whole numbers"),
    "negative": (put(organs().astype(np.int16) - 1), "found label values -1"),
    "other structures": (put(organs() * 20), "found label values 20, 120"),
    "unknown predicted": (put(np.full((16, 14, 12), 255, np.uint8)), "found label values 255"),
    "colours": (rgb, "RGB|colour|expected"),
    "4-D": (put(np.zeros((16, 14, 12, 2), np.uint8)), "4-D"),
    "2-D": (put(np.zeros((16, 14), np.uint8)), "2-D|expected"),
    "one slice": (put(organs()[:, :, :1]), r"found shape \(16, 14, 1\), expected at least 2 voxels"),
    "shifted": (put(organs(), AFFINE + np.eye(4)[:, [0, 1, 3, 2]] * [0, 0, 0, 9]), "voxels off|off orthonormal"),
    "sheared": (put(organs(), AFFINE + np.eye(4, k=1)), "sheared"),
    "empty file": (lambda p: p.write_bytes(b""), "empty|damaged|cannot be read|cut off"),
    "text": (lambda p: p.write_text("organs"), "damaged|cannot be read|not"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-60]), "damaged|cut off"),
    "half of the voxels": (
        lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())[:900])),
        "cannot be read|cut off|damaged|holds",
    ),
    "a header of 16 GB": (lambda p: edit_header(p, 40, "<8h", 3, 2520, 2520, 2520, 1, 1, 1, 1), "fetch|holds|cut off"),
    "a negative size": (lambda p: edit_header(p, 40, "<8h", 3, -4, 14, 12, 1, 1, 1, 1), "damaged|cannot|header"),
    "a folder": (replaced_by_folder, "DICOM|no DICOM|folder|directory"),
}


@pytest.mark.parametrize("side", ["p", "r"])
@pytest.mark.parametrize("fault", STRANGE)
def test_strange_files_are_one_clear_line(abdoseg, folders, tmp_path, fault, side):
    make, expected = STRANGE[fault]
    if fault == "unknown predicted" and side == "r":
        pytest.skip("255 is allowed in a reference")
    path = tmp_path / side / "0.nii.gz"
    make(path)
    result = abdoseg("eval", *folders)
    assert result.status == 2
    errors = [line for line in result.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "Traceback" not in result.err
    assert re.search(expected, errors[0]), errors[0]


OPTIONS = {
    "no such metric": (("--metrics", "dice"), "metric 'dice' is not known"),
    "a metric twice": (("--metrics", "dsc,dsc"), "expected each name once"),
    "a tolerance without a name": (("--tolerance", "5"), "expected STRUCTURE=MM, as liver=5"),
    "a tolerance of words": (("--tolerance", "liver=wide"), "expected STRUCTURE=MM"),
    "a tolerance of nobody": (("--tolerance", "livre=5"), "Did you mean liver"),
    "a negative tolerance": (("--tolerance", "liver=-5"), "tolerance of liver: found -5 mm; expected 0 or more"),
    "an endless tolerance": (("--tolerance", "liver=inf"), "expected 0 or more"),
    "a way to count": (("--one-sided", "worst"), "--one-sided 'worst' is not known"),
    "runs and folders": (("--compare", "a", "b"), "for folders give --pred-b"),
    "a grouped comparison": (("--pred-b", "q", "--by", "dataset"), "leave --by out"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options_are_one_clear_line(abdoseg, folders, name):
    options, expected = OPTIONS[name]
    result = abdoseg("eval", *folders, *options)
    assert result.status == 2
    assert len(result.err.strip().splitlines()) == 1
    assert expected in result.err


@pytest.mark.parametrize("options", [("--pred-b", "q"), ("--resample",)])
def test_folder_options_without_folders(abdoseg, options):
    result = abdoseg("eval", *options)
    assert (result.status, "expected --pred and --ref too" in result.err) == (2, True)
