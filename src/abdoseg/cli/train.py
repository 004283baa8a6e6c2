"""``abdoseg train``."""

import sys
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
)
from abdoseg.cli._launch import end_with_launcher, launch
from abdoseg.cli._training import (
    ConfigOption,
    FoldOption,
    SamplerOption,
    SeedOption,
    SettingsOption,
    SourcesOption,
    ViewOption,
    config_of,
)

if TYPE_CHECKING:
    import torch

    from abdoseg.runs import Run
    from abdoseg.store import Workspace


def train(
    preset: Annotated[str | None, typer.Option(help="paper, small, ...; default: what fits this machine.")] = None,
    network: Annotated[str | None, typer.Option(help="See `abdoseg list networks`.")] = None,
    method: Annotated[str | None, typer.Option(help="See `abdoseg list methods`.")] = None,
    sampler: SamplerOption = None,
    view: ViewOption = None,
    sources: SourcesOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    seed: SeedOption = None,
    fold: FoldOption = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Start from this run's weights; pseudo_label: the run that labels.")
    ] = None,
    settings: SettingsOption = None,
    config: ConfigOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: made from the configuration.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    nproc: Annotated[int, typer.Option(min=1, max=1024, help="Processes, one a GPU, that share each batch.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Train one model on everything the workspace holds.

    The same command again goes on with an unfinished run of that configuration; another configuration is a new run.
    Ctrl-C (or SIGTERM, or SLURM's SIGUSR1) saves and stops. torchrun and srun may start it too.
    """
    from abdoseg.devices import choose_device
    from abdoseg.engine.place import is_first_process
    from abdoseg.errors import ConfigError
    from abdoseg.runs import plan_run
    from abdoseg.steps.train import train as run_training
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    where = choose_device(device)
    fitting = "paper" if where.type == "cuda" else "small"
    options: dict[str, Any] = {
        "network": network,
        "method": method,
        "sampler": sampler,
        "view": view,
        "sources": sources,
    }
    options |= {"steps": steps, "seed": seed, "fold": fold, "start_from": start_from}
    made = config_of(store, preset, config, settings, default_preset=fitting, **options)
    if as_json and not dry_run:
        raise ConfigError("--json: prints the plan; add --dry-run")
    if nproc > 1 and not dry_run:
        launch(nproc, sys.argv[1:])
        return
    end_with_launcher()
    talks = is_first_process()
    if talks:
        run, new = plan_run(store, made, name)
        chosen_here = preset is None and config is None
        _show_plan(store, run, where, nproc, as_json=as_json, dry_run=dry_run, chosen_here=chosen_here)
        if not new and run.status != "finished" and not as_json:
            where_from = "goes on from its last checkpoint" if run.status == "unfinished" else "begins anew"
            say(f"run [bold]{run.name}[/] {where_from}, with the cases it froze when it started")
    if dry_run:
        return
    with progress_bar(silent=not talks) as progress:
        report = run_training(store, made, name=name, device=device, progress=progress)
    if talks:
        pace = f", {report.seconds:.0f} s" if report.seconds else ""
        out.print(f"run [bold]{report.run.name}[/]: {report.outcome}, {report.steps_done} steps{pace}")
        next_step("abdoseg eval --by structure, or abdoseg predict SCAN -o OUT.nii.gz")


def _show_plan(
    store: "Workspace",
    run: "Run",
    device: "torch.device",
    nproc: int,
    *,
    as_json: bool,
    dry_run: bool,
    chosen_here: bool,
) -> None:
    plan = _plan(run, str(device))
    if dry_run:
        from abdoseg.steps.plan import plan_training

        plan |= plan_training(store, run, nproc, device)
    if as_json:
        print_json(plan)
        return
    _say_plan(plan, chosen_here=chosen_here)
    if dry_run:
        _say_costs(plan, nproc)


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


def _say_costs(plan: dict[str, Any], nproc: int) -> None:
    from rich.table import Table

    memory = {name: size / 2**30 for name, size in plan["memory_bytes"].items()}
    each = f" in each of {nproc} processes" if nproc > 1 else ""
    say(
        f"memory{each}, at least: {memory['total']:.1f} GiB: weights and optimiser {memory['weights']:.1f}, "
        f"activations {memory['activations']:.1f}, logits {memory['logits']:.1f}; buffers of convolutions come on top"
    )
    for name, place in (("cache_bytes", "main memory"), ("device_cache_bytes", "the device's memory")):
        if plan[name]:
            say(f"cache of cases: up to {plan[name] / 2**30:.1f} GiB of {place} in each process")
    table = Table(box=None, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    for title in ("cases", "patches centred on it"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in plan["structures"].items():
        table.add_row(name, str(row["cases"]), "" if row["patches"] is None else f"{row['patches']:.0f}")
    out.print(table)
