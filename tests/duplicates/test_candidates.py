"""Candidate pairs from signatures alone: repeats are among them, strangers are not, and it stays quick."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.duplicates import Signature, candidate_pairs, groups
from abdoseg.duplicates.candidates import PLACEMENTS
from abdoseg.duplicates.signature import KEYPOINTS, LENGTH

SPREAD = 18.0
"""Standard deviation of a descriptor's numbers over the points of phantoms, roughly."""


def stranger(rng: np.random.Generator, count: int = KEYPOINTS) -> Signature:
    """Points anywhere in a body; descriptors as far apart as those of phantoms, on some common themes."""
    themes = np.random.default_rng(0).normal(0, 0.8 * SPREAD, (40, LENGTH))
    descriptors = themes[rng.integers(len(themes), size=count)] + rng.normal(0, 0.6 * SPREAD, (count, LENGTH))
    return as_signature(rng.uniform(-150, 150, (count, 3)), descriptors)


def as_signature(positions_mm: np.ndarray, descriptors: np.ndarray) -> Signature:
    whole = np.clip(np.rint(descriptors), -127, 127).astype(np.int8)
    return Signature(np.rint(positions_mm * 10).astype(np.int16), whole)


def repeat(of: Signature, rng: np.random.Generator, kept: float = 0.4) -> Signature:
    """Turned, displaced, cropped: only part of the points again, each a little off, and others instead."""
    keep = rng.permutation(len(of))[: int(kept * len(of))]
    placement = PLACEMENTS[rng.integers(len(PLACEMENTS))]
    moved = of.positions_mm[keep] @ placement.T + rng.uniform(-80, 80, 3) + rng.normal(0, 1.0, (len(keep), 3))
    altered = of.descriptors[keep] + rng.normal(0, 3.0, (len(keep), LENGTH))
    rest = stranger(rng, len(of) - len(keep))
    positions = np.concatenate([moved, rest.positions_mm])
    return as_signature(positions, np.concatenate([altered, rest.descriptors]))


def population(count: int, repeats: int, seed: int = 0) -> tuple[dict[str, Signature], set[tuple[str, str]]]:
    rng = np.random.default_rng(seed)
    prints = {f"a/{i:05d}": stranger(rng) for i in range(count - repeats)}
    planted = set()
    for i, of in enumerate(rng.permutation(sorted(prints))[:repeats]):
        prints[f"b/{i:05d}"] = repeat(prints[of], rng)
        planted.add((str(of), f"b/{i:05d}"))
    return prints, planted


def test_planted_repeats_are_found_and_no_stranger():
    prints, planted = population(300, 30)
    found = candidate_pairs(prints)
    assert {pair[:2] for pair in found} == planted
    assert all(0.1 < score <= 1 for _, _, score in found)
    assert found == sorted(found)


@given(st.integers(0, 10**6))
def test_a_repeat_is_found_however_it_lies(seed):
    rng = np.random.default_rng(seed)
    one = stranger(rng)
    (pair,) = candidate_pairs({"x": one, "y": repeat(one, rng), "z": stranger(rng)})
    assert pair[:2] == ("x", "y")


def test_order_of_the_scans_does_not_matter():
    prints, _ = population(40, 8)
    backwards = dict(reversed(prints.items()))
    assert candidate_pairs(prints) == candidate_pairs(backwards) == candidate_pairs(prints)


def test_many_repeats_of_one_scan_make_one_group():
    rng = np.random.default_rng(3)
    one = stranger(rng)
    prints = {f"{i:03d}": repeat(one, rng, 0.7) for i in range(30)} | {f"x{i}": stranger(rng) for i in range(20)}
    prints |= {f"equal{i:03d}": one for i in range(60)}
    pairs = candidate_pairs(prints)
    (group,) = groups((a, b) for a, b, _ in pairs)
    assert group == {key for key in prints if not key.startswith("x")}


def test_equal_signatures_score_1():
    one = stranger(np.random.default_rng(0))
    assert candidate_pairs({"b": one, "a": one}) == [("a", "b", 1.0)]


def test_like_surroundings_in_other_places_are_no_repeat():
    rng = np.random.default_rng(1)
    one = stranger(rng)
    scattered = as_signature(rng.permutation(one.positions_mm), one.descriptors.astype(float))
    assert candidate_pairs({"a": one, "b": scattered}) == []


def test_scans_without_points_take_no_part():
    blank = Signature(np.zeros((0, 3), dtype=np.int16), np.zeros((0, LENGTH), dtype=np.int8))
    one = stranger(np.random.default_rng(0))
    assert candidate_pairs({}) == []
    assert candidate_pairs({"a": one}) == []
    assert candidate_pairs({"a": one, "b": blank, "c": blank}) == []
    assert candidate_pairs({"a": one, "b": blank, "c": one}) == [("a", "c", 1.0)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_scans_with_few_points_can_be_repeats(count):
    few = stranger(np.random.default_rng(count), count)
    assert candidate_pairs({"a": few, "b": few}) == [("a", "b", 1.0)]


def test_placements_are_all_the_turns_of_a_box():
    assert len({p.tobytes() for p in PLACEMENTS}) == 48
    for placement in PLACEMENTS:
        np.testing.assert_array_equal(placement @ placement.T, np.eye(3))


keys = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(keys, keys).filter(lambda pair: pair[0] != pair[1]), max_size=12))
def test_groups_are_the_connected_components(pairs):
    found = groups(pairs)
    everyone = [key for group in found for key in group]
    assert sorted(everyone) == sorted({key for pair in pairs for key in pair})
    assert all(len(group) > 1 for group in found)
    assert [min(group) for group in found] == sorted(min(group) for group in found)
    for a, b in pairs:
        assert sum({a, b} <= group for group in found) == 1
        assert sum(len({a, b} & group) == 1 for group in found) == 0
    # No group could be split: each is reached from one of its members.
    for group in found:
        reached = {min(group)}
        while more := {key for pair in pairs if reached & set(pair) for key in pair} - reached:
            reached |= more
        assert reached == group


def test_a_chain_is_one_group():
    chain = [(f"{i:05d}", f"{i + 1:05d}") for i in range(5000)]
    assert len(groups(chain)) == 1


@pytest.mark.slow
def test_three_thousand_scans_take_seconds():
    prints, planted = population(3000, 300)
    start = time.perf_counter()
    found = {pair[:2] for pair in candidate_pairs(prints)}
    assert time.perf_counter() - start < 120
    assert planted <= found
    assert len(found - planted) < len(prints)
