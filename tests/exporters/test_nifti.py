"""Label maps as NIfTI: the scan's grid, integers, nothing half-written, nothing about the patient."""

import errno
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, UnknownNameError, WorkspaceError
from abdoseg.exporters import EXPORTERS, exporter_for, require_writable
from abdoseg.exporters.nifti import legend_path, write_label_map


def orthogonal(angle=0.2):
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]]) @ turn * [0.8, 0.9, 3.0]
    affine[:3, 3] = [11.5, -200.25, 33]
    return affine


@pytest.fixture
def label():
    return np.random.default_rng(0).integers(0, 17, (6, 7, 8)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path, label, suffix):
    path = tmp_path / f"organs{suffix}"
    written = write_label_map(label, orthogonal(), path, ABDOMEN)
    assert written == (path, tmp_path / "organs.labels.json")
    image = nib.load(path)
    assert image.header.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), label)
    for form, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, orthogonal(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_other_software_sees_the_same_labels_at_the_same_place(tmp_path, label):
    path = tmp_path / "organs.nii.gz"
    write_label_map(label, orthogonal(), path, ABDOMEN)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), label)
    lps = image.TransformContinuousIndexToPhysicalPoint((1.0, 2.0, 3.0))
    np.testing.assert_allclose(np.array(lps) * [-1, -1, 1], (orthogonal() @ [1, 2, 3, 1])[:3], atol=1e-4)


def test_same_labels_make_the_same_bytes(tmp_path, label):
    path = tmp_path / "a.nii.gz"
    write_label_map(label, orthogonal(), path, ABDOMEN)
    first = path.read_bytes()
    write_label_map(label, orthogonal(), path, ABDOMEN)
    assert path.read_bytes() == first


def test_legend_lists_the_structures_with_the_anatomys_ids(tmp_path, label):
    path = tmp_path / "organs.nii.gz"
    write_label_map(label, np.eye(4), path, ABDOMEN)
    legend = json.loads(legend_path(path).read_text())
    assert [row["name"] for row in legend["structures"]] == list(ABDOMEN.names)
    assert [row["id"] for row in legend["structures"]] == list(range(1, 17))
    first = ABDOMEN.structure(1)
    assert legend["structures"][0] == {"id": 1, "name": "spleen", "title": "spleen", "colour": first.colour}
    assert legend["background"] == 0
    assert legend["file"] == "organs.nii.gz"
    write_label_map(label, np.eye(4), path, ABDOMEN, structures=("liver", "spleen"))
    legend = json.loads(legend_path(path).read_text())
    assert [(row["id"], row["name"]) for row in legend["structures"]] == [(1, "spleen"), (6, "liver")]


def test_reference_gives_both_forms_and_nothing_else(tmp_path, label):
    # A header whose sform is slightly sheared and whose qform differs, with a patient's name in it.
    sform = orthogonal()
    sform[0, 0] += 2e-3
    qform = orthogonal()
    qform[:3, 3] += 0.5
    scan = nib.Nifti1Image(np.zeros(label.shape, np.int16), sform)
    scan.set_sform(sform, 2)
    scan.set_qform(qform, 1)
    scan.header["descrip"] = b"DOE^JOHN"
    scan.header["aux_file"] = b"DOE"
    scan.header["db_name"] = b"DOE"
    scan.header["intent_name"] = b"DOE"
    scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JOHN"))
    nib.save(scan, tmp_path / "scan.nii.gz")
    path = tmp_path / "organs.nii"
    write_label_map(label, orthogonal(), path, ABDOMEN, reference=tmp_path / "scan.nii.gz")
    image, scan = nib.load(path), nib.load(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(image.get_sform(), scan.get_sform())
    np.testing.assert_allclose(image.get_qform(), scan.get_qform(), atol=1e-5)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert b"DOE" not in path.read_bytes()


@pytest.mark.parametrize("coded", ["qform", "sform", "neither"])
def test_reference_with_one_form_or_none(tmp_path, label, coded):
    scan = nib.Nifti1Image(np.zeros(label.shape, np.int16), orthogonal())
    scan.set_qform(orthogonal(), 1 if coded == "qform" else 0)
    scan.set_sform(orthogonal(), 1 if coded == "sform" else 0)
    nib.save(scan, tmp_path / "scan.nii")
    affine = nib.load(tmp_path / "scan.nii").affine
    path = tmp_path / "organs.nii"
    write_label_map(label, affine, path, ABDOMEN, reference=tmp_path / "scan.nii")
    for form, code in (nib.load(path).get_qform(coded=True), nib.load(path).get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, affine, atol=1e-4)


def test_reference_of_another_grid_or_format_is_left_alone(tmp_path, label):
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "other.nii")
    shifted = orthogonal()
    shifted[2, 3] += 5
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.int16), shifted), tmp_path / "shifted.nii")
    for name in ("other.nii", "shifted.nii", "series.nrrd"):
        write_label_map(label, orthogonal(), tmp_path / "organs.nii", ABDOMEN, reference=tmp_path / name)
        np.testing.assert_allclose(nib.load(tmp_path / "organs.nii").affine, orthogonal(), atol=1e-4)


