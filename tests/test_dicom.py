"""DICOM series, made slice by slice; SimpleITK's own series reader is the reference for where a voxel lies."""

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.decoders import JPEG2000LosslessDecoder, JPEGLosslessSV1Decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    MPEG2MPML,
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)

from abdoseg.errors import CaseError
from abdoseg.geometry import Grid, same_grid, to_canonical
from abdoseg.readers import read_scan
from abdoseg.readers.dicom import modality_of, read_series, series_in
from abdoseg.readers.scan import Scan

VOXELS = np.random.default_rng(0).integers(0, 2000, (5, 7, 4)).astype(np.uint16)
"""Stored values, (columns, rows, slices)."""

LARGER = VOXELS.repeat(8, 0).repeat(8, 1)
"""The same as blocks: JPEG 2000 needs 32 pixels a side."""

SPACING = (0.7, 0.9)
"""Distance between rows, and between columns, mm."""

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial from the feet up": (1, 0, 0, 0, -1, 0),
    "axial from the left": (-1, 0, 0, 0, 1, 0),
    "axial turned": (0, 1, 0, -1, 0, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": tuple(np.linalg.qr([[0.9, 0.1, 0.3], [0.2, 1.0, -0.2], [-0.3, 0.2, 1.0]])[0].T[:2].ravel()),
}

Change = Callable[[int, Dataset], None]


def slice_of(
    k: int,
    voxels: np.ndarray = VOXELS,
    orientation: Sequence[float] = ORIENTATIONS["axial"],
    step_mm: float = 2.5,
) -> Dataset:
    """The k-th slice of a CT series; every series has this one's id."""
    rows, columns = np.array(orientation).reshape(2, 3)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["slice", str(k)])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    ds.PatientName, ds.PatientID, ds.Modality = "Doe^Jane", "SECRET-7", "CT"
    ds.SeriesNumber, ds.InstanceNumber = 3, k + 1
    ds.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
    position = np.array((-12.5, 30.0, -400.0)) + k * step_mm * np.cross(rows, columns)
    ds.ImagePositionPatient = [f"{v:.10g}" for v in position]
    ds.PixelSpacing = list(SPACING)
    ds.SliceThickness = abs(step_mm)
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "MONOCHROME2", 1
    put_pixels(ds, voxels[:, :, k].T)
    return ds


def put_pixels(ds: Dataset, pixels: np.ndarray) -> None:
    """Store (rows, columns) values."""
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OW"


