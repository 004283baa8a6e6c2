"""The DICOM series of the NIH phantoms, rebuilt by other libraries, and the label arrays beside them."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from abdoseg.anatomy import ABDOMEN
from abdoseg.phantom import nih_pancreas, write_phantoms

PANCREAS = ABDOMEN.id_of("pancreas")
CASES = 2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("nih")
    cases = write_phantoms(out, ("nih-pancreas",), cases=CASES, spacing_scale=4.0)
    return out / "nih-pancreas", cases


def series_of(folder, number):
    (series,) = (folder / "manifest-1599750808610/Pancreas-CT" / f"PANCREAS_{number:04d}").glob("*/*")
    return series


def itk_volume(series):
    """The series as SimpleITK orders it, array (i, j, k) and RAS+ affine."""
    reader = sitk.ImageSeriesReader()
    (identifier,) = reader.GetGDCMSeriesIDs(str(series))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series), identifier))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def label_of(folder, number):
    return nib.load(folder / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz")


def slices_of(series):
    return [pydicom.dcmread(path) for path in sorted(series.glob("*.dcm"))]


def test_folders_and_names_are_the_archives_own(source):
    folder, _ = source
    for number in (1, 2):
        series = series_of(folder, number)
        assert series.parent.name.startswith(f"11-24-2015-PANCREAS{number:04d}-Pancreas-")
        assert series.name.startswith("Pancreas-")
        names = sorted(path.name for path in series.iterdir())
        assert names == [f"1-{k:03d}.dcm" for k in range(1, len(names) + 1)]
        assert len(names) == label_of(folder, number).shape[2]


def test_rows_run_from_back_to_front_and_instances_from_head_to_feet(source):
    folder, _ = source
    slices = slices_of(series_of(folder, 1))
    assert [s.InstanceNumber for s in slices] == list(range(1, len(slices) + 1))
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert (np.diff(heights) < 0).all()
    assert {tuple(map(float, s.ImageOrientationPatient)) for s in slices} == {(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)}
    # The spine is at the back: among the first rows, as the pictures stand on their heads.
    bone = np.mean([s.pixel_array + float(s.RescaleIntercept) > 250 for s in slices], axis=(0, 2))
    rows = np.arange(len(bone))
    air = np.mean([s.pixel_array + float(s.RescaleIntercept) > -300 for s in slices], axis=(0, 2))
    assert np.average(rows, weights=bone) < np.average(rows, weights=air)


def test_slices_are_ct_slices_of_one_series(source):
    folder, _ = source
    stored = set()
    for number in (1, 2):
        slices = slices_of(series_of(folder, number))
        assert len({s.SOPInstanceUID for s in slices}) == len(slices)
        assert len({(s.SeriesInstanceUID, s.StudyInstanceUID, s.FrameOfReferenceUID) for s in slices}) == 1
        first = slices[0]
        assert (first.Modality, first.RescaleSlope, first.RescaleIntercept) == ("CT", 1, -1024)
        assert str(first.PatientID) == f"PANCREAS_{number:04d}"
        stored.add(first.pixel_array.dtype)
    assert stored == {np.dtype(np.int16), np.dtype(np.uint16)}
    uids = [slices_of(series_of(folder, number))[0].SeriesInstanceUID for number in (1, 2)]
    assert uids[0] != uids[1]


def test_itk_builds_the_volume_that_the_truth_lies_on(source):
    folder, cases = source
    for number, case in enumerate(cases, start=1):
        volume, affine = itk_volume(series_of(folder, number))
        truth = nib.load(case.truth)
        assert volume.shape == truth.shape
        assert nib.aff2axcodes(affine) == ("L", "A", "I")
        np.testing.assert_allclose(affine, truth.affine, atol=1e-3)
        assert volume.min() >= -1024
        assert volume.max() <= 3071


def test_the_label_lies_on_the_pancreas_index_for_index_and_no_other_way(source):
    folder, cases = source
    for number, case in enumerate(cases, start=1):
        volume, _ = itk_volume(series_of(folder, number))
        label = np.asanyarray(label_of(folder, number).dataobj)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label > 0, np.asanyarray(nib.load(case.truth).dataobj) == PANCREAS)
        assert set(np.unique(label)) == {0, 1}
        spread = volume[label == 1].std()
        assert 40 < volume[label == 1].mean() < 140
        for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
            assert volume[np.flip(label, axes) == 1].std() > spread + 20
        # The rule of public code: pixel [row j, column i] of the instance k + 1.
        k = int(np.argmax(label.sum(axis=(0, 1))))
        pixels = slices_of(series_of(folder, number))[k]
        np.testing.assert_array_equal(pixels.pixel_array.T.astype(int) - 1024, volume[:, :, k])


def test_the_label_header_tells_the_axes_and_a_false_origin(source):
    folder, cases = source
    label, truth = label_of(folder, 1), nib.load(cases[0].truth)
    assert nib.aff2axcodes(label.affine) == ("L", "A", "I")
    np.testing.assert_allclose(label.affine[:3, :3], truth.affine[:3, :3], atol=1e-3)
    assert np.abs(label.affine[:3, 3] - truth.affine[:3, 3]).max() > 5


def test_withdrawn_numbers_keep_their_labels_only():
    plans = nih_pancreas.LAYOUT.plan(24)
    assert [p.case_id for p in plans if not p.image] == []
    plans = nih_pancreas.LAYOUT.plan(80)
    assert [p.case_id for p in plans if not p.image] == ["PANCREAS_0025", "PANCREAS_0070"]
    assert sum(p.image for p in plans) == 80
    assert plans[-1].case_id == "PANCREAS_0082"
    second = plans[1]
    assert {(p.index, p.protocol) for p in plans if not p.image} == {(second.index, second.protocol)}
