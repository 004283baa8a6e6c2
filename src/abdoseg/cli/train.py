"""``abdoseg train``."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    DeviceOption,
    JsonOption,
    WorkspaceOption,
    err,
    in_workspace,
    next_step,
    out,
    print_json,
    progress_bar,
    say,
)
from abdoseg.cli._launch import end_with_launcher, launch
from abdoseg.cli._training import (
    FITTING_PRESET,
    ConfigOption,
    FoldOption,
    SamplerOption,
    SeedOption,
    SettingsOption,
    SourcesOption,
    ViewOption,
    config_of,
    configs_by_device,
    typed_again,
)

if TYPE_CHECKING:
    import torch

    from abdoseg.config import TrainConfig
    from abdoseg.store import Workspace


def train(
    context: typer.Context,
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
    device: DeviceOption = "auto",
    nproc: Annotated[int, typer.Option(min=1, max=1024, help="Processes, one a GPU, that share each batch.")] = 1,
    ignore_memory: Annotated[
        bool, typer.Option("--ignore-memory", help="Train although it needs more memory than is free.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Train one model on everything the workspace holds.

    The same command again goes on with an unfinished run of that configuration; another configuration is a new run.
    Ctrl-C (or SIGTERM, or SLURM's SIGUSR1) saves and stops. torchrun and srun may start it too.
    """
    from abdoseg.engine.place import is_first_process
    from abdoseg.errors import ConfigError
    from abdoseg.store import Workspace

    if as_json and not dry_run:
        raise ConfigError("--json: prints the plan; add --dry-run")
    store = Workspace.open(workspace)
    options: dict[str, Any] = {
        "network": network,
        "method": method,
        "sampler": sampler,
        "view": view,
        "sources": sources,
    }
    options |= {"steps": steps, "seed": seed, "fold": fold, "start_from": start_from}
    talks = is_first_process()
    possible = configs_by_device(store, device, preset, config, settings, **options)
    if talks:
        _refuse_early(store, possible, name, nproc, device)
    # Torch is loaded from here on, which takes seconds.
    from abdoseg.devices import choose_device
    from abdoseg.steps.train import train as run_training

    where = choose_device(device)
    default_preset = FITTING_PRESET[where.type]
    made = possible.get(where.type) or config_of(
        store, preset, config, settings, default_preset=default_preset, **options
    )
    if nproc > 1 and not dry_run:
        launch(nproc, sys.argv[1:])
        return
    end_with_launcher()
    if talks:
        plan = _plan(store, made, name, where, nproc if dry_run else None)
        if dry_run:
            plan["next"] = typed_again(context, "train", ("dry_run", "as_json"))
        _show(plan, nproc, as_json=as_json, chosen_here=preset is None and config is None)
    if dry_run:
        return
    with progress_bar(silent=not talks) as progress:
        report = run_training(store, made, name=name, device=device, ignore_memory=ignore_memory, progress=progress)
    if talks:
        pace = f", {report.seconds:.0f} s" if report.seconds else ""
        out.print(f"run [bold]{report.run.name}[/]: {report.outcome}, {report.steps_done} steps{pace}")
        of_run = ("--run", report.run.name)
        next_step(
            in_workspace(context, "abdoseg", "eval", "--by", "structure", *of_run),
            in_workspace(context, "abdoseg", "predict", "SCAN", "-o", "OUT.nii.gz", *of_run),
        )


def _refuse_early(
    store: "Workspace", configs: dict[str, "TrainConfig"], name: str | None, processes: int, device: str
) -> None:
    """Refuse what is wrong with all of these configurations, without torch unless it is wrong in several ways."""
    from abdoseg.errors import AbdosegError
    from abdoseg.runs import plan_run
    from abdoseg.steps.plan import check_plan

    wrong: dict[str, AbdosegError] = {}
    for kind, config in configs.items():
        try:
            check_plan(store, plan_run(store, config, name)[0], processes)
        except AbdosegError as error:
            wrong[kind] = error
        else:
            return
    if len({str(error) for error in wrong.values()}) > 1:
        from abdoseg.devices import choose_device

        raise wrong.get(choose_device(device).type) or next(iter(wrong.values()))
    raise next(iter(wrong.values()))


