"""Post-processing: pieces and holes, against SciPy; nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.postprocess import Change, PostSettings, Rule, postprocess

THREE = ABDOMEN.subset(("spleen", "right_kidney", "liver"))
EIGHT_AROUND = np.ones((3, 3, 3))


def a_label(seed, shape=(9, 8, 7)):
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 1, 2, 3], shape).astype(np.uint8)


def by_scipy(label, structure, rule, voxel_ml):
    """The same by SciPy, over the whole volume."""
    out = label.copy()
    pieces, n = ndimage.label(label == structure, structure=EIGHT_AROUND)
    sizes = ndimage.sum_labels(np.ones_like(pieces), pieces, np.arange(1, n + 1))
    for piece, size in enumerate(sizes, start=1):
        small = size * voxel_ml < rule.min_ml
        other = rule.largest and piece != 1 + int(np.argmax(sizes))
        if small or other:
            out[pieces == piece] = 0
    if rule.fill_holes:
        out[ndimage.binary_fill_holes(out == structure) & (out == 0)] = structure
    return out


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    largest=st.booleans(),
    fill=st.booleans(),
    voxels=st.integers(0, 6),
    order=st.sampled_from("CF"),
)
def test_equals_scipy(seed, largest, fill, voxels, order):
    label = np.asarray(a_label(seed), order=order)
    before = label.copy()
    rule = Rule(largest, voxels * 0.5, fill)
    found, changes = postprocess(label, PostSettings({"right_kidney": rule}), THREE, 0.5)
    expected = by_scipy(label, 2, rule, 0.5)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(label, before)
    told = {change.structure: change for change in changes}
    if (found != before).any():
        change = told["right_kidney"]
        gone = ((before == 2) & (found != 2)).sum()
        assert change.filled_ml - change.removed_ml == pytest.approx(0.5 * ((found == 2).sum() - (before == 2).sum()))
        assert change.removed_ml >= 0.5 * gone - 1e-9
    elif not told:
        assert not changes


def test_nothing_is_done_unless_asked():
    label = a_label(0)
    found, changes = postprocess(label, PostSettings(), THREE, 1.0)
    assert found is label
    assert changes == ()


def test_equal_pieces_keep_the_first():
    label = np.zeros((7, 3, 3), dtype=np.uint8)
    label[0], label[3] = 1, 1
    found, (change,) = postprocess(label, PostSettings({"spleen": Rule(largest=True)}), THREE, 2.0)
    assert found[0].all()
    assert not found[1:].any()
    assert change == Change("spleen", 18.0, 1, 0.0)
    assert str(change) == "spleen: 1 piece taken away (18.00 ml)"


def test_other_structures_within_a_hole_stay():
    label = np.full((5, 5, 5), 3, dtype=np.uint8)
    label[2, 2, 2], label[2, 2, 3] = 0, 1
    found, (change,) = postprocess(label, PostSettings({"liver": Rule(fill_holes=True)}), THREE, 1.0)
    assert (found[2, 2, 2], found[2, 2, 3]) == (3, 1)
    assert str(change) == "liver: holes of 1.00 ml filled"


def test_a_structure_that_is_not_there_is_passed_over():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    found, changes = postprocess(label, PostSettings.of(THREE, ("all",), ("all",), {"all": 1.0}), THREE, 1.0)
    np.testing.assert_array_equal(found, label)
    assert changes == ()


def test_settings_of_names():
    found = PostSettings.of(THREE, ("liver",), ("all",), {"all": 0.2, "spleen": 3.0})
    assert found.rules == {
        "spleen": Rule(min_ml=3.0, fill_holes=True),
        "right_kidney": Rule(min_ml=0.2, fill_holes=True),
        "liver": Rule(largest=True, min_ml=0.2, fill_holes=True),
    }
    assert PostSettings.of(THREE).rules == {}


def test_wrong_settings():
    with pytest.raises(UnknownNameError, match="livr"):
        PostSettings.of(THREE, ("livr",))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="min_ml: found"):
            PostSettings.of(THREE, min_ml={"spleen": wrong})
