"""Samplers against the tree of draws walked by hand."""

from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import chisquare

from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.sampling import SAMPLERS, Candidates, CaseEntry, Sampler

from .enumeration import ORDERS, outcome_probabilities

NAMES = sorted(SAMPLERS)


@st.composite
def tables(draw):
    n_structures = draw(st.integers(1, 4))
    has = draw(npst.arrays(bool, st.tuples(st.integers(1, 8), st.just(n_structures))))
    facts = st.tuples(st.sampled_from("abc"), st.sampled_from(["CT", "MR"]), st.sampled_from(["partial", "sparse"]))
    return Candidates.of(
        CaseEntry(f"{i}", source, modality, row, kind)
        for i, row in enumerate(has)
        for source, modality, kind in [draw(facts)]
    )


def unbalanced():
    """Many CTs of one large source, few of a small one, two MRs, one unlabelled case; structure 4 nobody drew."""
    rows = [("big", "CT", [1, 1, 0, 0])] * 7 + [("small", "CT", [1, 0, 1, 0])] * 2
    rows += [("both", "CT", [0, 1, 0, 0]), ("both", "MR", [1, 1, 0, 0]), ("none", "MR", [0, 0, 0, 0])]
    return Candidates.of(CaseEntry(f"{i}", s, m, np.array(c, dtype=bool)) for i, (s, m, c) in enumerate(rows))


def first_draws(name, n):
    sampler = Sampler(unbalanced(), name, seed=11)
    return [sampler.draw(t) for t in range(n)]


def test_every_sampler_has_a_reference():
    assert set(SAMPLERS) == set(ORDERS)


@given(tables(), st.sampled_from(NAMES))
def test_probabilities_are_those_of_the_tree(table, name):
    exact = outcome_probabilities(table, name)
    found = Sampler(table, name).probabilities()
    case = np.zeros(len(table))
    structure = np.zeros(table.n_structures + 1)
    for (c, i), p in exact.items():
        case[i] += float(p)
        if c is not None:
            structure[c] += float(p)
    np.testing.assert_allclose(found.case, case, atol=1e-12)
    np.testing.assert_allclose(found.structure, structure, atol=1e-12)
    assert found.case.sum() == pytest.approx(1)
    for names, shares in ((table.modalities, found.modality), (table.sources, found.source)):
        assert set(shares) == set(names)
        for value, share in shares.items():
            assert share == pytest.approx(case[[v == value for v in names]].sum())


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_exact_probabilities(name):
    exact = outcome_probabilities(unbalanced(), name)
    draws = [(draw.structure, draw.case_index) for draw in first_draws(name, 6000)]
    assert set(draws) <= set(exact)
    outcomes = sorted(exact, key=str)
    observed = [draws.count(outcome) for outcome in outcomes]
    expected = [6000 * float(exact[outcome]) for outcome in outcomes]
    assert chisquare(observed, expected).pvalue > 1e-3


def test_cmd_by_hand():
    """Structure first: each of 0, 1, 2, 3 a quarter, however many cases have it."""
    p = Sampler(unbalanced(), "cmd").probabilities()
    np.testing.assert_allclose(p.structure, [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])
    # The lone MR with structures: structure 1 and 2 -> MR 1/2 each; background -> MR 1/2 -> its source 1/2.
    assert p.case[10] == pytest.approx(1 / 4 * (1 / 2 + 1 / 2 + 1 / 4))


def test_mdc_by_hand():
    p = Sampler(unbalanced(), "mdc").probabilities()
    assert p.modality == pytest.approx({"CT": 1 / 2, "MR": 1 / 2})
    assert p.source == pytest.approx({"big": 1 / 6, "small": 1 / 6, "both": 1 / 6 + 1 / 4, "none": 1 / 4})
    assert p.structure[3] == pytest.approx(1 / 2 * 1 / 3 * 1 / 3)


def test_random_by_hand():
    sampler = Sampler(unbalanced(), "random")
    np.testing.assert_allclose(sampler.probabilities().case, np.full(12, 1 / 12))
    assert not sampler.probabilities().structure.any()
    assert {sampler.draw(t).structure for t in range(50)} == {None}


@given(tables(), st.sampled_from(NAMES), st.integers(0, 2**64 - 1), st.integers(0, 10**9))
def test_a_draw_is_one_that_can_be_made(table, name, seed, t):
    draw = Sampler(table, name, seed).draw(t)
    assert draw.modality == table.modalities[draw.case_index]
    assert draw.source == table.sources[draw.case_index]
    assert draw.structure is None or table.has[draw.case_index, draw.structure]


@given(st.permutations(range(30)), st.sampled_from(NAMES))
def test_draws_do_not_depend_on_what_was_drawn_before(order, name):
    sampler = Sampler(unbalanced(), name, seed=11)
    out_of_order = {t: sampler.draw(t) for t in order}
    assert [out_of_order[t] for t in range(30)] == first_draws(name, 30)


