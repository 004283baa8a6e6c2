"""Sparse views: which slices they keep, and what they leave of an annotation."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from abdoseg.annotation import AXES, Annotation
from abdoseg.case import Foreground
from abdoseg.geometry import Grid, harmonised_grid, to_canonical
from abdoseg.views import View, evenly_spaced_slices, every_kth_slice, lowest_ranked_slices, random_ranks

SIZES = st.integers(1, 400)
FRACTIONS = st.floats(0.001, 1.0)
SEEDS = st.integers(0, 2**70)
N = 3


@st.composite
def views(draw, *, native=False):
    """Any lawful view of N structures."""
    rule = draw(
        st.one_of(
            st.fixed_dictionaries({"fraction": FRACTIONS}),
            st.fixed_dictionaries({"fraction": FRACTIONS, "seed": SEEDS}),
            st.fixed_dictionaries({"every": st.integers(1, 15)}),
        )
    )
    axes = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, unique=True))
    structures = tuple(sorted(draw(st.sets(st.integers(1, N)))))
    return View(name="v", axes=axes, structures=structures, per_structure=draw(st.booleans()), native=native, **rule)


@st.composite
def labelled(draw, view=None):
    """A label with few voxels drawn, and an annotation: whole, partial, or sparse along the axes of ``view``."""
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    label = np.where(rng.random(shape) < draw(st.sampled_from([0.01, 0.1, 0.9])), rng.integers(1, N + 1, shape), 0)
    annotation = Annotation(np.atleast_2d(rng.random(N) < 0.8))
    if view is not None and draw(st.booleans()):
        annotation = annotation.thinned({AXES[name]: rng.random(shape[AXES[name]]) < 0.6 for name in view.axes})
    return label.astype(np.uint8), annotation


def occupied_in(label):
    return Foreground.of(label, N).occupied(label.shape)


def kept_by_hand(slices, view, key, axis, n):
    """Return which of ``slices``, some of ``n``, a view keeps: its rules in exact arithmetic, slice by slice."""
    m = len(slices)
    if m == 0:
        return set()
    if view.every is not None:
        places = [i for i in range(m) if i >= view.every // 2 and (i - view.every // 2) % view.every == 0]
        return {slices[i] for i in places or [m // 2]}
    k = max(1, int(np.floor(view.fraction * m + 0.5)))
    if view.seed is None:
        return {slices[int(Fraction(2 * i + 1, 2) * m / k)] for i in range(k)}
    rank = random_ranks(n, view.seed, key, axis).tolist()
    return set(sorted(slices, key=lambda i: rank[i])[:k])


def known_by_hand(view, annotation, key, label, axis, nearest=None):
    """Return the structures known in each slice along ``axis`` under a view, as a set of (slice, structure)."""
    n = label.shape[axis]
    nearest, n_choices = nearest or (list(range(n)), n)
    held = {(i, int(c)) for i in range(n) for c in np.unique(np.take(label, i, axis)) if c}
    group = annotation.slices[axis] if annotation.slices else [0] * n
    before = {(i, c) for i in range(n) for c in range(1, N + 1) if annotation.rows[group[i], c - 1]}
    after = set()
    for c in range(1, N + 1):
        known = [i for i in range(n) if (i, c) in before]
        if view.structures and c not in view.structures:
            after |= {(i, c) for i in known}
            continue
        if view.per_structure:
            with_it = sorted({nearest[i] for i in known if (i, c) in held})
            without_it = sorted({nearest[i] for i in known} - set(with_it))
        else:
            with_it, without_it = list(range(n_choices)), []
        kept = kept_by_hand(with_it, view, key, axis, n_choices) | kept_by_hand(without_it, view, key, axis, n_choices)
        after |= {(i, c) for i in known if nearest[i] in kept}
    return after


def known_in(annotation, axis):
    groups = annotation.slices[axis]
    return {(i, int(c) + 1) for i, group in enumerate(groups) for c in np.flatnonzero(annotation.rows[group])}


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


@given(SIZES, st.integers(1, 500))
def test_every_kth_slice_by_hand(n, step):
    slices = every_kth_slice(n, step).tolist()
    assert len(slices) >= 1
    assert all(0 <= i < n for i in slices)
    if step // 2 < n:
        assert slices[0] == step // 2
        assert all(b - a == step for a, b in pairwise(slices))
        assert slices[-1] + step >= n
    else:
        assert slices == [n // 2]


@given(SIZES, FRACTIONS, SEEDS, st.text(max_size=20), st.integers(0, 2))
def test_random_slices_are_as_many_as_even_ones_distinct_and_inside(n, fraction, seed, key, axis):
    slices = lowest_ranked_slices(random_ranks(n, seed, key, axis), fraction)
    assert len(slices) == len(evenly_spaced_slices(n, fraction))
    assert (np.diff(slices) > 0).all()
    assert slices[0] >= 0
    assert slices[-1] < n


@given(SIZES, FRACTIONS, FRACTIONS, SEEDS)
def test_more_random_slices_hold_the_fewer(n, a, b, seed):
    rank = random_ranks(n, seed, "word/a", 2)
    fewer, more = (set(lowest_ranked_slices(rank, fraction).tolist()) for fraction in sorted((a, b)))
    assert fewer <= more


def test_random_slices_depend_on_seed_case_and_axis():
    drawn = {
        tuple(lowest_ranked_slices(random_ranks(200, *what), 0.5))
        for what in ((0, "word/a", 2), (1, "word/a", 2), (0, "word/b", 2), (0, "word/a", 1), (0, "word/a", 2))
    }
    assert len(drawn) == 4


def test_random_slices_stay_what_they_are():
    """A view must show the same slices with the next version of this package and of NumPy."""
    assert lowest_ranked_slices(random_ranks(40, 7, "word/word_0001", 2), 0.1).tolist() == [10, 15, 19, 39]


def test_every_slice_is_as_likely():
    hits = np.zeros(10)
    for case in range(3000):
        hits[lowest_ranked_slices(random_ranks(10, 0, f"word/{case}", 2), 0.3)] += 1
    assert hits.sum() == 9000
    assert chisquare(hits).pvalue > 1e-3


@given(st.data())
def test_a_view_shows_what_its_rules_say(data):
    view = data.draw(views())
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    assert shown.axes() == tuple(sorted(AXES[name] for name in view.axes))
    for axis in shown.axes():
        assert known_in(shown, axis) == known_by_hand(view, annotation, "word/a", label, axis)


@given(st.data())
def test_what_a_view_hides_nothing_sees(data):
    view = data.draw(views())
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    for axis in shown.axes():
        known = known_by_hand(view, annotation, "word/a", label, axis)
        seen = shown.known_label(label, axis)
        for i in range(label.shape[axis]):
            vouched = [c for s, c in known if s == i]
            here = np.take(label, i, axis)
            assert (np.take(seen, i, axis) == np.where(np.isin(here, vouched), here, 0)).all()


@given(st.data())
def test_every_slice_that_knows_something_is_a_group_of_its_own(data):
    """The dice term is per slice, also when every slice is kept (Table 8's 100 % rows)."""
    view = data.draw(views())
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    own = np.concatenate([groups[shown.rows[groups].any(axis=1)] for groups in shown.slices.values()])
    hidden = np.concatenate([groups[~shown.rows[groups].any(axis=1)] for groups in shown.slices.values()])
    assert len(np.unique(own)) == len(own)
    assert len(np.unique(hidden)) <= 1


@given(st.data())
def test_per_structure_every_structure_keeps_a_slice_that_holds_it(data):
    view = data.draw(views()).model_copy(update={"per_structure": True})
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    for axis in shown.axes():
        before, after = (
            annotation.known_label(label, axis if annotation.slices else None),
            shown.known_label(label, axis),
        )
        assert set(np.unique(after)) == set(np.unique(before))


@given(st.data())
def test_per_structure_keeps_the_fraction_of_slices_with_and_without(data):
    fraction = data.draw(FRACTIONS)
    label, annotation = data.draw(labelled())
    view = View(name="v", axes=("coronal",), fraction=fraction, per_structure=True)
    known = view.apply(annotation, "word/a", label.shape, occupied_in(label)).known_slices(1, label.shape[1])
    for c in annotation.structure_ids:
        holds = (label == c).any(axis=(0, 2))
        for stratum in (holds, ~holds):
            expected = len(evenly_spaced_slices(int(stratum.sum()), fraction)) if stratum.any() else 0
            assert known[stratum, c - 1].sum() == expected


@given(st.data())
def test_structures_that_are_not_named_keep_their_annotation(data):
    view = data.draw(views())
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    others = [c for c in range(N) if view.structures and c + 1 not in view.structures]
    for axis in shown.axes():
        n = label.shape[axis]
        assert (shown.known_slices(axis, n)[:, others] == annotation.known_slices(axis, n)[:, others]).all()


@given(st.data(), st.sampled_from([{"fraction": 1.0}, {"fraction": 1.0, "seed": 3}, {"every": 1}]))
def test_all_slices_kept_is_the_annotation_slice_by_slice(data, rule):
    view = View(name="v", axes=("axial",), per_structure=data.draw(st.booleans()), **rule)
    label, annotation = data.draw(labelled(view))
    shown = view.apply(annotation, "word/a", label.shape, occupied_in(label))
    n = label.shape[2]
    assert (shown.known_slices(2, n) == annotation.known_slices(2, n)).all()


@st.composite
def grids(draw):
    """A scan's own grid, flipped and permuted as scans are, and the harmonised one."""
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    spacing = [draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 7.0])) for _ in range(3)]
    affine = np.diag([*spacing, 1.0])[[*draw(st.permutations([0, 1, 2])), 3]]
    affine[:3] *= np.array([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])[:, None]
    affine[:3, 3] = draw(st.integers(-50, 50))
    array, canonical = to_canonical(np.zeros(shape), affine)
    return Grid(shape, affine), harmonised_grid(array.shape, canonical, 2.0)


