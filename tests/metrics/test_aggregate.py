"""Summaries against numbers worked out by hand."""

import itertools
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.metrics import GROUPINGS, Outcome, Score, summarise
from abdoseg.metrics.aggregate import _resamples, bootstrap_ci95

# Two sources, three subjects. Subject means: a/1 (90 + 70) / 2 = 80; a/2 60; b/1 (80 + 50 + 20) / 3 = 50.
TABLE = {
    ("a", "a/1", "CT"): {"liver": 90.0, "spleen": 70.0},
    ("a", "a/2", "CT"): {"liver": 60.0},
    ("b", "b/1", "MR"): {"liver": 80.0, "spleen": 50.0, "aorta": 20.0},
}
SCORES = [
    Score(structure, "dsc", value, Outcome.SCORED, dataset, subject, modality)
    for (dataset, subject, modality), values in TABLE.items()
    for structure, value in values.items()
]


def rows(by, scores=SCORES):
    """Key values -> (mean, std, median, n)."""
    return {tuple(r.keys.values()): (r.mean, r.std, r.median, r.n) for r in summarise(scores, by)}


def approx(expected):
    """Compare rows, but not their order, up to rounding."""
    return {key: pytest.approx(values) for key, values in expected.items()}


OVER_SUBJECTS = (190 / 3, 15.275252316519467, 60.0, 3)  # 80, 60, 50
OVER_A = (70.0, 14.142135623730951, 70.0, 2)  # 80, 60
LIVER = (230 / 3, 15.275252316519467, 80.0, 3)  # 90, 60, 80
SPLEEN = (60.0, 14.142135623730951, 60.0, 2)  # 70, 50
AORTA = (20.0, None, 20.0, 1)
AVERAGE = (470 / 9, (22900 / 27) ** 0.5, 60.0, 3)  # of 230/3, 60 and 20
A_LIVER = (75.0, 21.213203435596427, 75.0, 2)  # 90, 60
A_SPLEEN = (70.0, None, 70.0, 1)
A_AVERAGE = (72.5, 3.5355339059327378, 72.5, 2)  # of 75 and 70
A1 = (80.0, 14.142135623730951, 80.0, 2)  # 90, 70: one subject, over its structures
A2 = (60.0, None, 60.0, 1)
B1 = (50.0, 30.0, 50.0, 3)
B_SUBJECTS = (50.0, None, 50.0, 1)


def test_nothing_to_group_by_is_one_row_over_subjects():
    assert rows(()) == approx({(): OVER_SUBJECTS})


def test_by_subject_is_a_row_a_subject_and_one_over_them():
    found = rows(("subject",))
    assert list(found) == [("a/1",), ("a/2",), ("b/1",), ("all",)]
    assert found == approx({("a/1",): A1, ("a/2",): A2, ("b/1",): B1, ("all",): OVER_SUBJECTS})


def test_by_structure_averages_the_means_of_structures():
    found = rows(("structure",))
    assert list(found) == [("liver",), ("spleen",), ("aorta",), ("average",)]
    assert found == approx({("liver",): LIVER, ("spleen",): SPLEEN, ("aorta",): AORTA, ("average",): AVERAGE})


def test_by_dataset_takes_subject_means_within_each():
    assert rows(("dataset",)) == approx({("a",): OVER_A, ("b",): B_SUBJECTS, ("all",): OVER_SUBJECTS})


def test_by_modality():
    assert rows(("modality",)) == approx({("CT",): OVER_A, ("MR",): B_SUBJECTS, ("all",): OVER_SUBJECTS})


def test_by_dataset_and_structure():
    found = rows(("dataset", "structure"))
    expected = {
        ("a", "liver"): A_LIVER,
        ("a", "spleen"): A_SPLEEN,
        ("a", "average"): A_AVERAGE,
        ("b", "liver"): (80.0, None, 80.0, 1),
        ("b", "spleen"): (50.0, None, 50.0, 1),
        ("b", "aorta"): AORTA,
        ("b", "average"): B1,
        ("all", "liver"): LIVER,
        ("all", "spleen"): SPLEEN,
        ("all", "aorta"): AORTA,
        ("all", "average"): AVERAGE,
    }
    assert found == approx(expected)
    assert list(found) == list(expected)
    assert rows(("structure", "dataset")) == approx({key[::-1]: values for key, values in expected.items()})


def test_by_subject_and_dataset_sums_up_each_dataset():
    expected = {
        ("a/1", "a"): A1,
        ("a/2", "a"): A2,
        ("b/1", "b"): B1,
        ("all", "a"): OVER_A,
        ("all", "b"): B_SUBJECTS,
        ("all", "all"): OVER_SUBJECTS,
    }
    assert rows(("subject", "dataset")) == approx(expected)


