"""DICOM segmentations, read back by highdicom and by pydicom alone, voxel by voxel on the images they point at."""

import sys

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

from abdoseg.anatomy import ABDOMEN, Anatomy, Structure
from abdoseg.errors import CaseError, ConfigError, UnknownNameError, WorkspaceError
from abdoseg.exporters import FORMATS, Algorithm
from abdoseg.exporters.dicom_seg import write_segmentation
from tests.exporters.series import VOXELS, multi_frame, ras_of_pixel, read, series
from tests.test_dicom import ORIENTATIONS

KINDS = ["BINARY", "LABELMAP"]


def written(folder, label, scan, path, anatomy=ABDOMEN, **how):
    assert write_segmentation(label, scan.affine, path, anatomy, reference=folder, **how) == (path,)
    return hd.seg.segread(path)


def on_the_grid(seg, scan, ids) -> np.ndarray:
    """The segments on the grid of the scan by the object's own geometry, as structure ids."""
    volume = seg.get_volume(combine_segments=True)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    index = np.indices(volume.spatial_shape).reshape(3, -1)
    where = np.linalg.inv(scan.affine) @ affine @ np.vstack([index, np.ones(index.shape[1])])
    assert np.abs(where[:3] - np.rint(where[:3])).max() < 1e-3
    out = np.zeros(scan.array.shape, np.uint8)
    out[tuple(np.rint(where[:3]).astype(int))] = np.array([0, *ids], np.uint8)[volume.array.reshape(-1)]
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step_mm", [2.5, -2.5])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back_on_the_scans_grid(tmp_path, orientation, step_mm, kind):
    folder = series(tmp_path / "ct", orientation, step_mm)
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm", kind=kind)
    ids = [1, 2, 6] if kind == "BINARY" else range(1, 7)
    np.testing.assert_array_equal(on_the_grid(seg, scan, ids), label)
    assert seg.FrameOfReferenceUID == dcmread(next(folder.iterdir())).FrameOfReferenceUID


def frames_by_pydicom(path, folder):
    """(id of segment, file of the image a frame points at, its pixels), with nothing but pydicom."""
    ds = dcmread(path)
    images = {one.SOPInstanceUID: one for one in (dcmread(p) for p in folder.iterdir())}
    pixels = np.atleast_3d(ds.pixel_array).reshape(-1, ds.Rows, ds.Columns)
    for groups, frame in zip(ds.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(place, float), np.array(images[source].ImagePositionPatient, float), atol=1e-6)
        yield groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber, images[source], frame


