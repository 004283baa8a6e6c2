"""The structures, and that their colours can be told apart, whatever colours the reader sees."""

from itertools import combinations

import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import UnknownNameError

# Machado, Oliveira and Fernandes (2009), severity 1.0; of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}

TOUCHING = {
    "spleen": "stomach left_kidney pancreas left_adrenal_gland portal_splenic_vein liver",
    "right_kidney": "left_kidney liver duodenum right_adrenal_gland postcava pancreas",
    "left_kidney": "pancreas left_adrenal_gland stomach portal_splenic_vein aorta",
    "gallbladder": "liver duodenum stomach pancreas",
    "esophagus": "stomach aorta liver",
    "liver": "stomach postcava right_adrenal_gland duodenum portal_splenic_vein pancreas aorta",
    "stomach": "pancreas duodenum left_adrenal_gland portal_splenic_vein aorta",
    "aorta": "postcava pancreas duodenum left_adrenal_gland portal_splenic_vein",
    "postcava": "pancreas duodenum right_adrenal_gland portal_splenic_vein",
    "pancreas": "duodenum portal_splenic_vein left_adrenal_gland",
    "right_adrenal_gland": "left_adrenal_gland",
    "duodenum": "portal_splenic_vein",
    "bladder": "prostate_uterus",
}
"""Neighbours in the body, and right and left partners, which must not be mistaken either."""


def linear_rgb(colour):
    """Return linear RGB of ``#rrggbb`` (IEC 61966-2-1)."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def cielab(linear):
    """Return CIELAB (D65) of linear RGB."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    t = to_xyz @ np.clip(linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one, other):
    """Return the difference of two CIELAB colours (CIE 142-2001; formulas as Sharma, Wu and Dalal, 2005)."""

    def weight(chroma):
        return np.sqrt(chroma**7 / (chroma**7 + 25.0**7))

    stretch = 1.5 - 0.5 * weight((np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2)
    (l1, c1, h1), (l2, c2, h2) = (
        (light, np.hypot(a * stretch, b), np.degrees(np.arctan2(b, a * stretch)) % 360) for light, a, b in (one, other)
    )
    grey = c1 * c2 == 0
    turn = 0 if grey else (h2 - h1 + 180) % 360 - 180
    hue = h1 + h2 if grey else h1 + turn / 2
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2

    def cos(factor, offset):
        return np.cos(np.radians(factor * hue + offset))

    t = 1 - 0.17 * cos(1, -30) + 0.24 * cos(2, 0) + 0.32 * cos(3, 6) - 0.20 * cos(4, -63)
    off = (light - 50) ** 2
    by_light = (l2 - l1) / (1 + 0.015 * off / np.sqrt(20 + off))
    by_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    by_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    rotation = -2 * weight(chroma) * np.sin(np.radians(60 * np.exp(-((((hue % 360) - 275) / 25) ** 2))))
    return np.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_measure_is_the_published_one(one, other, expected):
    """Pairs of Sharma, Wu and Dalal (2005), table 1."""
    assert ciede2000(one, other) == pytest.approx(expected, abs=1e-4)
    assert ciede2000(other, one) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart(vision):
    seen = {s.name: cielab(VISION[vision] @ linear_rgb(s.colour)) for s in ABDOMEN.structures}
    apart = {frozenset(pair): ciede2000(*(seen[name] for name in pair)) for pair in combinations(seen, 2)}
    touching = {frozenset((one, other)) for one, others in TOUCHING.items() for other in others.split()}
    assert min(apart.values()) >= 13.5
    assert min(apart[pair] for pair in touching) >= 16


def test_colours_show_on_a_dark_scan_and_on_a_white_page():
    for structure in ABDOMEN.structures:
        light, a, b = cielab(linear_rgb(structure.colour))
        assert 35 <= light <= 91, structure.name
        assert np.hypot(a, b) >= 25, structure.name  # no grey, as the scan's own


def test_partners_are_each_others_and_have_related_hues():
    for structure in ABDOMEN.structures:
        if structure.partner is None:
            continue
        partner = ABDOMEN.structure(ABDOMEN.id_of(structure.partner))
        assert partner.partner == structure.name
        one, other = (np.degrees(np.arctan2(*cielab(linear_rgb(s.colour))[:0:-1])) for s in (structure, partner))
        assert abs((one - other + 180) % 360 - 180) <= 45


def test_ids_follow_the_order_and_unknown_names_are_refused():
    assert ABDOMEN.ids_of(ABDOMEN.names) == tuple(range(1, 17))
    assert ABDOMEN.subset(("liver", "spleen")).names == ("liver", "spleen")
    with pytest.raises(UnknownNameError, match="liver"):
        ABDOMEN.id_of("livr")