def test_by_subject_and_structure_gives_single_values():
    found = rows(("subject", "structure"))
    assert found["a/1", "spleen"] == (70.0, None, 70.0, 1)
    assert found["a/1", "average"] == pytest.approx(A1)
    assert found["all", "average"] == pytest.approx(AVERAGE)


NO_SCORE = 0
tables = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["CT", "MR"]),
        st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any),
    ),
    min_size=1,
    max_size=8,
)


def scores_of(table):
    """Scores of subjects, each a dataset, a modality and the values of three structures."""
    return [
        Score(name, "dsc", float(v) if v != NO_SCORE else None, Outcome.SCORED, dataset, f"{i}", modality)
        for i, (dataset, modality, values) in enumerate(table)
        for name, v in zip(("liver", "spleen", "aorta"), values, strict=True)
    ]


def expected_values(scores, keys):
    """The values a row is about, by the words of the rules, and how many subjects they are of."""
    fixed = {key: name for key, name in keys.items() if name not in ("all", "average")}
    chosen = [s for s in scores if s.value is not None and all(getattr(s, k) == name for k, name in fixed.items())]
    if "structure" in fixed or ("subject" in fixed and "structure" not in keys):
        groups = [[s.value] for s in chosen]
    else:
        unit = "structure" if "structure" in keys else "subject"
        names = dict.fromkeys(getattr(s, unit) for s in chosen)
        groups = [[s.value for s in chosen if getattr(s, unit) == name] for name in names]
    return [statistics.mean(group) for group in groups], len({s.subject for s in chosen})


def expected_rows(scores, by):
    """Names of all rows: every group that has a score; those of the last dividing key summed up, then all of them."""
    found = set()
    dividing = sorted((key for key in by if key != "structure"), key="subject".__eq__)
    for score in scores:
        if score.value is None:
            continue
        for kept in range(len(dividing) + 1):
            names = {key: getattr(score, key) if i < kept else "all" for i, key in enumerate(dividing)}
            for structure in (score.structure, "average"):
                found.add(tuple((names | {"structure": structure})[key] for key in by))
    return found


@pytest.mark.parametrize("by", [*itertools.permutations(GROUPINGS, 2), *itertools.permutations(GROUPINGS, 1)])
@given(tables)
def test_every_pair_of_groupings_equals_a_brute_force(by, table):
    scores = scores_of(table)
    found = summarise(scores, by)
    assert {tuple(row.keys.values()) for row in found} == expected_rows(scores, by)
    assert len(found) == len(expected_rows(scores, by))
    for row in found:
        assert tuple(row.keys) == by
        values, cases = expected_values(scores, row.keys)
        assert (row.n, row.cases) == (len(values), cases)
        assert (row.mean, row.median) == pytest.approx((statistics.mean(values), statistics.median(values)))
        assert row.std == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)
        assert row.overall == bool({"all", "average"} & set(row.keys.values()))


def test_averages_tell_how_many_cases_are_behind_them():
    found = {tuple(row.keys.values()): (row.n, row.cases) for row in summarise(SCORES, ("dataset", "structure"))}
    assert found["all", "average"] == (3, 3)
    assert found["a", "average"] == (2, 2)
    assert found["b", "average"] == (3, 1)  # three structures of one case
    assert found["b", "liver"] == (1, 1)
    (first, *_) = summarise(SCORES, ("subject",))
    assert (first.n, first.cases, first.to_json()["cases"]) == (2, 1, 1)


def test_a_first_case_that_lacks_a_structure_does_not_move_its_row():
    values = [
        ("hd95", "a/1", None, None),
        ("dsc", "a/1", None, 90.0),
        ("hd95", "a/2", 3.0, 4.0),
        ("dsc", "a/2", 80.0, 1.0),
    ]
    scores = [
        Score(structure, metric, value, Outcome.SCORED, "a", subject)
        for metric, subject, *pair in values
        for structure, value in zip(("spleen", "liver"), pair, strict=True)
    ]
    order = [(row.metric, row.keys["structure"]) for row in summarise(scores, ("structure",))]
    assert order == [(m, s) for m in ("hd95", "dsc") for s in ("spleen", "liver", "average")]
    assert [row.metric for row in summarise(scores[:4], ())] == ["dsc"]


