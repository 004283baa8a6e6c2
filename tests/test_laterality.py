import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.laterality import body_midline, split_in_place, split_sides
from abdoseg.reviews import SideDecision
from abdoseg.types import UNKNOWN_LABEL
from tests.test_geometry import CODES, affine_of

MIDLINE = 19.5


class Sided:
    """The masks that a split writes, and its flags."""

    def __init__(self, mask, midline, decision=None):
        label = np.zeros(mask.shape, dtype=np.uint8)
        self.flags = split_sides(mask, midline, np.eye(4), (1, 2, 3), label, decision)
        self.right, self.left, self.unknown = label == 1, label == 2, label == 3


def blank():
    return np.zeros((40, 20, 20), dtype=bool)


def box(mask, x, size=3):
    mask[x : x + size, 8 : 8 + size, 8 : 8 + size] = True
    return mask


def test_larger_x_is_the_patients_right():
    mask = box(box(blank(), 5), 30)
    sided = Sided(mask, MIDLINE)
    assert sided.right[31, 9, 9]
    assert sided.left[6, 9, 9]
    assert not sided.flags


def test_a_gland_in_two_pieces_stays_on_its_side():
    # the public WORD case 52: "the two largest" would put both pieces of one gland on different sides
    mask = box(box(box(blank(), 5, 6), 12, 4), 30, 3)
    sided = Sided(mask, MIDLINE)
    assert sided.left.sum() == 6**3 + 4**3
    assert sided.right.sum() == 3**3


def test_specks_are_kept_and_change_no_flag():
    mask = box(box(blank(), 5, 6), 30, 6)
    mask[25, 2, 2] = mask[21, 15, 15] = True
    sided = Sided(mask, MIDLINE)
    assert sided.right.sum() == 6**3 + 2
    assert not sided.flags


def test_doubtful_anatomy_is_flagged():
    assert "all components lie on the left" in Sided(box(blank(), 5), MIDLINE).flags
    assert any("differ" in flag for flag in Sided(box(box(blank(), 5, 6), 30, 2), MIDLINE).flags)
    horseshoe = blank()
    horseshoe[5:35, 8:11, 8:11] = True
    sided = Sided(horseshoe, MIDLINE)
    assert sided.unknown.sum() == horseshoe.sum()
    assert any("crosses the midline" in flag for flag in sided.flags)


@given(st.integers(0, 10**6), st.sampled_from([None, "cut", "left"]))
def test_no_voxel_is_lost_and_none_is_on_two_sides(seed, action):
    mask = np.random.default_rng(seed).random((20, 9, 9)) < 0.1
    sided = Sided(mask, 9.5, SideDecision(action=action, by="test") if action else None)
    np.testing.assert_array_equal(sided.right.astype(int) + sided.left + sided.unknown, mask)


def test_an_organ_across_the_midline_is_cut_where_that_is_allowed():
    horseshoe = box(blank(), 30)  # a part that does not cross keeps its side whatever is cut
    horseshoe[5:28, 8:11, 8:11] = True
    sided = Sided(horseshoe, MIDLINE, SideDecision(action="cut", by="card"))
    assert not sided.unknown.any()
    np.testing.assert_array_equal(np.flatnonzero(sided.right.any(axis=(1, 2))), [*range(20, 28), 30, 31, 32])
    np.testing.assert_array_equal(np.flatnonzero(sided.left.any(axis=(1, 2))), range(5, 20))
    assert any("was cut there" in flag for flag in sided.flags)


def test_nothing_to_split_is_no_flag():
    assert Sided(blank(), MIDLINE).flags == ()


def test_midline_is_of_the_body_not_of_the_volume():
    body = blank()
    body[0:10] = True
    assert body_midline(body) == 4.5
    assert body_midline(blank()) == 19.5


@given(st.sampled_from(CODES))
def test_split_in_place_uses_the_world_not_the_array(codes):
    canonical = np.zeros((20, 20, 20), dtype=np.uint8)
    canonical[15:18, 8:11, 8:11] = 1
    canonical[2:5, 8:11, 8:11] = 1
    affine = affine_of(codes, (1.0, 1.0, 1.0))
    from abdoseg.geometry import from_canonical, to_canonical

    native = np.ascontiguousarray(from_canonical(canonical, affine))
    label = np.zeros_like(native)
    flags = split_in_place(label, native == 1, np.ones_like(native, dtype=bool), affine, (11, 12, UNKNOWN_LABEL))
    back, _ = to_canonical(label, affine)
    assert (back[15:18, 8:11, 8:11] == 11).all()
    assert (back[2:5, 8:11, 8:11] == 12).all()
    assert not flags
