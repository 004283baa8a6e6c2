"""From file to file: the labels sit where the anatomy is, on the scan's own grid, whatever its axes."""

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from torch import nn

from abdoseg.anatomy import ABDOMEN
from abdoseg.annotation import Annotation
from abdoseg.case import Case, CaseFacts
from abdoseg.errors import CaseError, ConfigError, RunError, UnknownNameError, WorkspaceError
from abdoseg.geometry import axis_codes
from abdoseg.inference import InferenceSettings
from abdoseg.readers import read_scan
from abdoseg.segmentation import segment_case, segment_scan
from abdoseg.steps.predict import STAGES, SegmentationModel, predict_file
from abdoseg.windows import Windows

THREE = ABDOMEN.subset(("spleen", "right_kidney", "liver"))
LEVELS_HU = (-1000, -100, 60, 300)
"""Background and the three structures, as the network below tells them apart."""


class Nearest(nn.Module):
    """Score of a class: how near the intensity is to the class's level. Knows the window [-400, 400] HU."""

    def __init__(self, levels=LEVELS_HU):
        super().__init__()
        levels = torch.tensor(levels).clamp(-400, 400)
        self.register_buffer("levels", ((levels + 400) / 800).float().view(1, -1, 1, 1, 1))

    def forward(self, x):
        return -((x - self.levels) ** 2) * 100


def a_model(network=None, **changes):
    given = {"spacing_mm": 2.0, "windows": Windows(), "patch_shape": (24, 24, 24), "name": "test"} | changes
    return SegmentationModel(network or Nearest(), THREE, **given)


def affine_of(codes, spacing_mm, angle=0.0):
    """An affine with the given closest axes; ``angle`` turns the patient about an oblique axis."""
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    directions = np.zeros((3, 3))
    for column, code in enumerate(codes):
        row, sign = axes[code]
        directions[row, column] = sign
    k = np.array([[0, -0.8, 0.6], [0.8, 0, -0.1], [-0.6, 0.1, 0]])
    k /= np.sqrt(0.5 * (k**2).sum())
    turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions * spacing_mm
    affine[:3, 3] = (-40.5, 12.0, 133.0)
    return affine