@pytest.mark.parametrize("by", [("dataset", "modality"), ("modality", "structure"), ("modality", "subject")])
def test_any_two_keys_end_in_the_same_overall_row(by):
    *_, last = summarise(SCORES, by)
    whole = AVERAGE if "structure" in by else OVER_SUBJECTS
    assert (last.mean, last.std, last.median, last.n) == pytest.approx(whole)
    assert last.overall


def test_overall_rows_are_marked():
    found = summarise(SCORES, ("dataset", "structure"))
    marked = {tuple(row.keys.values()) for row in found if row.overall}
    assert {("a", "average"), ("all", "liver"), ("all", "average")} < marked
    assert ("a", "liver") not in marked


def test_scores_without_a_value_do_not_count():
    outcomes = (Outcome.NOT_ANNOTATED, Outcome.ABSENT, Outcome.TOO_SMALL)
    more = [Score("liver", "dsc", None, o, "c", f"c/{o}", "CT") for o in outcomes]
    more.append(Score("duodenum", "dsc", None, Outcome.ABSENT, "a", "a/1", "CT"))
    for by in ((), ("structure",), ("dataset",), ("subject",)):
        assert summarise(SCORES + more, by) == summarise(SCORES, by)
    assert summarise(more, ("structure",)) == []
    assert [score.annotated for score in more] == [False, True, True, True]


def test_metrics_are_kept_apart():
    more = [Score("liver", "volume_error", 3.0, Outcome.SCORED, "a", "a/1", "CT")]
    found = summarise(SCORES + more, ())
    assert [(row.metric, row.mean) for row in found] == [("dsc", pytest.approx(190 / 3)), ("volume_error", 3.0)]


def test_order_of_scores_changes_nothing():
    shuffled = random.Random(5).sample(SCORES, len(SCORES))
    for by in ((), ("dataset",), ("structure",)):
        ours, theirs = ({tuple(r.keys.values()): r for r in summarise(s, by)} for s in (SCORES, shuffled))
        for key, row in ours.items():
            assert (row.mean, row.std, row.n) == pytest.approx((theirs[key].mean, theirs[key].std, theirs[key].n))
            assert row.ci95 == (None if theirs[key].ci95 is None else pytest.approx(theirs[key].ci95))


def test_interval_of_fewer_than_two_subjects_is_undefined():
    found = {tuple(r.keys.values()): r.ci95 for r in summarise(SCORES, ("dataset",))}
    assert found["b",] is None
    assert found["a",] is not None
    assert all(r.ci95 is None for r in summarise(SCORES, ("subject",)) if not r.overall)
    assert bootstrap_ci95(np.array([[1.0, np.nan], [np.nan, np.nan]])) is None


def test_interval_of_two_subjects_by_hand():
    # means of resamples of {60, 80} are 60, 70, 80 with chances 1/4, 1/2, 1/4: the 2.5 % points are the ends
    assert bootstrap_ci95(np.array([[60.0], [80.0]])) == (60.0, 80.0)


def test_interval_is_reproducible_and_equals_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(8).normal(80, 10, 40)
    low, high = bootstrap_ci95(values[:, None])
    _resamples.cache_clear()
    assert (low, high) == bootstrap_ci95(values[:, None].copy())
    peer = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1))
    assert (low, high) == pytest.approx(tuple(peer.confidence_interval), abs=0.35)


def test_interval_covers_the_truth_about_95_times_in_100():
    generator = np.random.default_rng(11)
    hits = []
    for _ in range(300):
        low, high = bootstrap_ci95(generator.normal(70, 12, (30, 1)))
        hits.append(low <= 70 <= high)
    assert 0.89 < statistics.mean(hits) < 0.98


def test_interval_of_an_average_draws_subjects_not_structures():
    # Every subject has the same pair of scores: whoever is drawn, the average is 50.
    assert bootstrap_ci95(np.tile([[90.0, 10.0]], (12, 1))) == (50.0, 50.0)
    # A structure that few subjects have counts as much as the others, where a resample has it.
    rare = np.full((20, 2), np.nan)
    rare[:, 0], rare[0, 1] = 90.0, 10.0
    assert bootstrap_ci95(rare) == (50.0, 90.0)


def test_wrong_keys_and_double_scores_are_refused():
    with pytest.raises(UnknownNameError, match="grouping 'organ' is not known"):
        summarise(SCORES, ("organ",))
    with pytest.raises(ConfigError, match="expected each name once"):
        summarise(SCORES, ("dataset", "dataset"))
    with pytest.raises(ValueError, match="two dsc scores of liver in a/1"):
        summarise([*SCORES, SCORES[0]], ())
    with pytest.raises(ValueError, match="nan is not a finite number"):
        Score("liver", "dsc", float("nan"), Outcome.SCORED)