def test_each_frame_lies_on_the_image_it_points_at(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    written(folder, label, scan, tmp_path / "o.seg.dcm")
    seen = np.zeros(label.shape, np.uint8)
    inverse = np.linalg.inv(scan.affine)
    for number, image, frame in frames_by_pydicom(tmp_path / "o.seg.dcm", folder):
        for row, column in np.argwhere(frame):
            voxel = inverse @ [*ras_of_pixel(image, column, row), 1]
            seen[tuple(np.rint(voxel[:3]).astype(int))] = (0, 1, 2, 6)[number]
    np.testing.assert_array_equal(seen, label)


@pytest.mark.parametrize("kind", KINDS)
def test_a_multi_frame_series_whose_frames_lie_in_no_order(tmp_path, kind):
    folder = multi_frame(tmp_path / "ct" / "all.dcm")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm", kind=kind)
    np.testing.assert_array_equal(on_the_grid(seg, scan, [1, 2, 6] if kind == "BINARY" else range(1, 7)), label)


def test_uneven_slices_keep_their_own_places(tmp_path):
    def moved(k, ds):
        if k == 2:
            ds.ImagePositionPatient[2] += 0.2

    folder = series(tmp_path / "ct", "axial", 2.5, moved)
    scan, label = read(folder)
    assert scan.warnings
    written(folder, label, scan, tmp_path / "o.seg.dcm")
    assert len(list(frames_by_pydicom(tmp_path / "o.seg.dcm", folder))) == 3 * VOXELS.shape[2]


def test_segments_are_described(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm", algorithm=Algorithm(model="run-1", version="9.8"))
    assert [(s.SegmentNumber, s.SegmentLabel, s.TrackingID) for s in seg.SegmentSequence] == [
        (1, "spleen", "spleen"),
        (2, "right kidney", "right_kidney"),
        (3, "liver", "liver"),
    ]
    kidney = seg.SegmentSequence[1]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning) == ("SCT", "64033007", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    assert (
        "SegmentedPropertyTypeModifierCodeSequence" not in seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    )
    assert kidney.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("abdoseg run-1", "9.8")
    colour = hd.color.CIELabColor.from_dicom_value(tuple(kidney.RecommendedDisplayCIELabValue)).to_rgb()
    assert np.abs(np.array(colour) - [0x88, 0x31, 0x87]).max() <= 2
    assert seg.SegmentsOverlap == "NO"


def test_patient_and_study_are_repeated(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm")
    image = dcmread(next(folder.iterdir()))
    assert (seg.PatientID, seg.PatientName, seg.StudyInstanceUID) == ("SECRET-7", "Doe^Jane", image.StudyInstanceUID)
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == VOXELS.shape[2]


def odd_headers(k, ds):
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = "Müller^Zoë"
    ds.PatientSex = "X"
    ds.StudyDate = ""
    ds.StudyDescription = "Abdómen"


@pytest.mark.filterwarnings("ignore")
def test_headers_that_break_rules_are_mended(tmp_path):
    def broken(k, ds):
        odd_headers(k, ds)
        from pydicom.config import IGNORE
        from pydicom.dataelem import DataElement

        ds["PatientBirthDate"] = DataElement(0x00100030, "DA", "not a date", validation_mode=IGNORE)
        ds["AccessionNumber"] = DataElement(0x00080050, "SH", "longer than sixteen characters", validation_mode=IGNORE)

    folder = series(tmp_path / "ct", change=broken)
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm")
    assert str(seg.PatientName) == "Müller^Zoë"
    assert not seg.PatientBirthDate
    assert not seg.AccessionNumber
    assert not seg.PatientSex


def test_copies_of_a_slice_are_no_change(tmp_path):
    folder = series(tmp_path / "ct")
    (folder / "copy.dcm").write_bytes((folder / "002.dcm").read_bytes())
    (folder / "notes.txt").write_text("not an image")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm")
    np.testing.assert_array_equal(on_the_grid(seg, scan, [1, 2, 6]), label)


@pytest.mark.parametrize("kind", KINDS)
def test_117_structures_and_names_of_ones_own(tmp_path, kind):
    names = [f"structure_{i}_of_a_long_name_{'x' * 60}" for i in range(117)]
    own = Anatomy(tuple(Structure(n, f"Ünit {n}", f"s{i}", f"#{i:02x}7f00") for i, n in enumerate(names)))
    folder = series(tmp_path / "ct")
    scan, _ = read(folder)
    label = (np.random.default_rng(2).permutation(scan.array.size) % 118).astype(np.uint8).reshape(scan.array.shape)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm", own, kind=kind)
    np.testing.assert_array_equal(on_the_grid(seg, scan, range(1, 118)), label)
    described = [s for s in seg.SegmentSequence if s.SegmentNumber > 0]
    codes = [s.SegmentedPropertyTypeCodeSequence[0] for s in described]
    assert {c.CodingSchemeDesignator for c in codes} == {"99ABDOSEG"}
    assert len({c.CodeValue for c in codes}) == 117
    assert described[0].SegmentLabel.startswith("Ünit")


def test_only_what_was_asked_for(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.seg.dcm", structures=("liver", "stomach"))
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["liver"]
    np.testing.assert_array_equal(on_the_grid(seg, scan, [6]), np.where(label == 6, 6, 0))


def test_a_label_map_is_compressed_and_keeps_the_ids(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    seg = written(folder, label, scan, tmp_path / "o.labelmap.dcm", kind="LABELMAP")
    assert seg.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert sorted(s.SegmentNumber for s in seg.SegmentSequence) == [0, 1, 2, 6]


# -- what cannot be written --------------------------------------------------------------------------------------


FORMATS_ON_A_SERIES = ["dicom-seg", "dicom-labelmap", "dicom-rtstruct"]


def refused(tmp_path, folder, label, affine, name, error, message, **how):
    path = tmp_path / "out" / f"o{FORMATS[name].suffix}"
    with pytest.raises(error, match=message) as caught:
        FORMATS[name].write(label, affine, path, ABDOMEN, reference=folder, **how)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "Doe" not in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES)
@pytest.mark.parametrize("reference", [None, "scan.nii.gz"])
def test_no_series(tmp_path, name, reference):
    label = np.ones((4, 4, 4), np.uint8)
    path = None if reference is None else tmp_path / reference
    refused(tmp_path, path, label, np.eye(4), name, ConfigError, "points at the images of a series")
    with pytest.raises(ConfigError, match="points at the images of a series"):
        FORMATS[name].require(tmp_path / "o.dcm", path)


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: [p.unlink() for p in folder.iterdir()], "no image was found"),
        (lambda folder: (folder / "002.dcm").unlink(), "no image lies at slice [1-5] of 5"),
        (lambda folder: _move(folder, "Rows", 10), "9 x 10 pixels, the label map 9 x 11"),
        (lambda folder: _move(folder, "PixelSpacing", [0.71, 0.9]), "directions or the spacing"),
        (lambda folder: _move(folder, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), "directions or the spacing"),
        (lambda folder: _move(folder, "ImagePositionPatient", [0, 0, 0]), "lies at no slice"),
        (lambda folder: _beside(folder, 3.0), "lies at no slice"),
        (lambda folder: _move(folder, "ImagePositionPatient", None), "does not say where it lies"),
        (lambda folder: _move(folder, "FrameOfReferenceUID", None), "no valid FrameOfReferenceUID"),
        (lambda folder: (folder / "002.dcm").write_bytes((folder / "002.dcm").read_bytes()[:420]), "damaged|no image"),
    ],
)
def test_a_series_that_has_changed(tmp_path, name, change, message):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    change(folder)
    refused(tmp_path, folder, label, scan.affine, name, CaseError, message)


def _beside(folder, shift_mm):
    """Move an image sideways, within its own slice."""
    path = folder / "002.dcm"
    image = dcmread(path)
    row = np.array(image.ImageOrientationPatient[:3], float)
    image.ImagePositionPatient = [f"{v:.6g}" for v in np.array(image.ImagePositionPatient, float) + shift_mm * row]
    image.save_as(path)


def _move(folder, element, value):
    path = folder / "002.dcm"
    ds = dcmread(path)
    if value is None:
        del ds[element]
    else:
        setattr(ds, element, value)
    ds.save_as(path)


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES)
def test_label_of_another_shape(tmp_path, name):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    refused(tmp_path, folder, label[:, :-1], scan.affine, name, CaseError, "9 x 11 pixels, the label map 9 x 10")
    refused(tmp_path, folder, label[:, :, :-1], scan.affine, name, CaseError, "lies at no slice")
    with pytest.raises(ValueError, match="expected uint8"):
        FORMATS[name].write(label.astype(int), scan.affine, tmp_path / "o.dcm", ABDOMEN, reference=folder)


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES)
def test_nothing_found(tmp_path, name):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    empty = np.zeros_like(label)
    refused(tmp_path, folder, empty, scan.affine, name, CaseError, "no structure was found")
    refused(tmp_path, folder, label, scan.affine, name, CaseError, "no structure was found", structures=("aorta",))
    refused(tmp_path, folder, label, scan.affine, name, UnknownNameError, "splen", structures=("splen",))


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES)
def test_a_folder_that_cannot_be_made(tmp_path, name):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    (tmp_path / "out").write_text("a file")
    refused(tmp_path, folder, label, scan.affine, name, WorkspaceError, "cannot be written")


@pytest.mark.parametrize("name", FORMATS_ON_A_SERIES[:2])
def test_without_highdicom(tmp_path, name, monkeypatch):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    refused(tmp_path, folder, label, scan.affine, name, ConfigError, "pip install highdicom")
    with pytest.raises(ConfigError, match="pip install highdicom"):
        FORMATS[name].require(tmp_path / "o.dcm", folder)


def test_one_missing_place_is_named(tmp_path):
    folder = series(tmp_path / "ct", "axial", 2.5)
    scan, label = read(folder)
    (folder / "003.dcm").unlink()
    refused(tmp_path, folder, label, scan.affine, "dicom-seg", CaseError, "no image lies at slice 4 of 5")
