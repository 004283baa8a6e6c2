"""Changes of intensity: their draws, and the laws of applying them."""

import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

from abdoseg.augmentation.apply import apply_intensity
from abdoseg.augmentation.intensity import IntensityParameters, IntensitySettings, draw_intensity
from abdoseg.errors import ConfigError
from abdoseg.sampling import Purpose, stream

NOTHING = IntensityParameters()
KINDS = {
    "noise": ("noise_std", "noise_std"),
    "blur": ("blur_sigma", "blur_sigma"),
    "intensity_scale": ("intensity_scale", "scale"),
    "intensity_shift": ("intensity_shift", "shift"),
    "low_resolution": ("low_resolution_zoom", "zoom"),
    "gamma": ("gamma", "gamma"),
}
ALL = IntensitySettings(**{f"{kind}_probability": 1.0 for kind in KINDS})


def batch(seed=0, shape=(2, 1, 9, 10, 11)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def drawn(settings, n=2000):
    return [draw_intensity(stream(1, t, Purpose.INTENSITY), settings) for t in range(n)]


def test_everything_is_off_by_default():
    assert not IntensitySettings().enabled
    assert {replace(each, noise_seed=0) for each in drawn(IntensitySettings(), 50)} == {NOTHING}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_as_often_and_as_far_as_said(kind):
    setting, parameter = KINDS[kind]
    settings = IntensitySettings(**{f"{kind}_probability": 0.3})
    assert settings.enabled
    found = drawn(settings)
    values = np.array([getattr(each, parameter) for each in found])
    changed = values[values != getattr(NOTHING, parameter)]
    assert 0.26 < len(changed) / len(values) < 0.34
    low, high = getattr(settings, setting)
    assert kstest(changed, "uniform", (low, high - low)).pvalue > 1e-3
    for field in fields(IntensityParameters):
        if field.name not in (parameter, "noise_seed"):
            assert {getattr(each, field.name) for each in found} == {field.default}
    assert len({each.noise_seed for each in found}) == len(found)


def test_switching_a_kind_on_leaves_the_others_values():
    without = drawn(replace(ALL, blur_probability=0.0), 30)
    for a, b in zip(drawn(ALL, 30), without, strict=True):
        assert replace(a, blur_sigma=0.0) == b


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"noise_probability": 1.1}, "noise_probability: found 1.1"),
        ({"gamma_probability": float("nan")}, "gamma_probability: found nan"),
        ({"noise_std": (-0.1, 0.1)}, "noise_std"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma"),
        ({"gamma": (0.0, 1.0)}, "gamma.*above 0"),
        ({"intensity_scale": (0.5, float("inf"))}, "intensity_scale"),
        ({"intensity_shift": (0.1, -0.1)}, "intensity_shift"),
        ({"intensity_shift": (-float("inf"), 0.1)}, "intensity_shift"),
        ({"low_resolution_zoom": (0.5, 1.5)}, "low_resolution_zoom.*at most 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        IntensitySettings(**settings)


# -- applying --------------------------------------------------------------------------------------------------------


def test_nothing_drawn_changes_nothing():
    image = batch()
    assert torch.equal(apply_intensity(image, []), image)
    assert torch.equal(apply_intensity(image, [NOTHING, replace(NOTHING, noise_seed=7)]), image)


@given(st.integers(0, 10_000))
def test_values_stay_in_the_window_and_padding_stays_0(t):
    image = batch(t)
    inside = torch.rand(2, 9, 10, 11, generator=torch.Generator().manual_seed(t)) < 0.5
    image = image * inside[:, None]
    before = image.clone()
    parameters = [draw_intensity(stream(0, t + k, Purpose.INTENSITY), ALL) for k in range(2)]
    changed = apply_intensity(image, parameters, inside)
    assert torch.equal(image, before)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not changed[:, 0][~inside].any()
    assert (changed != image).any()


def test_examples_do_not_see_each_other():
    image = batch()
    parameters = drawn(ALL, 2)
    both = apply_intensity(image, parameters)
    for i in range(2):
        assert torch.equal(both[i : i + 1], apply_intensity(image[i : i + 1], parameters[i : i + 1]))


def test_the_same_parameters_give_the_same_noise():
    image = torch.full((1, 1, 40, 40, 40), 0.5)
    a = apply_intensity(image, [replace(NOTHING, noise_std=0.05, noise_seed=3)])
    assert torch.equal(a, apply_intensity(image, [replace(NOTHING, noise_std=0.05, noise_seed=3)]))
    b = apply_intensity(image, [replace(NOTHING, noise_std=0.05, noise_seed=4)])
    noise = [((each - image) / 0.05).reshape(-1).numpy() for each in (a, b)]
    assert kstest(noise[0][::7], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise)[0, 1]) < 0.02


def test_scale_shift_and_gamma_are_formulas():
    image = batch() * 0.5 + 0.2
    for parameters, expected in [
        (replace(NOTHING, scale=1.3), image * 1.3),
        (replace(NOTHING, shift=-0.1), image - 0.1),
        (replace(NOTHING, gamma=0.7), image**0.7),
        (replace(NOTHING, scale=1.2, shift=0.05, gamma=1.4), (image * 1.2 + 0.05) ** 1.4),
    ]:
        torch.testing.assert_close(apply_intensity(image, [parameters] * 2), expected.clamp(0, 1))


def test_blur_is_scipys_inside():
    """MONAI integrates the bell over each voxel, SciPy samples it: about as smooth, the same far from the border."""
    image = batch(shape=(1, 1, 24, 24, 24))
    blurred = apply_intensity(image, [replace(NOTHING, blur_sigma=1.0)])[0, 0].numpy()
    expected = gaussian_filter(image[0, 0].numpy(), 1.0)
    inner = (slice(6, -6),) * 3
    np.testing.assert_allclose(blurred[inner], expected[inner], atol=0.02)
    assert blurred[inner].std() < 0.4 * image.numpy()[0, 0][inner].std()


def test_low_resolution_keeps_a_constant_and_loses_detail():
    constant = torch.full((1, 1, 9, 10, 11), 0.4)
    coarse = replace(NOTHING, zoom=0.5)
    torch.testing.assert_close(apply_intensity(constant, [coarse]), constant)
    image = batch(shape=(1, 1, 32, 32, 32))
    steps = apply_intensity(image, [coarse]).diff(dim=2).abs().mean()
    assert steps < 0.7 * image.diff(dim=2).abs().mean()
    assert apply_intensity(batch(shape=(1, 1, 1, 2, 3)), [replace(NOTHING, zoom=0.01)]).shape == (1, 1, 1, 2, 3)


def test_one_set_an_example():
    with pytest.raises(ValueError, match="found 1 sets of parameters for 2"):
        apply_intensity(batch(), [NOTHING])


def test_drawing_loads_no_torch():
    code = "import sys, abdoseg.augmentation.intensity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
