"""What a search for repeated scans found is kept, and dropped where it no longer holds."""

import pytest

from abdoseg.errors import WorkspaceError
from abdoseg.splits import SplitItem, split_cases
from abdoseg.store import Twin, Twins, load_twins, save_twins

PAIR = Twin(
    cases=("a/1", "b/2"), fingerprints=("x", "y"), kinds=("cropped",), correlation=0.99, overlap=0.8, axes="+x+y+z"
)


def test_they_survive_on_disk(tmp_path):
    assert load_twins(tmp_path) == Twins()
    save_twins(tmp_path, Twins(pairs=(PAIR,), different=(("x", "z"),)))
    assert load_twins(tmp_path).pairs == (PAIR,)


def test_other_images_or_missing_cases_are_no_twins():
    twins = Twins(pairs=(PAIR,))
    assert twins.of({"a/1": "x", "b/2": "y"}) == [PAIR]
    assert not twins.of({"a/1": "x", "b/2": "other"})
    assert not twins.of({"a/1": "x"})


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "duplicates.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"duplicates.json: cannot be read; remove it"):
        load_twins(tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_twins_share_a_side_across_sources(seed):
    items = [SplitItem(f"a/{i}", "a", str(i)) for i in range(20)] + [
        SplitItem(f"b/{i}", "b", str(i)) for i in range(20)
    ]
    twins = [(f"a/{i}", f"b/{19 - i}") for i in range(0, 20, 2)]
    sides = split_cases(items, seed, twins=[*twins, ("a/1", "c/gone")])
    for a, b in twins:
        assert sides[a] == sides[b]


def test_a_twin_of_an_official_test_case_is_test():
    items = [SplitItem("a/1", "a", "1", official="test"), *(SplitItem(f"b/{i}", "b", str(i)) for i in range(9))]
    assert split_cases(items, 0, twins=[("a/1", "b/3")])["b/3"] == "test"
