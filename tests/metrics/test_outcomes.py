"""Every way in which a structure ends, by name."""

import pytest

from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.metrics import EvalSettings, Outcome, get_metric, outcome_of


@pytest.mark.parametrize(
    ("annotated", "in_reference", "in_prediction", "options", "expected"),
    [
        (False, 0, 0, {}, Outcome.NOT_ANNOTATED),
        (False, 0, 900, {"absent": "score"}, Outcome.NOT_ANNOTATED),
        (False, 900, 900, {}, Outcome.NOT_ANNOTATED),
        (True, 0, 900, {}, Outcome.ABSENT),
        (True, 0, 0, {}, Outcome.ABSENT),
        (True, 0, 1, {"absent": "score"}, Outcome.FALSE_POSITIVE),
        (True, 0, 0, {"absent": "score"}, Outcome.ABSENT),
        (True, 1, 0, {}, Outcome.SCORED),
        (True, 50, 50, {"min_voxels": 51}, Outcome.TOO_SMALL),
        (True, 51, 0, {"min_voxels": 51}, Outcome.SCORED),
        (True, 50, 50, {"min_voxels": 51, "absent": "score"}, Outcome.TOO_SMALL),
        (True, 0, 50, {"min_voxels": 51, "absent": "score"}, Outcome.FALSE_POSITIVE),
    ],
)
def test_outcome(annotated, in_reference, in_prediction, options, expected):
    found = outcome_of(
        annotated=annotated, in_reference=in_reference, in_prediction=in_prediction, settings=EvalSettings(**options)
    )
    assert found is expected
    assert found.has_value == (expected in (Outcome.SCORED, Outcome.FALSE_POSITIVE))


def test_wrong_settings_are_refused():
    with pytest.raises(UnknownNameError, match=r"setting absent 'scored' is not known. Did you mean score"):
        EvalSettings(absent="scored")
    with pytest.raises(UnknownNameError, match="setting dsc 'smooth' is not known"):
        EvalSettings(dsc="smooth")
    with pytest.raises(ConfigError, match="min_voxels: found 0; expected 1 or more"):
        EvalSettings(min_voxels=0)
    with pytest.raises(ConfigError, match="metrics: found none"):
        EvalSettings(metrics=())
    with pytest.raises(UnknownNameError, match=r"metric 'dice' is not known. .*Known: dsc"):
        get_metric("dice")
