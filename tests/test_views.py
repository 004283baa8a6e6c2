"""Sparse views: which slices they keep, and what they leave of an annotation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.annotation import AXES, Annotation
from abdoseg.views import View, evenly_spaced_slices

SIZES = st.integers(1, 400)
FRACTIONS = st.floats(0.001, 1.0)


@given(SIZES, FRACTIONS)
def test_slices_are_sorted_unique_and_inside(n, fraction):
    slices = evenly_spaced_slices(n, fraction)
    assert (np.diff(slices) > 0).all()
    assert slices[0] >= 0
    assert slices[-1] < n


@given(SIZES, FRACTIONS)
def test_count_is_the_fraction_rounded_and_at_least_one(n, fraction):
    k = len(evenly_spaced_slices(n, fraction))
    assert 1 <= k <= n
    assert k == 1 or abs(k - fraction * n) <= 0.5 + 1e-9


@given(SIZES, FRACTIONS)
def test_positions_are_the_formula_in_exact_arithmetic(n, fraction):
    slices = evenly_spaced_slices(n, fraction)
    k = len(slices)
    assert slices.tolist() == [int((Fraction(2 * i + 1, 2)) * n / k) for i in range(k)]


@given(SIZES, FRACTIONS)
def test_slices_are_centred(n, fraction):
    """What is left before the first and after the last slice differs by at most one slice."""
    slices = evenly_spaced_slices(n, fraction)
    before, after = slices[0], n - 1 - slices[-1]
    assert abs(before - after) <= 1
    gaps = np.diff(slices)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [(10, 0.2, [2, 7]), (5, 1.0, [0, 1, 2, 3, 4]), (7, 0.01, [3]), (5, 0.5, [0, 2, 4]), (6, 0.5, [1, 3, 5])],
)
def test_slices_by_hand(n, fraction, expected):
    assert evenly_spaced_slices(n, fraction).tolist() == expected


@given(st.sampled_from(sorted(AXES)), st.tuples(*[st.integers(1, 30)] * 3), FRACTIONS)
def test_view_annotates_its_slices_and_no_other(name, shape, fraction):
    view = View(name="v", axes=(name,), fraction=fraction)
    shown = view.apply(Annotation.partial((1, 3), 4), "any", shape)
    axis = AXES[name]
    assert shown.axes() == (axis,)
    known = shown.rows[shown.slices[axis]]
    kept = evenly_spaced_slices(shape[axis], fraction)
    assert np.flatnonzero(known.any(axis=1)).tolist() == kept.tolist()
    assert (known[kept] == [True, False, True, False]).all()


@given(st.integers(1, 60), FRACTIONS)
def test_every_kept_slice_is_a_group_of_its_own(n, fraction):
    """The dice term is per slice, also when every slice is kept (Table 8's 100 % rows)."""
    view = View(name="v", axes=("axial",), fraction=fraction)
    shown = view.apply(Annotation.partial((2,), 3), "any", (5, 6, n))
    groups = shown.slices[2]
    kept = evenly_spaced_slices(n, fraction)
    assert len(np.unique(groups[kept])) == len(kept)
    hidden = np.setdiff1d(np.arange(n), kept)
    assert not set(groups[hidden]) & set(groups[kept])
    assert not shown.rows[groups[hidden]].any()


def test_view_of_one_source_leaves_others_whole():
    view = View(name="v", axes=("axial",), fraction=0.2, sources=("word",))
    whole = Annotation.partial((1,), 2)
    assert view.apply(whole, "amos", (4, 4, 10)) is whole
    assert view.apply(whole, "word", (4, 4, 10)).axes() == (2,)


def test_several_directions_have_lists_of_their_own():
    view = View(name="v", axes=("axial", "sagittal"), fraction=0.5)
    shown = view.apply(Annotation.partial((1,), 2), "any", (4, 6, 8))
    assert shown.axes() == (0, 2)
    first, last = (set(shown.slices[a][shown.rows[shown.slices[a]].any(axis=1)]) for a in (0, 2))
    assert len(first) == 2
    assert len(last) == 4
    assert not first & last


@pytest.mark.parametrize("axes", [(), ("oblique",), ("axial", "up")])
def test_unknown_directions_are_refused(axes):
    with pytest.raises(ValueError, match="sagittal, coronal, axial"):
        View(name="v", axes=axes, fraction=0.2)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        View(name="v", axes=("axial",), fraction=fraction)
