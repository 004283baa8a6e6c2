"""CT is recognised by its air; whatever is not plain becomes a question."""

import numpy as np
import pytest

from abdoseg.errors import ConfigError
from abdoseg.modality import decide_modality, modality_warning

SHAPE = (40, 40, 20)


def normal(mean, deviation, seed=0):
    return np.random.default_rng(seed).normal(mean, deviation, SHAPE)


def body_ct(air=-1000, dtype=np.int16):
    array = normal(40, 30)
    array[:8] = normal(air, 8)[:8]
    array[8] = -600  # the edge
    return array.astype(dtype)


def lungs_ct():
    array = body_ct().astype(float)
    array[10:30, 5:35] = normal(-850, 60)[10:30, 5:35]
    return array


def padded_ct():
    array = normal(40, 30)
    array[:3] = -3024
    return array


@pytest.mark.parametrize(
    "array", [body_ct(), body_ct(dtype=np.float32), lungs_ct(), padded_ct(), body_ct()[::-1, :, :1]]
)
def test_plain_ct(array):
    modality, reason = decide_modality(array)
    assert modality == "CT"
    assert "air" in reason


def mr_phase():
    return np.random.default_rng(0).integers(-4096, 4096, SHAPE)


def mostly_tissue():
    array = normal(40, 30)
    array[0, :10] = -1000  # 0.6 %
    return array


def little_air():
    array = normal(40, 30)
    array[0, :24] = -1000  # 1.5 %
    return array


def clipped_ct():
    return np.maximum(body_ct(), -800)


@pytest.mark.parametrize(
    "array",
    [
        np.abs(normal(200, 100)),
        normal(0, 1),
        mr_phase(),
        mostly_tissue(),
        little_air(),
        clipped_ct(),
        normal(0, 600),
        np.zeros(SHAPE),
    ],
    ids=["magnitude", "normalised", "phase", "no air", "little air", "clipped", "wide noise", "empty"],
)
def test_not_plain_is_a_question(array):
    with pytest.raises(ConfigError, match=r"--modality ct\|mr"):
        decide_modality(array)


@pytest.mark.parametrize(("asked", "expected"), [("ct", "CT"), ("mr", "MR"), ("CT", "CT"), ("Mr", "MR")])
def test_the_option_decides(asked, expected):
    for array in (body_ct(), mr_phase()):
        assert decide_modality(array, asked) == (expected, "as asked")


@pytest.mark.parametrize("asked", ["pet", "", "MRI"])
def test_unknown_option(asked):
    with pytest.raises(ConfigError, match="expected ct or mr"):
        decide_modality(body_ct(), asked)


def test_warnings_when_the_voxels_disagree():
    assert modality_warning(body_ct(), "CT") == ()
    assert modality_warning(np.abs(normal(200, 100)), "MR") == ()
    assert "look like CT" in modality_warning(body_ct(), "MR")[0]
    assert "Hounsfield" in modality_warning(body_ct() + 3000, "CT")[0]


def test_large_scans_are_sampled_in_plane():
    array = np.zeros((3000, 2100, 1), dtype=np.int16)
    array[:600] = -1000
    assert decide_modality(array)[0] == "CT"


def test_a_dicom_header_decides_and_is_not_overruled():
    silent = np.full((4, 4, 4), 7)
    assert decide_modality(silent, None, "MR") == ("MR", "by its DICOM header")
    assert decide_modality(silent, "mr", "MR")[0] == "MR"
    with pytest.raises(ConfigError, match="DICOM header says MR; leave --modality out"):
        decide_modality(silent, "ct", "MR")
