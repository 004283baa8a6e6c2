"""Folders of scans, and what is done and written beside a label map."""

import csv
import json
import shutil
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.ensemble import ensemble_of
from abdoseg.errors import CaseError, ConfigError, UnknownNameError, WorkspaceError
from abdoseg.inference import InferenceSettings, sliding_window_logits
from abdoseg.kernels.restore import restore_labels
from abdoseg.postprocess import PostSettings
from abdoseg.scans import find_scans
from abdoseg.steps.manifest import NAME as MANIFEST
from abdoseg.steps.manifest import Manifest
from abdoseg.steps.predict import Extras, SegmentationModel, predict_file
from abdoseg.steps.predict_alone import predict_alone
from abdoseg.steps.predict_folder import FolderOptions, predict_folder
from abdoseg.windows import Windows
from tests.exporters.series import series
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


def test_one_scan_is_predicted_once(tmp_path):
    scan, out = a_scan(tmp_path / "scan.nii.gz"), tmp_path / "o.nii.gz"
    asked = (FolderOptions(format_="", uncertainty=True), tmp_path / "s.json")
    first = predict_alone(a_model(), scan, out, *asked)
    assert first.prediction is not None
    assert {p.name for p in first.prediction.outputs} == {
        *("o.nii.gz", "o.labels.json", "o.uncertainty.nii.gz", "s.json")
    }
    written = out.stat().st_mtime_ns
    assert predict_alone(a_model(), scan, out, *asked).prediction is None
    assert out.stat().st_mtime_ns == written
    # Another option, other weights, a lost file, another place, other voxels: predicted again.
    assert predict_alone(a_model(), scan, out, asked[0]).prediction is not None
    assert predict_alone(a_model(), scan, out, *asked).prediction is not None
    assert predict_alone(a_model(Nearest((-1000, -90, 60, 300))), scan, out, *asked).prediction is not None
    (tmp_path / "s.json").unlink()
    assert predict_alone(a_model(Nearest((-1000, -90, 60, 300))), scan, out, *asked).prediction is not None
    assert predict_alone(a_model(), scan, tmp_path / "o.nrrd", *asked).prediction is not None
    assert predict_alone(a_model(), scan, out, *asked).prediction is not None
    a_scan(scan, 1)
    assert predict_alone(a_model(), scan, out, *asked).prediction is not None
    assert predict_alone(a_model(), scan, out, *asked).prediction is None


def test_one_scan_as_a_folder_of_masks_is_predicted_once(tmp_path):
    scan, out = a_scan(tmp_path / "scan.nii.gz"), tmp_path / "masks"
    masks = FolderOptions(format_="nifti-per-structure")
    assert predict_alone(a_model(), scan, out, masks).prediction is not None
    assert predict_alone(a_model(), scan, out, masks).prediction is None
    (out / "liver.nii.gz").unlink()
    assert predict_alone(a_model(), scan, out, masks).prediction is not None


def test_a_scan_that_is_lost_is_told_though_its_labels_are_there(tmp_path):
    scan, out = a_scan(tmp_path / "scan.nii.gz"), tmp_path / "o.nii.gz"
    predict_alone(a_model(), scan, out)
    scan.unlink()
    with pytest.raises(CaseError, match=r"scan\.nii\.gz"):
        predict_alone(a_model(), scan, out)