def nearest_by_distance(native, harmonised, axis):
    """Return, for each harmonised slice, the native slice nearest in space (ties: the lower one), RAS+ order."""
    along = int(np.argmax(np.abs(native.affine[axis, :3])))
    centres = sorted(native.affine[axis, along] * i + native.affine[axis, 3] for i in range(native.shape[along]))
    first, step = harmonised.affine[axis, 3], harmonised.affine[axis, axis]
    nearest = []
    for i in range(harmonised.shape[axis]):
        distance = [abs(centre - (first + step * i)) for centre in centres]
        nearest.append(distance.index(min(distance)))
    return nearest, len(centres)


@given(st.data(), grids())
def test_native_slices_decide_about_their_nearest_ones(data, both):
    view = data.draw(views(native=True))
    shape = both[1].shape
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    label = np.where(rng.random(shape) < 0.1, rng.integers(1, N + 1, shape), 0).astype(np.uint8)
    annotation = Annotation.partial((1, 2, 3), N)
    shown = view.apply(annotation, "word/a", shape, occupied_in(label), both)
    for axis in shown.axes():
        nearest = nearest_by_distance(*both, axis)
        assert known_in(shown, axis) == known_by_hand(view, annotation, "word/a", label, axis, nearest)


def test_native_slices_of_a_thick_scan_cover_several_harmonised_ones():
    """5 mm slices, each fifth of them: runs of the two or three 2 mm slices around number 2, 7, ..."""
    native = Grid((4, 4, 10), np.diag([2.0, 2.0, 5.0, 1.0]))
    harmonised = harmonised_grid(native.shape, native.affine, 2.0)
    view = View(name="v", axes=("axial",), every=5, native=True)
    shown = view.apply(Annotation.partial((1,), N), "word/a", harmonised.shape, {}, (native, harmonised))
    kept = sorted(i for i, _ in known_in(shown, 2))
    assert [2 * i for i in kept] == [mm for mm in range(0, 46, 2) if 7.5 < mm <= 12.5 or 32.5 < mm <= 37.5]


