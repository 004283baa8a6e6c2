"""Cases for other programs: what is known voxel by voxel, nothing more and nothing less."""

import json

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from abdoseg.annotation import Annotation
from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.sharing.groups import known_label, voxel_groups
from abdoseg.sharing.nnunet import nnunet_label
from abdoseg.steps.export import CaseOptions, export_cases
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import sparsify
from abdoseg.store import Settings, Workspace
from tests.conftest import word_case

SHAPE = (4, 3, 5)


@st.composite
def known_scans(draw):
    """A label map, groups and what each group knows, of 4 structures."""
    n_groups = draw(st.integers(1, 3))
    rows = draw(arrays.arrays(bool, (n_groups, 4)))
    group = draw(arrays.arrays(np.int32, SHAPE, elements=st.integers(0, n_groups - 1)))
    label = draw(arrays.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 4, 255])))
    listed = draw(st.lists(st.integers(1, 4), min_size=1, unique=True).map(sorted))
    return label, group, rows, listed


@given(known_scans())
def test_nnunet_ignores_what_nobody_knows(scan):
    label, group, rows, listed = scan
    found = nnunet_label(label, group, rows, listed)
    ignore = len(listed) + 1
    for at in np.ndindex(SHAPE):
        known, value = rows[group[at]], label[at]
        if value == 255:
            assert found[at] == ignore
        elif value in listed and known[value - 1]:
            assert found[at] == listed.index(value) + 1
        elif all(known[c - 1] for c in listed):
            assert found[at] == 0
        else:
            assert found[at] == ignore


@given(known_scans())
def test_labels_that_a_group_does_not_know_are_not_shown(scan):
    label, group, rows, _ = scan
    found = known_label(label, group, rows)
    for at in np.ndindex(SHAPE):
        value = label[at]
        shown = value if value in (0, 255) or rows[group[at]][value - 1] else 0
        assert found[at] == shown


@st.composite
def annotated_scans(draw):
    """A label map and an annotation of 4 structures with slice lists along none to three axes."""
    n_groups = draw(st.integers(1, 3))
    rows = draw(arrays.arrays(bool, (n_groups, 4)))
    axes = draw(st.lists(st.sampled_from([0, 1, 2]), unique=True))
    slices = {
        axis: draw(arrays.arrays(np.int32, SHAPE[axis], elements=st.integers(0, n_groups - 1))) for axis in sorted(axes)
    }
    label = draw(arrays.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 4, 255])))
    return Annotation(rows, slices), label


@given(annotated_scans())
def test_a_voxel_knows_what_any_of_its_slices_knows(scan):
    annotation, label = scan
    group, rows = voxel_groups(annotation, label)
    for at in np.ndindex(SHAPE):
        if label[at] == 255:
            expected = np.zeros(4, dtype=bool)
        elif annotation.slices:
            expected = np.any([annotation.rows[groups[at[axis]]] for axis, groups in annotation.slices.items()], axis=0)
        else:
            expected = annotation.rows[0]
        np.testing.assert_array_equal(rows[group[at]], expected)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for number in range(1, 4):
        word_case(folder / "raw", number)
    word_case(folder / "raw", 4, "Ts")
    workspace = Workspace.create(folder / "workspace", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), folder / "raw")
    sparsify(workspace, ("axial",), 0.5, name="half")
    return workspace


def test_nnunet_raw(made, tmp_path):
    report = export_cases(made, ["word"], "nnunet", tmp_path, CaseOptions(number=7, name="mine"))
    folder = tmp_path / "Dataset007_mine"
    assert report.folder == folder
    assert report.written == 4
    facts = json.loads((folder / "dataset.json").read_text())
    assert facts["channel_names"] == {"0": "CT"}
    assert facts["numTraining"] == len(list((folder / "imagesTr").iterdir())) == 3
    assert len(list((folder / "imagesTs").iterdir())) == 1
    values = list(facts["labels"].values())
    assert values == list(range(len(values)))
    if "ignore" in facts["labels"]:  # nnU-Net wants it last
        assert facts["labels"]["ignore"] == max(values)
    for key in ("word/word_0001", "word/word_0004"):
        case = made.read_case(key)
        part = "Ts" if key.endswith("4") else "Tr"
        name = key.replace("/", "_")
        (image,) = (folder / f"images{part}").glob(f"*{name[-4:]}_0000.nii.gz")
        found = nib.load(image)
        np.testing.assert_allclose(found.affine, case.facts.affine_array, atol=1e-4)
        low, high = case.facts.window
        np.testing.assert_allclose(found.get_fdata(), low + case.intensity() * (high - low), atol=0.51)
        (label,) = (folder / f"labels{part}").glob(f"*{name[-4:]}.nii.gz")
        numbers = np.asanyarray(nib.load(label).dataobj)
        for structure, number in facts["labels"].items():
            if structure not in ("background", "ignore"):
                drawn = case.label == made.anatomy.id_of(structure)
                np.testing.assert_array_equal(numbers == number, drawn, err_msg=structure)


