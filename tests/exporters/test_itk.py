"""NRRD and MetaImage: the scan's grid for other software, and what Slicer reads of a segmentation."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import UnknownNameError, WorkspaceError
from abdoseg.exporters import FORMATS, Algorithm
from abdoseg.readers import read_scan
from tests.exporters.test_nifti import orthogonal

FILES = {"nrrd": ["a.nrrd", "a.seg.nrrd"], "metaimage": ["a.mha"]}
NAMED = [(name, file) for name, files in FILES.items() for file in files]


@pytest.fixture
def label():
    return np.random.default_rng(0).choice(np.array([0, 1, 6, 16], np.uint8), (6, 7, 8))


@pytest.mark.parametrize(("name", "file"), NAMED)
@pytest.mark.parametrize("order", ["C", "F"])
def test_round_trip(tmp_path, label, name, file, order):
    written = FORMATS[name].write(np.asarray(label, order=order), orthogonal(), tmp_path / file, ABDOMEN)
    assert written[0] == tmp_path / file
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)
    scan = read_scan(tmp_path / file)
    np.testing.assert_array_equal(scan.array, label)
    assert scan.array.dtype == np.uint8
    np.testing.assert_allclose(scan.affine, orthogonal(), atol=1e-9)
    image = sitk.ReadImage(str(tmp_path / file))
    lps = image.TransformContinuousIndexToPhysicalPoint((1.0, 2.0, 3.0))
    np.testing.assert_allclose(np.array(lps) * [-1, -1, 1], (orthogonal() @ [1, 2, 3, 1])[:3], atol=1e-6)


def test_slicer_finds_names_colours_and_terms(tmp_path, label):
    path = tmp_path / "a.seg.nrrd"
    label[:2] = label[:, -1] = 0
    FORMATS["nrrd"].write(
        label, np.eye(4), path, ABDOMEN, ("liver", "left_kidney"), algorithm=Algorithm("m", version="1")
    )
    image = sitk.ReadImage(str(path))
    field = image.GetMetaData
    assert [field(f"Segment{i}_{key}") for i in (0, 1) for key in ("LabelValue", "ID", "Name", "Layer")] == [
        *("3", "left_kidney", "left kidney", "0"),
        *("6", "liver", "liver", "0"),
    ]
    assert not image.HasMetaDataKey("Segment2_ID")
    colour = [round(float(c) * 255) for c in field("Segment1_Color").split()]
    assert colour == [0xF5, 0x6D, 0x10]
    where = np.argwhere(label == 6)
    low, high = where.min(0), where.max(0)
    assert field("Segment1_Extent") == " ".join(f"{a} {b}" for a, b in zip(low, high, strict=True))
    assert field("Segment0_Extent") == "0 -1 0 -1 0 -1"
    assert "~SCT^64033007^Kidney~SCT^7771000^Left~" in field("Segment0_Tags")
    assert "~SCT^10200004^Liver~^^~" in field("Segment1_Tags")
    assert field("Segmentation_MasterRepresentation") == "Binary labelmap"
    assert field("abdoseg_made_by") == "abdoseg m (1)"


def test_a_meta_image_has_its_side_file(tmp_path, label):
    written = FORMATS["metaimage"].write(
        label, np.eye(4), tmp_path / "a.mha", ABDOMEN, ("liver",), algorithm=Algorithm()
    )
    assert written[1] == tmp_path / "a.labels.json"
    legend = json.loads(written[1].read_text())
    assert [row["id"] for row in legend["structures"]] == [6]
    assert legend["made_by"]["name"] == "abdoseg"


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_what_cannot_be_written(tmp_path, label, name, file, monkeypatch):
    write = FORMATS[name].write
    with pytest.raises(UnknownNameError, match="splen"):
        write(label, np.eye(4), tmp_path / file, ABDOMEN, ("splen",))
    with pytest.raises(ValueError, match="expected uint8"):
        write(label.astype(np.int16), np.eye(4), tmp_path / file, ABDOMEN)

    def full(image, path, **how):
        raise RuntimeError("Exception thrown in SimpleITK WriteImage:\nsitk::ERROR: No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        write(label, np.eye(4), tmp_path / file, ABDOMEN)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- one NIfTI file a structure ----------------------------------------------------------------------------------


def test_one_mask_a_structure(tmp_path, label):
    folder = tmp_path / "organs"
    written = FORMATS["nifti-per-structure"].write(label, orthogonal(), folder, ABDOMEN, algorithm=Algorithm())
    assert [p.name for p in written] == [*(f"{name}.nii.gz" for name in ABDOMEN.names), "labels.json"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in written)
    for i, path in enumerate(written[:-1], start=1):
        image = nib.load(path)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), label == i)
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, orthogonal(), atol=1e-4)
    assert json.loads(written[-1].read_text())["structures"][5]["name"] == "liver"


def test_masks_are_written_together_or_not_at_all(tmp_path, label, monkeypatch):
    save, saved = nib.save, []

    def full(image, path):
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        save(image, path)

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(WorkspaceError, match="No space left"):
        FORMATS["nifti-per-structure"].write(label, np.eye(4), tmp_path, ABDOMEN, ("liver", "spleen", "aorta"))
    assert len(saved) == 2
    assert list(tmp_path.iterdir()) == []
