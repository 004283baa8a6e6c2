"""Two models on the same cases: laws, Holm's definition, SciPy, and numbers by hand."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from abdoseg.metrics import Outcome, Score
from abdoseg.metrics.paired import compare_scores, holm
from abdoseg.tables import COMPARISON_FIELDS, format_comparison

STRUCTURES = ("liver", "spleen")


def scores(values, structures=STRUCTURES):
    """Values ``(S, C)`` as scores; NaN is no score."""
    return [
        Score(structure, "dsc", None if np.isnan(v) else float(v), Outcome.SCORED, "a", f"a/{i}")
        for i, row in enumerate(values)
        for structure, v in zip(structures, row, strict=True)
    ]


tables = st.integers(1, 9).flatmap(
    lambda n: st.tuples(*[st.lists(st.tuples(*[st.integers(0, 100)] * 2), min_size=n, max_size=n)] * 2)
)


@given(tables)
def test_exchanging_the_models_turns_the_sign(table):
    a, b = (scores(values) for values in table)
    for row, back in zip(compare_scores(a, b), compare_scores(b, a), strict=True):
        assert (row.mean_a, row.mean_b, row.n) == (back.mean_b, back.mean_a, back.n)
        assert row.difference == pytest.approx(-back.difference)
        assert row.p == (None if back.p is None else pytest.approx(back.p))
        assert row.p_holm == (None if back.p_holm is None else pytest.approx(back.p_holm))
        if row.ci95 is not None:
            low, high = back.ci95
            assert row.ci95 == pytest.approx((-high, -low))


@given(tables)
def test_equal_models_do_not_differ(table):
    for row in compare_scores(scores(table[0]), scores(table[0])):
        assert (row.difference, row.p) == (0.0, 1.0)
        assert row.ci95 in (None, (0.0, 0.0))


def holm_by_definition(p):
    """The least level at which the step-down procedure rejects each hypothesis, by trying all levels."""
    levels = sorted({min(1.0, x * k) for x, k in itertools.product(p, range(1, len(p) + 1))})
    corrected = [1.0] * len(p)
    for level in reversed(levels):
        for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - rank) > level:
                break
            corrected[i] = level
    return corrected


@given(st.lists(st.floats(0.0, 1.0).map(lambda x: round(x, 3)), max_size=7))
def test_holm(p):
    found = holm(p)
    assert found == pytest.approx(holm_by_definition(p))
    assert all(a <= c <= 1 for a, c in zip(p, found, strict=True))
    order = np.argsort(p)
    assert all(np.diff(np.array(found)[order]) >= 0)
    assert holm([None, *p]) == [None, *found]


def test_rows_by_hand():
    a = np.array([[90.0, 50], [80, np.nan], [70, 40], [95, 60], [60, 50], [72, 48], [81, 43]])
    b = a - np.array([[1.0, 4], [2, 1], [3, 2], [4, 1], [-5, 3], [6, 5], [7, 6]])
    liver, spleen, whole = compare_scores(scores(a), scores(b))
    assert (liver.structure, liver.n, liver.mean_a) == ("liver", 7, pytest.approx(548 / 7))
    assert liver.difference == pytest.approx(18 / 7)
    assert liver.p == pytest.approx(wilcoxon(a[:, 0], b[:, 0]).pvalue)
    assert (spleen.n, spleen.difference) == (6, pytest.approx(21 / 6))
    assert spleen.p == pytest.approx(2 / 2**6)
    assert spleen.p_holm == pytest.approx(2 * spleen.p)
    assert liver.p_holm == pytest.approx(max(liver.p, 2 * spleen.p))
    assert (whole.structure, whole.n, whole.p_holm) == ("all", 7, None)
    assert whole.difference == pytest.approx(np.nanmean(a - b, axis=1).mean())


def test_only_what_both_have_counts_and_few_pairs_have_no_p_value():
    a = scores([[90, 50], [80, 40], [70, 30]])
    liver, *_ = compare_scores(a, [*a[:2], *a[3:]])
    assert (liver.structure, liver.n, liver.p) == ("liver", 2, 1.0)
    b = scores([[80, 40], [70, 30], [60, 20]])
    assert {(row.n, row.p, row.p_holm) for row in compare_scores(a, b)} == {(3, None, None)}
    assert compare_scores(a, []) == []


def test_rows_keep_their_order_where_the_first_case_lacks_a_structure():
    """Of either model, in any metric: the order is that of all scores, not of those with a value."""
    lacking, whole = np.array([[np.nan, 60], [70, 50]]), np.array([[80.0, 60], [70, 50]])
    for a, b in ((lacking, whole), (whole, lacking), (lacking, lacking)):
        both = [
            [replace(score, metric=metric) for metric in ("hd95", "dsc") for score in scores(values)]
            for values in (a, b)
        ]
        found = [(row.metric, row.structure) for row in compare_scores(*both)]
        assert found == [(m, s) for m in ("hd95", "dsc") for s in ("liver", "spleen", "all")]
    nobody = scores(np.full((2, 2), np.nan))
    unmeasured = [replace(score, metric="hd95") for score in nobody]
    assert {row.metric for row in compare_scores([*unmeasured, *scores(whole)], scores(whole))} == {"dsc"}


def test_five_pairs_have_no_p_value_and_six_have():
    for n, expected in ((5, None), (6, 0.03125)):
        values = np.arange(2.0 * n).reshape(n, 2)
        assert compare_scores(scores(values), scores(values * 0 - 1))[0].p == expected


def test_formats():
    rows = compare_scores(scores([[90, 50], [80, 40]]), scores([[91, 50], [80, 40]]))
    facts = json.loads(format_comparison(rows, "json"))["rows"]
    assert facts[0]["difference"] == -0.5
    assert facts[0]["ci95"] == [-1.0, 0.0]
    header, *lines = format_comparison(rows, "csv").splitlines()
    assert header.split(",") == list(COMPARISON_FIELDS)
    assert lines[0] == "liver,dsc,85.0,85.5,-0.5,2,,,-1.0,0.0"
    markdown = format_comparison(rows, "markdown").splitlines()
    assert markdown[2] == "| liver | dsc (%) | 85.0 | 85.5 | -0.5 | -1.0 to 0.0 | 2 | – | – |"
    assert markdown[-1].startswith("| **all** |")
    latex = format_comparison(rows, "latex")
    assert r"\begin{tabular}{llrrrrrrr}" in latex
    assert "A $-$ B" in latex