def test_a_view_is_ignored_between_its_slices(made, tmp_path):
    full = export_cases(made, ["word"], "nnunet", tmp_path / "full")
    half = export_cases(made, ["word", "half"], "nnunet", tmp_path / "half")
    facts = json.loads((half.folder / "dataset.json").read_text())
    ignore = facts["labels"]["ignore"]
    for path in sorted((half.folder / "labelsTr").iterdir()):
        sparse = np.asanyarray(nib.load(path).dataobj)
        whole = np.asanyarray(nib.load(full.folder / "labelsTr" / path.name).dataobj)
        hidden = (sparse == ignore).all(axis=(0, 1))
        assert 0.3 < hidden.mean() < 0.7
        np.testing.assert_array_equal(sparse[:, :, ~hidden], whole[:, :, ~hidden])
    for path in (half.folder / "labelsTs").iterdir():  # views are of training cases
        assert not (np.asanyarray(nib.load(path).dataobj) == ignore).all(axis=(0, 1)).any()
    assert any("nnU-Net cannot say" in note for note in half.notes)


def test_hdf5(made, tmp_path):
    report = export_cases(made, [], "h5", tmp_path)
    assert report.written == 4
    for path in tmp_path.glob("*.h5"):
        with h5py.File(path) as file:
            case = made.read_case(f"{file.attrs['source']}/{file.attrs['case']}")
            np.testing.assert_array_equal(file["image"][:], case.image)
            image = file["image"][:] * file["image"].attrs["scale"] + file["image"].attrs["offset"]
            np.testing.assert_allclose(image, case.intensity(), atol=1e-6)
            group, rows = voxel_groups(case.facts.groups, case.label)
            np.testing.assert_array_equal(file["group"][:], group)
            np.testing.assert_array_equal(file["annotated"][:], rows)
            np.testing.assert_array_equal(file["label"][:], known_label(case.label, group, rows))
            assert list(file.attrs["structures"]) == list(made.anatomy.names)


def test_nifti(made, tmp_path):
    export_cases(made, [], "nifti", tmp_path)
    assert len(list((tmp_path / "images").iterdir())) == len(list((tmp_path / "labels").iterdir())) == 4
    names = json.loads((tmp_path / "labels.json").read_text())
    assert [s["name"] for s in names["structures"]] == list(made.anatomy.names)


@pytest.mark.parametrize("to", ["nnunet", "h5", "nifti"])
def test_what_is_done_is_not_done_again_and_what_is_lost_is(made, tmp_path, to):
    first = export_cases(made, [], to, tmp_path)
    again = export_cases(made, [], to, tmp_path)
    assert (again.written, again.present) == (0, 4)
    victim = next(p for p in sorted(first.folder.rglob("*")) if p.is_file() and p.name.endswith((".h5", ".nii.gz")))
    victim.unlink()
    third = export_cases(made, [], to, tmp_path)
    assert (third.written, third.present) == (1, 3)
    assert victim.is_file()


def test_another_export_is_not_overwritten(made, tmp_path):
    export_cases(made, [], "nifti", tmp_path)
    with pytest.raises(ConfigError, match=r"--force|another"):
        export_cases(made, ["half"], "nifti", tmp_path)
    assert export_cases(made, ["half"], "nifti", tmp_path, CaseOptions(force=True)).written == 4


@settings(max_examples=3, deadline=None)
@given(st.integers(2, 3))
def test_folds_are_those_of_training(made, tmp_path_factory, n):
    from abdoseg.config import make_config
    from abdoseg.runs import freeze

    report = export_cases(made, [], "nnunet", tmp_path_factory.mktemp("folds"), CaseOptions(folds=n))
    folds = json.loads((report.folder / "splits_final.json").read_text())
    assert len(folds) == n
    for k, fold in enumerate(folds, start=1):
        data = freeze(made, make_config("small", {"fold": (k, n), "view": "full"}))
        for part in ("train", "val"):
            assert {name[-4:] for name in fold[part]} == {key[-4:] for key in data.keys(part)}


@pytest.mark.parametrize(
    ("names", "to", "options", "kind", "told"),
    [
        (["wrod"], "nnunet", {}, UnknownNameError, "wrod"),
        (["word"], "nnunt", {}, UnknownNameError, "nnunt"),
        (["half", "full"], "h5", {}, ConfigError, "one export shows one view"),
        (["word"], "h5", {"modality": "MR"}, ConfigError, "no case to export"),
        (["word"], "nnunet", {"number": 1000}, ConfigError, "1 to 999"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(made, tmp_path, names, to, options, kind, told):
    with pytest.raises(kind, match=told) as caught:
        export_cases(made, names, to, tmp_path / "out", CaseOptions(**options))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command(made, abdoseg, tmp_path):
    out = abdoseg("export", "word", "half", "--to", "nnunet", "-o", tmp_path / "raw", "-w", made.path, "--jobs", 1)
    assert out.status == 0, out.err
    assert (tmp_path / "raw" / "Dataset501_abdoseg" / "dataset.json").is_file()
    assert "nnU-Net cannot say" in " ".join(out.err.split())
    wrong = abdoseg("export", "word", "--to", "zip", "-o", tmp_path / "x", "-w", made.path)
    assert wrong.status == 2
    assert "zip" in wrong.err
