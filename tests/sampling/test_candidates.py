"""Candidates honour the annotation, slice by slice and axis by axis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from abdoseg.annotation import Annotation
from abdoseg.case import Foreground
from abdoseg.errors import ConfigError
from abdoseg.sampling import Candidates, CaseEntry, candidate_voxels, count_candidates

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
    counts = count_candidates(foreground, annotation, SHAPE)
    assert counts.shape == (len(axes), N)
    for row, axis in zip(counts, axes, strict=True):
        for c in range(1, N + 1):
            expected = slow_candidates(label, annotation, c, axis)
            assert candidate_voxels(foreground, annotation, c, axis, SHAPE).tolist() == expected
            assert row[c - 1] == len(expected)


def test_table_counts_any_axis_and_background_always():
    table = Candidates.of(
        [
            CaseEntry("a/1", "a", "CT", np.array([3, 0])),
            CaseEntry("a/2", "a", "MR", np.array([[0, 0], [0, 7]]), "sparse"),
            CaseEntry("b/1", "b", "CT", np.array([0, 0])),
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
