"""Slices that are annotated on the file's axes stay so on the harmonised grid, whatever the orientation."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.annotation import Annotation
from abdoseg.cards import Sparse
from abdoseg.errors import CaseError
from abdoseg.geometry import harmonised_grid, to_canonical
from abdoseg.harmonise import harmonise_label
from abdoseg.slice_rows import (
    ListedSlice,
    SliceRows,
    array_axis,
    harmonised_annotation,
    hide_unvouched,
    listed_slices,
    lost_slices,
    non_empty_slices,
    truncated_rows,
)

ORIENTATIONS = st.permutations([0, 1, 2]).flatmap(
    lambda axes: st.tuples(*[st.sampled_from([-1, 1])] * 3).map(
        lambda flips: np.array([*zip(axes, flips, strict=True)])
    )
)
KNOWN = np.array([True, False, True])


def affine_of(orientation, spacing):
    """A native affine whose array axes lie along the given RAS axes and directions."""
    affine = np.zeros((4, 4))
    for axis, (world, flip) in enumerate(orientation):
        affine[int(world), axis] = flip * spacing[axis]
    affine[3, 3] = 1
    return affine


@given(ORIENTATIONS, st.integers(0, 2), st.integers(0, 99))
def test_each_slice_follows_its_nearest_native_slice(orientation, axis, seed):
    """Reference: a label volume that holds 1 in annotated slices and 2 elsewhere goes through the same resampling."""
    rng = np.random.default_rng(seed)
    shape, spacing = tuple(rng.integers(4, 12, 3)), rng.uniform(0.7, 4.9, 3)
    affine = affine_of(orientation, spacing)
    drawn = rng.random(shape[axis]) < 0.4
    view = [1, 1, 1]
    view[axis] = shape[axis]
    volume = np.broadcast_to(np.where(drawn, 1, 2).reshape(view), shape).astype(np.uint8)
    canonical, canonical_affine = to_canonical(volume, affine)
    grid = harmonised_grid(canonical.shape, canonical_affine, 2.0)

    rows = SliceRows({axis: drawn[:, None] & KNOWN[None]}, apart=True)
    annotation = harmonised_annotation(KNOWN, rows, affine, shape, grid)

    (ras_axis,) = annotation.axes()
    assert ras_axis == int(nib.io_orientation(affine)[axis, 0])
    expected = harmonise_label(volume, affine, grid, [ras_axis]) == 1
    groups = annotation.group_volume(grid.shape)
    np.testing.assert_array_equal(annotation.rows[groups].any(axis=-1), expected)
    kept = np.unique(groups[expected])
    assert len(kept) == len(np.unique(np.nonzero(expected)[ras_axis]))  # a group a slice
    assert (annotation.rows[kept] == KNOWN).all()


@given(ORIENTATIONS)
def test_planes_of_the_body_are_found_in_any_array(orientation):
    affine = affine_of(orientation, (1.0, 2.0, 3.0))
    for world, name in enumerate(("sagittal", "coronal", "axial")):
        assert orientation[array_axis(name, affine)][0] == world
    assert [array_axis(n, affine) for n in ("first", "second", "third")] == [0, 1, 2]


def test_non_empty_slices():
    drawn = np.zeros((3, 4, 5), dtype=bool)
    drawn[1, 2, 3] = drawn[0, 0, 0] = True
    rows = non_empty_slices(drawn, 2, KNOWN)
    assert rows.any(axis=1).tolist() == [True, False, False, True, False]
    assert (rows[3] == KNOWN).all()


def test_a_truncated_structure_is_known_between_its_first_and_last_slice():
    label = np.zeros((4, 4, 6), dtype=np.uint8)
    label[1, 1, 2] = label[1, 1, 4] = 3
    label[2, 2, 0] = 1
    slices = truncated_rows(label, np.diag([1.0, 1, 1, 1]), [3], KNOWN)
    np.testing.assert_array_equal(slices.rows[2][:, 2], [False, False, True, True, True, False])
    assert slices.rows[2][:, 0].all()
    assert not slices.rows[2][:, 1].any()
    grid = harmonised_grid(label.shape, np.diag([2.0, 2, 2, 1]), 2.0)
    annotation = harmonised_annotation(KNOWN, slices, np.diag([2.0, 2, 2, 1]), label.shape, grid)
    assert len(annotation.rows) == 3  # empty, without the structure, with it: slices that know the same share a group


def test_a_truncated_structure_that_is_nowhere_is_known_nowhere():
    label = np.ones((3, 3, 3), dtype=np.uint8)
    slices = truncated_rows(label, np.eye(4), [3], KNOWN)
    assert not slices.rows[2][:, 2].any()


def test_a_structure_drawn_to_the_end_leaves_one_group():
    label = np.full((3, 3, 3), 3, dtype=np.uint8)
    slices = truncated_rows(label, np.eye(4), [3], KNOWN)
    assert not slices.rows
    grid = harmonised_grid(label.shape, np.eye(4), 1.0)
    annotation = harmonised_annotation(KNOWN, slices, np.eye(4), label.shape, grid)
    assert not annotation.slices
    assert (annotation.rows == KNOWN).all()


TABLE = Sparse(kind="table", table="slices.csv", first=1)
NAMES = {"spleen": 1, "left_kidney": 3}


def test_a_side_car_table_says_what_is_drawn_where():
    listed = [
        ListedSlice("axial", 2, ("spleen",)),
        ListedSlice("axial", 5, None),
        ListedSlice("axial", 2, ("left_kidney",)),
    ]
    flipped = np.diag([1.0, 1, -1, 1])
    (rows,) = listed_slices(listed, TABLE, (4, 4, 6), flipped, NAMES).values()
    assert np.argwhere(rows).tolist() == [[1, 0], [1, 2], [4, 0], [4, 2]]  # numbers of the file, which begins at 1


def test_a_table_may_list_slices_along_several_axes():
    listed = [ListedSlice("axial", 1, None), ListedSlice("first", 2, None)]
    rows = listed_slices(listed, TABLE, (4, 4, 6), np.eye(4), NAMES)
    assert sorted(rows) == [0, 2]
    assert [len(r) for r in (rows[0], rows[2])] == [4, 6]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (ListedSlice("axial", 7, None), r"slice 7 of axial, expected 1\.\.6"),
        (ListedSlice("axial", 0, None), r"slice 0"),
        (ListedSlice("oblique", 1, None), "axis 'oblique', expected one of sagittal"),
        (ListedSlice("axial", 1, ("lung",)), "structures lung, which the card does not annotate"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(item, message):
    with pytest.raises(CaseError, match=message):
        listed_slices([item], TABLE, (4, 4, 6), np.eye(4), NAMES)


def test_labels_in_slices_that_are_not_annotated_are_hidden_and_unknown_stays():
    label = np.ones((2, 2, 3), dtype=np.uint8)
    label[0, 0] = 255
    annotation = Annotation(np.array([[False], [True]]), {2: np.array([0, 1, 0], dtype=np.int32)})
    hidden = hide_unvouched(label, annotation)
    assert hidden[1, 1].tolist() == [0, 1, 0]
    assert (hidden[0, 0] == 255).all()


@pytest.mark.parametrize(("spacing", "first", "lost"), [(1.0, 3, "10 of 20"), (0.8, 3, "20 of 20"), (2.0, 3, None)])
@pytest.mark.parametrize("flip", [1, -1])
def test_annotated_slices_that_the_grid_passes_over_are_told(spacing, first, lost, flip):
    rows = np.zeros((100, 1), dtype=bool)
    rows[first::5] = True
    affine = np.diag([1.0, 1.0, flip * spacing, 1.0])
    slices = SliceRows({2: rows if flip > 0 else rows[::-1]}, apart=True)
    told = lost_slices(slices, affine, (10, 10, 100), harmonised_grid((10, 10, 100), np.abs(affine), 2.0))
    assert [text.split(" annotated axial")[0] for text in told] == ([lost] if lost else [])
