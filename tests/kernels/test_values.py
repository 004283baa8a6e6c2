"""Counting, translating and painting label values against plain numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from abdoseg.kernels.values import count_values, lowest_and_highest, paint, translated


@st.composite
def label_maps(draw, dtypes=(np.uint8, np.uint16)):
    """Label maps with much background, in C or F order or backwards."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))
    values = draw(hnp.arrays(dtype, shape, elements=st.integers(0, np.iinfo(dtype).max), fill=st.just(0)))
    return draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray, lambda a: np.flip(a, 0), lambda a: a]))(
        values
    )


@given(label_maps())
def test_counts(array):
    expected = np.bincount(array.reshape(-1), minlength=np.iinfo(array.dtype).max + 1)
    np.testing.assert_array_equal(count_values(array), expected)


@given(label_maps(), st.integers(0, 10**6))
def test_translation(array, seed):
    table = np.random.default_rng(seed).integers(0, 256, 65536).astype(np.uint8)
    table[0] = 0
    np.testing.assert_array_equal(translated(array, table), table[array])


def test_translation_keeps_the_order_of_memory_and_background():
    array = np.asfortranarray(np.ones((4, 5, 6), dtype=np.uint8))
    assert translated(array, np.arange(256, dtype=np.uint8)).flags.f_contiguous
    with pytest.raises(ValueError, match="expected 0"):
        translated(array, np.ones(256, dtype=np.uint8))


@given(label_maps(), st.integers(1, 255), st.sampled_from("CF"), st.integers(0, 10**6))
def test_painting(mask, value, order, seed):
    label = np.random.default_rng(seed).choice(np.array([0, 1, value], dtype=np.uint8), mask.shape)
    label = np.asarray(label, order=order)
    expected = np.where(mask > 0, value, label)
    others = int(((label > 0) & (label != value) & (mask > 0)).sum())
    assert paint(mask, value, label) == others
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, ">i2", np.float32, np.int64])
@pytest.mark.parametrize("turn", [np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2]])
def test_range(dtype, turn):
    rng = np.random.default_rng(0)
    array = rng.integers(0 if np.dtype(dtype).kind == "u" else -100, 100, (130, 128, 129)).astype(dtype)
    array[-1, -1, -1] = 111  # the very last voxel: the last part is not whole
    array = turn(array)
    assert lowest_and_highest(array) == (array.min(), array.max())
