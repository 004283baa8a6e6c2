"""``abdoseg list``: what can be chosen."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import JsonOption, out, print_json, say

if TYPE_CHECKING:
    from abdoseg.config import TrainConfig


def list_(
    what: Annotated[str, typer.Argument(help="networks, methods, samplers, presets or settings.")],
    preset: Annotated[str | None, typer.Option(help="settings: the values of this preset.  [default: paper]")] = None,
    as_json: JsonOption = False,
) -> None:
    """List networks, methods, samplers, presets, or the settings of a training (for `train --set`)."""
    from abdoseg.errors import ConfigError, unknown_name

    tables: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "networks": _networks,
        "methods": _methods,
        "samplers": _samplers,
        "presets": _presets,
        "settings": partial(_settings, preset or "paper"),
    }
    if what not in tables:
        raise unknown_name("list", what, list(tables))
    if preset is not None and what != "settings":
        raise ConfigError(f"--preset {preset}: goes with `list settings` only")
    rows = tables[what]()
    if as_json:
        print_json(rows)
    elif what == "settings":
        _show_settings(rows, preset or "paper")
    else:
        _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(
            key, overflow="fold", justify="right" if key == "parameters" else "left", no_wrap=key == "name"
        )
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    out.print(table)


def _show_settings(rows: list[dict[str, Any]], preset: str) -> None:
    from abdoseg.cli._training import FITTING_PRESET

    say(
        f"values of preset {preset}, in brackets where another preset differs; `train` without --preset takes "
        f"{FITTING_PRESET['cuda']} where there is a CUDA GPU, else {FITTING_PRESET['cpu']}"
    )
    for nested in (False, True):  # names with a part after a dot are long and would squeeze the others' titles
        table = Table(box=None, pad_edge=False)
        table.add_column("setting", no_wrap=True)
        table.add_column(preset, no_wrap=True)
        table.add_column("what (other presets)")
        for row in rows:
            if ("." in row["name"]) == nested:
                table.add_row(row["name"], escape(row["default"]), escape(f"{row['title']}{_elsewhere(row)}"))
        out.print(table)
        out.print()
    say("set one by `abdoseg train --set SETTING=VALUE`, for example:")
    for text in EXAMPLES:
        say(f"  --set {escape(text)}")


def _elsewhere(row: dict[str, Any]) -> str:
    """Return the values of other presets in brackets, equal ones together."""
    presets = row["presets"]
    by_value = {value: ", ".join(name for name in presets if presets[name] == value) for value in presets.values()}
    return f" ({'; '.join(f'{names}: {value}' for value, names in by_value.items())})" if by_value else ""


EXAMPLES = (
    "batch=4",
    "network=mednext_s",
    "'flip=[0, 0.5, 0.5]'",
    "intensity.gamma_probability=0.3",
    "'intensity.gamma=[0.8, 1.2]'",
    "structure_weights.liver=2",
)
"""Settings of each kind, as a shell takes them."""


def _networks() -> list[dict[str, Any]]:
    from abdoseg.networks import NETWORKS

    return [
        {"name": name, "parameters": spec.parameters, "source": spec.source, "title": spec.title}
        for name, spec in NETWORKS.items()
    ]


def _methods() -> list[dict[str, Any]]:
    from abdoseg.methods import METHODS

    return [{"name": name, "title": spec.title, "source": spec.source} for name, spec in METHODS.items()]


def _samplers() -> list[dict[str, Any]]:
    from abdoseg.sampling import SAMPLERS

    return [{"name": name, "title": spec.title, "levels": " > ".join(spec.levels)} for name, spec in SAMPLERS.items()]


def _presets() -> list[dict[str, Any]]:
    from abdoseg.config import PRESET_TITLES

    return [{"name": name, "title": title} for name, title in PRESET_TITLES.items()]


def _settings(preset: str) -> list[dict[str, Any]]:
    """Return a row a setting: its value in ``preset``, and in the presets in which it is another one."""
    from abdoseg.config import PRESETS, make_config

    if preset not in PRESETS:
        make_config(preset)  # raises
    values = {name: _flat(make_config(name)) for name in PRESETS}
    return [
        {
            "name": name,
            "default": value,
            "title": title,
            "presets": {other: row[name][0] for other, row in values.items() if row[name][0] != value},
        }
        for name, (value, title) in values[preset].items()
    ]


def _flat(config: "TrainConfig") -> dict[str, tuple[str, str]]:
    """Return name -> value and title, with a part after a dot for what lies within a setting."""
    from dataclasses import fields

    from abdoseg.augmentation.intensity import IntensitySettings

    flat: dict[str, tuple[str, str]] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, IntensitySettings):
            for part in fields(value):
                flat[f"{name}.{part.name}"] = _as_toml(getattr(value, part.name)), INTENSITY_TITLES[part.name]
        elif name != "preset":  # which is no setting but an option
            flat[name] = _as_toml(value), field.description or ""
    return flat


INTENSITY_TITLES = {
    "noise_probability": "how often Gaussian noise is added",
    "noise_std": "its standard deviation",
    "blur_probability": "how often a patch is blurred",
    "blur_sigma": "the Gaussian's sigma, voxels",
    "intensity_scale_probability": "how often brightness is multiplied",
    "intensity_scale": "the factor",
    "intensity_shift_probability": "how often brightness is shifted",
    "intensity_shift": "what is added",
    "low_resolution_probability": "how often resolution is lowered",
    "low_resolution_zoom": "part of the voxels along an axis",
    "gamma_probability": "how often gamma is applied",
    "gamma": "the power",
}
"""Part of the setting ``intensity`` -> what it is; ranges are (lowest, highest), of the window's width 1."""


def _as_toml(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_as_toml(part) for part in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {_as_toml(part)}' for name, part in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)
