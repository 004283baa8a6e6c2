"""The patch kernel against scipy, plain crops and geometry by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from abdoseg.kernels.patch import Cut, cut_patch, renumber_groups

WINDOW = (1 / 4000, 0.25)
SHAPE = (13, 11, 17)


def volume(shape=SHAPE, seed=0, values=(0, 0, 1, 2, 3, 255)):
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 3000, shape).astype(np.int16)
    return image, rng.choice(np.array(values, np.uint8), shape)


def table(n_groups, structures=(1, 2, 3)):
    """Every group but the last knows ``structures``."""
    known = np.zeros((n_groups + 1, 256), dtype=bool)
    known[:-1, list(structures)] = True
    return known


def whole(image):
    """One group."""
    return 0, np.zeros(image.shape[0], np.int32)


def positions(cut):
    """Return the volume position of every voxel of the patch, ``(3, x, y, z)``, as its definition has it."""
    offsets = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in cut.shape], indexing="ij")).astype(float)
    return np.einsum("ij,jxyz->ixyz", cut.matrix, offsets) + np.asarray(cut.centre)[:, None, None, None]


def reference(image, label, slices, known, cut):
    """Compute the patch with scipy and fancy indexing; also where a rounding error could decide."""
    where = positions(cut)
    shape = np.array(image.shape)[:, None, None, None]
    inside = ((where >= -0.5) & (where <= shape - 0.5)).all(axis=0)
    linear = map_coordinates(image.astype(float), where, order=1, mode="nearest")
    nearest = np.clip(np.floor(where + 0.5), 0, shape - 1).astype(int)
    value = label[tuple(nearest)]
    group = slices[1][nearest[slices[0]]]
    group = np.where(value == 255, len(known) - 1, group)
    value = np.where(known[group, value], value, 0)
    unsure = (np.abs(where % 1 - 0.5) < 1e-9).any(axis=0)
    return (
        np.where(inside, linear * WINDOW[0] + WINDOW[1], 0),
        np.where(inside, value, 0),
        np.where(inside, group, -1),
        unsure,
    )


@st.composite
def cuts(draw):
    angles = draw(st.tuples(*[st.floats(-0.6, 0.6)] * 3))
    matrix = Rotation.from_euler("xyz", angles).as_matrix() / draw(st.floats(0.7, 1.4))
    centre = tuple(draw(st.integers(0, n - 1)) for n in SHAPE)
    return Cut(np.array(centre, float), matrix, draw(st.tuples(*[st.integers(1, 14)] * 3)))


@settings(max_examples=60)
@given(cuts(), st.integers(0, 2), st.integers(0, 100))
def test_rotated_and_scaled_patch_is_scipys(cut, axis, seed):
    image, label = volume(seed=seed)
    rng = np.random.default_rng(seed)
    slices = (axis, rng.integers(0, 5, SHAPE[axis]).astype(np.int32))
    known = np.zeros((6, 256), dtype=bool)
    known[:5, 1:4] = rng.random((5, 3)) < 0.6
    found = cut_patch(image, label, slices, known, cut, WINDOW)
    want_image, want_label, want_group, unsure = reference(image, label, slices, known, cut)
    assert (found.image.dtype, found.label.dtype, found.group.dtype) == (np.float32, np.uint8, np.int16)
    np.testing.assert_allclose(found.image[~unsure], want_image[~unsure], atol=2e-6)
    assert np.array_equal(found.label[~unsure], want_label[~unsure])
    assert np.array_equal(found.group[~unsure], want_group[~unsure])


@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(0, 10)] * 3))
def test_identity_is_exactly_a_padded_crop(shape, centre):
    """Even and odd sizes: the centre voxel sits at ``n // 2``."""
    image, label = volume(values=(0, 1, 2, 3))
    found = cut_patch(image, label, whole(image), table(1), Cut(np.array(centre, float), np.eye(3), shape), WINDOW)
    windowed = image.astype(np.float32) * np.float32(WINDOW[0]) + np.float32(WINDOW[1])
    crop = tuple(slice(c - n // 2 + 20, c - n // 2 + 20 + n) for c, n in zip(centre, shape, strict=True))
    assert np.array_equal(found.image, np.pad(windowed, 20)[crop])
    assert np.array_equal(found.label, np.pad(label, 20)[crop])
    assert np.array_equal(found.group, np.pad(np.zeros(SHAPE, int), 20, constant_values=-1)[crop])
    assert found.image[tuple(n // 2 for n in shape)] == windowed[centre]


@pytest.mark.parametrize(("axes", "angles"), [((1, 2), (90, 0, 0)), ((2, 0), (0, 90, 0)), ((0, 1), (0, 0, 90))])
def test_quarter_turns_are_those_of_numpy(axes, angles):
    """The patch's frame turns by +90 degrees, so what it shows turns by -90."""
    image, label = volume((9, 9, 9))
    matrix = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    found = cut_patch(image, label, whole(image), table(1), Cut(np.array([4.0, 4, 4]), matrix, (9, 9, 9)), (1.0, 0.0))
    assert np.array_equal(found.image, np.rot90(image, -1, axes).astype(np.float32))


def test_one_bright_voxel_goes_where_the_right_hand_says():
    image = np.zeros((9, 9, 9), np.int16)
    image[4, 7, 4] = 100  # three voxels towards +Y
    label = (image > 0).astype(np.uint8)
    matrix = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # +90 degrees about Z takes X to Y
    found = cut_patch(image, label, whole(image), table(1), Cut(np.array([4.0, 4, 4]), matrix, (9, 9, 9)), (1.0, 0.0))
    assert np.argwhere(found.image == 100).tolist() == [[7, 4, 4]]
    assert np.argwhere(found.label == 1).tolist() == [[7, 4, 4]]


@pytest.mark.parametrize("axis", [0, 1, 2])
@settings(max_examples=20)
@given(cut=cuts())
def test_label_and_group_come_from_one_voxel_and_the_image_from_its_place(axis, cut):
    """Each slice has its own group and its own label, and the image holds the coordinate."""
    n = SHAPE[axis]
    view = [1, 1, 1]
    view[axis] = n
    coordinate = np.broadcast_to(np.arange(n).reshape(view), SHAPE)
    label = (coordinate + 1).astype(np.uint8)
    image = (coordinate * 100).astype(np.int16)
    known = table(n, range(1, n + 1))
    found = cut_patch(image, label, (axis, np.arange(n, dtype=np.int32)), known, cut, (0.01, 0.0))
    inside = found.group >= 0
    assert np.array_equal(found.label[inside], found.group[inside] + 1)
    assert np.abs(found.image[inside] - found.group[inside]).max(initial=0) <= 0.5 + 1e-5
    assert not found.label[~inside].any()
    assert not found.image[~inside].any()


def test_unknown_voxels_get_the_last_group_and_no_label():
    image, label = volume(values=(0, 1, 255))
    found = cut_patch(image, label, whole(image), table(1), Cut(np.array([6.0, 5, 8]), np.eye(3), SHAPE), WINDOW)
    assert np.array_equal(found.group, label == 255)
    assert np.array_equal(found.label, label == 1)


def test_labels_that_a_group_does_not_know_are_hidden():
    image, label = volume(values=(0, 1, 2, 3))
    known = np.zeros((3, 256), dtype=bool)
    known[0, 1] = known[1, 2] = True
    groups = (np.arange(SHAPE[2]) % 2).astype(np.int32)
    found = cut_patch(image, label, (2, groups), known, Cut(np.array([6.0, 5, 8]), np.eye(3), SHAPE), WINDOW)
    for z in range(SHAPE[2]):
        seen = 1 + z % 2
        assert np.array_equal(found.label[..., z], np.where(label[..., z] == seen, seen, 0))
        assert (found.group[..., z] == z % 2).all()


def test_half_a_voxel_of_border_belongs_to_the_image():
    image = np.full((4, 4, 4), 100, np.int16)
    image[3] = 200
    cut = Cut(np.array([3.0, 2, 2]), np.eye(3) * 0.3, (9, 1, 1))  # x = 1.8, 2.1 ... 4.2; the last inside is 3.3
    found = cut_patch(image, np.ones((4, 4, 4), np.uint8), whole(image), table(1), cut, (1.0, 0.0))
    np.testing.assert_allclose(found.image[:, 0, 0], [100, 110, 140, 170, 200, 200, 0, 0, 0], atol=1e-3)
    assert found.group[:, 0, 0].tolist() == [0] * 6 + [-1] * 3
    assert found.label[:, 0, 0].tolist() == [1] * 6 + [0] * 3


@pytest.mark.parametrize("shape", [(1, 7, 7), (7, 1, 7), (7, 7, 1), (1, 1, 1)])
def test_volumes_one_voxel_thick(shape):
    image, label = volume(shape, values=(1, 2))
    matrix = Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix()
    cut = Cut(np.array([n // 2 for n in shape], float), matrix, (9, 9, 9))
    found = cut_patch(image, label, whole(image), table(1), cut, WINDOW)
    want_image, want_label, want_group, _ = reference(image, label, whole(image), table(1), cut)
    np.testing.assert_allclose(found.image, want_image, atol=2e-6)
    assert np.array_equal(found.label, want_label)
    assert np.array_equal(found.group, want_group)


def test_arrays_in_any_memory_order():
    image, label = volume()
    cut = Cut(np.array([6.0, 5, 8]), Rotation.from_euler("xyz", (0.2, -0.1, 0.3)).as_matrix(), (8, 8, 8))
    plain = cut_patch(image, label, whole(image), table(1), cut, WINDOW)
    other = cut_patch(
        np.asfortranarray(image),
        np.asfortranarray(label),
        whole(image),
        table(1),
        cut._replace(matrix=cut.matrix.T.copy().T),
        WINDOW,
    )
    for a, b in zip(plain, other, strict=True):
        assert np.array_equal(a, b)


def test_what_does_not_fit_is_refused():
    image, label = volume()
    cut = Cut(np.array([6.0, 5, 8]), np.eye(3), (4, 4, 4))
    with pytest.raises(ValueError, match="one shape"):
        cut_patch(image, label[1:], whole(image), table(1), cut, WINDOW)
    with pytest.raises(ValueError, match="slice groups along axis 2, expected 17"):
        cut_patch(image, label, (2, np.zeros(13, np.int32)), table(1), cut, WINDOW)
    with pytest.raises(ValueError, match=r"0\.\.5"):
        cut_patch(image, label, (0, np.full(13, 5, np.int32) * (np.arange(13) > 0)), table(1), cut, WINDOW)
    with pytest.raises(ValueError, match="empty last row"):
        cut_patch(image, label, whole(image), np.ones((2, 256), dtype=bool), cut, WINDOW)


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=40))
def test_renumbered_groups_are_consecutive_and_keep_order(groups):
    old = np.array(groups, np.int16)
    new = old.copy()
    used = renumber_groups(new, 7)
    assert np.array_equal(new == -1, old == -1)
    assert np.array_equal(used[new[new >= 0]], old[old >= 0])
    assert (np.diff(used) > 0).all()
    assert used.tolist() == (sorted({g for g in groups if g >= 0}) or [6])
