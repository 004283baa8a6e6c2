"""Wrong values are told in our own words: what was found, what was expected."""

import pytest

from abdoseg.config import make_config
from abdoseg.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": "abc"}, "learning_rate: found 'abc', expected a number"),
        ({"steps": "many"}, "steps: found 'many', expected a whole number"),
        ({"steps": 1.5}, "steps: found 1.5, expected a whole number"),
        ({"steps": 0}, "steps: found 0, expected more than 0"),
        (
            {"batch": -1, "clamp": 0.5},
            "batch: found -1, expected more than 0; clamp: found 0.5, expected less than 0.5",
        ),
        ({"entropy_ramp": 1.5}, "entropy_ramp: found 1.5, expected at most 1.0"),
        ({"entropy_weight": -1}, "entropy_weight: found -1, expected at least 0.0"),
        ({"compile": "perhaps"}, "compile: found 'perhaps', expected true or false"),
        ({"precision": "bf61"}, "precision: found 'bf61', expected 'float32', 'bf16', 'fp16' or 'float64'"),
        ({"patch": [64, "x", 64]}, "patch.1: found 'x', expected a whole number"),
        ({"patch": [64, 64]}, "patch.2: found nothing, expected a value"),
        ({"patch": [1, 2, 3, 4]}, "patch: found [1, 2, 3, 4], expected 3 values"),
        ({"patch": "large"}, "patch: found 'large', expected a list such as [1, 2]"),
        ({"mix": 3}, "mix: found 3, expected a table such as {name=1}"),
        ({"structure_weights": {"liver": "x"}}, "structure_weights.liver: found 'x', expected a number"),
        (
            {"structure_weights": {"liver": -2}},
            "structure_weights: found -2.0 for liver, expected a number of at least 0",
        ),
        ({"intensity": {"nois": 1}}, "intensity.nois: found an unknown name"),
        ({"network": 5}, "network: found 5, expected a text"),
        ({"text_embeddings": [7] * 99}, f"text_embeddings: found [{'7, ' * 18}7,..., expected a text"),
    ],
)
def test_wrong_values_are_told_in_our_words(changes, told):
    with pytest.raises(ConfigError) as caught:
        make_config("small", changes)
    assert str(caught.value) == f"configuration: {told}"
