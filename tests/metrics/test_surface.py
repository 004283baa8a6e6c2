"""Distances between surfaces against a brute force from the definition, and against DeepMind's package."""

import importlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from abdoseg.anatomy import ABDOMEN, Anatomy, Structure
from abdoseg.annotation import Annotation
from abdoseg.errors import ConfigError
from abdoseg.metrics import TOLERANCES_MM, EvalSettings, Outcome
from abdoseg.metrics.surface import normalised_surface_dice, robust_hausdorff_mm, surface_pairs
from abdoseg.metrics.surface_elements import surface_areas_mm2
from abdoseg.steps.evaluate import score_case

spacings = st.tuples(*[st.sampled_from([0.7, 1.0, 1.3, 2.5, 5.0])] * 3)


@pytest.fixture(scope="module")
def deepmind():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("surface_distance.metrics")


def brute_force(prediction, reference, spacing):
    """NSD at 2 mm and HD95: all distances between all cells."""
    sides = []
    for mask in (prediction, reference):
        padded = np.pad(mask, 1).astype(int)
        codes = np.zeros(np.array(mask.shape) + 1, int)
        for bit, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
            codes |= padded[i : i + len(codes), j : j + codes.shape[1], k : k + codes.shape[2]] << bit
        cells = np.argwhere((codes > 0) & (codes < 255))
        sides.append((cells * spacing, surface_areas_mm2(spacing)[codes[tuple(cells.T)]]))
    distances = cdist(sides[0][0], sides[1][0])
    within, percentiles = 0.0, []
    for (_, areas), nearest in zip(sides, (distances.min(axis=1), distances.min(axis=0)), strict=True):
        within += areas[nearest <= 2.0 + 1e-9].sum()
        order = np.argsort(nearest)
        part = np.cumsum(areas[order]) / areas.sum()
        # Rounding decides where the part is 0.95 to the last digit: either distance will do.
        percentiles.append([nearest[order][np.argmax(part >= 0.95 + slack)] for slack in (-1e-9, 1e-9)])
    low, high = np.max(percentiles, axis=0)
    return within / (sides[0][1].sum() + sides[1][1].sum()), low, high


def measured(prediction, reference, spacing, tolerance=2.0 + 1e-9):
    pair = surface_pairs(prediction.astype(np.uint8), reference.astype(np.uint8), spacing, [1])[1]
    return normalised_surface_dice(pair, tolerance), robust_hausdorff_mm(pair)


@st.composite
def masks(draw):
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    pair = draw(hnp.arrays(bool, (2, *shape)))
    for mask in pair:
        mask[tuple(draw(st.integers(0, n - 1)) for n in shape)] = True
    return pair


@given(masks(), spacings)
def test_equal_to_a_brute_force(pair, spacing):
    nsd, low, high = brute_force(*pair, spacing)
    found_nsd, found_hd95 = measured(*pair, spacing)
    assert found_nsd == pytest.approx(nsd, abs=1e-9)
    assert low - 1e-9 <= found_hd95 <= high + 1e-9


@given(masks(), spacings, st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_turning_mirroring_and_exchanging_change_nothing(pair, spacing, axes, steps):
    turned = [mask.transpose(axes)[:: steps[0], :: steps[1], :: steps[2]] for mask in pair]
    found = measured(turned[1], turned[0], tuple(spacing[axis] for axis in axes))
    assert found == pytest.approx(measured(*pair, spacing), rel=1e-9)


def blobs(seed, shape=(40, 36, 30)):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return noise > np.quantile(noise, 0.8)


def far_apart():
    pair = np.zeros((2, 60, 20, 20), bool)
    pair[0, 2:8, 3:9, 3:9] = pair[1, 45:55, 8:18, 8:18] = pair[0, 50, 10, 10] = True
    return pair


PAIRS = {
    "blobs that touch the border": lambda: (blobs(1), blobs(2)),
    "far apart": far_apart,
    "single voxels in corners": lambda: np.eye(2, 30, dtype=bool).reshape(2, 2, 3, 5),
    "one slice": lambda: (blobs(1)[:, :, :1], blobs(2)[:, :, :1]),
    "equal": lambda: (blobs(3), blobs(3)),
    "whole image": lambda: (np.ones((9, 8, 7), bool), blobs(1)[:9, :8, :7] | (np.indices((9, 8, 7)).sum(0) == 0)),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (0.5, 0.7, 9.0)])
