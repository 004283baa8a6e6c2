"""Restored labels equal "interpolate every channel, then argmax", computed the slow way in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from abdoseg.kernels.restore import SLAB, argmax_labels, restore_labels


def interpolated(scores, shape, step):
    """Every channel at the target positions, float64 ``(C, X', Y', Z')``, by SciPy."""
    axes = [np.clip(np.arange(n) * s, 0, m - 1) for n, s, m in zip(shape, step, scores.shape[1:], strict=True)]
    where = np.meshgrid(*axes, indexing="ij")
    return np.stack([map_coordinates(c.astype(np.float64), where, order=1, mode="nearest") for c in scores])


def assert_same_labels(scores, shape, step):
    step = np.asarray(step, dtype=np.float64)
    label = restore_labels(scores, shape, step)
    assert label.dtype == np.uint8
    assert label.shape == shape
    reference = interpolated(scores, shape, step)
    best = reference.argmax(0)
    differ = label != best
    if differ.any():  # only where two scores are equal to float32 rounding
        chosen = np.take_along_axis(reference, label[None].astype(np.int64), 0)[0]
        gap = (reference.max(0) - chosen)[differ]
        assert gap.max() <= 1e-6 * np.abs(scores).max()
        assert differ.mean() < 1e-2


sizes = st.integers(1, 9)


@settings(max_examples=150, deadline=None)
@given(
    source=st.tuples(sizes, sizes, sizes),
    target=st.tuples(sizes, sizes, sizes),
    step=st.tuples(*[st.floats(0.1, 4.0)] * 3),
    n_classes=st.integers(2, 20),
    smooth=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_interpolating_every_channel(source, target, step, n_classes, smooth, seed):
    noise = np.random.default_rng(seed).normal(0, 5, (n_classes, *source))
    scores = gaussian_filter(noise, (0, smooth, smooth, smooth)).astype(np.float32)
    assert_same_labels(scores, target, step)


@pytest.mark.parametrize("n_classes", [2, 17, 118])
@pytest.mark.parametrize("smooth", [0, 3])
@pytest.mark.parametrize(
    ("source", "target"),
    [((30, 28, 26), (61, 64, 13)), ((20, 21, 40), (51, 47, 22)), ((40, 37, 33), (13, 12, 11))],
    ids=["in-plane finer", "all finer but z", "native coarser"],
)
def test_equals_on_larger_volumes(source, target, smooth, n_classes):
    rng = np.random.default_rng(7)
    scores = gaussian_filter(rng.normal(0, 5, (n_classes, *source)), (0, smooth, smooth, smooth))
    step = [(m - 0.6) / (n - 1) for m, n in zip(source, target, strict=True)]  # the last lie beyond the grid
    assert_same_labels(scores.astype(np.float32), target, step)


def test_same_grid_is_the_argmax():
    scores = np.random.default_rng(0).normal(size=(5, 7, 8, 9)).astype(np.float32)
    label = restore_labels(scores, (7, 8, 9), np.ones(3))
    np.testing.assert_array_equal(label, scores.argmax(0))
    np.testing.assert_array_equal(argmax_labels(scores), label)


def test_voxels_beyond_the_last_centre_take_it():
    scores = np.zeros((3, 4, 4, 4), dtype=np.float32)
    scores[2, -1], scores[1, :-1] = 1, 1
    label = restore_labels(scores, (12, 4, 4), np.array([0.5, 1, 1]))
    assert (label[6:] == 2).all()
    assert (label[:5] == 1).all()


def test_ties_go_to_the_lowest_class():
    scores = np.zeros((4, 3, 3, 3), dtype=np.float32)
    scores[0] = -1
    assert (restore_labels(scores, (5, 5, 5), np.full(3, 0.5)) == 1).all()
    scores[1, 1], scores[3, 1] = 2, 2  # tied inside mixed cells too
    scores[2] = 1
    label = restore_labels(scores, (5, 5, 5), np.array([0.5, 0.5, 0.5]))
    assert set(np.unique(label)) == {1, 2}


def test_a_third_class_may_win_between_two_others():
    # The corners say 1 and 2, half-way says 0: labels interpolated as labels would never find it.
    scores = np.zeros((3, 2, 2, 2), dtype=np.float32)
    scores[1, 0], scores[1, 1], scores[2, 0], scores[2, 1], scores[0] = 3, -5, -5, 3, 1
    label = restore_labels(scores, (5, 1, 1), np.array([0.25, 1, 1]))[:, 0, 0]
    np.testing.assert_array_equal(label, [1, 0, 0, 0, 2])


@pytest.mark.parametrize("n_slices", [1, 2, SLAB, SLAB + 1, SLAB + 2, 2 * SLAB + 3])
def test_half_precision_and_strided_scores_are_taken_slab_by_slab(n_slices):
    scores = np.random.default_rng(3).normal(0, 5, (6, n_slices, 9, 10)).astype(np.float16)
    shape, step = (2 * n_slices + 1, 14, 25), np.array([0.47, 0.61, 0.4])
    expected = restore_labels(scores.astype(np.float32), shape, step)
    np.testing.assert_array_equal(restore_labels(scores, shape, step), expected)
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(scores.astype(np.float32), 0, -1)), -1, 0)
    np.testing.assert_array_equal(restore_labels(strided, shape, step), expected)
    np.testing.assert_array_equal(argmax_labels(scores), scores.argmax(0))


@pytest.mark.parametrize(
    "scores",
    [np.zeros((3, 4, 4)), np.zeros((255, 2, 2, 2)), np.zeros((2, 0, 3, 3)), np.zeros((2, 3, 3, 3), dtype=int)],
    ids=["three axes", "too many classes", "empty", "integers"],
)
def test_unusable_scores_are_refused(scores):
    with pytest.raises(ValueError, match="expected floats"):
        restore_labels(scores, (2, 2, 2), np.ones(3))
