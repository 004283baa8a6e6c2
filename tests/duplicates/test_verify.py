"""Copies of a scan are recognised whatever was done to them; other people never are."""

from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abdoseg.duplicates import candidate_pairs, signature
from abdoseg.duplicates.verify import SAME, TURNS, verify
from abdoseg.harmonise import harmonise_image
from abdoseg.phantom.body import Key
from abdoseg.phantom.scanner import Protocol, View, scan_person
from abdoseg.windows import Windows
from tests.duplicates.bodies import FAR_OFF, SPACING, cropped, noisy, person, turned

AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
PHANTOM_MM = 4.0
CT = Protocol("CT", (6.0, 6.0, 6.0), "RAS", (View(1.0, (155, 195), (-300, -200)),), phases=("none", "portal"))


def test_equal_scans_are_identical():
    match = verify(person(0), person(0).copy(), SPACING)
    assert match is not None
    assert match.kinds == ("identical",)
    assert match.kind == "identical"
    assert (match.correlation, match.overlap) == (1.0, 1.0)


@pytest.mark.parametrize("copy", FAR_OFF)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_copy_is_found_and_its_kind_is_told(copy, seed):
    make, kinds = FAR_OFF[copy]
    image, other = person(seed), make(seed)
    prints = {"a": signature(image, AFFINE), "b": signature(other, AFFINE)}
    assert [pair[:2] for pair in candidate_pairs(prints)] == [("a", "b")]
    for first, second in ((image, other), (other, image)):
        match = verify(first, second, SPACING)
        assert match is not None
        assert match.correlation > 0.93
        assert match.overlap > 0.9
        assert set(match.kinds) == kinds


def test_twins_that_share_a_third_are_found():
    upper, lower = cropped(person(2), (0, 0, 0.35), (0, 0, 0)), cropped(person(2), (0, 0, 0), (0, 0, 0.3))
    match = verify(upper, lower, SPACING)
    assert match is not None
    assert match.kinds == ("cropped",)
    assert 0.4 < match.overlap < 0.65
    assert candidate_pairs({"a": signature(upper, AFFINE), "b": signature(lower, AFFINE)})


def test_scans_that_hardly_overlap_are_not_the_same():
    upper, lower = cropped(person(2), (0, 0, 0.55), (0, 0, 0)), cropped(person(2), (0, 0, 0), (0, 0, 0.4))
    assert verify(upper, lower, SPACING) is None


@given(
    number=st.integers(0, 47),
    low=st.tuples(*[st.floats(0, 0.2)] * 3),
    high=st.tuples(*[st.floats(0, 0.2)] * 3),
    window=st.booleans(),
    sigma=st.floats(0, 12),
)
@settings(max_examples=6)
def test_the_placement_is_found(number, low, high, window, sigma):
    image = person(3)
    copy = turned(cropped(noisy(np.clip(image, 240, 640) if window else image, sigma), low, high), number)
    match = verify(image, copy, SPACING)
    assert match is not None
    order, sign = TURNS[[str(turn) for turn in TURNS].index(match.axes)]
    straight = copy.transpose(order)[tuple(slice(None, None, s) for s in sign)]
    size = np.array([round(a * n) - round(b * n) for n, a, b in zip(image.shape, low, high, strict=True)])
    # What lies at the middle of the whole lies this far from the middle of the crop.
    np.testing.assert_allclose(match.shift_mm, -size * SPACING / 2, atol=0.35 * SPACING)
    assert straight.shape == cropped(image, low, high).shape


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 48, 7))
def test_every_orientation(number):
    match = verify(person(0), turned(person(0), number), SPACING)
    assert match is not None
    assert match.correlation > 0.999
    assert match.kinds == (("flipped",) if number else ("identical",))


def test_other_people_are_not_the_same():
    pairs = list(combinations(range(4), 2))
    assert [verify(person(a), person(b), SPACING) for a, b in pairs] == [None] * len(pairs)


def test_a_mirrored_stranger_is_a_stranger():
    assert verify(person(0), person(1)[::-1], SPACING) is None


@pytest.mark.parametrize("shape", [(0, 0, 0), (1, 1, 1), (3, 3, 3), (30, 30, 2)])
def test_nothing_can_be_said_of_blank_and_tiny_images(shape):
    blank = np.zeros(shape, dtype=np.int16)
    assert verify(blank, blank) is None
    assert verify(blank, person(0), SPACING) is None


def phantom(index: int) -> np.ndarray:
    scan = scan_person(Key(5, "duplicates", index), CT, 1.0)
    return harmonise_image(scan.image, scan.affine, "CT", Windows(), PHANTOM_MM).image


def changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crop 40 %, clip to -160..240 HU, add noise, turn."""
    cut = rng.uniform(0, 0.4)
    copy = cropped(np.clip(image, 240, 640), (0, 0, cut), (0, 0, 0.4 - cut))
    return turned(noisy(copy, 10.0), int(rng.integers(48)))


@pytest.mark.slow
def test_phantoms_and_their_copies():
    affine = np.diag([PHANTOM_MM, PHANTOM_MM, PHANTOM_MM, 1.0])
    rng = np.random.default_rng(0)
    images = {f"{i:02d}": phantom(i) for i in range(14)}
    copies = {f"{key}copy": changed(image, rng) for key, image in list(images.items())[:4]}
    everyone = images | copies
    pairs = candidate_pairs({key: signature(image, affine) for key, image in everyone.items()})
    assert len(pairs) < 2 * len(everyone)
    same = {(a, b) for a, b, _ in pairs if verify(everyone[a], everyone[b], PHANTOM_MM)}
    assert same == {(key, f"{key}copy") for key in list(images)[:4]}
    # Strangers that no signature proposes are not the same either, as far as there is time to look.
    strangers = rng.permutation(list(combinations(images, 2)))[:12]
    assert not any(verify(images[a], images[b], PHANTOM_MM) for a, b in strangers)


def test_real_scans(real_data):
    def scan(path, modality):
        image = nib.as_closest_canonical(nib.load(real_data / path))
        return harmonise_image(np.asarray(image.dataobj), image.affine, modality, Windows(), 2.0).image

    ct = scan("totalsegmentator/s9001/ct.nii.gz", "CT")
    mr = scan("totalsegmentator_mr/s0001/mri.nii.gz", "MR")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    rng = np.random.default_rng(1)
    copies = {
        "ct": ct,
        "mr": mr,
        "ct~": changed(ct, rng),
        "mr~": turned(noisy(cropped(mr, (0.1, 0.05, 0), (0, 0.1, 0.1)), 10.0), 11),
    }
    pairs = {pair[:2] for pair in candidate_pairs({key: signature(v, affine) for key, v in copies.items()})}
    assert pairs == {("ct", "ct~"), ("mr", "mr~")}
    for a, b in combinations(sorted(copies), 2):
        match = verify(copies[a], copies[b])
        assert (match is not None) == ((a, b) in pairs)
        assert match is None or match.correlation > SAME + 0.1
