import pytest

from abdoseg import cards
from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import CardError, UnknownNameError

# Written down by hand from the sources' own label lists; a card must agree with it.
EXPECTED = {
    "word": {1: 6, 2: 1, 3: 3, 4: 2, 5: 7, 6: 4, 7: 5, 8: 10, 9: 13, 12: [11, 12], 14: 14},
    "amos-ct": {i: i for i in range(1, 16)},
    "amos-mri": {i: i for i in range(1, 16)},
    "btcv": {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 10: 16, 11: 10, 12: 11, 13: 12},
}

GOOD = """
id = "mine"
title = "Mine"
modality = "CT"
annotated = ["liver"]
[[layouts]]
name = "flat"
image = "{case}.nii.gz"
label = "{case}_seg.nii.gz"
case = "{case}"
groups = { case = 'c\\d+' }
[labels]
1 = "liver"
"""


def test_all_shipped_cards_are_sound():
    for card in cards.list_cards():
        cards.check_structures(card)
        assert card.access is not None or card.labels_by_user, card.id
        assert card.evidence, card.id


@pytest.mark.parametrize("name", EXPECTED)
def test_label_maps_are_those_of_the_sources(name):
    card = cards.load_card(name)
    found = {
        value: ABDOMEN.id_of(target) if isinstance(target, str) else [ABDOMEN.id_of(t) for t in target]
        for value, target in card.label_targets().items()
    }
    assert found == EXPECTED[name]


def test_amos_stands_for_two_cards():
    assert [card.id for card in cards.load_cards("amos")] == ["amos-ct", "amos-mri"]
    with pytest.raises(CardError, match="several cards"):
        cards.load_card("amos")


def test_a_near_name_is_proposed():
    with pytest.raises(UnknownNameError, match="Did you mean word"):
        cards.load_cards("wrod")


def test_women_have_no_annotated_prostate_in_totalsegmentator():
    card = cards.load_card("totalsegmentator")
    assert "prostate_uterus" in card.annotated_in({"gender": "m"})
    assert "prostate_uterus" not in card.annotated_in({"gender": "f"})
    assert "prostate_uterus" not in card.annotated_in({})


def test_own_card_by_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert cards.load_card(str(path)).id == "mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('annotated = ["liver"]', 'annotated = ["liver", "spleen"]', "annotated lists spleen"),
        ('1 = "liver"', '1 = "liver"\n2 = "spleen"', "labels name spleen"),
        ('1 = "liver"', '1 = "liver"\n[dropped]\n1 = "x"', "both mapped and dropped"),
        ('1 = "liver"', '1 = ["liver", "liver", "liver"]', r"exactly \[right, left\]"),
        ('modality = "CT"', 'modality = "PET"', "modality"),
        ('title = "Mine"', 'titel = "Mine"', "titel"),
        ("groups = { case = 'c\\d+' }", "groups = { kase = 'c' }", "no expression in groups for case"),
        ('label = "{case}_seg.nii.gz"', "", "neither label nor masks"),
        ('id = "mine"', 'id = "Not An Id"', "id"),
        ('id = "mine"', "id = ", "not valid TOML"),
    ],
)
def test_faults_name_file_and_field(tmp_path, old, new, message):
    path = tmp_path / "mine.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(CardError, match=message) as caught:
        cards.load_card(str(path))
    assert str(path) in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('"CT"', '"PET"').replace('title = "Mine"', "title = 3"))
    with pytest.raises(CardError, match=r"title.*modality|modality.*title"):
        cards.load_card(str(path))


def test_unknown_structures_are_found(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("liver", "livr"))
    with pytest.raises(CardError, match="Did you mean liver"):
        cards.check_structures(cards.load_card(str(path)))


def test_missing_card_file(tmp_path):
    with pytest.raises(CardError, match="no such card file"):
        cards.load_card(str(tmp_path / "no.toml"))