def test_a_native_view_needs_the_grid_of_the_file():
    view = View(name="v", axes=("axial",), fraction=0.2, native=True)
    with pytest.raises(ValueError, match="needs the file's grid"):
        view.apply(Annotation.partial((1,), N), "word/a", (4, 4, 4), {})


def test_view_of_one_source_leaves_others_whole():
    view = View(name="v", axes=("axial",), fraction=0.2, sources=("word",))
    whole = Annotation.partial((1,), 2)
    assert view.apply(whole, "amos/word", (4, 4, 10), {}) is whole
    assert view.apply(whole, "word/amos", (4, 4, 10), {}).axes() == (2,)


def test_a_case_drawn_along_other_axes_is_left_as_it_is():
    view = View(name="v", axes=("axial",), fraction=0.2)
    sagittal = Annotation.partial((1,), 2).thinned({0: np.array([True, False])})
    assert not view.can_thin(sagittal)
    assert view.apply(sagittal, "word/a", (2, 4, 10), {}) is sagittal


def test_several_directions_have_lists_of_their_own():
    view = View(name="v", axes=("axial", "sagittal"), fraction=0.5)
    shown = view.apply(Annotation.partial((1,), 2), "any/case", (4, 6, 8), {})
    assert shown.axes() == (0, 2)
    first, last = (set(shown.slices[a][shown.rows[shown.slices[a]].any(axis=1)]) for a in (0, 2))
    assert len(first) == 2
    assert len(last) == 4
    assert not first & last


@pytest.mark.parametrize("axes", [(), ("oblique",), ("axial", "up")])
def test_unknown_directions_are_refused(axes):
    with pytest.raises(ValueError, match="sagittal, coronal, axial"):
        View(name="v", axes=axes, fraction=0.2)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        View(name="v", axes=("axial",), fraction=fraction)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({}, "either a fraction"),
        ({"fraction": 0.2, "every": 5}, "either a fraction"),
        ({"every": 5, "seed": 0}, "nothing to chance"),
        ({"every": 0}, "every"),
        ({"fraction": 0.2, "seed": -1}, "seed"),
        ({"fraction": 0.2, "structures": (0,)}, "structures"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(rule, reason):
    with pytest.raises(ValueError, match=reason):
        View(name="v", axes=("axial",), **rule)


@pytest.mark.parametrize(
    ("rule", "how"), [({"fraction": 0.2}, "even"), ({"fraction": 0.2, "seed": 0}, "random"), ({"every": 5}, "every")]
)
def test_a_view_says_how_it_chooses(rule, how):
    assert View(name="v", axes=("axial",), **rule).how == how


def test_a_view_written_by_an_older_version_reads_the_same():
    old = '{"name": "axial-20", "axes": ["axial"], "fraction": 0.2, "sources": ["word"]}'
    assert View.model_validate_json(old) == View(name="axial-20", axes=("axial",), fraction=0.2, sources=("word",))
