"""A label whose header cannot be trusted is placed by the intensities under it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.cards import OrientationTest
from abdoseg.errors import CaseError
from abdoseg.placement import placed_by_intensity
from abdoseg.readers import Scan

LIMITS = OrientationTest(structure="pancreas", hu=(-75, 175), inside=0.97, spread=60, contrast=20)
SHAPE = (30, 28, 20)


def scan_and_mask(seed=0):
    """A bright organ off centre in fat, air around, another organ of other HU at its mirror places."""
    rng = np.random.default_rng(seed)
    image = np.full(SHAPE, -1000.0)
    image[3:27, 3:25] = -100
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[6:12, 8:12, 3:8] = 1
    image[mask > 0] = 90
    image += rng.normal(0, 10, SHAPE)
    return Scan(image.astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0])), mask


@given(st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_any_flip_is_undone(flips):
    image, mask = scan_and_mask()
    axes = tuple(a for a, flip in enumerate(flips) if flip)
    placed = placed_by_intensity(Scan(np.flip(mask, axes), np.eye(4)), image, LIMITS)
    np.testing.assert_array_equal(placed.label, mask)


def test_a_right_header_is_believed_when_it_fits():
    image, mask = scan_and_mask()
    turned = Scan(mask[:, ::-1], np.diag([1.0, -1.0, 2.0, 1.0]))
    placed = placed_by_intensity(turned, image, LIMITS)
    assert placed.name == "by its header"
    np.testing.assert_array_equal(placed.label, mask)


def test_index_for_index_is_named_so():
    image, mask = scan_and_mask()
    assert placed_by_intensity(Scan(mask, np.eye(4)), image, LIMITS).name == "index for index"


def test_a_label_of_another_scan_is_refused():
    image, mask = scan_and_mask()
    other = np.zeros_like(mask)
    other[15:20, 14:20, 9:14] = 1
    with pytest.raises(CaseError, match=r"no orientation puts pancreas on plausible voxels .* another scan"):
        placed_by_intensity(Scan(other, np.eye(4)), image, LIMITS)


def test_something_even_and_bright_is_not_enough():
    """A vertebra is brighter than its surroundings, too; the organ's HU must fit."""
    image, mask = scan_and_mask()
    bone = Scan(np.where(mask > 0, 400, image.array).astype(np.int16), image.affine)
    with pytest.raises(CaseError, match="no orientation"):
        placed_by_intensity(Scan(mask, np.eye(4)), bone, LIMITS)


def test_two_ways_that_fit_are_refused():
    image, mask = scan_and_mask()
    twin = Scan(np.where(mask[:, ::-1] > 0, image.array[:, ::-1], image.array), image.affine)
    with pytest.raises(CaseError, match="equally well"):
        placed_by_intensity(Scan(mask, np.eye(4)), twin, LIMITS)


def test_shape_and_emptiness():
    image, mask = scan_and_mask()
    with pytest.raises(CaseError, match="shape"):
        placed_by_intensity(Scan(mask[1:], np.eye(4)), image, LIMITS)
    with pytest.raises(CaseError, match="value 1 is nowhere"):
        placed_by_intensity(Scan(mask * 2, np.eye(4)), image, LIMITS)
