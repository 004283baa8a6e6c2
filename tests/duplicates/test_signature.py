"""Signatures: small, the same however a scan lies, refused when they cannot be compared."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from abdoseg.duplicates import Signature
from abdoseg.duplicates.signature import KEYPOINTS, LENGTH, _ranks, parabola_top, sampled, signature, tissue_range
from abdoseg.errors import WorkspaceError
from tests.duplicates.bodies import SPACING, TURNS, person, turned

AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])


def as_points(print_: Signature) -> np.ndarray:
    """Return the points in a canonical order, each with its descriptor."""
    rows = np.concatenate([print_.positions, print_.descriptors], axis=1)
    return rows[np.lexsort(rows.T)]


def test_is_small_and_survives_json():
    print_ = signature(person(0), AFFINE)
    assert 60 < len(print_) <= KEYPOINTS
    full = Signature(np.zeros((KEYPOINTS, 3), dtype=np.int16), np.zeros((KEYPOINTS, LENGTH), dtype=np.int8))
    assert len(json.dumps(full.to_json())) < 4096
    back = Signature.from_json(json.loads(json.dumps(print_.to_json())))
    np.testing.assert_array_equal(back.positions, print_.positions)
    np.testing.assert_array_equal(back.descriptors, print_.descriptors)


def test_is_the_same_every_time():
    a, b = signature(person(1), AFFINE), signature(person(1).copy(), AFFINE)
    np.testing.assert_array_equal(a.descriptors, b.descriptors)


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_turning_the_scan_turns_the_points_and_leaves_their_descriptors(number):
    order, sign = TURNS[number]
    image = person(2)
    a, b = signature(image, AFFINE), signature(turned(image, number), AFFINE)
    expected = Signature((a.positions[:, order] * sign).astype(np.int16), a.descriptors)
    assert len(a) == len(b)
    # Sums in another order round otherwise.
    apart = np.abs(expected.positions_mm[:, None] - b.positions_mm).max(axis=2)
    partner = apart.argmin(axis=1)
    assert (apart.min(axis=1) < 0.15).mean() > 0.97
    off = np.abs(expected.descriptors.astype(int) - b.descriptors[partner].astype(int)).max(axis=1)
    assert (off <= 2).mean() > 0.95


@given(gain=st.floats(0.2, 20.0), offset=st.integers(-200, 2000))
@settings(max_examples=8)
def test_no_linear_scale_of_intensity_matters(gain, offset):
    image = person(3)[:60, :60, :60]
    other = np.rint(image * gain + offset).astype(np.int16)
    a, b = signature(image, AFFINE), signature(other, AFFINE)
    apart = np.abs(a.positions_mm[:, None] - b.positions_mm).max(axis=2).min(axis=1)
    assert (apart < 2.0).mean() > 0.6


@pytest.mark.parametrize("shape", [(0, 0, 0), (1, 1, 1), (40, 40, 1), (20, 20, 3), (64, 64, 20)])
def test_small_and_empty_images_have_a_signature_too(shape):
    blank = signature(np.zeros(shape, dtype=np.int16), AFFINE)
    assert len(blank) == 0
    assert len(Signature.from_json(blank.to_json())) == 0
    grain = np.random.default_rng(0).integers(0, 800, shape).astype(np.int16)
    print_ = signature(grain, AFFINE)
    assert print_.positions.shape == (len(print_), 3)
    assert print_.descriptors.shape == (len(print_), LENGTH)


def test_spacing_counts():
    at_3, at_6 = signature(person(0), AFFINE), signature(person(0), 2 * AFFINE)
    assert np.abs(at_6.positions_mm).max() > 1.5 * np.abs(at_3.positions_mm).max()


def test_another_version_and_damage_are_refused():
    data = signature(person(0), AFFINE).to_json()
    with pytest.raises(WorkspaceError, match="version 99, expected 1"):
        Signature.from_json(data | {"version": 99})
    with pytest.raises(WorkspaceError, match="version None"):
        Signature.from_json({})
    for broken in ({"positions": "?"}, {"descriptors": data["descriptors"][:40]}, {"positions": None}):
        with pytest.raises(WorkspaceError, match="damaged"):
            Signature.from_json(data | broken)


def test_tissue_is_found_under_any_window():
    image = person(4)
    whole, narrow = tissue_range(image), tissue_range(np.clip(image, 240, 640))
    assert whole is not None
    assert narrow is not None
    assert abs(whole.low - narrow.low) < 15
    assert abs(whole.high - narrow.high) < 15
    assert whole.normalised(image).min() == 0
    assert whole.normalised(image).max() == 1
    assert set(np.unique(whole.body(image))) == {0, 1}
    assert tissue_range(np.full((20, 20, 20), 7, dtype=np.int16)) is None


@given(st.floats(1.0, 6.0), st.floats(2.0, 8.0), st.floats(-3.0, 3.0))
@settings(max_examples=15)
def test_sampling_keeps_constants_and_places(spacing, step, offset):
    shape = (17, 12, 9)
    np.testing.assert_allclose(sampled(np.full(shape, 3.0, np.float32), (spacing,) * 3, step, step), 3.0, rtol=1e-5)
    ramp = np.broadcast_to(((np.arange(17) - 8) * spacing)[:, None, None], shape).astype(np.float32)
    found = sampled(ramp, (spacing,) * 3, step, spacing, (offset, 0.0, 0.0))[:, 0, 0]
    at = (np.arange(len(found)) - (len(found) - 1) / 2) * step + offset
    inner = np.abs(at) < 3 * spacing
    np.testing.assert_allclose(found[inner], at[inner], atol=1e-3 * spacing)


def test_sampling_beyond_the_volume_takes_the_border():
    found = sampled(np.arange(5, dtype=np.float32).reshape(5, 1, 1), (2.0, 2.0, 2.0), 2.0, 0.5, (100.0, 0.0, 0.0))
    np.testing.assert_allclose(found.ravel(), 4.0, atol=1e-4)


def test_parabola():
    at = np.array([-0.4, 0.0, 0.3])
    before, middle, after = (-np.square(x - at) for x in (-1, 0, 1))
    np.testing.assert_allclose(parabola_top(before, middle, after), at, atol=1e-12)
    assert parabola_top(1.0, 0.0, 1.0) == 0
    assert parabola_top(0.0, 1.0, 1.9) == 1


def test_ranks_are_scipys():
    levels = np.random.default_rng(1).integers(0, 40, (5, 300)) * 25
    np.testing.assert_array_equal(_ranks(levels), rankdata(levels, axis=1))
