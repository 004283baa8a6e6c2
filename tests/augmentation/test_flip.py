"""Flips: who is whose partner, and twice is nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from abdoseg.anatomy import ABDOMEN
from abdoseg.augmentation.flip import (
    FlipParameters,
    FlipSettings,
    draw_flip,
    mirrored_labels,
    mirrored_rows,
    partners_of,
)
from abdoseg.errors import ConfigError

PARTNERS = partners_of(ABDOMEN)


def test_the_papers_structures_have_their_partners():
    sides = {(ABDOMEN.names[i], ABDOMEN.names[p - 1]) for i, p in enumerate(PARTNERS) if p != i + 1}
    pairs = {("right_kidney", "left_kidney"), ("right_adrenal_gland", "left_adrenal_gland")}
    assert sides == pairs | {(b, a) for a, b in pairs}


def test_a_structure_whose_partner_is_not_there_is_told():
    with pytest.raises(ConfigError, match="right_kidney would become left_kidney"):
        partners_of(ABDOMEN.subset(("liver", "right_kidney")))


@given(npst.arrays(np.uint8, (4, 5, 6)), npst.arrays(bool, (3, 16)))
def test_mirrored_twice_is_as_before(label, rows):
    mirrored = mirrored_labels(label, PARTNERS)
    assert mirrored.dtype == np.uint8
    assert np.array_equal(mirrored_labels(mirrored, PARTNERS), label)
    assert np.array_equal(mirrored_rows(mirrored_rows(rows, PARTNERS), PARTNERS), rows)
    assert np.array_equal(mirrored == 255, label == 255)
    assert np.array_equal(mirrored == 0, label == 0)
    for a, b in ((2, 3), (3, 2), (11, 12), (12, 11), (6, 6)):
        assert np.array_equal(mirrored == b, label == a)
        assert np.array_equal(mirrored_rows(rows, PARTNERS)[:, b - 1], rows[:, a - 1])


def test_axes_are_drawn_on_their_own_and_as_often_as_said():
    settings = FlipSettings((0.5, 0.25, 1.0), PARTNERS)
    generator = np.random.default_rng(0)
    drawn = np.array([draw_flip(generator, settings).axes for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(axis=0), (0.5, 0.25, 1.0), atol=0.03)
    assert abs(np.corrcoef(drawn[:, :2].T)[0, 1]) < 0.05


def test_off_by_default():
    generator = np.random.default_rng(0)
    assert all(draw_flip(generator, FlipSettings()).axes == (False, False, False) for _ in range(50))
    assert np.array_equal(FlipParameters((False,) * 3).matrix(), np.eye(3))
    assert np.array_equal(FlipParameters((True, False, True)).matrix(), np.diag([-1.0, 1, -1]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"probability": (0.5, 0, 0)}, "partners_of"),
        ({"probability": (0, 1.5, 0)}, "0 to 1"),
        ({"probability": (0, float("nan"), 0)}, "0 to 1"),
        ({"probability": (0, 0)}, "three numbers"),
        ({"partners": (2, 3, 1)}, "in pairs"),
        ({"partners": (2, 1, 4)}, "in pairs"),
        ({"partners": (0, 2)}, "in pairs"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        FlipSettings(**settings)
