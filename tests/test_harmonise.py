import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing
from scipy import ndimage

from abdoseg import geometry, harmonise
from abdoseg.errors import CaseError
from abdoseg.windows import Windows
from tests.test_geometry import affine_of

shapes = st.tuples(*[st.integers(2, 14)] * 3)
spacings = st.tuples(*[st.floats(0.5, 5)] * 3)


def scan(shape, seed=0, dtype=np.int16):
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(dtype)


@pytest.mark.filterwarnings("ignore")  # MONAI's own
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "AIR"])
@pytest.mark.parametrize("spacing", [(0.8, 0.8, 2.5), (3.0, 1.0, 2.0), (1.7, 4.0, 5.0)])
def test_ct_equals_monai(codes, spacing):
    array = scan((17, 13, 11))
    affine = affine_of(codes, spacing)
    ours = harmonise.harmonise_image(array, affine, "CT", Windows(), 2.0)
    tensor = MetaTensor(torch.as_tensor(array[None].astype(np.float64)), affine=torch.as_tensor(affine))
    theirs = Spacing((2, 2, 2), mode="bilinear", padding_mode="border", align_corners=True, dtype=torch.float64)(
        Orientation("RAS")(tensor)
    )
    expected = (np.clip(theirs[0].numpy(), -400, 400) + 400) / 800
    np.testing.assert_allclose(ours.grid.affine, theirs.affine.numpy(), atol=1e-6)
    # half a HU of quantisation, in units of the 800 HU window
    assert np.abs(ours.intensity() - expected).max() <= 0.5 / 800 + 1e-5


@given(shapes, spacings, st.integers(0, 99))
def test_linear_interpolation_equals_scipy(shape, spacing, seed):
    array = scan(shape, seed).astype(np.float32)
    ours = harmonise.harmonise_image(array, affine_of("RAS", spacing), "CT", Windows(ct_hu=(-1000, 1000)), 2.0)
    where = [np.clip(np.arange(n) * 2.0 / s, 0, m - 1) for n, s, m in zip(ours.grid.shape, spacing, shape, strict=True)]
    expected = ndimage.map_coordinates(array.astype(float), np.meshgrid(*where, indexing="ij"), order=1)
    assert np.abs(ours.intensity() * 2000 - 1000 - expected).max() <= 0.5 + 1e-2


@given(shapes, spacings, st.integers(0, 99))
def test_labels_take_the_nearest_voxel(shape, spacing, seed):
    label = np.random.default_rng(seed).integers(0, 17, shape).astype(np.uint8)
    affine = affine_of("RAS", spacing)
    grid = geometry.harmonised_grid(shape, affine, 2.0)
    ours = harmonise.harmonise_label(label, affine, grid)
    for index in np.ndindex(*grid.shape):
        native = [min(i * 2.0 / s, n - 1) for i, s, n in zip(index, spacing, shape, strict=True)]
        near = [{int(np.floor(p + 0.5)), int(np.ceil(p - 0.5))} for p in native]
        assert ours[index] in {label[x, y, z] for x in near[0] for y in near[1] for z in near[2]}


def test_image_and_label_stay_together_in_every_orientation():
    for codes in ("RAS", "LPS", "SPL", "AIR", "PIR"):
        label = np.zeros((12, 13, 14), dtype=np.uint8)
        label[2:5, 3:7, 8:12] = 6
        affine = affine_of(codes, (2.0, 2.0, 2.0))
        image = harmonise.harmonise_image(label.astype(np.int16) * 50, affine, "CT", Windows(ct_hu=(0, 300)), 2.0)
        np.testing.assert_array_equal(
            image.intensity() > 0.5, harmonise.harmonise_label(label, affine, image.grid) == 6
        )


def test_mr_window_is_the_percentiles_of_positive_native_voxels():
    rng = np.random.default_rng(1)
    array = rng.gamma(2.0, 4e4, (20, 20, 20))
    array[:10] = 0
    low, high = np.percentile(array[array > 0], [1, 99])
    result = harmonise.harmonise_image(array, affine_of("RAS", (2.0, 2.0, 2.0)), "MR", Windows(), 2.0)
    assert result.window == pytest.approx((low, high))
    assert result.intensity().min() == 0
    assert result.intensity().max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("array", "modality", "message"),
    [
        (np.full((4, 4, 4), np.nan), "CT", "64 voxels are NaN"),
        (np.where(np.arange(64).reshape(4, 4, 4) == 3, np.inf, 1.0), "MR", "1 voxels are NaN or infinite"),
        (np.zeros((4, 4, 4)), "MR", "no voxel above 0"),
        (np.full((4, 4, 4), 7.0), "MR", "no contrast"),
    ],
)
def test_unusable_images_are_refused(array, modality, message):
    with pytest.raises(CaseError, match=message):
        harmonise.harmonise_image(array, np.eye(4), modality, Windows(), 2.0)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, np.float32, np.float64, np.uint16])
def test_every_voxel_type_is_taken(dtype):
    array = scan((6, 7, 8)).clip(0, 200).astype(dtype)
    result = harmonise.harmonise_image(array, np.eye(4), "CT", Windows(), 2.0)
    assert result.image.dtype == np.int16
