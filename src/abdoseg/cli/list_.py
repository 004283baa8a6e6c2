"""``abdoseg list``: what can be chosen."""

from typing import Annotated, Any

import typer
from rich.table import Table

from abdoseg.cli._console import JsonOption, out, print_json


def list_(
    what: Annotated[str, typer.Argument(help="networks, methods, samplers, presets or settings.")],
    as_json: JsonOption = False,
) -> None:
    """List networks, methods, samplers, presets, or the settings of a training (for `train --set`)."""
    from abdoseg.errors import unknown_name

    tables = {
        "networks": _networks,
        "methods": _methods,
        "samplers": _samplers,
        "presets": _presets,
        "settings": _settings,
    }
    if what not in tables:
        raise unknown_name("list", what, list(tables))
    rows = tables[what]()
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(
            key, overflow="fold", justify="right" if key == "parameters" else "left", no_wrap=key == "name"
        )
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    out.print(table)


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


def _settings() -> list[dict[str, Any]]:
    from abdoseg.config import TrainConfig

    return [
        {"name": name, "default": _shown(field.default), "title": field.description}
        for name, field in TrainConfig.model_fields.items()
    ]


def _shown(default: Any) -> str:
    """Return a default as it is written in TOML, as far as it is there."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return f"[{', '.join(str(part) for part in default)}]"
    return f"{default:g}" if isinstance(default, float) else str(default)
