"""RT structure sets, read back with pydicom and filled again by other software's rule, on the images they point at."""

import highdicom._standard_utils as standard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import dcmread
from pydicom.uid import RTStructureSetStorage
from scipy import ndimage

from abdoseg.anatomy import ABDOMEN, Anatomy, Structure
from abdoseg.exporters.contours import outlines
from abdoseg.exporters.dicom_rtstruct import write_structure_set
from abdoseg.exporters.parts import Algorithm
from tests.exporters.series import VOXELS, multi_frame, ras_of_pixel, read, series
from tests.exporters.test_dicom_seg import odd_headers
from tests.test_dicom import ORIENTATIONS


def filled(polygons, shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose centre is inside by the even-odd rule, and by the winding number; a ray for each, edge by edge."""
    row, column = np.indices(shape)
    crossings, winding = np.zeros(shape, int), np.zeros(shape, int)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crossed = (min(y0, y1) <= row) & (row < max(y0, y1)) & (x0 + (row - y0) / (y1 - y0) * (x1 - x0) > column)
            crossings += crossed
            winding += np.where(crossed, np.sign(y1 - y0), 0).astype(int)
    return crossings % 2 == 1, winding != 0


def area(polygon) -> float:
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    return float(np.sum(x0 * y1 - x1 * y0) / 2)


MASKS = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 1]))


@given(MASKS)
def test_filled_again_by_either_rule_the_outlines_are_the_mask(mask):
    for inside in filled(outlines(mask), mask.shape):
        np.testing.assert_array_equal(inside, mask > 0)


@given(MASKS)
def test_area_is_the_masks_less_half_a_pixel_an_outline_and_more_for_a_hole(mask):
    polygons = outlines(mask)
    # Voxels that touch at a corner may be joined or not, so both ways bound it.
    total = sum(area(polygon) for polygon in polygons)
    bounds = []
    for joined in (np.ones((3, 3)), None):
        padded = np.pad(mask, 1)
        parts = ndimage.label(padded, joined)[1]
        holes = ndimage.label(padded == 0, None if joined is not None else np.ones((3, 3)))[1] - 1
        bounds.append(mask.sum() - (parts - holes) / 2)
    assert min(bounds) - 1e-9 <= total <= max(bounds) + 1e-9


def test_holes_islands_in_holes_and_neighbouring_holes():
    mask = np.ones((15, 17), np.uint8)
    mask[2:13, 2:8] = 0
    mask[4:11, 4:6] = 1
    mask[6:9, 4] = 0
    mask[2:5, 10:15] = 0
    mask[7:9, 10] = mask[7, 12:14] = mask[11:13, 10:15] = 0
    polygons = outlines(mask)
    assert len(polygons) == ndimage.label(mask)[1] == 2  # one line each, whatever the holes
    for inside in filled(polygons, mask.shape):
        np.testing.assert_array_equal(inside, mask > 0)


def test_channels_pass_between_voxels():
    mask = np.ones((9, 9), np.uint8)
    mask[4, 4] = 0
    (polygon,) = outlines(mask)
    steps = np.roll(polygon, -1, axis=0) - polygon
    channel = polygon[(steps[:, 0] == 0) & (np.abs(steps[:, 1]) > 3) & (np.abs(polygon[:, 0] - 4) < 1)]
    assert len(channel) == 2
    assert (channel[:, 0] % 1 == 0.5).all()


def test_channels_end_at_the_first_line_above():
    mask = np.ones((13, 5), np.uint8)
    mask[3, 1:3] = mask[9, 2] = 0
    (polygon,) = outlines(mask)
    steps = np.abs(np.roll(polygon, -1, axis=0) - polygon)
    within = (polygon[:, 0] == 1.5) & (steps[:, 0] == 0)
    assert steps[within, 1].max() == 5.5  # from one hole to the other, not through it


def test_straight_runs_have_two_ends_only():
    (polygon,) = outlines(np.ones((40, 60), np.uint8))
    assert len(polygon) == 8


# -- objects -----------------------------------------------------------------------------------------------------


def rasterised(path, scan, images) -> np.ndarray:
    """Label of a structure set, filled on the pixels of the images that its contours name."""
    ds = dcmread(path)
    out = np.zeros(scan.array.shape, np.uint8)
    inverse = np.linalg.inv(scan.affine)
    for roi in ds.ROIContourSequence:
        by_slice = {}
        for contour in roi.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            voxels = (np.c_[points * [-1, -1, 1], np.ones(len(points))] @ inverse.T)[:, :3]
            k = round(float(voxels[0, 2]))
            # As far as coordinates are rounded to 0.0001 mm.
            assert np.abs(voxels[:, 2] - k).max() < 1e-3
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            if "ImagePositionPatient" in image:
                assert np.abs((inverse @ [*ras_of_pixel(image, 0, 0), 1])[:3] - [0, 0, k]).max() < 1e-3
            by_slice.setdefault(k, []).append(voxels[:, :2])
        for k, polygons in by_slice.items():
            inside, _ = filled(polygons, scan.array.shape[1::-1])
            out[:, :, k][inside.T] = roi.ReferencedROINumber
    return out


def images_of(folder):
    return {one.SOPInstanceUID: one for one in (dcmread(p) for p in folder.iterdir())}


@pytest.mark.parametrize("step_mm", [2.5, -2.5])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back_voxel_by_voxel(tmp_path, orientation, step_mm):
    folder = series(tmp_path / "ct", orientation, step_mm)
    scan, label = read(folder)
    label[:2] = label[:, :3] = 0
    path = tmp_path / "o.rtstruct.dcm"
    assert write_structure_set(label, scan.affine, path, ABDOMEN, reference=folder) == (path,)
    np.testing.assert_array_equal(rasterised(path, scan, images_of(folder)), label)


def test_a_multi_frame_series(tmp_path):
    folder = multi_frame(tmp_path / "ct" / "all.dcm")
    scan, label = read(folder)
    path = tmp_path / "o.rtstruct.dcm"
    write_structure_set(label, scan.affine, path, ABDOMEN, reference=folder)
    np.testing.assert_array_equal(rasterised(path, scan, images_of(folder)), label)
    source, ds = dcmread(folder / "all.dcm"), dcmread(path)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        frame = contour.ContourImageSequence[0].ReferencedFrameNumber
        place = source.PerFrameFunctionalGroupsSequence[frame - 1].PlanePositionSequence[0].ImagePositionPatient
        first = np.array(contour.ContourData[:3], float)
        normal = np.cross(*np.reshape(ORIENTATIONS["oblique"], (2, 3)))
        assert abs((first - np.array(place, float)) @ normal) < 1e-3


def test_what_the_standard_asks_for_is_there(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    path = tmp_path / "o.rtstruct.dcm"
    write_structure_set(label, scan.affine, path, ABDOMEN, reference=folder)
    ds = dcmread(path)
    for module in standard.get_iod_module_map()["rt-structure-set"]:
        if module["usage"] == "M" or module["key"] in ("frame-of-reference", "approval"):
            for attribute in standard.get_module_attribute_map()[module["key"]]:
                if attribute["type"] in ("1", "2"):
                    _require(ds, attribute["path"], attribute["keyword"], filled=attribute["type"] == "1")


def _require(item, path, keyword, filled):
    if path:
        for inner in item.get(path[0]) or []:
            _require(inner, path[1:], keyword, filled)
        return
    assert keyword in item, keyword
    assert not (filled and item[keyword].is_empty), keyword


def test_rois_are_described(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    path = tmp_path / "o.rtstruct.dcm"
    write_structure_set(label, scan.affine, path, ABDOMEN, reference=folder, algorithm=Algorithm("run-1", version="9"))
    ds, image = dcmread(path), dcmread(folder / "000.dcm")
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == RTStructureSetStorage
    assert [(r.ROINumber, r.ROIName) for r in ds.StructureSetROISequence] == [
        (1, "spleen"),
        (2, "right_kidney"),
        (6, "liver"),
    ]
    assert [list(r.ROIDisplayColor) for r in ds.ROIContourSequence][1] == [0x88, 0x31, 0x87]
    code = ds.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("64033007", "Right")
    frame = ds.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == ds.FrameOfReferenceUID == image.FrameOfReferenceUID
    named = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == image.SeriesInstanceUID != ds.SeriesInstanceUID
    assert len(named.ContourImageSequence) == VOXELS.shape[2]
    assert (ds.PatientID, ds.StudyInstanceUID, ds.Modality) == ("SECRET-7", image.StudyInstanceUID, "RTSTRUCT")
    assert (ds.SoftwareVersions, ds.StructureSetName) == ("9", "abdoseg run-1")


def test_names_in_other_scripts_and_what_was_asked_for(tmp_path):
    own = Anatomy((Structure("milz", "Milz, groß", "M", "#102030"), Structure("leber", "Leber", "L", "#aabbcc")))
    folder = series(tmp_path / "ct", change=odd_headers)
    scan, label = read(folder)
    path = tmp_path / "o.rtstruct.dcm"
    write_structure_set(label, scan.affine, path, own, ("milz",), folder)
    ds = dcmread(path)
    assert [r.ROIDescription for r in ds.StructureSetROISequence] == ["Milz, groß"]
    assert (str(ds.PatientName), ds.StudyDescription) == ("Müller^Zoë", "Abdómen")
    assert not ds.PatientSex
    np.testing.assert_array_equal(rasterised(path, scan, images_of(folder)), np.where(label == 1, 1, 0))


def test_coordinates_are_decimal_strings(tmp_path):
    folder = series(tmp_path / "ct")
    scan, label = read(folder)
    path = tmp_path / "o.rtstruct.dcm"
    write_structure_set(label, scan.affine, path, ABDOMEN, reference=folder)
    for roi in dcmread(path).ROIContourSequence:
        for contour in roi.ContourSequence:
            assert all(len(str(value)) <= 16 for value in contour.ContourData)
