"""Voxel counts and Dice against independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from abdoseg.annotation import Annotation
from abdoseg.errors import CaseError
from abdoseg.metrics import OverlapCounts, count_overlap, dice, overlap, volume_difference_ml, volume_error_ml
from abdoseg.metrics.overlap import _flat

N = 4
ALL_KNOWN = Annotation.partial(range(1, N + 1), N)


def brute_force(prediction, reference, annotation):
    """Count voxel by voxel, by the words of the definition."""
    counts = np.zeros((3, annotation.n_structures), dtype=int)
    for x, y, z in np.ndindex(reference.shape):
        p, r = prediction[x, y, z], reference[x, y, z]
        if r == 255:
            continue
        for c in range(1, annotation.n_structures + 1):
            lists = [annotation.rows[groups[(x, y, z)[axis]]] for axis, groups in annotation.slices.items()]
            known = any(row[c - 1] for row in lists) if lists else annotation.rows[0, c - 1]
            if known:
                counts[:, c - 1] += [p == c and r == c, p == c, r == c]
    return counts


def assert_counts(counts: OverlapCounts, expected):
    np.testing.assert_array_equal([counts.intersection, counts.predicted, counts.reference], expected)


shapes = st.tuples(*[st.integers(1, 9)] * 3)
# Runs of one value reach the paths for whole words, single values those for single voxels.
values = st.sampled_from([0, 0, 0, 1, 2, 3, 4])


@st.composite
def cases(draw):
    shape = draw(shapes)
    size = int(np.prod(shape))
    volumes = []
    for fill in (values, st.one_of(values, st.just(255))):
        runs = draw(st.lists(st.tuples(fill, st.integers(1, 40)), min_size=1, max_size=12))
        flat = np.repeat([v for v, _ in runs], [n for _, n in runs]).astype(np.uint8)
        volumes.append(np.resize(flat, size).reshape(shape))
    rows = draw(hnp.arrays(bool, (3, N)))
    axes = draw(st.sets(st.integers(0, 2)))
    lists = {axis: draw(hnp.arrays(np.int32, shape[axis], elements=st.integers(0, 2))) for axis in axes}
    return volumes[0], volumes[1], Annotation(rows, lists)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_counts_equal_a_loop_over_voxels(case):
    prediction, reference, annotation = case
    assert_counts(count_overlap(prediction, reference, annotation), brute_force(prediction, reference, annotation))


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(2, 5))
def test_parts_counted_by_threads_are_the_whole(case, parts):
    """A boundary between parts may lie anywhere, in a slice or a run of one value."""
    prediction, reference, annotation = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_parts", lambda voxels, groups: parts)
        counts = count_overlap(prediction, reference, annotation)
    assert_counts(counts, brute_force(prediction, reference, annotation))


def test_small_volumes_have_one_table():
    assert overlap._parts(512 * 512, 1) == 1
    assert overlap._parts(512 * 512 * 200, 300) == 1


@settings(max_examples=30, deadline=None)
@given(cases(), st.permutations([0, 1, 2]), st.lists(st.booleans(), min_size=3, max_size=3))
def test_memory_order_and_flips_change_nothing(case, order, flipped):
    prediction, reference, annotation = case
    expected = brute_force(prediction, reference, annotation)
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flipped)
    back = np.argsort(order)

    def relaid(volume):
        """The same volume as a view on memory of another layout."""
        return np.ascontiguousarray(volume[steps].transpose(order)).transpose(back)[steps]

    assert_counts(count_overlap(relaid(prediction), relaid(reference), annotation), expected)
    assert_counts(count_overlap(relaid(prediction), reference, annotation), expected)


def test_unaligned_and_read_only_memory():
    generator = np.random.default_rng(0)
    memory = generator.integers(0, N + 1, (2, 1 + 5 * 6 * 7), dtype=np.uint8)
    memory.flags.writeable = False
    prediction, reference = (flat[1:].reshape(5, 6, 7) for flat in memory)
    expected = brute_force(prediction, reference, ALL_KNOWN)
    assert prediction.ctypes.data % 8
    assert _flat(prediction).ctypes.data % 8 == 0  # some processors refuse to read words elsewhere
    assert_counts(count_overlap(prediction, reference, ALL_KNOWN), expected)


def test_dice_equals_monai():
    import torch
    from monai.metrics import DiceMetric

    generator = np.random.default_rng(3)
    prediction = generator.integers(0, N + 1, (3, 12, 11, 10), dtype=np.uint8)
    reference = np.where(
        generator.random(prediction.shape) < 0.5, prediction, generator.integers(0, 3, prediction.shape)
    )
    reference = reference.astype(np.uint8)
    metric = DiceMetric(include_background=False, reduction="none", num_classes=N + 1)
    expected = metric(
        torch.from_numpy(prediction.astype(int))[:, None], torch.from_numpy(reference.astype(int))[:, None]
    )
    ours = [dice(count_overlap(p, r, ALL_KNOWN)) for p, r in zip(prediction, reference, strict=True)]
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-6)


label_maps = shapes.flatmap(lambda shape: hnp.arrays(np.uint8, (2, *shape), elements=st.integers(0, N)))


@given(label_maps)
def test_dice_volumes_and_counts_equal_medpy(pair):
    from medpy.metric import binary

    prediction, reference = pair
    counts = count_overlap(prediction, reference, ALL_KNOWN)
    volume_ml = counts.reference * 0.004
    differences = volume_difference_ml(counts, (0.5, 2.0, 4.0))
    for c, score in enumerate(dice(counts), start=1):
        p, r = prediction == c, reference == c
        if not (p.any() or r.any()):
            assert np.isnan(score)  # there MedPy divides zero by zero, too
            continue
        assert score == pytest.approx(binary.dc(p, r), rel=1e-12)
        if r.any():
            assert counts.intersection[c - 1] / counts.reference[c - 1] == pytest.approx(binary.recall(p, r))
            assert differences[c - 1] / volume_ml[c - 1] == pytest.approx(binary.ravd(p, r))
        if p.any():
            assert counts.intersection[c - 1] / counts.predicted[c - 1] == pytest.approx(binary.precision(p, r))


def _counts(intersection, predicted, reference):
    return OverlapCounts(*(np.array(v, dtype=np.int64) for v in (intersection, predicted, reference)))


def test_dice_by_hand():
    counts = _counts([3, 0, 0, 0], [4, 5, 0, 0], [6, 0, 2, 0])
    np.testing.assert_array_equal(dice(counts), [0.6, 0.0, 0.0, np.nan])
    np.testing.assert_allclose(dice(counts, "authors"), [7 / 11, 1 / 6, 1 / 3, 1.0])


def test_volume_error_by_hand():
    # 0.5 x 2 x 4 mm voxels hold 4 mm^3 = 0.004 ml
    np.testing.assert_allclose(volume_error_ml(_counts([0, 0], [100, 10], [350, 60]), (0.5, 2.0, 4.0)), [1.0, 0.2])


def test_unknown_voxels_do_not_count():
    reference = np.zeros((4, 4, 4), dtype=np.uint8)
    reference[:2] = 1
    prediction = reference.copy()
    prediction[2:] = 1
    reference[2:] = 255
    assert dice(count_overlap(prediction, reference, ALL_KNOWN))[0] == 1.0


def test_sparse_slices_count_only_where_their_row_knows_the_structure():
    reference = np.zeros((4, 4, 6), dtype=np.uint8)
    reference[:, :, 2] = 1
    prediction = np.full_like(reference, 1)
    rows = np.array([[True, False, False, False], [False] * 4])
    slices = np.ones(6, dtype=np.int32)
    slices[[2, 3]] = 0
    counts = count_overlap(prediction, reference, Annotation(rows, {2: slices}))
    # 16 voxels in slice 2 agree, 16 in slice 3 are false; the other four slices are not known
    assert (counts.intersection[0], counts.predicted[0], counts.reference[0]) == (16, 32, 16)


def test_lists_along_two_axes_know_what_either_knows():
    reference = np.ones((4, 4, 4), dtype=np.uint8)
    rows = np.array([[True, False, False, False], [False] * 4])
    first = np.array([0, 1, 1, 1], dtype=np.int32)
    counts = count_overlap(reference, reference, Annotation(rows, {0: first, 2: first}))
    assert counts.reference[0] == 16 + 16 - 4


@pytest.mark.parametrize(("value", "label"), [(N + 1, 0), (255, 0), (0, N + 1), (0, 254)])
@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 4, 4)])
def test_other_values_are_refused(value, label, shape):
    prediction, reference = np.full(shape, value, np.uint8), np.full(shape, label, np.uint8)
    where = "prediction" if value else "reference"
    with pytest.raises(CaseError, match=rf"^{where}: found label values {value or label}; expected 0 to 4.*; map"):
        count_overlap(prediction, reference, ALL_KNOWN)


def test_volumes_that_do_not_fit_are_refused():
    a, b = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 5), np.uint8)
    with pytest.raises(CaseError, match=r"prediction: found shape \(2, 3, 4\); expected the reference's \(2, 3, 5\)"):
        count_overlap(a, b, ALL_KNOWN)
    with pytest.raises(CaseError, match="reference: found int64 of shape"):
        count_overlap(a, a.astype(int), ALL_KNOWN)
    with pytest.raises(CaseError, match="annotation: found 3 slices along axis 2; expected 4"):
        count_overlap(a, a, Annotation(ALL_KNOWN.rows, {2: np.zeros(3, np.int32)}))
