"""Damaged and strange scans to predict: one clear line, nothing written, the rest of a folder done; odd ones taken."""

import re

import nibabel as nib
import numpy as np
import pytest
from torch import nn

from abdoseg.errors import AbdosegError
from abdoseg.steps.predict import predict_file
from abdoseg.steps.predict_folder import FolderOptions, predict_folder
from tests.conftest import LPS, body, word_case, write_nifti
from tests.test_damage import QUARANTINED, TAKEN, Files, in_time, require_plain
from tests.test_dicom import FAULTS, write_series
from tests.test_predict import THREE, Nearest, a_model

# What is wrong with a label, or with a pair, does not concern a prediction.
_OF_PAIRS = {"a folder named like the image", "no image", "voxels of 128 bits", "a probability map"}
DAMAGED = [name for name in QUARANTINED if "label" not in name and name not in _OF_PAIRS]
ODD = [name for name in TAKEN if "label" not in name]
_OTHERWISE = {
    "a dangling link for an image": "no such file",
    "a pipe for an image": "no such file",
    "NaN in the image": "voxels are NaN or infinite",
}
"""What is told in other words than at ingest."""


@pytest.fixture
def scans(tmp_path):
    """A folder with one scan to damage between two sound ones."""
    for number in (1, 2, 3):
        word_case(tmp_path, number)
    return tmp_path / "imagesTr"


def harmed(scans, name, harms):
    harms[name][0](Files(scans / "word_0002.nii.gz", scans.parent / "labelsTr" / "word_0002.nii.gz"))
    (path,) = {p for p in scans.iterdir() if p.name.startswith("word_0002") and p.suffix != ".raw"} or {
        scans / "word_0002.nii.gz"
    }
    return path


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_scan_is_one_clear_line(scans, tmp_path, name):
    path = harmed(scans, name, QUARANTINED)
    with in_time(), pytest.raises(AbdosegError) as caught:
        predict_file(a_model(), path, tmp_path / "out" / "o.nii.gz", "ct")
    message = str(caught.value)
    require_plain(message)
    assert path.name in message
    assert re.search(_OTHERWISE.get(name, QUARANTINED[name][1]), message), message
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["image.gz cut in half", "colour", "three volumes", "NaN in the image"])
def test_a_damaged_scan_costs_itself_only(scans, tmp_path, name):
    harmed(scans, name, QUARANTINED)
    report = predict_folder(a_model(), scans, tmp_path / "out", FolderOptions("ct"))
    assert list(report.predicted) == ["word_0001", "word_0003"]
    assert list(report.failed) == ["word_0002"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_scan_is_predicted(scans, tmp_path, name):
    path = harmed(scans, name, TAKEN)
    with in_time():
        report = predict_file(a_model(), path, tmp_path / "o.nii.gz", "ct")
    found = nib.load(tmp_path / "o.nii.gz")
    assert found.shape == report.shape == (30, 28, 20)


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_series_is_one_clear_line(tmp_path, name):
    change, told = FAULTS[name]
    folder = write_series(tmp_path / "a", change)
    with in_time(), pytest.raises(AbdosegError) as caught:
        predict_file(a_model(), folder, tmp_path / "out" / "o.nii.gz", "ct")
    require_plain(str(caught.value))
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


THIN = np.diag([2.0, 2.0, 0.25, 1.0])


def put(array, affine=LPS):
    return lambda path: write_nifti(path, array, affine)


def noisy(shape):
    return body((30, 28, 20), 1)[: shape[0], : shape[1], : shape[2]]


STRANGE = {
    "a scan of 2 slices": (put(noisy((30, 28, 2))), None),
    "1 mm of coverage": (put(noisy((30, 28, 4)), THIN), None),
    "two voxels a side": (put(noisy((30, 28, 20))[14:16, 13:15, 9:11]), None),
    "slices of 40 mm": (put(noisy((30, 28, 3)), np.diag([2.0, 2.0, 40.0, 1.0])), None),
    "voxels of 20 micrometres": (put(noisy((30, 28, 20)), np.diag([0.02, 0.02, 0.02, 1.0])), "mm|extent|spacing"),
    "one slice": (put(noisy((30, 28, 1))), "expected at least 2 voxels"),
    "minus infinity": (put(np.where(noisy((30, 28, 20)) < -900, -np.inf, 0).astype(np.float32)), "NaN or infinite"),
    "1e30": (put(noisy((30, 28, 20)).astype(np.float32) * 1e27), "HU|intensit"),
    "the same everywhere": (put(np.full((30, 28, 20), 40, np.int16)), "constant|contrast|all voxels"),
    "yes and no": (put(noisy((30, 28, 20)) > 0), None),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_scan_is_predicted_or_refused_in_one_line(tmp_path, name):
    make, told = STRANGE[name]
    path = tmp_path / "scan.nii.gz"
    try:
        make(path)
    except nib.spatialimages.HeaderDataError:
        array = noisy((30, 28, 20)) > 0
        write_nifti(path, array.astype(np.uint8), LPS)
    if told is None:
        report = predict_file(a_model(), path, tmp_path / "o.nii.gz", "ct")
        assert nib.load(tmp_path / "o.nii.gz").shape == report.shape
        return
    with in_time(), pytest.raises(AbdosegError, match=told) as caught:
        predict_file(a_model(), path, tmp_path / "o.nii.gz", "ct")
    require_plain(str(caught.value))
    assert not (tmp_path / "o.nii.gz").exists()


class Broken(nn.Module):
    """A network that returns what it should not."""

    def __init__(self, change):
        super().__init__()
        self.change, self.nearest = change, Nearest()

    def forward(self, x):
        return self.change(self.nearest(x))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda scores: scores[:, :3], "3 outputs, 4 expected"),
        (lambda scores: scores.repeat(1, 2, 1, 1, 1), "8 outputs, 4 expected"),
        (lambda scores: scores / 0, "NaN or infinite"),
    ],
)
def test_a_model_that_does_not_fit_is_one_clear_line(scans, tmp_path, change, told):
    with pytest.raises(AbdosegError, match=told) as caught:
        predict_file(a_model(Broken(change)), scans / "word_0001.nii.gz", tmp_path / "o.nii.gz", "ct")
    require_plain(str(caught.value))
    assert len(THREE) == 3
    assert not (tmp_path / "o.nii.gz").exists()
