"""`abdoseg list settings`: what can be set, what it is by preset, and how to set it."""

import json
import shlex
from dataclasses import fields

import pytest

from abdoseg.augmentation.intensity import IntensitySettings
from abdoseg.cli._training import parse_settings
from abdoseg.cli.list_ import EXAMPLES, INTENSITY_TITLES
from abdoseg.config import PRESETS, TrainConfig, make_config


def rows(abdoseg, *options):
    return {row["name"]: row for row in json.loads(abdoseg("list", "settings", "--json", *options).out)}


def test_every_setting_has_a_row_and_nested_ones_their_own(abdoseg):
    assert set(INTENSITY_TITLES) == {f.name for f in fields(IntensitySettings)}
    expected = set(TrainConfig.model_fields) - {"preset", "intensity"}
    shown = rows(abdoseg)
    assert set(shown) == expected | {f"intensity.{name}" for name in INTENSITY_TITLES}
    assert all(row["title"] for row in shown.values())


@pytest.mark.parametrize("preset", list(PRESETS))
def test_values_are_the_presets_and_can_be_set_as_they_are_shown(abdoseg, preset):
    of_preset = {name: make_config(name) for name in PRESETS}
    for name, row in rows(abdoseg, "--preset", preset).items():
        for which, value in ({preset: row["default"]} | row["presets"]).items():
            if value != "none":
                top = name.partition(".")[0]
                set_again = make_config(which, parse_settings([f"{name}={value}"], {"intensity": {}}))
                assert getattr(set_again, top) == getattr(of_preset[which], top)
        same = {which for which in PRESETS if which not in row["presets"]}
        assert preset in same
    assert rows(abdoseg, "--preset", "paper")["batch"]["presets"] == {"small": "2", "demo": "2"}


def test_examples_are_right():
    for text in EXAMPLES:
        (setting,) = shlex.split(text)
        assert make_config("small", parse_settings([setting])) != make_config("small")


@pytest.mark.parametrize("options", [(), ("--preset", "small")])
def test_the_table_says_whose_values_and_fits(abdoseg, options):
    told = abdoseg("list", "settings", *options)
    preset = options[-1] if options else "paper"
    assert f"values of preset {preset}," in told.err
    assert "set one by `abdoseg train --set SETTING=VALUE`" in told.err
    assert max(map(len, [*told.out.splitlines(), *told.err.splitlines()])) <= 80
    assert not any(word in told.out for word in ("IntensitySettings", "None", "True", "False", "{'"))
    lines = " ".join(told.out.split())
    assert ("(small, demo: 2)" if preset == "paper" else "(paper: 8)") in lines


def test_a_wrong_preset_is_one_line(abdoseg):
    assert "Did you mean small" in abdoseg("list", "settings", "--preset", "smal").err
    told = abdoseg("list", "networks", "--preset", "small")
    assert told.status == 2
    assert "--preset small: goes with `list settings` only" in told.err
