from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.errors import ConfigError
from abdoseg.splits import SplitItem, split_cases

sides = st.sampled_from([None, None, None, "train", "val", "test"])
items = st.lists(
    st.builds(
        SplitItem,
        case=st.just(""),
        source=st.sampled_from(["a", "b", "c"]),
        patient=st.integers(0, 12).map(str),
        fingerprint=st.one_of(st.just(""), st.integers(0, 30).map(str)),
        official=sides,
    ),
    max_size=60,
).map(lambda found: [SplitItem(str(i), x.source, x.patient, x.fingerprint, x.official) for i, x in enumerate(found)])


@given(items, st.integers(0, 5))
def test_a_patient_and_equal_scans_are_never_on_two_sides(cases, seed):
    side = split_cases(cases, seed)
    assert set(side) == {case.case for case in cases}
    for a in cases:
        for b in cases:
            same_patient = (a.source, a.patient) == (b.source, b.patient)
            if same_patient or (a.fingerprint and a.fingerprint == b.fingerprint):
                assert side[a.case] == side[b.case]


@given(items, st.integers(0, 5))
def test_official_test_cases_stay_test(cases, seed):
    side = split_cases(cases, seed)
    assert all(side[case.case] == "test" for case in cases if case.official == "test")


@given(items, st.integers(0, 5))
def test_order_does_not_matter(cases, seed):
    assert split_cases(cases, seed) == split_cases(cases[::-1], seed)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, (1, 0, 0)), (4, (4, 0, 0)), (5, (4, 0, 1)), (10, (8, 1, 1)), (30, (24, 3, 3)), (100, (81, 9, 10))],
)
def test_counts_are_a_tenth_and_a_tenth_of_the_rest(n, expected):
    side = split_cases([SplitItem(str(i), "a", str(i)) for i in range(n)])
    counts = Counter(side.values())
    assert (counts["train"], counts["val"], counts["test"]) == expected


def test_seed_changes_who_is_held_out():
    cases = [SplitItem(str(i), "a", str(i)) for i in range(40)]
    assert split_cases(cases, 0) != split_cases(cases, 1)


def test_folds_share_out_everything_but_test_and_keep_test_apart():
    cases = [SplitItem(str(i), "a", str(i // 2)) for i in range(40)]
    plain = split_cases(cases)
    held_out = [{c for c, s in split_cases(cases, fold=(k, 4)).items() if s == "val"} for k in (1, 2, 3, 4)]
    rest = {case for case, side in plain.items() if side != "test"}
    assert set().union(*held_out) == rest
    assert sum(len(fold) for fold in held_out) == len(rest)


@pytest.mark.parametrize("fold", [(0, 5), (6, 5), (1, 1)])
def test_impossible_folds_are_refused(fold):
    with pytest.raises(ConfigError, match="expected K/N"):
        split_cases([SplitItem("0", "a", "0")], fold=fold)
