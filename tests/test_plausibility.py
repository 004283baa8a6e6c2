"""Each check catches the fault it is there for, and is quiet otherwise."""

import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import Expected
from abdoseg.case import Foreground, Measure
from abdoseg.plausibility import MEAN_HU, VOLUME_ML, Ranges, measure, oddities

USUAL = Ranges.of(Expected())
# RAS+ voxel centres: x grows to the patient's right, y to the front, z upwards.
PLACES = {
    "liver": (130, 90, 150),
    "spleen": (40, 60, 150),
    "right_kidney": (120, 50, 110),
    "left_kidney": (50, 50, 115),
    "right_adrenal_gland": (110, 55, 130),
    "left_adrenal_gland": (60, 55, 132),
    "stomach": (60, 100, 150),
    "aorta": (80, 45, 120),
    "postcava": (95, 50, 120),
    "esophagus": (80, 50, 180),
    "pancreas": (75, 80, 130),
    "duodenum": (95, 80, 115),
    "bladder": (85, 80, 30),
    "prostate_uterus": (85, 70, 20),
}


def plausible(**changes):
    """A plausible body; ``liver={"ml": 3}`` changes what is measured of one organ."""
    found = {}
    for name, centre in PLACES.items():
        low, high = VOLUME_ML[name]
        facts = {"ml": (low * high) ** 0.5, "mean": 90.0, "gas": 0.0, "centre": centre, "cut": False}
        found[name] = Measure(**{**facts, **changes.get(name, {})})
    return found


def told(measures, modality="CT", ranges=USUAL):
    return oddities(measures, modality, ranges, tuple(PLACES))


def test_a_plausible_case_is_quiet():
    assert told(plausible()) == ()
    assert told(plausible(), "MR") == ()


def flipped(axis):
    return {
        n: m.model_copy(update={"centre": tuple(200 - v if a == axis else v for a, v in enumerate(m.centre))})
        for n, m in plausible().items()
    }


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (0, "left_kidney is not left of right_kidney"),
        (1, "aorta is not behind stomach"),
        (2, "bladder is not below right_kidney"),
    ],
)
def test_flips_are_seen(axis, text):
    assert any(text in odd for odd in told(flipped(axis)))


def test_swapped_values_are_seen():
    body = plausible()
    body["liver"], body["spleen"] = body["spleen"], body["liver"]
    assert any("spleen is not left of liver" in odd for odd in told(body))


def test_volumes():
    assert told(plausible(liver={"ml": 9.0})) == ("liver of 9 ml, expected 400 to 4500",)
    assert told(plausible(liver={"ml": 9.0, "cut": True})) == ()  # the rest may be out of view
    assert "right_adrenal_gland of 150 ml" in told(plausible(right_adrenal_gland={"ml": 150.0, "cut": True}))[0]


def test_a_card_may_state_its_own_ranges():
    ranges = Ranges.of(Expected(volume_ml={"liver": (5, 10)}, mean_hu={"spleen": (100, 200)}))
    found = told(plausible(liver={"ml": 9.0}), ranges=ranges)
    assert found == ("spleen of mean 90 HU, expected 100 to 200: misplaced label?",)


def test_intensities_are_looked_at_in_ct_only():
    cold = plausible(liver={"mean": -80.0}, spleen={"gas": 0.3}, stomach={"gas": 0.6})
    found = told(cold)
    assert len(found) == 2
    assert "liver of mean -80 HU" in found[0]
    assert "30% of spleen is gas" in found[1]
    assert told(cold, "MR") == ()


def test_places_of_organs_that_are_cut_say_little():
    assert told(plausible(bladder={"centre": (85, 80, 120), "cut": True})) == ()
    assert told(plausible(left_kidney={"centre": (150, 50, 115), "cut": True}))  # a side is a side


def test_nothing_there():
    assert "none of the annotated" in told({})[0]
    assert oddities({}, "CT", USUAL, ()) == ()


def test_what_is_measured():
    label = np.zeros((6, 5, 4), dtype=np.uint8)
    label[1:3, 2, 1:3] = 6
    label[0, 0, 0] = 1
    image = np.zeros(label.shape, dtype=np.int16)
    image[1, 2, 1:3] = 800
    image[2, 2, 1] = 600
    found = measure(image, (1.0, -400.0), Foreground.of(label, 16), 0.008, ABDOMEN)
    assert set(found) == {"liver", "spleen"}
    liver = found["liver"]
    assert (liver.ml, liver.mean, liver.gas, liver.centre, liver.cut) == (0.032, 150.0, 0.25, (1.5, 2.0, 1.5), False)
    assert found["spleen"].cut


def test_the_ranges_are_about_known_structures():
    assert set(VOLUME_ML) == set(ABDOMEN.names)
    assert set(MEAN_HU) < set(ABDOMEN.names)