def write_series(folder: Path, change: Change = lambda k, ds: None, suffix: str = ".dcm", **how: object) -> Path:
    """Write a series in which ``change`` has touched every slice; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(how.get("voxels", VOXELS).shape[2]):
        ds = slice_of(k, **how)
        change(k, ds)
        save(ds, folder / f"{k:03d}{suffix}")
    return folder


def save(ds: Dataset, path: Path) -> None:
    if "MediaStorageSOPClassUID" not in ds.file_meta:
        ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", generate_uid())
    ds.save_as(path, enforce_file_format=True)


def only(k: int, **values: object) -> Change:
    """A change of elements of slice ``k``."""

    def change(index: int, ds: Dataset) -> None:
        if index == k:
            each(**values)(index, ds)

    return change


def each(**values: object) -> Change:
    """A change of elements of all slices; None takes the element out."""

    def change(_: int, ds: Dataset) -> None:
        for name, value in values.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)

    return change


def moved(k: int, mm: Sequence[float]) -> Change:
    """A change of the position of slice ``k`` by ``mm``."""

    def change(index: int, ds: Dataset) -> None:
        if index == k:
            ds.ImagePositionPatient = [float(a) + b for a, b in zip(ds.ImagePositionPatient, mm, strict=True)]

    return change


def refusal(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(CaseError) as caught:
        read_series(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{folder.name}: ")
    assert "Doe" not in line
    assert "SECRET" not in line
    return line


def sitk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same_in_the_world(scan: Scan, image: sitk.Image, stride: int = 1) -> None:
    """Every voxel of the scan lies on a voxel of the image and has its value."""
    index = np.stack(np.meshgrid(*[np.arange(0, n, stride) for n in scan.array.shape], indexing="ij"), -1).reshape(
        -1, 3
    )
    lps = (index @ scan.affine[:3, :3].T + scan.affine[:3, 3]) * (-1, -1, 1)
    directions = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    there = (lps - image.GetOrigin()) @ np.linalg.inv(directions).T
    np.testing.assert_allclose(there, np.round(there), atol=1e-3)
    assert sorted(image.GetSize()) == sorted(scan.array.shape)
    x, y, z = np.round(there).astype(int).T
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[z, y, x], scan.array[tuple(index.T)])


# -- where voxels lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_mm", [2.5, -2.5])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_every_voxel_lies_where_another_reader_puts_it(tmp_path, orientation, step_mm):
    folder = write_series(tmp_path / "a", orientation=orientation, step_mm=step_mm)
    scan = read_scan(folder)
    # Instance 1 first, whichever way the stack runs.
    np.testing.assert_array_equal(scan.array, VOXELS.astype(np.int16) - 1024)
    assert scan.warnings == ()
    assert_same_in_the_world(scan, sitk_series(folder))
    np.testing.assert_allclose(scan.grid.spacing_mm, (SPACING[1], SPACING[0], 2.5), rtol=1e-6)


def test_slices_without_a_usable_number_lie_by_position(tmp_path):
    for name, numbers in (("jumbled", (3, 1, 4, 2)), ("alike", (1, 1, 1, 1)), ("none", (None,) * 4)):
        change = lambda k, ds, numbers=numbers: each(InstanceNumber=numbers[k])(k, ds)  # noqa: E731
        folder = write_series(tmp_path / name, change, step_mm=-2.5)
        scan = read_series(folder)
        np.testing.assert_array_equal(scan.array, VOXELS[:, :, ::-1].astype(np.int16) - 1024)
        assert scan.affine[2, 2] == 2.5
        assert_same_in_the_world(scan, sitk_series(folder))


def test_rounded_directions_do_not_change_the_spacing(tmp_path):
    scan = read_series(write_series(tmp_path / "a", each(ImageOrientationPatient=[0.707, 0.707, 0, -0.707, 0.707, 0])))
    np.testing.assert_allclose(scan.grid.spacing_mm, (SPACING[1], SPACING[0], 2.5), rtol=1e-9)


def test_file_names_do_not_matter(tmp_path):
    folder = write_series(tmp_path / "a", suffix="")
    for k, name in enumerate(("z", "IM 3", "b.IMA", "c.1.2.3")):
        (folder / f"{k:03d}").rename(folder / name)
    np.testing.assert_array_equal(read_series(folder).array, VOXELS.astype(np.int16) - 1024)


# -- intensities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voxels", "slope", "intercept", "dtype"),
    [
        (VOXELS, 1, -1024, np.int16),
        (VOXELS.astype(np.int16) - 1000, 1, 0, np.int16),
        ((VOXELS % 200).astype(np.uint8), 1, 0, np.int16),
        (VOXELS * 32, 1, -32000, np.int16),  # stored values beyond int16, intensities within
        (VOXELS * 32, 1, 0, np.float32),
        (VOXELS.astype(np.int16) - 1000, 1, -32000, np.float32),
        (VOXELS, 1, 0.5, np.float32),
        (VOXELS, 0.25, -3, np.float32),
    ],
)
def test_intensities_are_rescaled_in_the_smallest_exact_type(tmp_path, voxels, slope, intercept, dtype):
    change = each(RescaleSlope=slope, RescaleIntercept=intercept)
    scan = read_series(write_series(tmp_path / "a", change, voxels=voxels))
    np.testing.assert_array_equal(scan.array, voxels.astype(np.float64) * slope + intercept)
    assert scan.array.dtype == dtype


def test_each_slice_has_its_own_scale(tmp_path):
    change = lambda k, ds: each(RescaleSlope=(1, 1, 0.5, 2)[k], RescaleIntercept=k)(k, ds)  # noqa: E731
    scan = read_series(write_series(tmp_path / "a", change))
    np.testing.assert_array_equal(scan.array, VOXELS * np.array([1, 1, 0.5, 2]) + np.arange(4))
    assert scan.array.dtype == np.float32


def test_a_series_without_scale_keeps_its_values_and_bits_beside_them_do_not_count(tmp_path):
    def change(k, ds):
        each(RescaleSlope=None, RescaleIntercept=None)(k, ds)
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 1
        pixels = (VOXELS[:, :, k].T.astype(np.int16) - 1000) & 0x0FFF  # the sign is bit 11
        ds.PixelData = (pixels | 0x3000).tobytes()  # an overlay above it

    scan = read_series(write_series(tmp_path / "a", change))
    np.testing.assert_array_equal(scan.array, VOXELS.astype(np.int16) - 1000)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1], ids=lambda u: u.name
)
def test_compressed_slices_hold_the_same_values(tmp_path, syntax, signed):
    voxels = LARGER.astype(np.int16) - 1000 if signed else LARGER

    def change(k, ds):
        if syntax == JPEGLosslessSV1:
            compress_by_sitk(ds, voxels[:, :, k].T, tmp_path / "one.dcm")
        else:
            ds.compress(syntax, generate_instance_uid=False)

    if syntax == JPEGLosslessSV1 and not JPEGLosslessSV1Decoder.is_available:
        pytest.skip("python-gdcm is not installed")
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls", reason="pyjpegls, which writes JPEG-LS, is not installed")
    folder = write_series(tmp_path / "a", change, voxels=voxels)
    assert dcmread(folder / "000.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_series(folder).array, voxels.astype(np.int16) - 1024)


def compress_by_sitk(ds: Dataset, pixels: np.ndarray, path: Path) -> None:
    """Lossless JPEG, which pydicom does not write."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(pixels[None]))
    written = dcmread(path)
    ds.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    ds["PixelData"] = written["PixelData"]