def test_folders_are_created(tmp_path, label):
    path = tmp_path / "new" / "deeper" / "organs.nii.gz"
    write_label_map(label, np.eye(4), path, ABDOMEN)
    assert sorted(p.name for p in path.parent.iterdir()) == ["organs.labels.json", "organs.nii.gz"]


def test_disk_full_leaves_the_old_files_and_nothing_else(tmp_path, label, monkeypatch):
    path = tmp_path / "organs.nii.gz"
    write_label_map(label, np.eye(4), path, ABDOMEN)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(image, draft):
        draft.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(
        WorkspaceError, match=r"organs\.nii\.gz: cannot be written \(No space left on device\)"
    ) as caught:
        write_label_map(label + 1, np.eye(4), path, ABDOMEN)
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_killed_while_writing_leaves_nothing(tmp_path, label, monkeypatch):
    def killed(image, draft):
        draft.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        write_label_map(label, np.eye(4), tmp_path / "organs.nii.gz", ABDOMEN)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path, label):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_label_map(label, np.eye(4), tmp_path / "file" / "organs.nii.gz", ABDOMEN)
    with pytest.raises(WorkspaceError, match="cannot be written"):
        require_writable(tmp_path / "file" / "organs.nii.gz")


def test_require_writable_leaves_no_trace(tmp_path):
    require_writable(tmp_path / "sub" / "organs.nii.gz")
    assert list((tmp_path / "sub").iterdir()) == []
    with pytest.raises(WorkspaceError, match="is a folder"):
        require_writable(tmp_path / "sub")


def test_unknown_structure_and_wrong_label(tmp_path, label):
    with pytest.raises(UnknownNameError, match="spleen"):
        write_label_map(label, np.eye(4), tmp_path / "a.nii", ABDOMEN, structures=("splen",))
    with pytest.raises(ValueError, match="expected uint8"):
        write_label_map(label.astype(np.int16), np.eye(4), tmp_path / "a.nii", ABDOMEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["organs.nii.gz", "organs.NII.GZ", "a.b.nii"])
def test_exporter_by_suffix(tmp_path, name):
    assert exporter_for(tmp_path / name) in EXPORTERS.values()


@pytest.mark.parametrize("name", ["organs.png", "organs", "organs.gz", ".nii.gz"])
def test_unknown_suffix_lists_the_known(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.nii\.gz or \.nii"):
        exporter_for(tmp_path / name)


def test_capital_suffix_is_written(tmp_path, label):
    path = tmp_path / "A.NII.GZ"
    assert write_label_map(label, np.eye(4), path, ABDOMEN) == (path, tmp_path / "A.labels.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["A.NII.GZ", "A.labels.json"]
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    np.testing.assert_array_equal(np.asanyarray(nib.load(path).dataobj), label)
