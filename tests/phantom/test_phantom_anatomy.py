"""The phantom body: volumes, sides and places of the organs over several people."""

import numpy as np
import pytest

from abdoseg.anatomy import ABDOMEN
from abdoseg.phantom.body import Key
from abdoseg.phantom.scanner import Protocol, Scan, View, scan_person
from abdoseg.phantom.shapes import Ellipsoid, Tube
from abdoseg.phantom.warp import draw_warp

WHOLE = Protocol("CT", (1.5, 1.5, 2.0), "RAS", (View(1.0, (165, 180), (-300, -292)),), phases=("portal",))
PEOPLE = 6

# mL: the smallest and largest of a healthy population, widely; and where the median of a few should lie.
VOLUMES = {
    "liver": ((850, 2500), (1150, 1800)),
    "spleen": ((50, 420), (110, 280)),
    "right_kidney": ((65, 270), (100, 200)),
    "left_kidney": ((65, 270), (100, 200)),
    "stomach": ((120, 800), (200, 550)),
    "gallbladder": ((4, 120), (10, 60)),
    "esophagus": ((8, 45), (10, 40)),
    "pancreas": ((35, 160), (50, 130)),
    "duodenum": ((25, 180), (45, 130)),
    "right_adrenal_gland": ((1.5, 14), (2, 8)),
    "left_adrenal_gland": ((1.5, 14), (2, 8)),
    "bladder": ((19, 700), (60, 400)),
    "aorta": ((35, 250), (60, 160)),
    "postcava": ((35, 250), (60, 160)),
    "portal_splenic_vein": ((9, 60), (12, 45)),
    "prostate_uterus": ((10, 200), (20, 120)),
}


@pytest.fixture(scope="module")
def people() -> list[Scan]:
    return [scan_person(Key(3, "test", index), WHOLE, 2.5) for index in range(PEOPLE)]


def volumes(scan: Scan) -> np.ndarray:
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    return np.bincount(scan.truth.ravel(), minlength=17)[1:] * voxel_ml


def centers(scan: Scan) -> dict[str, np.ndarray]:
    """Return the world position (RAS, mm) of each structure's middle."""
    result = {}
    for name in ABDOMEN.names:
        index = np.argwhere(scan.truth == ABDOMEN.id_of(name)).mean(axis=0)
        result[name] = scan.affine[:3, :3] @ index + scan.affine[:3, 3]
    return result


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_human(people, name):
    values = np.array([volumes(scan)[ABDOMEN.id_of(name) - 1] for scan in people])
    (low, high), (median_low, median_high) = VOLUMES[name]
    assert values.min() > low
    assert values.max() < high
    assert median_low < np.median(values) < median_high
    assert values.std() / values.mean() > 0.05


def test_left_is_left(people):
    # RAS: x grows to the patient's right.
    for scan in people:
        at = centers(scan)
        for name in ("kidney", "adrenal_gland"):
            assert at[f"left_{name}"][0] < at[f"right_{name}"][0]
        assert at["spleen"][0] < at["aorta"][0] < at["postcava"][0] < at["liver"][0]
        assert at["stomach"][0] < at["gallbladder"][0]


def test_organs_lie_above_and_before_each_other(people):
    for scan in people:
        at = centers(scan)
        assert at["bladder"][2] < at["left_kidney"][2] < at["left_adrenal_gland"][2] < at["esophagus"][2]
        assert at["right_kidney"][2] < at["right_adrenal_gland"][2]
        assert at["duodenum"][2] < at["liver"][2]
        assert at["left_kidney"][1] < at["pancreas"][1]
        assert at["aorta"][1] < at["stomach"][1]
        assert at["gallbladder"][2] < at["liver"][2]


def test_prostate_is_below_the_bladder_and_uterus_behind_it(people):
    assert {scan.sex for scan in people} == {"m", "f"}
    for scan in people:
        at = centers(scan)
        gap = at["prostate_uterus"] - at["bladder"]
        assert gap[2] < 0 if scan.sex == "m" else gap[1] < 0


def test_organs_look_like_tissue(people):
    for scan in people:
        truth = scan.truth
        mean = {name: float(scan.image[truth == ABDOMEN.id_of(name)].mean()) for name in ABDOMEN.names}
        assert all(30 < mean[name] < 250 for name in ("liver", "spleen", "left_kidney", "aorta", "postcava"))
        assert mean["bladder"] < 40 < mean["liver"]
        assert mean["left_kidney"] > mean["liver"]


def test_the_same_person_at_another_resolution():
    coarse, fine = (scan_person(Key(3, "test", 0), WHOLE, scale) for scale in (4.0, 2.5))
    assert coarse.sex == fine.sex
    large = [ABDOMEN.id_of(name) - 1 for name in ("liver", "spleen", "left_kidney", "stomach")]
    np.testing.assert_allclose(volumes(coarse)[large], volumes(fine)[large], rtol=0.1)


def test_phases_change_the_organs():
    means = {}
    for phase in ("none", "arterial", "portal"):
        protocol = Protocol("CT", (6.0, 6.0, 6.0), "RAS", WHOLE.views, phases=(phase,))
        scan = scan_person(Key(3, "test", 1), protocol, 1.0)
        means[phase] = float(scan.image[scan.truth == ABDOMEN.id_of("aorta")].mean())
    assert means["none"] < means["portal"] < means["arterial"]


def test_an_oblique_coronal_scan_has_right_angles():
    protocol = Protocol(
        "MR", (6.0, 6.0, 8.0), "LPS", WHOLE.views, sigma=(0.02, 0.03), coronal=1.0, oblique=4.0, table=False
    )
    affine = scan_person(Key(3, "test", 2), protocol, 1.0).affine[:3, :3]
    spacing = np.linalg.norm(affine, axis=0)
    np.testing.assert_allclose(affine.T @ affine, np.diag(spacing**2), atol=1e-9)
    assert np.argmax(np.abs(affine[:, 2])) == 1
    assert np.abs(affine).min() > 0


def test_warp_inverts():
    warp = draw_warp(np.random.default_rng(0), np.array([1.1, 0.95, 1.0]), np.array([10.0, -5.0, 300.0]))
    body = np.random.default_rng(1).uniform(-120, 120, size=(50, 3))
    np.testing.assert_allclose(warp.to_body(warp.to_world(body)), body, atol=1.0)


def test_shapes_know_inside_from_outside():
    x, y, z = np.meshgrid(*[np.linspace(-30, 30, 41, dtype=np.float32)] * 3, indexing="ij")
    ball = Ellipsoid((0, 0, 0), (20, 20, 20)).distance(x, y, z)
    np.testing.assert_allclose(ball, np.sqrt(x**2 + y**2 + z**2) - 20, atol=1e-3)
    tube = Tube(np.array([[-40.0, 0, 0], [0, 0, 0], [40.0, 0, 0]]), (10, 10, 10))
    np.testing.assert_allclose(tube.distance(x, y, z), np.hypot(y, z) - 10, atol=1e-3)
    assert sum(1 for _ in tube.parts()) >= 4
