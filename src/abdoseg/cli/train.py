"""``abdoseg train``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    JsonOption,
    WorkspaceOption,
    next_step,
    out,
    print_json,
    progress_bar,
    say,
    split_names,
)

if TYPE_CHECKING:
    from abdoseg.runs import Run


def train(
    preset: Annotated[str | None, typer.Option(help="paper, small, ...; default: what fits this machine.")] = None,
    network: Annotated[str | None, typer.Option(help="See `abdoseg list networks`.")] = None,
    method: Annotated[str | None, typer.Option(help="See `abdoseg list methods`.")] = None,
    sampler: Annotated[str | None, typer.Option(help="See `abdoseg list samplers`.")] = None,
    view: Annotated[str | None, typer.Option(help="Sparse view; default: the active one; full: all labels.")] = None,
    sources: Annotated[list[str] | None, typer.Option(help="Learn from these sources only.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, sampling and augmentation.")] = None,
    fold: Annotated[str | None, typer.Option(metavar="K/N", help="Hold out fold K of N as validation.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: made from the configuration.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Train one model on everything the workspace holds.

    The same command again goes on with an unfinished run of that configuration; another configuration is a new run.
    """
    from abdoseg.cards import expand_aliases
    from abdoseg.config import make_config
    from abdoseg.devices import choose_device
    from abdoseg.errors import ConfigError
    from abdoseg.runs import plan_run
    from abdoseg.steps.train import train as run_training
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    where = choose_device(device)
    chosen = preset or ("paper" if where.type == "cuda" else "small")
    overrides: dict[str, Any] = {
        "network": network,
        "method": method,
        "sampler": sampler,
        "view": view or store.active_view_name(),
        "sources": expand_aliases(split_names(sources)) or None,
        "steps": steps,
        "seed": seed,
        "fold": _fold(fold),
        **_parse_settings(settings),
    }
    config = make_config(chosen, overrides)
    if as_json and not dry_run:
        raise ConfigError("--json: prints the plan; add --dry-run")
    run, new = plan_run(store, config, name)
    plan = _plan(run, str(where))
    if as_json:
        print_json(plan)
        return
    _say_plan(plan, chosen_here=preset is None)
    if not new and run.status != "finished":
        say(f"run [bold]{run.name}[/] goes on from its last checkpoint, with the cases it froze when it started")
    if dry_run:
        return
    with progress_bar() as progress:
        report = run_training(store, config, name=name, device=str(where), progress=progress)
    pace = f", {report.seconds:.0f} s" if report.seconds else ""
    out.print(f"run [bold]{report.run.name}[/]: {report.outcome}, {report.steps_done} steps{pace}")
    next_step("abdoseg eval --by structure, or abdoseg predict SCAN -o OUT.nii.gz")


def _fold(text: str | None) -> tuple[int, int] | None:
    from abdoseg.errors import ConfigError

    if text is None:
        return None
    try:
        k, n = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise ConfigError(f"--fold {text}: expected K/N, for example 1/5") from error
    return k, n


def _parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """Return ``key=value`` texts as values, read as TOML so that numbers and lists are what they look like."""
    import tomllib

    from abdoseg.errors import ConfigError

    values: dict[str, Any] = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, for example learning_rate=0.002")
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value
    return values


def _plan(run: "Run", device: str) -> dict[str, Any]:
    sides = {side: len(run.data.keys(side)) for side in ("train", "val", "test")}
    return {"run": run.name, "device": device, "config": run.config.model_dump(mode="json"), "cases": sides}


def _say_plan(plan: dict[str, Any], *, chosen_here: bool) -> None:
    from abdoseg.config import PRESET_TITLES

    c, cases = plan["config"], plan["cases"]
    say(f"view [bold]{c['view']}[/]; {cases['train']} training, {cases['val']} validation, {cases['test']} test cases")
    why = " (chosen for this machine; --preset paper is the paper's)" if chosen_here and c["preset"] != "paper" else ""
    say(f"preset [bold]{c['preset']}[/]{why}: {PRESET_TITLES[c['preset']]}")
    sides = "x".join(str(n) for n in c["patch"])
    say(f"{c['network']}, {c['method']}, sampler {c['sampler']}, {c['steps']} steps of {c['batch']} patches {sides}")
    ramp = (
        f"grows from 0 over the first {100 * c['entropy_ramp']:g} % of the steps" if c["entropy_ramp"] else "constant"
    )
    weights = f"{c['entropy_weight']:g}/{c['entropy_weight_unannotated']:g}"
    say(f"entropy weight {weights}, {ramp}; dice over {c['dice_over']} structures; device {plan['device']}")
