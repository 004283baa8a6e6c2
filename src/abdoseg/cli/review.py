"""``abdoseg review``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    warn,
)

if TYPE_CHECKING:
    from abdoseg.steps.review import Decided, Flagged
    from abdoseg.store import Workspace

_CHOICES = "keep, cut, right, left, unknown, later"


def review(
    source: Annotated[str | None, typer.Argument(help="Only this source.")] = None,
    case: Annotated[str | None, typer.Argument(help="Only this case of it.")] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            help="For all cases shown. keep: as split, crossing parts unknown; cut: crossing parts at the midline; "
            "right, left: all on that side; unknown: none of it."
        ),
    ] = None,
    assist: Annotated[str | None, typer.Option(metavar="RUN", help="Let this trained run decide.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures; default: in the workspace.")] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Look at cases whose right and left were split from one label and are in doubt, and decide.

    Each case gets a picture. On a terminal the decision is asked for; elsewhere give --decide or --assist. A decision
    is kept in the workspace: the case is taken again with it now and at every later ingest.
    """
    from abdoseg.reviews import require_action
    from abdoseg.steps.review import draw_flagged, flagged_cases
    from abdoseg.store import Workspace

    store = Workspace.open(workspace)
    action = require_action(decide) if decide else None
    flagged = flagged_cases(store, source, case, decided=case is not None)
    if as_json:
        print_json([{"case": f.key, **f.split.model_dump(mode="json")} for f in flagged])
        return
    if not flagged:
        say("no split is in doubt")
        return
    if assist:
        let_model_decide(store, flagged, assist)
        return
    folder = pictures or store.path / "review"
    for item in flagged:
        out.print(f"[bold]{item.key}[/]  {item.split.pair.replace('+', ' and ')}: {'; '.join(item.split.flags)}")
        if item.split.decided:
            out.print(f"  decided: {item.split.decided[0]}, by {item.split.decided[1]}")
        out.print(f"  {draw_flagged(store, item, folder / f'{item.key}.png')}", markup=False)
        chosen = action or _ask()
        if chosen:
            _decide(store, item, chosen)
    if action is None and not sys.stdin.isatty():
        next_step("abdoseg review SOURCE CASE --decide ...; abdoseg review --assist RUN asks a model")


def _ask() -> str | None:
    """Ask on a terminal; nowhere else."""
    from abdoseg.errors import ConfigError
    from abdoseg.reviews import require_action

    while sys.stdin.isatty():
        text = typer.prompt(f"  {_CHOICES}", default="later").strip()
        if text == "later":
            return None
        try:
            return require_action(text)
        except ConfigError as error:
            warn(str(error))
    return None


def _decide(store: "Workspace", item: "Flagged", action: str) -> None:
    from abdoseg.reviews import SideDecision, require_action
    from abdoseg.steps.review import decide

    _tell(decide(store, item, SideDecision(action=require_action(action), by="user")))


def let_model_decide(store: "Workspace", flagged: "list[Flagged]", run: str) -> None:
    """Have a trained run decide, and say what became of it."""
    from abdoseg.devices import choose_device
    from abdoseg.runs import load_run
    from abdoseg.steps.assist import assist
    from abdoseg.trained import load_model

    chosen = load_run(store, run)
    model, steps = load_model(chosen, choose_device("auto"))
    say(f"run [bold]{chosen.name}[/], {steps} steps, decides {len(flagged)} splits")
    learnt_from = {c.key.partition("/")[0] for c in chosen.data.cases if c.side == "train"}
    own = sorted({f.key.partition("/")[0] for f in flagged} & learnt_from)
    if own:
        warn(f"the run learnt from {', '.join(own)} itself; a run without it is a better judge")
    with progress_bar() as progress:
        decided = assist(store, model, flagged, progress)
    for item in decided:
        _tell(item)
    left = len(flagged) - len(decided)
    if left:
        warn(f"{left} splits stay open: the model does not tell the sides apart there")


def _tell(decided: "Decided") -> None:
    if decided.applied:
        say(f"{decided.key}: {decided.action}, taken again with it")
    else:
        warn(f"{decided.key}: {decided.action} is kept for the next ingest, not applied yet: {decided.reason}")
