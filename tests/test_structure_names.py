"""Names in other people's files."""

import pytest

from abdoseg.anatomy import ABDOMEN
from abdoseg.structure_names import recognise

KIDNEYS, ADRENALS = ("right_kidney", "left_kidney"), ("right_adrenal_gland", "left_adrenal_gland")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((s.name, s.name) for s in ABDOMEN.structures),
        *((s.title, s.name) for s in ABDOMEN.structures if "(" not in s.title),
        *((s.abbreviation, s.name) for s in ABDOMEN.structures if len(s.abbreviation) > 1),
        *((n, "right_kidney") for n in ("right kidney", "kidney_right", "Right_Kidney", "R. kidney", "kidney-R")),
        *((n, KIDNEYS) for n in ("kidney", "Kidneys", "left and right kidney")),
        *((n, ADRENALS) for n in ("adrenal", "adrenal glands", "adrenal_gland")),
        *((n, "left_adrenal_gland") for n in ("adrenal_gland_left", "left adrenal gland", "LeftAdrenalGland")),
        ("arota", "aorta"),
        ("gall bladder", "gallbladder"),
        ("inferior_vena_cava", "postcava"),
        ("urinary_bladder", "bladder"),
        ("prostate/uterus", "prostate_uterus"),
        ("portal_vein_and_splenic_vein", "portal_splenic_vein"),
    ],
)
def test_names_mean(name, meant):
    assert recognise(name) == meant


@pytest.mark.parametrize(
    "name",
    ["", "background", "liver tumour", "kidney cyst left", "left liver", "colon", "portal vein", "head_of_femur_L"],
)
def test_what_is_not_quite_a_structure_is_none(name):
    assert recognise(name) is None


def test_structures_beyond_the_anatomy_are_none():
    assert recognise("kidney", ABDOMEN.subset(("liver",))) is None
    assert recognise("liver", ABDOMEN.subset(("liver",))) == "liver"