def test_117_structures_are_one_map(tmp_path):
    """Eight-bit maps hold them; each of 118 intensities has a class of its own."""
    anatomy = Anatomy(
        tuple(Structure(f"structure_{i}", f"Structure {i}", f"s{i}", f"#{i:02x}7f00") for i in range(1, 118))
    )
    levels = np.linspace(-390, 390, 118)
    affine = affine_of("LPS", (2, 2, 2))
    truth = np.random.default_rng(0).integers(0, 118, (5, 5, 5)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    scan = saved(tmp_path / "s.nii.gz", levels[truth].round().astype(np.int16), affine)
    model = SegmentationModel(
        Nearest(levels.round()), anatomy, spacing_mm=2.0, windows=Windows(), patch_shape=(16, 16, 16), name="many"
    )
    report = predict_file(model, scan, tmp_path / "o.nii.gz", modality="ct")
    np.testing.assert_array_equal(nib.load(tmp_path / "o.nii.gz").dataobj, truth)
    assert len(report.volume_ml) == 117
    assert report.volume_ml["structure_117"] == pytest.approx((truth == 117).sum() * 8 / 1000)


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


def test_a_folder_of_series_is_no_series(tmp_path):
    """As on a clinic's disc: a DICOMDIR at the top, images further down."""
    import pydicom
    from pydicom.data import get_testdata_file

    image = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    series = tmp_path / "disc" / "patient" / "series"
    series.mkdir(parents=True)
    image.save_as(series / "IM1")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = find_scans(tmp_path / "disc" / "patient")
    assert found == {"series": series}


def test_processes_share_a_folder(scans, tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    predict_folder(a_model(), scans, whole)
    parts = [predict_folder(a_model(), scans, shared, share=(i, 2)) for i in range(2)]
    assert [list(part.predicted) for part in parts] == [["a"], ["deep_b"]]
    told = json.loads((shared / MANIFEST).read_text())
    assert told["header"] == json.loads((whole / MANIFEST).read_text())["header"]
    assert list(told["scans"]) == ["a", "deep_b"]
    for name in told["scans"]:
        np.testing.assert_array_equal(
            nib.load(whole / f"{name}.nii.gz").dataobj, nib.load(shared / f"{name}.nii.gz").dataobj
        )


def test_what_processes_note_in_turn_is_kept(tmp_path):
    first, second = (Manifest.read(tmp_path / MANIFEST, {"by": "one"}, shared=True) for _ in range(2))
    for manifest, name in ((first, "a"), (second, "b"), (first, "c"), (second, "d")):
        manifest.note(name, {})
    assert list(json.loads((tmp_path / MANIFEST).read_text())["scans"]) == ["a", "b", "c", "d"]


def test_a_picture_of_each_scan(scans, tmp_path):
    report = predict_folder(a_model(), scans, tmp_path / "o", FolderOptions(preview=True))
    assert tmp_path / "o" / "deep_b.png" in report.predicted["deep_b"].outputs
    picture = plt.imread(tmp_path / "o" / "a.png")
    colours = {tuple(c) for c in np.round(picture[..., :3] * 255).astype(int).reshape(-1, 3).tolist()}
    for structure in THREE.structures:  # the legend shows each as it is
        assert tuple(int(structure.colour[i : i + 2], 16) for i in (1, 3, 5)) in colours


class Fixed(nn.Module):
    """Scores that do not depend on the image but on the place in a window."""

    def __init__(self, seed):
        super().__init__()
        self.scores = torch.randn((1, 4, 24, 24, 24), generator=torch.Generator().manual_seed(seed)) * 5

    def forward(self, x):
        return self.scores.expand(len(x), -1, -1, -1, -1)


def test_an_ensemble_is_the_mean_of_probabilities():
    models = [a_model(Fixed(seed)) for seed in (0, 1, 2)]
    together = ensemble_of(models)
    found = sliding_window_logits(together.network, np.zeros((24, 24, 24), np.float32), together.settings())
    expected = torch.stack([model.network.scores.softmax(1) for model in models]).mean(0)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    assert together.name == "test + test + test"
    assert ensemble_of(models[:1]) is models[0]


def test_certain_networks_do_not_make_an_ensemble_infinite():
    certain = Fixed(0)
    certain.scores = certain.scores * 1e4
    scores = ensemble_of([a_model(certain), a_model(certain)]).network(torch.zeros(1, 1, 24, 24, 24))
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(1), certain.scores.argmax(1))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spacing_mm": 3.0}, "spacing in mm"),
        ({"patch_shape": (32, 32, 32)}, "patch"),
        ({"windows": Windows(ct_hu=(-100.0, 100.0))}, "intensity windows"),
    ],
)
def test_runs_that_do_not_fit_are_not_averaged(changes, told):
    with pytest.raises(ConfigError, match=f"a and b: were trained with different {told}"):
        ensemble_of([a_model(name="a"), a_model(**changes, name="b")])


def zipped(path, *files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"inside/{file.name}")
    return path


def test_a_scan_in_a_zip_is_that_scan(scans, tmp_path):
    archive = zipped(tmp_path / "mine.zip", scans / "a.nii.gz")
    report = predict_file(a_model(), archive, tmp_path / "zipped.nii.gz")
    predict_file(a_model(), scans / "a.nii.gz", tmp_path / "plain.nii.gz")
    assert report.case == "mine"
    found, expected = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("zipped", "plain"))
    np.testing.assert_array_equal(found.dataobj, expected.dataobj)
    np.testing.assert_array_equal(found.affine, expected.affine)
    zipped(scans / "third.zip", scans / "a.nii.gz")
    assert sorted(predict_folder(a_model(), scans, tmp_path / "out").predicted) == ["a", "deep_b", "third"]


def test_a_zipped_series_gets_an_rt_structure_set(tmp_path):
    archive = zipped(tmp_path / "series.zip", *sorted(series(tmp_path / "series").iterdir()))
    report = predict_file(a_model(), archive, tmp_path / "out.rtstruct.dcm", "ct")
    assert report.outputs[0].is_file()


def _encrypted(path):
    zipped(path, path.parent / "a.nii.gz")
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)


def _truncated(path):
    zipped(path, path.parent / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:200])


def _flipped(path):
    zipped(path, path.parent / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _of_two(path):
    zipped(path, path.parent / "a.nii.gz", path.parent / "deep" / "b.nii")


def _of_a_zip(path):
    zipped(path, zipped(path.parent / "inner.zip", path.parent / "a.nii.gz"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_encrypted, "encrypted"),
        (_truncated, "no ZIP archive"),
        (_flipped, "no ZIP archive"),
        (_of_two, "holds 2 scans"),
        (_of_a_zip, "holds another archive"),
        (zipped, "holds no scan"),
        (lambda path: path.write_bytes(b""), "no ZIP archive"),
        (lambda _: None, "no such file"),
    ],
)
def test_bad_archives_are_one_clear_line(scans, tmp_path, make, told):
    path = scans / "mine.zip"
    make(path)
    with pytest.raises(CaseError, match=told) as caught:
        predict_file(a_model(), path, tmp_path / "out.nii.gz")
    assert "mine.zip" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.nii.gz").exists()


def test_an_archive_larger_than_the_disk_is_not_unpacked(scans, tmp_path, monkeypatch):
    archive = zipped(tmp_path / "mine.zip", scans / "a.nii.gz")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(CaseError, match="set TMPDIR"):
        predict_file(a_model(), archive, tmp_path / "out.nii.gz")


def test_nothing_of_an_archive_leaves_its_place(scans, tmp_path):
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(scans / "a.nii.gz", "../../escaped.nii.gz")
    predict_file(a_model(), archive, tmp_path / "out.nii.gz")
    assert not list(tmp_path.parent.rglob("escaped.nii.gz"))
