"""The centre voxel: who may be drawn, and how often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import chisquare

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.sampling import Centre, choose_anywhere, choose_background, choose_foreground, stream, voxels

SHAPE = (3, 4, 5)
N = 3
LABELS = npst.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 255]))


def striped(axes):
    """Every second slice annotated along each axis, structures 1 and 2 only."""
    kept = {axis: np.arange(SHAPE[axis]) % 2 == 1 for axis in axes}
    whole = Annotation.partial((1, 2), N)
    return whole.thinned(kept) if axes else whole


def a_label(seed=0, values=(0, 0, 1, 2, 3, 255)):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), SHAPE)


def frequencies(choose, n=4000):
    """Count (voxel, axis) over ``n`` examples."""
    drawn = [choose(stream(5, t, 1)) for t in range(n)]
    counts = {}
    for centre in drawn:
        assert isinstance(centre, Centre)
        counts[centre.voxel, centre.axis] = counts.get((centre.voxel, centre.axis), 0) + 1
    return counts


def check_uniform(counts, expected):
    """``expected``: {(voxel, axis): probability}."""
    assert set(counts) <= set(expected)
    n = sum(counts.values())
    keys = list(expected)
    assert sum(expected.values()) == pytest.approx(1)
    assert chisquare([counts.get(k, 0) for k in keys], [n * expected[k] for k in keys]).pvalue > 1e-3


def shown(label, annotation, axis):
    """Return the label as the view shows it, voxel by voxel."""
    seen = np.zeros_like(label)
    for voxel in np.ndindex(*label.shape):
        group = 0 if axis is None else annotation.slices[axis][voxel[axis]]
        value = label[voxel]
        if 1 <= value <= N and annotation.rows[group, value - 1]:
            seen[voxel] = value
    return seen


def voxels_where(mask):
    return [tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)]


@pytest.mark.parametrize("axes", [(), (2,), (0,), (0, 1, 2)])
def test_foreground_is_uniform_over_axes_and_then_candidates(axes):
    label, annotation = a_label(), striped(axes)
    counts = frequencies(lambda g: choose_foreground(g, 1, Foreground.of(label, N), annotation, SHAPE))
    by_axis = {a: voxels_where(shown(label, annotation, a) == 1) for a in axes or (None,)}
    assert all(by_axis.values())
    check_uniform(counts, {(v, a): 1 / len(by_axis) / len(found) for a, found in by_axis.items() for v in found})


def test_foreground_skips_axes_without_a_candidate():
    label = np.zeros(SHAPE, np.uint8)
    label[1, 0, 0] = label[1, 1, 2] = 1  # along axis 2 slices 0 and 2 are hidden; along axis 0 slice 1 is kept
    annotation = striped((0, 2))
    counts = frequencies(lambda g: choose_foreground(g, 1, Foreground.of(label, N), annotation, SHAPE), 500)
    check_uniform(counts, {((1, 0, 0), 0): 0.5, ((1, 1, 2), 0): 0.5})


def test_foreground_without_a_candidate_is_an_error():
    with pytest.raises(LookupError, match="structure 3"):
        choose_foreground(stream(0, 0), 3, Foreground.of(a_label(), N), striped((2,)), SHAPE)


@pytest.mark.parametrize("tries", [1, 64])
@pytest.mark.parametrize("axes", [(), (2,), (0, 1)])
def test_background_is_uniform_over_what_the_view_shows_undrawn(monkeypatch, axes, tries):
    """Hidden slices, structures nobody looked for and unknown voxels all count as undrawn, by either way to draw."""
    monkeypatch.setattr(voxels, "TRIES", tries)
    label, annotation = a_label(3, (0, 1, 1, 2, 2, 3, 255)), striped(axes)
    counts = frequencies(lambda g: choose_background(g, label, annotation))
    by_axis = {a: voxels_where(shown(label, annotation, a) == 0) for a in axes or (None,)}
    check_uniform(counts, {(v, a): 1 / len(by_axis) / len(found) for a, found in by_axis.items() for v in found})


def test_background_is_found_when_it_is_one_voxel():
    label = np.ones((20, 20, 20), np.uint8)
    label[3, 4, 5] = 0
    for t in range(20):
        centre = choose_background(stream(0, t), label, Annotation.partial((1,), N))
        assert centre.voxel == (3, 4, 5)


def test_background_of_an_image_drawn_all_over_is_any_voxel():
    label = np.ones(SHAPE, np.uint8)
    counts = frequencies(lambda g: choose_background(g, label, Annotation.partial((1,), N)))
    check_uniform(counts, {(v, None): 1 / label.size for v in voxels_where(label == 1)})


@pytest.mark.parametrize("axes", [(), (0, 2)])
def test_anywhere_is_uniform_over_all_voxels(axes):
    counts = frequencies(lambda g: choose_anywhere(g, striped(axes), SHAPE))
    places = [(v, a) for v in voxels_where(np.ones(SHAPE)) for a in axes or (None,)]
    check_uniform(counts, dict.fromkeys(places, 1 / len(places)))


@given(LABELS, st.sets(st.sampled_from([0, 1, 2])), st.integers(0, 1000))
def test_no_choice_breaks_the_view(label, axes, t):
    annotation = striped(tuple(axes))
    for axis in annotation.axes() or (None,):
        drawn = shown(label, annotation, axis)
        background = choose_background(stream(0, t), label, annotation)
        if background.axis == axis:
            assert drawn[background.voxel] == 0 or (drawn > 0).all()
        for structure in (1, 2, 3):
            try:
                centre = choose_foreground(stream(0, t), structure, Foreground.of(label, N), annotation, SHAPE)
            except LookupError:
                assert not (drawn == structure).any()
                continue
            if centre.axis == axis:
                assert drawn[centre.voxel] == structure
