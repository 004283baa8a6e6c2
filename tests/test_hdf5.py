"""Volumes in HDF5 files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from abdoseg.errors import CaseError
from abdoseg.readers import read_scan
from abdoseg.readers.hdf5 import read_hdf5
from tests.test_geometry import affine_of

ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
LABEL = (ARRAY % 3).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as for training slice by slice: image and label, no geometry."""
    path = tmp_path / "case.h5"
    with h5py.File(path, "w") as file:
        file["image"] = ARRAY
        file["label"] = LABEL
        file["more/image"] = ARRAY + 1
    return path


def change(path: Path, **attributes: object) -> Path:
    """Set attributes of the file; of its image, with a leading ``image_``."""
    with h5py.File(path, "a") as file:
        for name, value in attributes.items():
            where = file["image"] if name.startswith("image_") else file
            where.attrs[name.removeprefix("image_")] = value
    return path


def refusal(path: Path, key: str | None) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(CaseError) as caught:
        read_hdf5(path, key)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path.name}: ")
    return line


# -- what is read -----------------------------------------------------------------------------------------------


def test_a_file_without_geometry_is_read_as_it_is_with_a_warning(path):
    for key, expected in (("image", ARRAY), ("label", LABEL), ("more/image", ARRAY + 1), ("/more/image", ARRAY + 1)):
        scan = read_scan(path, key)
        np.testing.assert_array_equal(scan.array, expected)
        assert scan.array.dtype == expected.dtype
        np.testing.assert_array_equal(scan.affine, np.eye(4))
        assert len(scan.warnings) == 1
        assert "states no geometry" in scan.warnings[0]


def test_the_affine_of_the_dataset_comes_before_that_of_the_file_and_both_before_the_spacing(path):
    mine, shared = affine_of("LPS", tilt_degrees=10), affine_of("RAS")
    change(path, spacing=(3.0, 4.0, 5.0))
    np.testing.assert_array_equal(read_hdf5(path, "image").affine, np.diag([3.0, 4.0, 5.0, 1.0]))
    change(path, image_spacing=(1, 2, 3))
    np.testing.assert_array_equal(read_hdf5(path, "image").affine, np.diag([1.0, 2.0, 3.0, 1.0]))
    np.testing.assert_array_equal(read_hdf5(path, "label").affine, np.diag([3.0, 4.0, 5.0, 1.0]))
    change(path, affine=shared)
    np.testing.assert_allclose(read_hdf5(path, "image").affine, shared, atol=1e-6)
    change(path, image_affine=mine)
    scan = read_hdf5(path, "image")
    np.testing.assert_allclose(scan.affine, mine, atol=1e-6)
    np.testing.assert_allclose(read_hdf5(path, "label").affine, shared, atol=1e-6)
    assert scan.warnings == ()


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", ">f4", "f8", "?", "f2"])
def test_every_real_type_is_taken_in_native_order(tmp_path, dtype):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("image", data=LABEL.astype(dtype), chunks=True, compression="gzip", shuffle=True)
    scan = read_scan(tmp_path / "a.hdf5", "image")
    np.testing.assert_array_equal(scan.array, LABEL.astype(dtype))
    assert scan.array.dtype.isnative
    assert scan.array.dtype.kind == np.dtype(dtype).kind


def test_a_fourth_axis_of_length_one_is_dropped(path):
    with h5py.File(path, "a") as file:
        file["four"] = ARRAY[..., None]
    np.testing.assert_array_equal(read_hdf5(path, "four").array, ARRAY)


# -- one line for each fault ------------------------------------------------------------------------------------


def test_a_missing_name_lists_the_datasets(path):
    line = refusal(path, None)
    assert "image (4, 5, 6), label (4, 5, 6), more/image (4, 5, 6)" in line
    assert "image_key or label_key" in line
    for key in ("mask", "image/deeper", "more/label", "", "/"):
        line = refusal(path, key)
        assert "found image (4, 5, 6), label (4, 5, 6), more/image (4, 5, 6)" in line
    assert "more is a group, expected a dataset" in refusal(path, "more")


