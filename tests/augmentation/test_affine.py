"""Rotation and scale: the matrix, its handedness, and the distribution of its parameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from abdoseg.augmentation.affine import NO_AFFINE, AffineParameters, AffineSettings, draw_affine
from abdoseg.errors import ConfigError

ANGLES = st.floats(-np.pi, np.pi)


@given(st.tuples(ANGLES, ANGLES, ANGLES), st.floats(0.5, 2.0))
def test_matrix_is_scipys_rotation_over_the_scale(angles, scale):
    expected = Rotation.from_euler("xyz", angles).as_matrix() / scale  # lower case: about fixed axes, X first
    np.testing.assert_allclose(AffineParameters(angles, scale).matrix(), expected, atol=1e-12)


@pytest.mark.parametrize(("about", "of", "to"), [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_positive_angles_follow_the_right_hand(about, of, to):
    angles = [0.0, 0.0, 0.0]
    angles[about] = np.pi / 2
    turned = AffineParameters(tuple(angles), 1.0).matrix() @ np.eye(3)[of]
    np.testing.assert_allclose(turned, np.eye(3)[to], atol=1e-12)


def test_a_larger_scale_covers_less_of_the_volume():
    np.testing.assert_allclose(AffineParameters((0, 0, 0), 2.0).matrix(), np.eye(3) / 2)


def test_parameters_are_uniform_and_independent():
    settings = AffineSettings()
    generator = np.random.default_rng(1)
    drawn = [draw_affine(generator, settings) for _ in range(3000)]
    values = np.array([[*np.rad2deg(p.angles), p.scale] for p in drawn])
    for column in range(3):
        assert kstest(values[:, column], "uniform", (-15, 30)).pvalue > 1e-3
    assert kstest(values[:, 3], "uniform", (0.9, 0.2)).pvalue > 1e-3
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.08


def test_no_affine_is_exactly_the_identity():
    for seed in range(5):
        matrix = draw_affine(np.random.default_rng(seed), NO_AFFINE).matrix()
        assert np.array_equal(matrix, np.eye(3))


@pytest.mark.parametrize("kwargs", [{"rotation_degrees": -1}, {"scale": (0, 1)}, {"scale": (1.1, 0.9)}])
def test_settings_that_cannot_be_are_refused(kwargs):
    with pytest.raises(ConfigError, match=next(iter(kwargs))):
        AffineSettings(**kwargs)