# -- what is passed over ----------------------------------------------------------------------------------------


def test_files_without_an_image_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "a")
    (folder / "readme.txt").write_text("no scan")
    (folder / "._000.dcm").write_bytes(b"\x00\x05\x16\x07")
    (folder / "LICENSE").write_bytes(b"")
    (folder / "deeper").mkdir()
    save(slice_of(0), folder / "deeper" / "of another.dcm")
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.FileSetID, directory.DirectoryRecordSequence = "DISC", Items()
    save(directory, folder / "DICOMDIR")
    for name, uid in (("sr", "1.2.840.10008.5.1.4.1.1.88.11"), ("seg", SegmentationStorage)):
        other = slice_of(1)
        other.SOPClassUID, other.SeriesInstanceUID, other.Modality = UID(uid), generate_uid(), name.upper()
        save(other, folder / f"{name}.dcm")
        other.SOPClassUID = ""  # the file's own header still says what it is
        save(other, folder / f"{name} blanked.dcm")
    scan = read_series(folder)
    np.testing.assert_array_equal(scan.array, VOXELS.astype(np.int16) - 1024)
    assert scan.warnings == ()


def test_blanked_identifiers_are_taken(tmp_path):
    change = each(SOPClassUID="", SeriesInstanceUID="", SeriesNumber=None, PatientName="")
    folder = write_series(tmp_path / "a", change)
    assert read_series(folder).array.shape == VOXELS.shape
    assert list(series_in(folder)) == [""]


