import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from abdoseg.errors import CaseError
from abdoseg.readers import read_scan
from tests.conftest import write_nifti
from tests.test_geometry import affine_of

ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def test_nifti_keeps_voxels_type_and_affine(tmp_path):
    affine = affine_of("LPS", tilt_degrees=10)
    scan = read_scan(write_nifti(tmp_path / "a.nii.gz", ARRAY, affine))
    np.testing.assert_array_equal(scan.array, ARRAY)
    assert scan.array.dtype == np.int16
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    assert scan.warnings == ()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_every_format_gives_the_same_scan_in_the_world(tmp_path, suffix):
    image = sitk.GetImageFromArray(ARRAY.transpose(2, 1, 0))
    image.SetSpacing((0.8, 1.1, 2.5))
    image.SetOrigin((3.0, -4.0, 5.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    scan = read_scan(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(scan.array, ARRAY)
    for index in [(0, 0, 0), (3, 1, 2), (1, 4, 5)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((scan.affine @ [*index, 1])[:3], lps * (-1, -1, 1), atol=1e-5)


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii").array, np.asanyarray(raw.dataobj))


def test_big_endian_is_taken(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(ARRAY.astype(">i2"), np.eye(4), header)
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.array, ARRAY)
    assert scan.array.dtype.isnative


def test_a_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path):
    scan = read_scan(write_nifti(tmp_path / "a.nii.gz", ARRAY[..., None], np.eye(4)))
    assert scan.array.shape == ARRAY.shape
    with pytest.raises(CaseError, match=r"found 4-D \(4, 5, 6, 2\), expected 3-D"):
        read_scan(write_nifti(tmp_path / "b.nii.gz", np.stack([ARRAY, ARRAY], -1), np.eye(4)))


def test_disagreeing_headers_are_a_warning(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.set_sform(affine_of("LPS"), 1)
    image.set_qform(affine_of("RAS"), 1)
    image.to_filename(tmp_path / "a.nii")
    assert any("disagree" in warning for warning in read_scan(tmp_path / "a.nii").warnings)


def test_a_header_without_orientation_is_a_warning(tmp_path):
    image = nib.Nifti1Image(ARRAY, None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.to_filename(tmp_path / "a.nii")
    assert any("no orientation" in warning for warning in read_scan(tmp_path / "a.nii").warnings)


def test_truncated_gzip_is_told(tmp_path):
    path = write_nifti(
        tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 99, (30, 30, 30)).astype(np.int16), np.eye(4)
    )
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CaseError, match=r"a\.nii\.gz"):
        read_scan(path)


@pytest.mark.parametrize("extra", [b"", b"1234" * 300_000], ids=["voxels alone", "more behind them"])
def test_the_checksum_at_the_end_of_a_gzip_file_is_looked_at(tmp_path, extra):
    plain = tmp_path / "a.nii"
    write_nifti(plain, np.arange(4096, dtype=np.int16).reshape(16, 16, 16), np.eye(4))
    whole = gzip.compress(plain.read_bytes() + extra)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_scan(path).array.reshape(-1, order="F")[:3], [0, 256, 512])
    for damaged in (whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:], whole[:-5]):
        path.write_bytes(damaged)
        with pytest.raises(CaseError, match="damaged or cut off"):
            read_scan(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a scan at all", gzip.compress(b"not a scan either")], ids=["empty", "text", "text in gzip"]
)
def test_other_files_are_told(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(CaseError, match=r"a\.nii\.gz"):
        read_scan(tmp_path / "a.nii.gz")


def test_damaged_nrrd_missing_file_and_unknown_format(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: nonsense\n\n")
    for path, message in (("a.nrrd", "cannot be read"), ("b.nii.gz", "no such file"), ("c.txt", "unknown format")):
        if path == "c.txt":
            (tmp_path / path).write_text("x")
        with pytest.raises(CaseError, match=message):
            read_scan(tmp_path / path)


def test_colour_and_single_slices_are_refused(tmp_path):
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "rgb.nii")
    with pytest.raises(CaseError, match="expected real numbers"):
        read_scan(tmp_path / "rgb.nii")
    with pytest.raises(CaseError, match="at least 2 voxels"):
        read_scan(write_nifti(tmp_path / "thin.nii", ARRAY[:, :, :1], np.eye(4)))
