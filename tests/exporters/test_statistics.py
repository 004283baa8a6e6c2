"""Facts of structures against brute force, on every order of axes and memory."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import CaseError, ConfigError, UnknownNameError, WorkspaceError
from abdoseg.exporters.statistics import structure_statistics, write_statistics
from tests.exporters.test_nifti import orthogonal

AXES = st.permutations([0, 1, 2])
SIGNS = st.lists(st.sampled_from([1, -1]), min_size=3, max_size=3)


@given(st.integers(0, 2**31), AXES, SIGNS, st.sampled_from(["int16", "float32"]), st.sampled_from(["label", "both"]))
def test_facts_are_those_of_brute_force_whatever_the_order_of_memory(seed, axes, signs, dtype, which):
    rng = np.random.default_rng(seed)
    turn = tuple(slice(None, None, s) for s in signs)
    label = rng.choice(np.array([0, 0, 0, 1, 6], np.uint8), (4, 5, 6)).transpose(axes)[turn]
    image = (rng.normal(0, 30, (4, 5, 6)) + 1e4).astype(dtype).transpose(axes)
    image = image[turn] if which == "both" else np.ascontiguousarray(image[turn])
    affine = orthogonal()
    for row in structure_statistics(label, image, affine, ABDOMEN, ("liver", "spleen", "aorta")):
        inside = label == ABDOMEN.id_of(row.name)
        assert row.voxels == inside.sum()
        assert row.volume_ml == pytest.approx(inside.sum() * 0.8 * 0.9 * 3 / 1000)
        if not inside.any():
            assert (row.mean, row.std, row.first, row.last, row.low_mm, row.borders) == (None,) * 5 + ((),)
            continue
        values = image[inside].astype(np.float64)
        assert row.mean == pytest.approx(values.mean(), rel=1e-12)
        assert row.std == pytest.approx(values.std(), rel=1e-9, abs=1e-9)
        where = np.argwhere(inside)
        assert (row.first, row.last) == (tuple(where.min(0)), tuple(where.max(0)))
        corners = np.array(np.meshgrid(*np.stack([where.min(0) - 0.5, where.max(0) + 0.5]).T)).reshape(3, -1)
        places = affine[:3, :3] @ corners + affine[:3, 3:]
        np.testing.assert_allclose(row.low_mm, places.min(1), atol=1e-9)
        np.testing.assert_allclose(row.high_mm, places.max(1), atol=1e-9)
        touched = (where.min(0) == 0).any() or (where.max(0) == np.array(label.shape) - 1).any()
        assert row.touches_border == touched


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL", "ILA"])
def test_borders_are_named_by_the_patients_sides(codes):
    ras = np.zeros((5, 6, 7), np.uint8)
    ras[0, 2, 3] = 6  # left-most voxel of RAS+, and nothing else
    ras[2:4, 2, 6] = 1  # the top
    ras[2, 5, 0] = 2
    native = nib.orientations.axcodes2ornt(codes)
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), native)
    label = nib.orientations.apply_orientation(ras, change)
    affine = nib.orientations.inv_ornt_aff(change, ras.shape)
    rows = {r.name: r for r in structure_statistics(label, label.astype(float), affine, ABDOMEN)}
    assert set(rows["liver"].borders) == {"left"}
    assert set(rows["spleen"].borders) == {"superior"}
    assert set(rows["right_kidney"].borders) == {"anterior", "inferior"}
    assert rows["liver"].low_mm == pytest.approx((-0.5, 1.5, 2.5))
    assert len(rows) == 16


def test_a_large_offset_does_not_drown_the_spread():
    label = np.ones((20, 20, 20), np.uint8)
    image = 1e8 + np.random.default_rng(0).normal(0, 1, label.shape)
    (row,) = structure_statistics(label, image, np.eye(4), ABDOMEN, ("spleen",))
    assert row.std == pytest.approx(image.std(), rel=1e-6)


@pytest.fixture
def rows():
    label = np.zeros((4, 5, 6), np.uint8)
    label[1:3, 2, 0:2] = 6
    return structure_statistics(label, label * 10.0, np.eye(4), ABDOMEN, ("liver", "spleen"))


def test_json(tmp_path, rows):
    assert write_statistics(tmp_path / "s.json", rows, "scan-1", "CT") == tmp_path / "s.json"
    facts = json.loads((tmp_path / "s.json").read_text())
    assert (facts["case"], facts["intensity_unit"]) == ("scan-1", "HU")
    spleen, liver = facts["structures"]
    assert (spleen["name"], spleen["voxels"], spleen["mean"], spleen["touches_border"]) == ("spleen", 0, None, False)
    assert liver["volume_ml"] == pytest.approx(0.004)
    assert (liver["mean"], liver["std"], liver["first"], liver["last"]) == (60.0, 0.0, [1, 2, 0], [2, 2, 1])
    assert (liver["borders"], liver["touches_border"]) == (["inferior"], True)


def test_csv(tmp_path, rows):
    write_statistics(tmp_path / "s.csv", rows, "scan, 1", "MR")
    with (tmp_path / "s.csv").open(newline="") as file:
        spleen, liver = csv.DictReader(file)
    assert (liver["case"], liver["intensity_unit"], liver["name"], liver["voxels"]) == ("scan, 1", "", "liver", "4")
    assert (liver["first_x"], liver["last_z"], liver["low_x_mm"], liver["high_z_mm"]) == ("1", "1", "0.5", "1.5")
    assert (spleen["mean"], spleen["first_x"], spleen["touches_border"]) == ("", "", "False")


def test_what_cannot_be_said(tmp_path, rows):
    label, image = np.ones((2, 2, 2), np.uint8), np.zeros((2, 2, 2))
    image[0, 0, 1] = np.nan
    with pytest.raises(CaseError, match="voxels in spleen are NaN"):
        structure_statistics(label, image, np.eye(4), ABDOMEN)
    with pytest.raises(ValueError, match="expected that of the label"):
        structure_statistics(label, image[:1], np.eye(4), ABDOMEN)
    with pytest.raises(UnknownNameError, match="splen"):
        structure_statistics(label, image, np.eye(4), ABDOMEN, ("splen",))
    with pytest.raises(ConfigError, match=r"\.json or \.csv"):
        write_statistics(tmp_path / "s.xlsx", rows, "a")
    (tmp_path / "f").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_statistics(tmp_path / "f" / "s.csv", rows, "a")