@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_deepmind(deepmind, name, spacing):
    prediction, reference = PAIRS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = deepmind.compute_surface_distances(reference, prediction, spacing)
    for tolerance in (0.0, 0.8, 2.0, 2.5, 4.0):
        nsd, hd95 = measured(prediction, reference, spacing, tolerance)
        assert nsd == pytest.approx(deepmind.compute_surface_dice_at_tolerance(theirs, tolerance), abs=1e-6)
        assert hd95 == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 95), abs=1e-6)


def test_areas_equal_deepmind(deepmind):
    tables = importlib.import_module("surface_distance.lookup_tables")
    spacing = (0.7, 1.3, 2.9)
    expected = tables.create_table_neighbour_code_to_surface_area(spacing)
    np.testing.assert_allclose(surface_areas_mm2(spacing), expected, atol=1e-12)


def test_many_far_cells_and_memory_order(monkeypatch):
    monkeypatch.setattr("abdoseg.metrics.surface._FEW_FAR", 3)
    pair = far_apart()
    turned = np.asfortranarray(pair[0]), pair[1][::-1][:, ::-1].copy()[::-1][:, ::-1]
    _, low, high = brute_force(*pair, (1.0, 2.0, 3.0))
    assert low == high == pytest.approx(measured(*turned, (1.0, 2.0, 3.0))[1])


def test_shifted_cube_by_hand():
    pair = np.zeros((2, 20, 20, 20), bool)
    pair[0, 5:11, 5:11, 5:11] = pair[1, 8:14, 5:11, 5:11] = True
    nsd, hd95 = measured(*pair, (2.0, 1.0, 1.0), 6.0)
    assert (nsd, hd95) == (1.0, 6.0)  # three voxels of 2 mm
    assert measured(*pair, (2.0, 1.0, 1.0), 5.9)[0] < 1.0


@given(st.integers(0, 2), st.integers(-4, 4), spacings, st.tuples(*[st.integers(5, 8)] * 3))
def test_shifted_boxes_are_as_far_apart_as_in_medpy(axis, shift, spacing, sides):
    """Elsewhere the definitions differ; here over 5 % of either surface lie one shift away, and nothing further."""
    from medpy.metric import binary

    pair = np.zeros((2, 16, 16, 16), bool)
    for mask, offset in zip(pair, (0, shift), strict=True):
        mask[tuple(slice(4 + offset * (i == axis), 4 + offset * (i == axis) + n) for i, n in enumerate(sides))] = True
    _, hd95 = measured(*pair, spacing)
    assert hd95 == pytest.approx(abs(shift) * spacing[axis])
    assert hd95 == pytest.approx(binary.hd95(*pair, voxelspacing=spacing))


ORGANS = ABDOMEN.subset(("spleen", "liver"))
BOTH = Annotation.partial((1, 2), 2)
SURFACES = EvalSettings(metrics=("dsc", "nsd", "hd95"))


def scored(prediction, reference, annotation=BOTH, settings=SURFACES):
    scores = score_case(prediction, reference, annotation, (1.0, 1.0, 2.0), ORGANS, settings)
    return {(s.metric, s.structure): (s.outcome, s.value) for s in scores}


def label(*boxes):
    volume = np.zeros((12, 12, 12), np.uint8)
    for value, (first, last) in boxes:
        volume[first:last, 2:9, 2:9] = value
    return volume