def test_another_process_draws_the_same():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(first_draws, "cmd", 50).result() == first_draws("cmd", 50)


def test_seeds_give_different_streams():
    drawn = [[Sampler(unbalanced(), "cmd", seed).draw(t).case_index for t in range(60)] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_skipped_names_what_nobody_annotated():
    assert Sampler(unbalanced()).skipped == (4,)


def mixed():
    rows = [("a", "partial", [1, 0])] * 9 + [("b", "sparse", [1, 1])]
    return Candidates.of(
        CaseEntry(f"{i}", s, "CT", np.array(c, dtype=bool), kind) for i, (s, kind, c) in enumerate(rows)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shares", [{"partial": 0.5, "sparse": 0.5}, {"sparse": 1.0, "partial": 3.0}, {"sparse": 2.0}])
def test_mix_draws_the_kind_first(name, shares):
    sampler = Sampler(mixed(), name, weights={"kind": shares})
    sparse = shares["sparse"] / sum(shares.values())
    p = sampler.probabilities()
    assert p.case[9] == pytest.approx(sparse)
    np.testing.assert_allclose(p.case[:9], (1 - sparse) / 9, atol=1e-12)
    drawn = sum(sampler.draw(t).case_index == 9 for t in range(1500))
    assert abs(drawn - 1500 * sparse) < 4 * np.sqrt(1500 * 0.25)


@given(tables(), st.sampled_from(["cmd", "mdc"]), st.data())
def test_weighted_draws_are_those_of_the_tree(table, name, data):
    some = st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(3)])
    structures = data.draw(st.dictionaries(st.integers(0, table.n_structures), some))
    sources = data.draw(st.dictionaries(st.sampled_from(sorted(set(table.sources))), some))
    weights = {"structure": structures, "source": sources}
    exact = outcome_probabilities(table, name, weights)
    found = Sampler(table, name, weights=as_floats(weights)).probabilities()
    case = np.zeros(len(table))
    structure = np.zeros(table.n_structures + 1)
    for (c, i), p in exact.items():
        case[i] += float(p)
        structure[c] += float(p)
    np.testing.assert_allclose(found.case, case, atol=1e-12)
    np.testing.assert_allclose(found.structure, structure, atol=1e-12)


def as_floats(weights):
    return {level: {child: float(w) for child, w in of.items()} for level, of in weights.items()}


@pytest.mark.parametrize("name", ["cmd", "mdc"])
def test_weighted_draws_follow_the_exact_probabilities(name):
    weights = {"structure": {0: 0.25, 2: 3.0, 3: 0.0}, "source": {"small": 5.0, "none": 0.5}}
    sampler = Sampler(unbalanced(), name, seed=5, weights=weights)
    exact = outcome_probabilities(unbalanced(), name, weights)
    draws = [(draw.structure, draw.case_index) for draw in map(sampler.draw, range(6000))]
    outcomes = sorted((o for o, p in exact.items() if p > 0), key=str)
    assert set(draws) <= set(outcomes)
    assert not any(c == 3 for c, _ in draws)
    observed = [draws.count(outcome) for outcome in outcomes]
    expected = [6000 * float(exact[outcome]) for outcome in outcomes]
    assert chisquare(observed, expected).pvalue > 1e-3


def test_weights_of_one_change_nothing():
    ones = {"structure": dict.fromkeys(range(5), 1.0), "source": {"big": 1.0}}
    a, b = Sampler(unbalanced(), "cmd").probabilities(), Sampler(unbalanced(), "cmd", weights=ones).probabilities()
    np.testing.assert_allclose(a.case, b.case)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("cmd", {"kind": {"partial": 0.5, "sparse": 0.5}}, "kind sparse, but no case has it; there are partial"),
        ("cmd", {"source": {"wrod": 1.0}}, "source wrod"),
        ("cmd", {"structure": {9: 1.0}}, "structure 9"),
        ("cmd", {"structure": {1: -1.0}}, "at least 0"),
        ("cmd", {"structure": {1: float("nan")}}, "at least 0"),
        ("random", {"source": {"big": 2.0}}, "random: weights of source, but it draws case"),
        ("cmd", {"source": dict.fromkeys(["big", "small", "both", "none"], 0.0)}, "nothing is left"),
    ],
)
def test_weights_of_what_is_not_there_are_refused(name, weights, message):
    with pytest.raises(ConfigError, match=message):
        Sampler(unbalanced(), name, weights=weights)


def test_unknown_sampler_is_refused_with_a_proposal():
    with pytest.raises(UnknownNameError, match="cmd"):
        Sampler(unbalanced(), "cmdd")
