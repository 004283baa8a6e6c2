"""Own cards: what a layout may say, and what it finds."""

from pathlib import Path

import pytest

from abdoseg.cards import load_card_file
from abdoseg.errors import CardError
from abdoseg.readers.layouts import find_cases

CARD = """
id = "mine"
title = "Mine"
modality = "CT"
annotated = ["liver"]
[[layouts]]
name = "flat"
{layout}
[labels]
1 = "liver"
"""

PAIR = """
image = "img/{case}_0000.nii.gz"
label = "seg/{case}.nii.gz"
case = "{case}"
groups = { case = 'c\\d+' }
"""


def card_of(tmp_path: Path, layout: str, more: str = ""):
    path = tmp_path / "mine.toml"
    path.write_text(CARD.replace("{layout}", layout) + more)
    return load_card_file(path)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_names_pair_image_and_label_below_any_root(tmp_path):
    card = card_of(tmp_path, PAIR)
    touch(tmp_path / "data", "a/b/img/c1_0000.nii.gz", "a/b/seg/c1.nii.gz", "img/c2_0000.nii.gz", "seg/c2.nii.gz")
    assert sorted(c.case for c in find_cases(card, tmp_path / "data").cases) == ["c1", "c2"]


def test_images_and_labels_of_different_roots_are_no_pair(tmp_path):
    card = card_of(tmp_path, PAIR)
    touch(tmp_path / "data", "a/img/c1_0000.nii.gz", "b/seg/c1.nii.gz")
    finding = find_cases(card, tmp_path / "data")
    assert not finding.cases
    assert "an image without a label" in finding.faults["c1"]


def test_part_of_a_name_is_no_match(tmp_path):
    card = card_of(tmp_path, PAIR)
    touch(tmp_path / "data", "img/xc1_0000.nii.gz", "img/c1_0000.nii.gz.bak", "seg/c1.nii.gz")
    assert "a label without an image" in find_cases(card, tmp_path / "data").faults["c1"]


def test_numbers_outside_the_range_belong_to_another_card(tmp_path):
    layout = PAIR.replace("'c\\d+'", "'c(?P<number>\\d+)'") + "ranges = { number = [1, 500] }\n"
    card = card_of(tmp_path, layout)
    touch(tmp_path / "data", "img/c500_0000.nii.gz", "seg/c500.nii.gz", "img/c501_0000.nii.gz", "seg/c501.nii.gz")
    assert [c.case for c in find_cases(card, tmp_path / "data").cases] == ["c500"]


def test_the_first_layout_that_finds_something_is_taken(tmp_path):
    second = '[[layouts]]\nname = "other"\nimage = "{case}.nii"\nlabel = "{case}_s.nii"\ncase = "{case}"\n'
    card = card_of(tmp_path, PAIR, second + "groups = { case = 'd\\d' }\n")
    touch(tmp_path / "data", "d1.nii", "d1_s.nii")
    finding = find_cases(card, tmp_path / "data")
    assert (finding.layout, [c.case for c in finding.cases]) == ("other", ["d1"])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (PAIR.replace("label =", "masks ="), "masks lacks {mask}"),
        (PAIR.replace("'c\\d+'", "'c('"), "is not a regular expression"),
        (PAIR + "ranges = { number = [1, 2] }\n", "ranges of number, which no group captures"),
        (PAIR.replace('label = "seg/{case}', 'label = "seg/all'), "label lacks a {name}"),
    ],
)
def test_layouts_that_cannot_work_are_refused(tmp_path, layout, message):
    with pytest.raises(CardError) as caught:
        card_of(tmp_path, layout)
    assert message in str(caught.value)


def test_a_split_by_an_unknown_group_is_refused(tmp_path):
    with pytest.raises(CardError, match="no layout has a group called prt"):
        card_of(tmp_path, PAIR, '[split]\ngroup = "prt"\nsides = { Tr = "train" }\n')


def test_case_ids_that_are_no_names_are_refused(tmp_path):
    card = card_of(tmp_path, PAIR.replace("'c\\d+'", "'c/?\\d+'"))
    touch(tmp_path / "data", "img/c/1_0000.nii.gz", "seg/c/1.nii.gz")
    assert "expected a plain name" in find_cases(card, tmp_path / "data").faults["c/1"]