REFERENCE = label((1, (1, 4)), (2, (6, 10)))


def test_tolerances_are_per_structure_and_can_be_replaced():
    prediction = label((1, (4, 7)), (2, (10, 12)))  # 3 and 4 mm off
    assert (TOLERANCES_MM["spleen"], TOLERANCES_MM["liver"]) == (3.0, 5.0)
    found = scored(prediction, REFERENCE)
    assert found["nsd", "spleen"] == (Outcome.SCORED, pytest.approx(100.0))
    strict = EvalSettings(metrics=("nsd",), tolerances_mm={"spleen": 1.0})
    changed = scored(prediction, REFERENCE, settings=strict)
    assert changed["nsd", "spleen"][1] < 90
    assert changed["nsd", "liver"] == found["nsd", "liver"]
    with pytest.raises(ConfigError, match="tolerance of spleen: found -1 mm; expected 0 or more"):
        EvalSettings(tolerances_mm={"spleen": -1.0})


def test_structures_without_a_tolerance_ask_for_one():
    one, other = np.minimum(REFERENCE, 1), Anatomy((Structure("heart", "heart", "H", "#000000"),))
    with pytest.raises(ConfigError, match="nsd: found no tolerance for heart; expected one in mm; give --tolerance"):
        score_case(one, one, Annotation.partial((1,), 1), (1.0, 1.0, 1.0), other, SURFACES)


def test_what_only_one_volume_holds():
    found = scored(label((2, (6, 10))), REFERENCE)
    assert found["dsc", "spleen"] == found["nsd", "spleen"] == (Outcome.SCORED, 0.0)
    assert found["hd95", "spleen"] == (Outcome.NOT_PREDICTED, None)
    assert found["hd95", "liver"] == (Outcome.SCORED, 0.0)
    counted = EvalSettings(metrics=("nsd", "hd95"), absent="score", one_sided="diagonal")
    diagonal = pytest.approx((12**2 + 12**2 + 24**2) ** 0.5)
    assert scored(label(), REFERENCE, settings=counted)["hd95", "spleen"] == (Outcome.SCORED, diagonal)
    spare = scored(REFERENCE, label((2, (6, 10))), settings=counted)
    assert spare["nsd", "spleen"] == (Outcome.FALSE_POSITIVE, 0.0)
    assert spare["hd95", "spleen"] == (Outcome.FALSE_POSITIVE, diagonal)
    skipped = scored(REFERENCE, label((2, (6, 10))), settings=EvalSettings(metrics=("hd95",), absent="score"))
    assert skipped["hd95", "spleen"] == (Outcome.ABSENT, None)
    assert scored(label(), label())["nsd", "liver"] == (Outcome.ABSENT, None)


def test_references_known_in_part_have_no_surface():
    rows = np.array([[True, True], [False, True]])
    slices = np.zeros(12, np.int32)
    slices[5] = 1  # the spleen is not known in one slice
    sparse = scored(REFERENCE, REFERENCE, Annotation(rows, {2: slices}))
    assert sparse["dsc", "spleen"] == (Outcome.SCORED, 100.0)
    assert sparse["nsd", "spleen"] == sparse["hd95", "spleen"] == (Outcome.KNOWN_IN_PART, None)
    assert sparse["nsd", "liver"] == (Outcome.SCORED, 100.0)
    whole = Annotation(rows, {2: slices, 0: np.zeros(12, np.int32)})  # another axis knows it everywhere
    assert scored(REFERENCE, REFERENCE, whole)["nsd", "spleen"] == (Outcome.SCORED, 100.0)
    unknown = REFERENCE.copy()
    unknown[0, 0, 0] = 255
    hidden = scored(REFERENCE, unknown)
    assert hidden["hd95", "liver"] == (Outcome.KNOWN_IN_PART, None)
    assert hidden["dsc", "liver"] == (Outcome.SCORED, 100.0)
