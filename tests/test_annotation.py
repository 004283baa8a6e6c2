"""Annotation groups: what a label may be seen as, thinning, and the form on disk."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from abdoseg.annotation import Annotation
from abdoseg.types import UNKNOWN_LABEL

SHAPE = (3, 4, 5)
N = 4


@st.composite
def annotations(draw, shape=SHAPE, n=N):
    """Any lawful annotation: no list, one or several lists, rows shared between slices or not."""
    rows = draw(npst.arrays(bool, st.tuples(st.integers(1, 5), st.just(n))))
    axes = draw(st.sets(st.sampled_from([0, 1, 2])))
    groups = st.integers(0, len(rows) - 1)
    return Annotation(rows, {axis: draw(npst.arrays(np.int32, shape[axis], elements=groups)) for axis in axes})


LABELS = npst.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 4, 5, UNKNOWN_LABEL]))


def row_at(annotation, axis, voxel):
    """Return the row of one voxel, the slow way."""
    group = 0 if axis is None else annotation.slices[axis][voxel[axis]]
    return annotation.rows[group]


@given(annotations(), LABELS)
def test_known_label_keeps_what_the_row_vouches_for(annotation, label):
    for axis in annotation.axes() or (None,):
        seen = annotation.known_label(label, axis)
        assert seen.dtype == np.uint8
        for voxel in np.ndindex(*SHAPE):
            value = label[voxel]
            known = 1 <= value <= N and row_at(annotation, axis, voxel)[value - 1]
            assert seen[voxel] == (value if known else 0)


@given(annotations())
def test_json_form_comes_back_the_same(annotation):
    again = Annotation.from_json(json.loads(json.dumps(annotation.to_json())))
    assert np.array_equal(again.rows, annotation.rows)
    assert again.axes() == annotation.axes()
    assert again.structure_ids == annotation.structure_ids
    for axis in annotation.axes():
        assert np.array_equal(again.slices[axis], annotation.slices[axis])


def test_json_form_of_many_slices_is_compact():
    """A case that annotates 16 structures in each of 250 slices: a few bytes a slice, rows written once."""
    shown = Annotation.partial(range(1, 17), 16).thinned({2: np.ones(250, dtype=bool)})
    assert len(json.dumps(shown.to_json())) < 3500
    assert len(shown.to_json()["rows"]) == 2


@given(annotations(), st.data())
def test_thinned_hides_slices_and_changes_no_kept_row(annotation, data):
    axes = annotation.axes() or tuple(data.draw(st.sets(st.sampled_from([0, 1, 2]), min_size=1)))
    kept = {axis: data.draw(npst.arrays(bool, SHAPE[axis])) for axis in axes}
    thin = annotation.thinned(kept)
    assert thin.axes() == tuple(sorted(kept))
    for axis, mask in kept.items():
        for i, stays in enumerate(mask):
            voxel = [0, 0, 0]
            voxel[axis] = i
            old = row_at(annotation, axis if annotation.slices else None, voxel)
            assert np.array_equal(row_at(thin, axis, voxel), old & stays)


@given(annotations(), st.data())
def test_thinned_gives_every_annotated_slice_its_own_group(annotation, data):
    axes = annotation.axes() or (2,)
    thin = annotation.thinned({axis: data.draw(npst.arrays(bool, SHAPE[axis])) for axis in axes})
    used = np.concatenate([groups[thin.rows[groups].any(axis=1)] for groups in thin.slices.values()])
    assert len(np.unique(used)) == len(used)
    assert (~thin.rows.any(axis=1)).sum() == 1


@given(annotations(), st.data())
def test_thinned_by_structure_leaves_what_both_know(annotation, data):
    axes = annotation.axes() or (0, 2)
    kept = {axis: data.draw(npst.arrays(bool, (SHAPE[axis], N))) for axis in axes}
    thin = annotation.thinned(kept)
    for axis, mask in kept.items():
        for i in range(SHAPE[axis]):
            voxel = [0, 0, 0]
            voxel[axis] = i
            old = row_at(annotation, axis if annotation.slices else None, voxel)
            assert np.array_equal(row_at(thin, axis, voxel), old & mask[i])


@given(annotations())
def test_known_slices_are_the_rows_of_the_slices(annotation):
    for axis in range(3):
        known = annotation.known_slices(axis, SHAPE[axis])
        assert known.shape == (SHAPE[axis], N)
        for i in range(SHAPE[axis]):
            voxel = [0, 0, 0]
            voxel[axis] = i
            if axis in annotation.slices:
                assert np.array_equal(known[i], row_at(annotation, axis, voxel))
            else:
                assert np.array_equal(known[i], annotation.rows[0] & (not annotation.slices))


def test_thinned_leaves_a_case_with_lists_along_other_axes():
    annotation = Annotation.partial((1,), N).thinned({0: np.ones(3, dtype=bool)})
    assert annotation.thinned({2: np.zeros(5, dtype=bool)}) is annotation
    assert not annotation.can_thin([2])
    assert not annotation.can_thin([0, 2])
    assert annotation.can_thin([0])
    assert Annotation.partial((1,), N).can_thin([1, 2])


def test_structure_ids_are_those_of_slices_in_use():
    rows = np.array([[True, False], [False, True], [False, False]])
    assert Annotation(rows, {2: np.array([0, 2], np.int32)}).structure_ids == (1,)
    assert Annotation(rows, {0: np.array([1], np.int32), 2: np.array([0, 2], np.int32)}).structure_ids == (1, 2)
    assert Annotation(rows[1:]).structure_ids == (2,)
    hidden = Annotation.partial((1, 2), 2).thinned({2: np.zeros(4, dtype=bool)})
    assert not hidden.has_annotation


def test_unlabelled_case_has_one_empty_row():
    annotation = Annotation.partial((), N)
    assert annotation.rows.tolist() == [[False] * N]
    assert not annotation.has_annotation
    assert not annotation.thinned({2: np.ones(5, dtype=bool)}).has_annotation


@pytest.mark.parametrize(
    ("rows", "slices"),
    [
        (np.zeros((0, 2), bool), {}),
        (np.zeros((1, 2), int), {}),
        (np.zeros(2, bool), {}),
        (np.zeros((1, 2), bool), {3: np.zeros(4, np.int32)}),
        (np.zeros((1, 2), bool), {0: np.zeros((4, 1), np.int32)}),
        (np.zeros((1, 2), bool), {0: np.array([0, 1], np.int32)}),
        (np.zeros((1, 2), bool), {0: np.array([-1, 0], np.int32)}),
    ],
)
def test_malformed_annotation_is_refused(rows, slices):
    with pytest.raises(ValueError, match="annotation"):
        Annotation(rows, slices)


@given(annotations(), st.sampled_from([0, 1, 2]))
def test_group_volume_repeats_the_slice_list(annotation, axis):
    volume = annotation.group_volume(SHAPE, axis if axis in annotation.slices else None)
    used = axis if axis in annotation.slices else (annotation.axes() or (None,))[0]
    for voxel in np.ndindex(*SHAPE):
        assert volume[voxel] == (0 if used is None else annotation.slices[used][voxel[used]])
