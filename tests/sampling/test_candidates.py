"""Candidates honour the annotation, slice by slice and axis by axis."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.errors import ConfigError
from abdoseg.sampling import Candidates, CaseEntry, candidate_voxels, held_by_voxels, held_structures, kind_of

SHAPE = (3, 4, 5)
N = 3
LABELS = npst.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 1, 2, 3, 255]))


@st.composite
def annotations(draw):
    rows = draw(npst.arrays(bool, st.tuples(st.integers(1, 4), st.just(N))))
    groups = st.integers(0, len(rows) - 1)
    axes = draw(st.sets(st.sampled_from([0, 1, 2])))
    return Annotation(rows, {axis: draw(npst.arrays(np.int32, SHAPE[axis], elements=groups)) for axis in axes})


def slow_candidates(label, annotation, structure, axis):
    """Walk all voxels."""
    found = []
    for flat, voxel in enumerate(np.ndindex(*label.shape)):
        group = 0 if axis is None else annotation.slices[axis][voxel[axis]]
        if label[voxel] == structure and annotation.rows[group, structure - 1]:
            found.append(flat)
    return found


@given(LABELS, annotations())
def test_candidates_are_the_known_voxels_of_the_structure(label, annotation):
    foreground = Foreground.of(label, N)
    axes = annotation.axes() or (None,)
    held = held_by_voxels(foreground, annotation, SHAPE)
    for c in range(1, N + 1):
        expected = [slow_candidates(label, annotation, c, axis) for axis in axes]
        found = [candidate_voxels(foreground, annotation, c, axis, SHAPE).tolist() for axis in axes]
        assert found == expected
        assert held[c - 1] == any(expected)
    by_facts = held_structures(annotation, foreground.counts(), foreground.occupied(SHAPE))
    assert by_facts.tolist() == held.tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_structure_is_held_in_its_own_slices_and_in_no_neighbouring_one(axis):
    label = np.zeros(SHAPE, np.uint8)
    label[1, 1, 1] = 2
    foreground = Foreground.of(label, N)
    rows = np.array([[False] * N, [True] * N])
    for slice_ in range(SHAPE[axis]):
        groups = (np.arange(SHAPE[axis]) == slice_).astype(np.int32)
        annotation = Annotation(rows, {axis: groups})
        held = held_structures(annotation, foreground.counts(), foreground.occupied(SHAPE))
        assert held.tolist() == [False, slice_ == 1, False]


@given(LABELS)
def test_occupied_slices_are_those_that_hold_the_structure(label):
    occupied = Foreground.of(label, N).occupied(SHAPE)
    assert set(occupied) == {c for c in range(1, N + 1) if (label == c).any()}
    for c, by_axis in occupied.items():
        for axis, runs in enumerate(by_axis):
            other = tuple(a for a in range(3) if a != axis)
            slices = [i for first, stop in runs for i in range(first, stop)]
            assert slices == np.flatnonzero((label == c).any(axis=other)).tolist()
            assert all(b[0] > a[1] for a, b in itertools.pairwise(runs))


def test_kinds():
    rows = np.array([[True, False], [False, False]])
    assert kind_of(Annotation(rows)) == "partial"
    assert kind_of(Annotation(rows[1:])) == "unlabelled"
    assert kind_of(Annotation(rows, {2: np.zeros(5, np.int32)})) == "sparse"


def test_table_has_what_is_held_and_background_always():
    table = Candidates.of(
        [
            CaseEntry("a/1", "a", "CT", np.array([True, False])),
            CaseEntry("a/2", "a", "MR", np.array([False, True]), "sparse"),
            CaseEntry("b/1", "b", "CT", np.array([False, False])),
        ]
    )
    assert table.has.tolist() == [[True, True, False], [True, False, True], [True, False, False]]
    assert len(table) == 3
    assert table.n_structures == 2
    assert table.kinds == ("partial", "sparse", "partial")
    assert table.modalities == ("CT", "MR", "CT")


def test_no_case_is_an_error():
    with pytest.raises(ConfigError, match="no case"):
        Candidates.of([])


def test_a_case_twice_is_an_error():
    entry = CaseEntry("a/1", "a", "CT", np.array([1]))
    with pytest.raises(ConfigError, match="a/1"):
        Candidates.of([entry, entry])