def test_copies_of_a_slice_are_dropped_with_a_warning(tmp_path):
    folder = write_series(tmp_path / "a")
    shutil.copy(folder / "001.dcm", folder / "001 (1).dcm")
    scan = read_series(folder)
    np.testing.assert_array_equal(scan.array, VOXELS.astype(np.int16) - 1024)
    assert scan.warnings == ("a copy of a slice was dropped",)


# -- uneven stacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off_mm", "warns"), [(0.008, False), (0.03, False), (0.2, True)])
def test_slightly_uneven_stacks_are_evened(tmp_path, off_mm, warns):
    scan = read_series(write_series(tmp_path / "a", moved(1, (0, 0, off_mm))))
    assert bool(scan.warnings) == warns
    if warns:
        assert "instance 2 lies" in scan.warnings[0]
    even = read_series(write_series(tmp_path / "b"))
    np.testing.assert_allclose(scan.affine, even.affine, atol=off_mm)
    assert np.linalg.matrix_rank(scan.affine) == 4


def test_positions_rounded_to_a_tenth_are_no_fault(tmp_path):
    def rounded(k, ds):
        ds.ImagePositionPatient = [-12.5, 30.0, round(-400 + k * 0.625, 1)]

    voxels = np.repeat(VOXELS, 5, axis=2)
    scan = read_series(write_series(tmp_path / "a", rounded, voxels=voxels))
    assert scan.grid.spacing_mm[2] == pytest.approx(0.625, rel=5e-3)
    assert any("lies" in warning for warning in scan.warnings)


def test_uneven_and_leaning_stacks_are_refused(tmp_path):
    uneven = write_series(tmp_path / "uneven", moved(3, (0, 0, 1.2)))
    assert "off its place in a stack" in refusal(uneven)
    shifted = write_series(tmp_path / "shifted", moved(2, (0, 1.0, 0)))
    assert "instance 3 lies" in refusal(shifted)

    def tilted(k, ds):
        ds.ImagePositionPatient = [-12.5, 30.0 + k * 2.5 * np.tan(np.radians(10)), -400.0 + k * 2.5]

    assert "leans 10 degrees off the slices' normal (gantry tilt)" in refusal(write_series(tmp_path / "tilt", tilted))


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ((2,), "1 after instance 2"),
        ((1, 2), "2 after instance 1"),
        ((1, 4, 5), "1 after instance 1, 2 after instance 4"),
    ],
)
@pytest.mark.parametrize("step_mm", [2.5, -2.5])
def test_missing_slices_are_counted(tmp_path, lost, told, step_mm):
    voxels = np.concatenate([VOXELS, VOXELS], axis=2)
    folder = write_series(tmp_path / "a", voxels=voxels, step_mm=step_mm)
    for k in lost:
        (folder / f"{k:03d}.dcm").unlink()
    assert f"slices are missing ({told}); expected one every 2.5 mm" in refusal(folder)


