import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg import geometry
from abdoseg.errors import CaseError
from abdoseg.geometry import Grid

CODES = [
    "".join(c)
    for axes in (("RL", "AP", "SI"),)
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for c in [(axes[order[0]][a], axes[order[1]][b], axes[order[2]][c]) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
]


def affine_of(codes: str, spacing=(0.8, 1.1, 2.5), tilt_degrees: float = 0.0) -> np.ndarray:
    turn = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for column, (axis, flip) in enumerate(turn):
        affine[int(axis), column] = flip * spacing[column]
    affine[3, 3] = 1
    angle = np.deg2rad(tilt_degrees)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = rotation @ affine
    tilted[:3, 3] = (5, -7, 11)
    return tilted


def world(affine: np.ndarray, index) -> np.ndarray:
    return (affine @ [*index, 1])[:3]


@given(st.sampled_from(CODES), st.floats(-30, 30))
def test_every_voxel_keeps_its_place_in_the_world(codes, tilt):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = affine_of(codes, tilt_degrees=tilt)
    moved, moved_affine = geometry.to_canonical(array, affine)
    assert geometry.axis_codes(moved_affine) == "RAS"
    for index in [(0, 0, 0), (3, 2, 1), (1, 4, 5)]:
        (new,) = np.argwhere(moved == array[index])
        np.testing.assert_allclose(world(moved_affine, new), world(affine, index), atol=1e-9)


@given(st.sampled_from(CODES))
def test_from_canonical_undoes_to_canonical(codes):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = affine_of(codes)
    moved, _ = geometry.to_canonical(array, affine)
    np.testing.assert_array_equal(geometry.from_canonical(moved, affine), array)


@given(st.tuples(*[st.integers(2, 40)] * 3), st.tuples(*[st.floats(0.4, 6)] * 3), st.floats(0.7, 5))
def test_harmonised_grid_keeps_the_first_voxel_and_covers_the_scan(shape, spacing, target):
    affine = affine_of("RAS", spacing)
    grid = geometry.harmonised_grid(shape, affine, target)
    np.testing.assert_allclose(grid.spacing_mm, target)
    np.testing.assert_allclose(world(grid.affine, (0, 0, 0)), world(affine, (0, 0, 0)))
    extent = (np.array(shape) - 1) * spacing
    assert (np.abs((np.array(grid.shape) - 1) * target - extent) <= target / 2 + 1e-9).all()


def test_small_shear_is_repaired_and_large_shear_refused():
    for shear, outcome in ((5e-4, None), (8e-3, "repaired"), (0.05, CaseError)):
        affine = affine_of("RAS", (1.0, 1.0, 1.0))
        affine[0, 1] += shear
        if outcome is CaseError:
            with pytest.raises(CaseError, match="off orthonormal"):
                geometry.checked_affine(affine)
            continue
        fixed, warning = geometry.checked_affine(affine)
        assert (warning is None) == (outcome is None)
        directions = fixed[:3, :3] / np.linalg.norm(fixed[:3, :3], axis=0)
        np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0])
def test_useless_affines_are_refused(fault):
    affine = np.eye(4)
    affine[:3, 0] = fault
    with pytest.raises(CaseError, match="header"):
        geometry.checked_affine(affine)


def test_same_grid_tolerates_rounding_and_nothing_more():
    a = Grid((10, 10, 10), affine_of("LPS"))
    shifted = a.affine.copy()
    shifted[0, 3] += 0.3 * 0.8
    assert geometry.same_grid(a, Grid(a.shape, shifted))
    shifted[0, 3] += 0.3 * 0.8
    assert not geometry.same_grid(a, Grid(a.shape, shifted))
    assert not geometry.same_grid(a, Grid((10, 10, 11), a.affine))
    flipped = Grid(a.shape, affine_of("RPS"))
    assert not geometry.same_grid(a, flipped)
