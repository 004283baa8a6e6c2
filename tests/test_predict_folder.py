"""Folders of scans, and what is done and written beside a label map."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from abdoseg.errors import ConfigError, UnknownNameError, WorkspaceError
from abdoseg.inference import InferenceSettings
from abdoseg.kernels.restore import restore_labels
from abdoseg.postprocess import PostSettings
from abdoseg.scans import find_scans
from abdoseg.steps.predict import Extras, predict_file
from abdoseg.steps.predict_folder import MANIFEST, FolderOptions, predict_folder
from tests.test_predict import THREE, Nearest, Watcher, a_model, affine_of, phantom, saved


def a_scan(path, seed=0, spacing_mm=(2, 2, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = affine_of("LPS", spacing_mm)
    array, _ = phantom((20, 22, 24), affine)
    return saved(path, array + np.int16(seed), affine)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    a_scan(folder / "a.nii.gz")
    a_scan(folder / "deep" / "b.nii", 1)
    return folder


def test_every_scan_is_predicted_and_told_of(scans, tmp_path):
    out = tmp_path / "out"
    report = predict_folder(a_model(), scans, out)
    assert sorted(report.predicted) == ["a", "deep_b"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [f"{n}{s}" for n in ("a", "deep_b") for s in (".nii.gz", ".labels.json", ".statistics.json")] + [MANIFEST]
    )
    alone = tmp_path / "alone.nii.gz"
    predict_file(a_model(), scans / "a.nii.gz", alone)
    np.testing.assert_array_equal(nib.load(out / "a.nii.gz").dataobj, nib.load(alone).dataobj)
    facts = json.loads((out / MANIFEST).read_text())
    assert facts["header"]["model"] == "test"
    assert facts["header"]["structures"] == list(THREE.names)
    scan = facts["scans"]["a"]
    assert scan["outputs"][0] == "a.nii.gz"
    assert scan["volume_ml"]["liver"] > 0
    assert scan["peak_memory_mb"] > 10
    assert len(scan["sha256"]) == 64


def test_what_is_done_is_skipped_and_what_changed_is_done_again(scans, tmp_path):
    out = tmp_path / "out"
    predict_folder(a_model(), scans, out)
    again = predict_folder(a_model(), scans, out)
    assert (again.predicted, again.skipped) == ({}, ("a", "deep_b"))
    a_scan(scans / "a.nii.gz", 7)
    changed = predict_folder(a_model(), scans, out)
    assert (sorted(changed.predicted), changed.skipped) == (["a"], ("deep_b",))
    (out / "deep_b.nii.gz").unlink()
    assert sorted(predict_folder(a_model(), scans, out).predicted) == ["deep_b"]


@pytest.mark.parametrize("change", ["weights", "options", "overlap"])
def test_other_weights_or_options_do_all_again(scans, tmp_path, change):
    out = tmp_path / "out"
    predict_folder(a_model(), scans, out)
    model, options = a_model(), FolderOptions()
    if change == "weights":
        model = a_model(Nearest((-1000, -90, 60, 300)))
    elif change == "options":
        options = FolderOptions(structures=("liver",))
    else:
        model = replace(model, inference=InferenceSettings((24, 24, 24), overlap=0.25))
    assert len(predict_folder(model, scans, out, options).predicted) == 2


def test_a_scan_that_fails_does_not_stop_the_rest(scans, tmp_path):
    (scans / "b.nii.gz").write_bytes(b"rubbish")
    out, watcher = tmp_path / "out", Watcher()
    report = predict_folder(a_model(), scans, out, progress=watcher)
    assert sorted(report.predicted) == ["a", "deep_b"]
    assert list(report.failed) == ["b"]
    assert any(line.startswith("b: failed: ") for line in watcher.lines)
    assert "error" in json.loads((out / MANIFEST).read_text())["scans"]["b"]
    a_scan(scans / "b.nii.gz")
    mended = predict_folder(a_model(), scans, out)
    assert (list(mended.predicted), mended.skipped, mended.failed) == (["b"], ("a", "deep_b"), {})


def test_killed_half_way_keeps_what_is_done(scans, tmp_path):
    class Dies(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.inner = Nearest()

        def forward(self, x):
            Dies.calls += 1
            if Dies.calls == 2:
                raise KeyboardInterrupt
            return self.inner(x)

    out = tmp_path / "out"
    model = a_model(Dies())
    with pytest.raises(KeyboardInterrupt):
        predict_folder(model, scans, out)
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    report = predict_folder(model, scans, out)
    assert (list(report.predicted), report.skipped) == (["deep_b"], ("a",))


def test_formats_of_a_folder(scans, tmp_path):
    out = tmp_path / "out"
    predict_folder(a_model(), scans, out, FolderOptions(format_="nrrd", statistics=False))
    names = {p.name for p in out.iterdir()}
    assert any(name.startswith("a.") and name.endswith(".nrrd") for name in names)
    assert not any("statistics" in name for name in names)


def test_bad_folders(scans, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, out, expected in (
        (tmp_path / "empty", tmp_path / "o", "found no scan"),
        (scans, tmp_path / "file", "is a file"),
        (scans, scans / "out", "lies within"),
    ):
        with pytest.raises(ConfigError, match=expected):
            predict_folder(a_model(), folder, out)
    a_scan(scans / "a.nii")
    with pytest.raises(ConfigError, match=r"a\.nii\.gz and a\.nii|a\.nii and a\.nii\.gz"):
        find_scans(scans)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / MANIFEST).write_text("[]")
    (scans / "a.nii").unlink()
    with pytest.raises(ConfigError, match="is no manifest"):
        predict_folder(a_model(), scans, tmp_path / "o")


def test_hidden_files_are_no_scans(scans):
    a_scan(scans / "._a.nii.gz")
    a_scan(scans / ".cache" / "c.nii.gz")
    assert sorted(find_scans(scans)) == ["a", "deep_b"]


class TwoPieces(nn.Module):
    """Liver where it is bright, and nothing else."""

    def forward(self, x):
        background = torch.full_like(x, 0.9)
        return torch.cat([background, background - 1, background - 1, x], dim=1)


def test_extras(tmp_path):
    array = np.full((20, 18, 16), -1000, dtype=np.int16)
    array[2:10, 2:10, 2:10] = 400
    array[4:6, 4:6, 4:6] = -1000  # a hole
    array[15:17, 15:17, 12:14] = 400
    scan = saved(tmp_path / "s.nii.gz", array, np.diag([2.0, 2, 2, 1]))
    rules = PostSettings.of(THREE, ("liver",), ("all",))
    extras = Extras(rules, tmp_path / "s.csv", tmp_path / "u.nii.gz")
    report = predict_file(a_model(TwoPieces()), scan, tmp_path / "o.nii.gz", "ct", extras=extras)
    label = np.asarray(nib.load(tmp_path / "o.nii.gz").dataobj)
    assert label[2:10, 2:10, 2:10].all()
    assert (label > 0).sum() == 512
    assert [str(c) for c in report.changes] == [
        "liver: 1 piece taken away (0.06 ml), holes of 0.06 ml filled",
    ]
    assert report.volume_ml["liver"] == pytest.approx(512 * 0.008)
    assert report.outputs[-2:] == (tmp_path / "u.nii.gz", tmp_path / "s.csv")
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "s.csv").read_text().splitlines())}
    assert float(rows["liver"]["volume_ml"]) == pytest.approx(512 * 0.008)
    uncertain = np.asarray(nib.load(tmp_path / "u.nii.gz").dataobj)
    assert uncertain.shape == array.shape
    assert 0 <= uncertain.min() < uncertain.max() <= 1


def test_uncertainty_is_the_normalised_entropy(tmp_path):
    affine = affine_of("LPS", (2, 2, 2), 0.2)
    array, _ = phantom((20, 22, 24), affine)
    scan = saved(tmp_path / "s.nii.gz", array, affine)
    predict_file(a_model(), scan, tmp_path / "o.nii.gz", extras=Extras(uncertainty=tmp_path / "u.nii.gz"))
    x = (np.clip(array, -400, 400) + 400.0) / 800
    levels = (np.clip([-1000, -100, 60, 300], -400, 400) + 400) / 800
    logits = -100 * (x[None] - levels[:, None, None, None]) ** 2
    p = np.exp(logits - logits.max(0))
    p /= p.sum(0)
    expected = -(p * np.log(np.maximum(p, 1e-30))).sum(0) / np.log(4)
    np.testing.assert_allclose(np.asarray(nib.load(tmp_path / "u.nii.gz").dataobj), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("extras", "expected", "kind"),
    [
        ({"statistics": "s.txt"}, "json or", ConfigError),
        ({"uncertainty": "u.png"}, r"\.nii\.gz or", ConfigError),
        ({"uncertainty": "s.nii.gz"}, "is the scan itself", ConfigError),
        ({"statistics": "s.nii.gz/x.json"}, "cannot be written", WorkspaceError),
    ],
)
def test_bad_extras_are_told_before_the_network_runs(tmp_path, extras, expected, kind):
    scan = a_scan(tmp_path / "s.nii.gz")

    class Never(nn.Module):
        def forward(self, x):
            raise AssertionError("the network ran")

    given = Extras(**{name: tmp_path / value for name, value in extras.items()})
    with pytest.raises(kind, match=expected):
        predict_file(a_model(Never()), scan, tmp_path / "o.nii.gz", extras=given)


def test_unknown_format(tmp_path):
    scan = a_scan(tmp_path / "s.nii.gz")
    with pytest.raises(UnknownNameError, match="nift"):
        predict_file(a_model(), scan, tmp_path / "o.nii.gz", format_="nift")


def test_memory_is_less_than_all_scores(tmp_path):
    """A long scan: what is said beforehand is well below the scores of all classes, and the labels are the same."""
    from abdoseg.segmentation import memory_bytes

    model = a_model(patch_shape=(16, 16, 16))
    shape = (32, 32, 160)
    assert memory_bytes(model, model.settings(), shape, shape) < 0.55 * 4 * 4 * np.prod(shape)
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    from abdoseg.inference import sliding_window_boxes, sliding_window_logits
    from abdoseg.inference.restoring import restored_labels_of_boxes

    step = np.array([0.7, 0.6, 1.4])
    target = (40, 50, 110)
    boxes = sliding_window_boxes(model.network, image, model.settings())
    whole = restore_labels(sliding_window_logits(model.network, image, model.settings()), target, step)
    np.testing.assert_array_equal(restored_labels_of_boxes(boxes, shape, target, step), whole)
