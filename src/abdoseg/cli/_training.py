"""The options that say what a run is, for the commands that train or plan one."""

import shlex
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abdoseg.cli._console import in_workspace, split_names

if TYPE_CHECKING:
    from abdoseg.config import TrainConfig
    from abdoseg.runs import Run
    from abdoseg.store import Workspace

SamplerOption = Annotated[str | None, typer.Option(help="See `abdoseg list samplers`.")]
ViewOption = Annotated[
    str | None, typer.Option(help="Sparse view; default: the active one; full: all labels.", show_default=False)
]
SourcesOption = Annotated[list[str] | None, typer.Option(help="Learn from these sources only.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Of weights, sampling and augmentation.")]
FoldOption = Annotated[str | None, typer.Option(metavar="K/N", help="Hold out fold K of N as validation.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; see docs/training.md.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings, such as the config.toml of a run.")
]


FITTING_PRESET = {"cpu": "small", "cuda": "paper"}
"""Kind of device -> the preset that `train` takes there when none is named."""


def config_of(
    workspace: "Workspace",
    preset: str | None,
    file: Path | None,
    settings: list[str] | None,
    *,
    default_preset: str = "paper",
    **options: Any,
) -> "TrainConfig":
    """Return the configuration: the preset's, then the file's, then ``--set``'s, then the options' own values.

    The preset is ``preset``, else the one that the file names, else ``default_preset``.

    Raises
    ------
    ConfigError
        If the file or a setting cannot be read.
    """
    from abdoseg.cards import expand_aliases
    from abdoseg.config import make_config

    sources = expand_aliases(split_names(options.pop("sources", None))) or None
    from_file = _read_file(file)
    of_file = from_file.pop("preset", default_preset)
    overrides: dict[str, Any] = {
        "view": workspace.active_view_name(),
        **from_file,
        **parse_settings(settings, from_file),
        **{key: value for key, value in options.items() if value is not None},
        **({"sources": sources} if sources else {}),
    }
    if isinstance(overrides.get("fold"), str):
        overrides["fold"] = _fold(overrides["fold"])
    return make_config(preset or str(of_file), overrides)


def typed_again(context: typer.Context, command: str, leave_out: Collection[str] = ()) -> str:
    """Return ``abdoseg COMMAND`` with the options that were typed, ready to be typed again.

    Parameters
    ----------
    context
        Of the command at hand.
    command
        The command to type, which knows the same options.
    leave_out
        Names of the parameters that it does not know, or that are not meant for it.
    """
    return shlex.join(["abdoseg", command, *_typed_options(context, leave_out)])


def _typed_options(context: typer.Context, leave_out: Collection[str]) -> list[str]:
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in leave_out or source is None or source.name != "COMMANDLINE":
            continue
        flag, value = max(option.opts, key=len), context.params[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [flag] if isinstance(one, bool) else [flag, str(one)]
    return words


def next_for_run(context: typer.Context, run: "Run") -> str:
    """Return the command that goes on with a run: its training, or its scores where it is finished."""
    if run.status == "finished":
        return in_workspace(context, "abdoseg", "eval", "--run", run.name)
    return in_workspace(context, "abdoseg", "train", *again(run.folder))


def again(folder: Path) -> list[str]:
    """Return the options of `abdoseg train` that go on with the run in a folder."""
    return ["--config", str(folder / "config.toml"), "--name", folder.name]


def configs_by_device(
    workspace: "Workspace",
    device: str,
    preset: str | None,
    file: Path | None,
    settings: list[str] | None,
    **options: Any,
) -> dict[str, "TrainConfig"]:
    """Return the configuration by kind of device, ``cpu`` or ``cuda``, for as many as ``device`` leaves open.

    Which preset fits depends on the device, and which device is there only torch can tell, which is slow to load.

    Raises
    ------
    ConfigError, UnknownNameError
        If a setting is wrong whatever the device; one that is wrong for one kind alone is left out.
    """
    from abdoseg.errors import AbdosegError

    named = device.partition(":")[0]
    made: dict[str, TrainConfig] = {}
    wrong: AbdosegError | None = None
    for kind in [named] if named in FITTING_PRESET else FITTING_PRESET:
        try:
            made[kind] = config_of(workspace, preset, file, settings, default_preset=FITTING_PRESET[kind], **options)
        except AbdosegError as error:
            wrong = wrong or error
    if wrong is not None and not made:
        raise wrong
    return made


def _read_file(file: Path | None) -> dict[str, Any]:
    from abdoseg.errors import ConfigError
    from abdoseg.places import open_place

    if file is None:
        return {}
    try:
        return tomllib.loads(open_place(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read ({error}); expected a TOML file of settings") from error


def _fold(text: str) -> tuple[int, int]:
    from abdoseg.errors import ConfigError

    try:
        k, n = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise ConfigError(f"--fold {text}: expected K/N, for example 1/5") from error
    return k, n


def parse_settings(texts: list[str] | None, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return ``key=value`` texts as values, read as TOML so that numbers and lists are what they look like.

    A key may have a part after a dot, for settings that are tables: ``structure_weights.liver=2`` changes one entry of
    the table that ``base`` has, ``structure_weights={liver=2}`` the whole table.

    Raises
    ------
    ConfigError
        If a text is no setting, or names the preset, which is an option of its own.
    """
    from abdoseg.errors import ConfigError

    values: dict[str, Any] = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, for example learning_rate=0.002")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        name, _, part = key.strip().partition(".")
        if name == "preset":
            raise ConfigError(f"--set {text}: a preset is the values of many settings; choose it by --preset")
        if not part:
            values[name] = parsed
            continue
        if name not in values:
            of_base = (base or {}).get(name)
            values[name] = dict(of_base) if isinstance(of_base, Mapping) else {}
        if isinstance(values[name], dict):
            values[name][part] = parsed
        else:
            raise ConfigError(f"--set {text}: {name} is given as a whole too; give it once")
    return values