# -- one line for each fault ------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Change, str]] = {
    "inverted grey": (each(PhotometricInterpretation="MONOCHROME1"), "found inverted grey (MONOCHROME1), expected"),
    "colour": (each(PhotometricInterpretation="RGB", SamplesPerPixel=3), "found colour, expected MONOCHROME2"),
    "lookup table": (each(ModalityLUTSequence=Items([Dataset()])), "lookup table, expected RescaleSlope"),
    "no position": (each(ImagePositionPatient=None), "000.dcm: ImagePositionPatient is missing, expected 3 numbers"),
    "two coordinates": (only(2, ImagePositionPatient=[1, 2]), "002.dcm: ImagePositionPatient is not usable"),
    "blank position": (only(1, ImagePositionPatient=[]), "001.dcm: ImagePositionPatient is not usable"),
    "no orientation": (each(ImageOrientationPatient=None), "ImageOrientationPatient is missing"),
    "null orientation": (each(ImageOrientationPatient=[0] * 6), "not two directions at right angles"),
    "parallel orientation": (each(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two directions at right angles"),
    "sheared": (each(ImageOrientationPatient=[1, 0, 0, 0.05, 0.99875, 0]), "off orthonormal"),
    "no spacing": (each(PixelSpacing=None), "PixelSpacing is missing, expected 2 numbers"),
    "null spacing": (each(PixelSpacing=[0, 1]), "PixelSpacing is not positive or RescaleSlope is 0"),
    "null slope": (each(RescaleSlope=0), "PixelSpacing is not positive or RescaleSlope is 0"),
    "no rows": (only(1, Rows=None), "001.dcm: the header of the image is damaged or cut off"),
    "another size": (lambda k, ds: put_pixels(ds, np.zeros((6 + k // 3, 5), np.uint16)), "instance 1 differ in size"),
    "another spacing": (only(2, PixelSpacing=[0.7, 0.95]), "instance 3 and instance 1 differ in pixel spacing"),
    "a localizer": (only(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "instance 4 and instance 1 differ in orient"),
    "frames": (each(NumberOfFrames=3), "found 3 frames, 0 with a position"),
    "one place": (each(ImagePositionPatient=[0, 0, 0]), "instance 1 and instance 2 differ but lie at one position"),
    "two phases": (lambda k, ds: moved(k, (0, 0, -2.5 * (k % 2)))(k, ds), "instance 2 differ but lie at one position"),
    "two series": (
        only(3, SeriesInstanceUID=generate_uid(), SeriesNumber=9),
        "found 2 series (number 3: 3 slices, num",
    ),
    "unnumbered": (
        only(0, SeriesInstanceUID=generate_uid(), SeriesNumber=None),
        "3 slices, without a number: 1 slice)",
    ),
    "no pixels": (only(2, PixelData=None), "002.dcm: the Explicit VR Little Endian pixel data are damaged"),
    "few pixels": (only(2, PixelData=bytes(20)), "002.dcm: the Explicit VR Little Endian pixel data are damaged"),
}


@pytest.mark.parametrize(("change", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_told_in_one_line(tmp_path, change, told):
    line = refusal(write_series(tmp_path / "a", change))
    assert told in line
    assert "; " in line  # what to do


def test_alike_slices_beside_each_other_are_no_copies(tmp_path):
    def beside(k, ds):
        put_pixels(ds, np.zeros((7, 5), np.uint16))
        moved(2, (5.0, 0, -2.5))(k, ds)

    assert "instance 2 and instance 3 differ but lie at one position" in refusal(write_series(tmp_path / "a", beside))


def test_an_element_of_no_known_type_is_damage(tmp_path):
    folder = write_series(tmp_path / "a")
    content = (folder / "001.dcm").read_bytes()
    for tag in (b"\x08\x00\x16\x00", b"\x20\x00\x0e\x00", b"\x20\x00\x32\x00"):  # class, series, position
        assert content.count(tag) == 1
        place = content.index(tag) + 4
        (folder / "001.dcm").write_bytes(content[:place] + b"ZI" + content[place + 2 :])
        assert "001.dcm: the header of the image is damaged or cut off" in refusal(folder)


def test_copies_of_one_slice_are_no_stack(tmp_path):
    folder = write_series(tmp_path / "a", voxels=VOXELS[:, :, :1])
    assert "found 1 slice, expected a stack" in refusal(folder)
    shutil.copy(folder / "000.dcm", folder / "001.dcm")
    assert "all slices lie at one position" in refusal(folder)


def test_two_slices_of_one_number_at_one_place_are_named_by_their_files(tmp_path):
    folder = write_series(tmp_path / "a")
    ds = slice_of(1)
    put_pixels(ds, np.zeros((7, 5), np.uint16))
    save(ds, folder / "other.dcm")
    assert "001.dcm and other.dcm differ but lie at one position" in refusal(folder)


def test_folders_without_a_series_are_told(tmp_path):
    folder = tmp_path / "a"
    assert "no such folder" in refusal(folder)
    folder.mkdir()
    (folder / "readme.txt").write_text("no scan")
    assert "found no DICOM image" in refusal(folder)
    save(slice_of(0), folder / "0.dcm")
    (folder / "1.dcm").write_bytes(b"")
    assert "1.dcm: not a DICOM file, though named like one" in refusal(folder)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless], ids=["plain", "RLE", "JPEG 2000"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_file_that_is_cut_off_is_told(tmp_path, capfd, syntax, kept):
    change = (lambda k, ds: None) if syntax is None else (lambda k, ds: ds.compress(syntax))
    folder = write_series(tmp_path / "a", change, voxels=LARGER)
    path = folder / "003.dcm"  # the last one: without it the stack would be whole
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "003.dcm" in refusal(folder)
    assert capfd.readouterr().err == ""


def test_a_damaged_byte_is_told_or_harmless_and_shows_no_patient(tmp_path, caplog):
    folder = write_series(tmp_path / "a")
    path = folder / "001.dcm"
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for place in rng.integers(132, len(content), 150):
        damaged = bytearray(content)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            scan, line = read_series(folder), ""
        except CaseError as error:
            line = str(error)
            refused += 1
        else:
            assert scan.array.shape[:2] == VOXELS.shape[:2]
        assert "\n" not in line
        assert "Doe" not in line
        assert "SECRET" not in line
    assert 10 < refused < 140
    assert caplog.text == ""


def test_a_missing_decoder_and_a_film_are_told(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "a", lambda k, ds: ds.compress(JPEG2000Lossless), voxels=LARGER)
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    assert "its decoder is not installed; `pip install pylibjpeg pylibjpeg-openjpeg`" in refusal(folder)
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})

    def of(syntax):
        def change(k, ds):
            ds.compress(RLELossless)
            ds.file_meta.TransferSyntaxUID = syntax

        return change

    assert "`pip install python-gdcm`" in refusal(write_series(tmp_path / "b", of(JPEGLosslessSV1)))
    assert "found transfer syntax 'MPEG2" in refusal(write_series(tmp_path / "c", of(MPEG2MPML)))


# -- multi-frame ------------------------------------------------------------------------------------------------


def enhanced(ks: Sequence[int], **how: object) -> Dataset:
    """The slices ``ks`` as one multi-frame object."""
    slices = [slice_of(k, **how) for k in ks]
    ds = copy.deepcopy(slices[0])
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    put_pixels(ds, np.stack([VOXELS[:, :, k].T for k in ks]))
    ds.NumberOfFrames = len(slices)
    ds.PerFrameFunctionalGroupsSequence = Items()
    for one in slices:
        groups = Dataset()
        groups.PlanePositionSequence = Items([elements(one, "ImagePositionPatient")])
        groups.PixelValueTransformationSequence = Items([elements(one, "RescaleSlope", "RescaleIntercept")])
        ds.PerFrameFunctionalGroupsSequence.append(groups)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([elements(slices[0], "ImageOrientationPatient")])
    shared.PixelMeasuresSequence = Items([elements(slices[0], "PixelSpacing")])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    return ds


def elements(ds: Dataset, *names: str) -> Dataset:
    item = Dataset()
    for name in names:
        item[name] = ds[name]
    return item


@pytest.mark.parametrize("step_mm", [2.5, -2.5])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["plain", "RLE"])
def test_a_multi_frame_object_is_the_same_scan(tmp_path, step_mm, syntax):
    single = read_series(write_series(tmp_path / "single", orientation=ORIENTATIONS["oblique"], step_mm=step_mm))
    ds = enhanced(range(4), orientation=ORIENTATIONS["oblique"], step_mm=step_mm)
    ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0].RescaleIntercept = -1000
    if syntax == RLELossless:
        ds.compress(RLELossless)
    (tmp_path / "multi").mkdir()
    save(ds, tmp_path / "multi" / "one.dcm")
    scan = read_series(tmp_path / "multi")
    np.testing.assert_array_equal(scan.array, single.array + np.array([0, 0, 24, 0], np.int16))
    np.testing.assert_allclose(scan.affine, single.affine, atol=1e-6)
    assert modality_of(tmp_path / "multi") == "CT"


def test_a_stack_may_lie_in_several_multi_frame_files(tmp_path):
    for name, ks in (("b", (0, 1)), ("a", (2, 3))):
        ds = enhanced(ks, step_mm=-2.5)
        ds.InstanceNumber = 1 if name == "b" else 2
        save(ds, tmp_path / f"{name}.dcm")
    np.testing.assert_array_equal(read_series(tmp_path).array, VOXELS.astype(np.int16) - 1024)


def test_frames_that_do_not_add_up_are_told(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    ds = enhanced(range(4))
    ds.NumberOfFrames = 3
    save(ds, folder / "a.dcm")
    assert "found 3 frames, 4 with a position" in refusal(folder)
    ds = enhanced(range(4))
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    save(ds, folder / "a.dcm")
    assert "ImagePositionPatient is missing" in refusal(folder)
    ds = enhanced((0, 1, 1, 2))
    ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0].RescaleIntercept = 0
    save(ds, folder / "a.dcm")
    assert "instance 1 frame 2 and instance 1 frame 3 differ but lie at one position" in refusal(folder)


# -- folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "expected"), [("CT", "CT"), ("MR", "MR"), ("PT", None), ("", None)])
def test_the_modality_is_read_from_the_first_image(tmp_path, modality, expected):
    folder = write_series(tmp_path / "a", each(Modality=modality))
    (folder / "000.txt").write_text("no scan")
    assert modality_of(folder) == expected
    for path in folder.glob("*.dcm"):
        path.unlink()
    assert modality_of(folder) is None


def test_all_series_below_a_folder_are_found(tmp_path):
    other = generate_uid()
    write_series(tmp_path / "p1" / "a", suffix="")
    write_series(tmp_path / "p2" / "b", only(2, SeriesInstanceUID=other))
    (tmp_path / "p2" / "b" / "damaged.dcm").write_bytes(b"x")
    found = series_in(tmp_path)
    first = slice_of(0).SeriesInstanceUID
    assert set(found) == {first, other}
    assert found[other] == [tmp_path / "p2" / "b" / "002.dcm"]
    assert [path.parent.name for path in found[first]] == ["a"] * 4 + ["b"] * 3
    assert series_in(tmp_path / "p3") == {}


def test_files_of_a_series_are_found_in_order(tmp_path):
    for name in "hcagbdfe":
        (tmp_path / name).mkdir()
        save(slice_of(0), tmp_path / name / "a.dcm")
    (found,) = series_in(tmp_path).values()
    assert [path.parent.name for path in found] == list("abcdefgh")


# -- a real series ----------------------------------------------------------------------------------------------


def test_a_real_series_lies_where_another_reader_and_its_organs_lie(real_data):
    scan = read_series(real_data / "dicom_ct")
    assert scan.array.shape == (512, 512, 20)
    assert scan.array.dtype == np.int16
    assert scan.warnings == ()
    assert modality_of(real_data / "dicom_ct") == "CT"
    np.testing.assert_allclose(scan.grid.spacing_mm, (0.9765625, 0.9765625, 2.0))
    files = sorted(str(path) for path in (real_data / "dicom_ct").iterdir())
    assert_same_in_the_world(scan, sitk.ReadImage(files), stride=7)
    image = nib.load(real_data / "dicom_ct_segmentation.nii.gz")
    label, label_affine = to_canonical(np.asarray(image.dataobj), image.affine)
    voxels, affine = to_canonical(scan.array, scan.affine)
    assert same_grid(Grid(voxels.shape, affine), Grid(label.shape, label_affine))
    liver = voxels[label == 5]
    assert liver.size > 1000
    assert 80 < np.median(liver) < 180
    assert liver.std() < 40