def world_of(shape, affine):
    """Millimetres of every voxel, ``(3, X, Y, Z)``."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]


def phantom(shape, affine):
    """Three unlike boxes and a body in world space: no flip or permutation maps it to itself."""
    world = world_of(shape, affine)
    corners = np.stack([world.reshape(3, -1).min(1), world.reshape(3, -1).max(1)])
    u = (world - corners[0][:, None, None, None]) / np.ptp(corners, axis=0)[:, None, None, None]
    truth = np.zeros(shape, dtype=np.uint8)
    boxes = (
        ((0.2, 0.45), (0.2, 0.8), (0.2, 0.5)),
        ((0.55, 0.8), (0.2, 0.45), (0.2, 0.8)),
        ((0.5, 0.85), (0.55, 0.9), (0.25, 0.6)),
    )
    for c, box in enumerate(boxes, start=1):
        truth[np.logical_and.reduce([(a <= v) & (v <= b) for (a, b), v in zip(box, u, strict=True)])] = c
    return np.array(LEVELS_HU, dtype=np.int16)[truth], truth


def saved(path, array, affine):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def scan_file(tmp_path):
    affine = affine_of("LPS", (2, 2, 2))
    array, _ = phantom((20, 22, 24), affine)
    return saved(tmp_path / "scan.nii.gz", array, affine)


AXES = ["RAS", "LPS", "LAS", "SRA", "PIR", "ASL", "IPL"]


@pytest.mark.parametrize("angle", [0.0, 0.3], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", AXES)
def test_two_millimetre_scans_are_labelled_exactly(tmp_path, codes, angle):
    affine = affine_of(codes, (2, 2, 2), angle)
    assert axis_codes(affine) == codes
    array, truth = phantom((20, 26, 31), affine)
    path = saved(tmp_path / "scan.nii.gz", array, affine)
    predict_file(a_model(), path, tmp_path / "out.nii.gz")
    result, scan = nib.load(tmp_path / "out.nii.gz"), nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(result.dataobj), truth)
    np.testing.assert_array_equal(result.affine, scan.affine)


@pytest.mark.parametrize("spacing_mm", [(1.3, 1.5, 3.0), (5.0, 1.2, 1.2), (3.0, 3.5, 4.0)])
@pytest.mark.parametrize("codes", AXES)
def test_other_spacings_are_right_but_at_the_edges(tmp_path, codes, spacing_mm):
    affine = affine_of(codes, spacing_mm, 0.2)
    shape = tuple(int(96 / s) for s in spacing_mm)
    array, truth = phantom(shape, affine)
    path = saved(tmp_path / "scan.nii.gz", array, affine)
    predict_file(a_model(), path, tmp_path / "out.nii.gz")
    result = nib.load(tmp_path / "out.nii.gz")
    label = np.asanyarray(result.dataobj)
    assert label.shape == shape
    np.testing.assert_array_equal(result.affine, nib.load(path).affine)
    reach = np.ones([1 + 2 * int(np.ceil(2.5 / s)) for s in spacing_mm])
    world = world_of(shape, affine)
    for c in range(4):
        inside = binary_erosion(truth == c, reach)
        assert inside.any()
        assert (label[inside] == c).all()
    # The brightest box is no other one's rim, so its centre stays, but for a layer of voxels on one side.
    centre = [world[:, mask == 3].mean(1) for mask in (truth, label)]
    assert np.abs(centre[0] - centre[1]).max() < 0.4 * max(spacing_mm)


def test_restoring_labels_instead_of_scores(tmp_path):
    affine = affine_of("LPS", (2, 2, 2))
    array, truth = phantom((20, 22, 24), affine)
    path = saved(tmp_path / "scan.nii.gz", array, affine)
    settings = InferenceSettings((24, 24, 24), restore="labels")
    predict_file(a_model(inference=settings), path, tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj), truth)
    finer = saved(tmp_path / "fine.nii.gz", array, affine_of("LPS", (1, 1, 3)))
    scan = read_scan(finer)
    labels, scores = (segment_scan(a_model(), scan, "CT", s) for s in (settings, None))
    assert labels.shape == scores.shape == array.shape
    assert 0.8 < (labels == scores).mean() < 1


def test_report(scan_file, tmp_path):
    report = predict_file(a_model(), scan_file, tmp_path / "out" / "organs.nii.gz")
    label = np.asanyarray(nib.load(tmp_path / "out" / "organs.nii.gz").dataobj)
    assert report.case == "scan"
    assert report.shape == (20, 22, 24)
    assert report.spacing_mm == pytest.approx((2, 2, 2))
    assert report.modality == "CT"
    assert "air" in report.modality_reason
    assert tuple(report.seconds) == STAGES
    assert all(s >= 0 for s in report.seconds.values())
    assert report.volume_ml == pytest.approx({n: (label == i).sum() * 0.008 for i, n in enumerate(THREE.names, 1)})
    assert min(report.volume_ml.values()) > 0
    assert report.outputs == (tmp_path / "out" / "organs.nii.gz", tmp_path / "out" / "organs.labels.json")
    assert all(p.is_file() for p in report.outputs)
    assert report.warnings == ()


def test_subset_of_structures_keeps_ids(scan_file, tmp_path):
    predict_file(a_model(), scan_file, tmp_path / "all.nii.gz")
    report = predict_file(a_model(), scan_file, tmp_path / "some.nii.gz", structures=("liver", "spleen"))
    everything, some = (np.asanyarray(nib.load(tmp_path / f"{n}.nii.gz").dataobj) for n in ("all", "some"))
    np.testing.assert_array_equal(some, np.where(everything == 2, 0, everything))
    assert sorted(report.volume_ml) == ["liver", "spleen"]
    legend = json.loads((tmp_path / "some.labels.json").read_text())
    assert [(row["id"], row["name"]) for row in legend["structures"]] == [(1, "spleen"), (3, "liver")]


def test_mr_is_windowed_by_its_percentiles(tmp_path):
    affine = affine_of("RAS", (2, 2, 2))
    _, truth = phantom((20, 22, 24), affine)
    rng = np.random.default_rng(0)
    array = (np.array([100, 700, 1300, 2000])[truth] + rng.integers(0, 20, truth.shape)).astype(np.int16)
    path = saved(tmp_path / "mr.nii.gz", array, affine)
    low, high = np.percentile(array, (1, 99))
    model = a_model(Nearest([-400 + 800 * (v - low) / (high - low) for v in (110, 710, 1310, 2010)]))
    report = predict_file(model, path, tmp_path / "out.nii.gz", modality="mr")
    assert (report.modality, report.modality_reason) == ("MR", "as asked")
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj), truth)
    with pytest.raises(ConfigError, match=r"mr\.nii\.gz: .*--modality ct\|mr"):
        predict_file(model, path, tmp_path / "out2.nii.gz")
    assert not (tmp_path / "out2.nii.gz").exists()


class Watcher:
    def __init__(self):
        self.total, self.done, self.lines = 0, 0, []

    def start(self, total, title):
        self.total += total

    def advance(self, amount=1, note=""):
        self.done += amount

    def say(self, text):
        self.lines.append(text)


def test_progress_reaches_its_total_and_the_modality_is_said(scan_file, tmp_path):
    watcher = Watcher()
    predict_file(a_model(patch_shape=(16, 16, 16)), scan_file, tmp_path / "out.nii", progress=watcher)
    assert watcher.done == watcher.total == 8
    decided, memory = watcher.lines
    assert decided.startswith("scan.nii.gz: CT, because")
    assert re.fullmatch(r"scan\.nii\.gz: about \d+ MB beside scan and network", memory)


def forbidden(*args):
    raise AssertionError("the network ran")


class Never(nn.Module):
    def forward(self, x):
        forbidden()


def test_the_scan_is_never_overwritten(scan_file, tmp_path):
    before = scan_file.read_bytes()
    (tmp_path / "link.nii.gz").symlink_to(scan_file)
    (tmp_path / "hard.nii.gz").hardlink_to(scan_file)
    names = ["scan.nii.gz", "link.nii.gz", "hard.nii.gz", "./sub/../scan.nii.gz"]
    for name in names:
        with pytest.raises(ConfigError, match="overwritten"):
            predict_file(a_model(Never()), scan_file, tmp_path / name)
    assert scan_file.read_bytes() == before


def test_bad_options_are_told_before_the_network_runs(scan_file, tmp_path):
    model = a_model(Never())
    out = tmp_path / "out.nii.gz"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="unknown output format"):
        predict_file(model, scan_file, tmp_path / "out.png")
    with pytest.raises(UnknownNameError, match="liver"):
        predict_file(model, scan_file, out, structures=("livr",))
    with pytest.raises(ConfigError, match="none was named"):
        predict_file(model, scan_file, out, structures=())
    with pytest.raises(ConfigError, match="expected ct or mr"):
        predict_file(model, scan_file, out, modality="pet")
    with pytest.raises(CaseError, match="no such file"):
        predict_file(model, tmp_path / "none.nii.gz", out)
    with pytest.raises(WorkspaceError, match="cannot be written"):
        predict_file(model, scan_file, tmp_path / "file" / "out.nii.gz")
    assert not out.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite(tmp_path, value):
    array = np.zeros((8, 8, 8), dtype=np.float32)
    array[1, 2, 3] = value
    path = saved(tmp_path / "scan.nii.gz", array, np.diag([2.0, 2, 2, 1]))
    for modality in (None, "ct", "mr"):
        with pytest.raises(CaseError, match=r"scan\.nii\.gz: .*(NaN|infinite)"):
            predict_file(a_model(Never()), path, tmp_path / "out.nii.gz", modality=modality)


def test_network_with_other_structures(scan_file, tmp_path):
    with pytest.raises(RunError, match="test: the network has 2 outputs, 4 expected"):
        predict_file(a_model(Nearest((0, 100))), scan_file, tmp_path / "out.nii.gz")


def test_warnings_reach_the_report(scan_file, tmp_path):
    image = nib.load(scan_file)
    shifted = saved(tmp_path / "raw.nii.gz", np.asanyarray(image.dataobj) + np.int16(1024), image.affine)
    report = predict_file(a_model(), shifted, tmp_path / "out.nii.gz", modality="ct")
    assert any("Hounsfield" in w for w in report.warnings)


def a_case(image, spacing_mm=2.0):
    affine = np.diag([spacing_mm] * 3 + [1.0]).tolist()
    facts = CaseFacts(
        case="c1", source="s", modality="CT", patient="p", shape=image.shape, affine=affine, native_shape=image.shape,
        native_affine=affine, scale=1 / 800, offset=0.0, window=(-400, 400), voxels={}, fingerprint="f",
        digest="d", settings_digest="s", card_digest="c",
        annotation=Annotation.partial((1, 2, 3), 3).to_json(),
    )  # fmt: skip
    return Case(facts, image, np.zeros(image.shape, dtype=np.uint8))


def test_stored_case_is_labelled_on_its_own_grid():
    truth = np.random.default_rng(0).integers(0, 4, (9, 30, 25)).astype(np.uint8)
    levels = np.clip(np.array(LEVELS_HU), -400, 400) + 400
    watcher = Watcher()
    label = segment_case(a_model(), a_case(levels.astype(np.int16)[truth]), progress=watcher)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, truth)
    assert watcher.done == watcher.total > 0


def test_stored_case_of_another_spacing_is_refused():
    with pytest.raises(RunError, match=r"s/c1: stored at 1\.5 x 1\.5 x 1\.5 mm, test expects 2 mm"):
        segment_case(a_model(Never()), a_case(np.zeros((8, 8, 8), np.int16), 1.5))


def test_real_scan(tmp_path):
    folder = os.environ.get("ABDOSEG_TEST_DATA")
    if not folder:
        pytest.skip("ABDOSEG_TEST_DATA is not set: no real scan to predict")
    path = next(Path(folder).glob("**/s9001/ct.nii.gz"), None)
    if path is None:
        pytest.skip(f"no s9001/ct.nii.gz under ABDOSEG_TEST_DATA = {folder}")
    scan = read_scan(path)
    model = a_model(patch_shape=(96, 96, 96))
    report = predict_file(model, path, tmp_path / "out.nii.gz")
    result = nib.load(tmp_path / "out.nii.gz")
    label = np.asanyarray(result.dataobj)
    assert report.modality == "CT"
    assert label.shape == scan.array.shape
    np.testing.assert_array_equal(result.affine, nib.load(path).affine)
    # 3 mm to 2 mm and back blurs edges, so compare the body and the bones by overlap.
    for found, expected in ((label > 0, scan.array > -250), (label == 3, scan.array > 180)):
        dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert dice > 0.9