def _plan(
    store: "Workspace", config: "TrainConfig", name: str | None, device: "torch.device", processes: int | None
) -> dict[str, Any]:
    """Return the plan; with a number of ``processes`` what it costs and what to expect, too."""
    from abdoseg.engine.precision import slow_precision
    from abdoseg.runs import plan_run
    from abdoseg.steps.plan import lacks_validation, plan_training

    run, new = plan_run(store, config, name)
    plan: dict[str, Any] = {
        "run": run.name,
        "status": "new" if new else run.status,
        "device": str(device),
        "config": run.config.model_dump(mode="json"),
        "cases": {side: len(run.data.keys(side)) for side in ("train", "val", "test")},
    }
    plan |= plan_training(store, run, processes, device) if processes else {"warnings": lacks_validation(run)}
    return plan | {"warnings": [*plan["warnings"], *slow_precision(run.config.precision, device)]}


def _show(plan: dict[str, Any], processes: int, *, as_json: bool, chosen_here: bool) -> None:
    if as_json:
        print_json(plan)
        return
    _say_plan(plan, chosen_here=chosen_here)
    if "memory_bytes" in plan:
        _say_costs(plan, processes)
    for text in plan["warnings"]:
        err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)
    if "next" in plan:
        next_step(plan["next"])


_STATUS = {
    "new": "new",
    "finished": "finished already; nothing is left to do",
    "unfinished": "goes on from its last checkpoint, with the cases it froze when it started",
    "not started": "begins anew, with the cases it froze when it started",
}


def _say_plan(plan: dict[str, Any], *, chosen_here: bool) -> None:
    from abdoseg.config import PRESET_TITLES

    c, cases = plan["config"], plan["cases"]
    say(f"view [bold]{c['view']}[/]; {cases['train']} training, {cases['val']} validation, {cases['test']} test cases")
    say(f"run [bold]{plan['run']}[/]: {_STATUS[plan['status']]}")
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

    total, parts = sizes({name: size for name, size in plan["memory_bytes"].items() if name != "total"})
    each = f" in each of {nproc} processes" if nproc > 1 else ""
    say(
        f"memory{each}, at least: {total}: weights and optimiser {parts['weights']}, activations "
        f"{parts['activations']}, logits {parts['logits']}; buffers of convolutions come on top"
    )
    for name, place in (("cache_bytes", "main memory"), ("device_cache_bytes", "the device's memory")):
        if plan[name]:
            say(f"cache of cases: up to {sizes({'cache': plan[name]})[0]} of {place} in each process")
    table = Table(box=None, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    for title in ("cases", "patches centred on it"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in plan["structures"].items():
        table.add_row(name, str(row["cases"]), "" if row["patches"] is None else f"{row['patches']:.0f}")
    out.print(table)


def sizes(parts: dict[str, int]) -> tuple[str, dict[str, str]]:
    """Return the sum of some sizes in bytes with its unit, and the parts in that unit, which add up as they are shown.

    From 1 GiB on in tenths of a GiB, below in whole MB (2^20 bytes, as for the setting ``cache_mb``). What the parts
    lose by rounding down goes to those that lose most.
    """
    in_gib = sum(parts.values()) >= 2**30
    step = 2**30 / 10 if in_gib else 2**20
    exact = {name: size / step for name, size in parts.items()}
    total = round(sum(exact.values()))
    shown = {name: int(value) for name, value in exact.items()}
    lost = sorted(parts, key=lambda name: shown[name] - exact[name])
    for name in lost[: max(0, total - sum(shown.values()))]:
        shown[name] += 1
    texts = {name: f"{n / 10:.1f}" if in_gib else str(n) for name, n in shown.items()}
    return (f"{total / 10:.1f} GiB" if in_gib else f"{total} MB"), texts
