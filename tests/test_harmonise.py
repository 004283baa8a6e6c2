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
from tests.test_geometry import CODES, affine_of

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
def test_a_new_label_is_one_of_those_it_covers(shape, spacing, seed):
    """Also where slices are annotated one by one: there it is that of the nearest slice."""
    label = np.random.default_rng(seed).integers(0, 17, shape).astype(np.uint8)
    affine = affine_of("RAS", spacing)
    grid = geometry.harmonised_grid(shape, affine, 2.0)
    ours = harmonise.harmonise_label(label, affine, grid, nearest_axes=[2])
    for index in np.ndindex(*grid.shape):
        native = [min(i * 2.0 / s, n - 1) for i, s, n in zip(index, spacing, shape, strict=True)]
        reach = [max(1.0, 1.0 / s + 0.5) for s in spacing[:2]]
        near = [
            range(max(0, int(np.ceil(p - r))), min(n, int(np.floor(p + r)) + 1))
            for p, r, n in zip(native[:2], reach, shape[:2], strict=True)
        ]
        slices = {int(np.floor(native[2] + 0.5)), int(np.ceil(native[2] - 0.5))}
        assert ours[index] in {0, *(label[x, y, z] for x in near[0] for y in near[1] for z in slices)}


@given(shapes, spacings, st.integers(0, 99), st.sampled_from(CODES))
def test_nearest_along_all_axes_is_the_nearest_voxel(shape, spacing, seed, codes):
    label = np.random.default_rng(seed).integers(0, 17, shape).astype(np.uint8)
    native, affine = label, affine_of(codes, spacing)
    canonical, canonical_affine = geometry.to_canonical(native, affine)
    grid = geometry.harmonised_grid(canonical.shape, canonical_affine, 2.0)
    ours = harmonise.harmonise_label(native, affine, grid, nearest_axes=(0, 1, 2))
    sides = geometry.spacing_of(canonical_affine)
    where = [
        np.ceil(np.clip(np.arange(n) * 2.0 / s, 0, m - 1) - 0.5).astype(int)
        for n, s, m in zip(grid.shape, sides, canonical.shape, strict=True)
    ]
    np.testing.assert_array_equal(ours, canonical[np.ix_(*where)])


@given(shapes, st.sampled_from([0.8, 1.5, 2.5]), st.integers(0, 99), st.sampled_from(CODES))
def test_the_order_of_axes_in_the_file_changes_nothing(shape, spacing, seed, codes):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    image = rng.integers(-500, 500, shape).astype(np.int16)
    found = []
    for code in ("RAS", codes):
        affine = affine_of(code, (spacing,) * 3)
        of_file = [np.asfortranarray(geometry.from_canonical(array, affine)) for array in (image, label)]
        harmonised = harmonise.harmonise_image(of_file[0], affine, "CT", Windows(), 2.0)
        found.append((harmonised.image, harmonise.harmonise_label(of_file[1], affine, harmonised.grid)))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    # Interpolated along other axes first, a value half-way between two levels may fall to the other side.
    assert np.abs(found[0][0].astype(int) - found[1][0]).max() <= 1


def test_the_same_grid_changes_nothing():
    label = np.random.default_rng(0).integers(0, 5, (9, 8, 7)).astype(np.uint8)
    affine = affine_of("RAS", (2.0, 2.0, 2.0))
    grid = geometry.harmonised_grid(label.shape, affine, 2.0)
    np.testing.assert_array_equal(harmonise.harmonise_label(label, affine, grid), label)


def ball(shape, spacing, centre_mm, radius_mm):
    where = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    return sum((w - c) ** 2 for w, c in zip(where, centre_mm, strict=True)) <= radius_mm**2


SPACINGS = [(0.8, 0.8, 5.0), (0.7, 0.7, 2.5), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (3.0, 3.0, 3.0)]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_structures_keep_their_volume(spacing):
    """Two organs that touch, a thin sheet like an adrenal, a thin oblique tube like a vein."""
    shape = tuple(int(90 / s) for s in spacing)
    axes = [np.arange(n) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    label = np.zeros(shape, dtype=np.uint8)
    label[ball(shape, spacing, (30, 30, 45), 18)] = 1
    label[ball(shape, spacing, (55, 30, 45), 17)] = 2
    sheet = np.abs(x - 45 - 0.31 * (y - 70) - 0.17 * (z - 45)) < 1.9
    label[sheet & (np.hypot((y - 70) / 11, (z - 45) / 15) < 1)] = 11
    label[(np.hypot(x - 20 - 0.23 * (z - 45), y - 65 + 0.11 * (z - 45)) < 3) & (z > 10) & (z < 80)] = 16
    affine = affine_of("RAS", spacing)
    grid = geometry.harmonised_grid(shape, affine, 2.0)
    found = np.bincount(harmonise.harmonise_label(label, affine, grid).ravel(), minlength=17) * 8.0
    native = np.bincount(label.ravel(), minlength=17) * np.prod(spacing)
    for structure, limit in ((1, 0.02), (2, 0.02), (11, 0.05), (16, 0.05)):
        assert abs(found[structure] / native[structure] - 1) < limit, structure


def test_a_thin_sheet_is_not_torn():
    """The nearest voxel tears a sheet thinner than the new voxels; this keeps it in one piece."""
    label = np.zeros((60, 60, 60), dtype=np.uint8)
    x, y, z = np.indices(label.shape)
    label[(np.abs(x - 30 - 0.4 * (y - 30)) < 0.8) & (np.hypot(y - 30, z - 30) < 20)] = 11
    affine = affine_of("RAS", (1.0, 1.0, 1.0))
    grid = geometry.harmonised_grid(label.shape, affine, 2.0)
    ours = harmonise.harmonise_label(label, affine, grid) == 11
    torn = label[::2, ::2, ::2] == 11
    pieces = [ndimage.label(mask, np.ones((3, 3, 3)))[1] for mask in (ours, torn)]
    assert pieces[0] <= pieces[1]
    assert abs(ours.sum() * 8 / (label > 0).sum() - 1) < 0.05


def test_volumes_of_the_real_scan(real_data):
    """Organs that lie wholly in the view of the real CT; the harmonised grid ends at the last voxel's centre."""
    import nibabel as nib

    folder = real_data / "totalsegmentator" / "s9001" / "segmentations"
    label, names = None, []
    for path in sorted(folder.glob("*.nii.gz")):
        scan = nib.load(path)
        mask = np.asanyarray(scan.dataobj) > 0
        label = np.zeros(mask.shape, dtype=np.uint8) if label is None else label
        names.append(path.name)
        label[mask] = len(names)
    turned, affine = geometry.to_canonical(label, scan.affine)
    grid = geometry.harmonised_grid(turned.shape, affine, 2.0)
    found = np.bincount(harmonise.harmonise_label(label, scan.affine, grid).ravel(), minlength=256) * 0.008
    native = np.bincount(label.ravel(), minlength=256) * np.prod(geometry.spacing_of(affine)) / 1000
    inside = np.bincount(label[1:-1, 1:-1, 1:-1].ravel(), minlength=256) * np.prod(geometry.spacing_of(affine)) / 1000
    whole = [c for c in range(1, len(names) + 1) if native[c] >= 1 and native[c] == inside[c]]
    assert len(whole) >= 5
    for structure in whole:
        change = abs(found[structure] / native[structure] - 1)
        assert change < (0.05 if "adrenal" in names[structure - 1] else 0.02), names[structure - 1]


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
        (np.zeros((4, 4, 4)), "MR", "no contrast|no contrast"),
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