def test_long_and_empty_lists_are_told(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for k in range(20):
            file[f"slice{k:02d}"] = ARRAY[0]
    line = refusal(tmp_path / "many.h5", None)
    assert "slice07 (5, 6), ..." in line
    assert "slice08" not in line
    h5py.File(tmp_path / "none.h5", "w").close()
    assert "found no dataset" in refusal(tmp_path / "none.h5", "image")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (np.zeros((4, 5, 6), dtype=[("r", "u1"), ("g", "u1")]), "expected real numbers"),
        (np.full((4, 5, 6), "x", dtype="S3"), "expected real numbers"),
        (np.full((2, 2, 2), "x", dtype=h5py.string_dtype()), "expected real numbers"),
        (ARRAY.astype(np.complex64), "expected real numbers"),
        (h5py.Empty("f4"), "image holds nothing, expected real numbers"),
        (np.float32(1), "found 0-D (), expected 3-D"),
        (ARRAY[0], "found 2-D (5, 6), expected 3-D"),
        (np.stack([ARRAY, ARRAY], -1), "found 4-D (4, 5, 6, 2), expected 3-D"),
        (ARRAY[:1], "expected at least 2 voxels"),
    ],
)
def test_what_is_no_volume_of_numbers_is_refused(tmp_path, data, told):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = data
    assert told in refusal(tmp_path / "a.h5", "image")


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"affine": np.eye(3)}, "attribute affine has shape (3, 3), expected (4, 4) finite numbers"),
        (
            {"image_affine": np.full((4, 4), np.nan)},
            "attribute affine has shape (4, 4), expected (4, 4) finite numbers",
        ),
        ({"affine": np.eye(4) * 1e300}, "expected (4, 4) finite numbers"),
        ({"affine": "1 0 0 0"}, "attribute affine is not numeric"),
        ({"affine": np.zeros((4, 4))}, "an axis of the affine has no length"),
        ({"affine": np.eye(4) + 0.1 * np.eye(4, k=1)}, "off orthonormal"),
        ({"spacing": (1.0, 2.0)}, "attribute spacing has shape (2,), expected (3,)"),
        ({"image_spacing": (1.0, 0.0, 2.0)}, "attribute spacing is not positive"),
        ({"spacing": h5py.Empty("f8")}, "attribute spacing is not numeric"),
    ],
)
def test_a_geometry_that_is_not_usable_is_refused(path, attributes, told):
    assert told in refusal(change(path, **attributes), "image")


def test_voxels_in_other_files_are_refused(path, tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["image"] = ARRAY
    with h5py.File(path, "a") as file:
        file["linked"] = h5py.ExternalLink(str(other), "image")
        file["group"] = h5py.ExternalLink(str(other), "/")
        file["soft"] = h5py.SoftLink("/linked")
        layout = h5py.VirtualLayout(ARRAY.shape, ARRAY.dtype)
        layout[:] = h5py.VirtualSource(str(other), "image", ARRAY.shape)
        file.create_virtual_dataset("virtual", layout)
        (tmp_path / "raw").write_bytes(ARRAY.tobytes())
        file.create_dataset("external", ARRAY.shape, ARRAY.dtype, external=[(str(tmp_path / "raw"), 0, ARRAY.nbytes)])
    for key in ("linked", "group/image", "soft"):
        assert f"{key} is a link, expected a dataset of the file itself" in refusal(path, key)
    for key in ("virtual", "external"):
        assert f"the voxels of {key} lie in other files" in refusal(path, key)
    assert "linked" not in refusal(path, None)


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    space = h5py.h5s.create_simple(ARRAY.shape)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(ARRAY.shape)
    creation.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # Blosc, by the registry of filters
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_INT16, space, creation)
    assert "image is compressed by filter 32001, which is not installed" in refusal(tmp_path / "a.h5", "image")


@pytest.mark.parametrize("content", [b"", b"not a volume", b"\x89HDF\r\n\x1a\n"])
def test_other_files_are_told(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    for key in ("image", None):
        assert "fetch the file again" in refusal(tmp_path / "a.h5", key)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_told(tmp_path, kept):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=np.random.default_rng(0).random((20, 20, 20)), compression="gzip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "cannot be read" in refusal(path, "image")


def test_a_damaged_chunk_is_told(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("image", data=np.random.default_rng(0).random((20, 20, 20)), fletcher32=True)
        place = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 100] ^= 0xFF
    path.write_bytes(content)
    assert "cannot be read" in refusal(path, "image")
