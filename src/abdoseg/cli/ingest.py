"""``abdoseg ingest``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abdoseg.cli._console import DEFAULT_WORKSPACE, WorkspaceOption, counted, next_step, out, progress_bar, say, warn
from abdoseg.cli.review import let_model_decide
from abdoseg.types import Crossing

if TYPE_CHECKING:
    from abdoseg.cards import Card
    from abdoseg.steps.ingest import IngestReport
    from abdoseg.store import Workspace


def ingest(
    card: Annotated[
        str,
        typer.Argument(help="A card (`abdoseg cards list`), the path of your own, or `nnunet` for any nnU-Net folder."),
    ],
    folder: Annotated[Path, typer.Argument(help="The folder in which the source was unpacked.")],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Processes; 0: one a core.")] = 0,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on a Dask cluster: its scheduler, as tcp://host:8786.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take at most so many new cases.")] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="What label values mean, for a card that leaves it to you: 1=liver,2=right_kidney+left_kidney."
        ),
    ] = "",
    modality: Annotated[str | None, typer.Option(help="CT or MR, for an nnU-Net folder that does not say it.")] = None,
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="Take scans without labels, too; only the entropy term learns from them."),
    ] = False,
    split_crossing: Annotated[
        Crossing | None,
        typer.Option(
            help="A joined organ that crosses the midline: leave its side unknown (default), or cut it there."
        ),
    ] = None,
    assist: Annotated[
        str | None, typer.Option(metavar="RUN", help="Let this trained run decide doubtful splits of right and left.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take cases again that are there already.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Take a source into the workspace: find, check, harmonise and store its cases.

    A broken case is quarantined with its reason and the others are taken (status 1). Run it again after a stop or a
    repair: what is there is skipped.
    """
    from abdoseg.errors import NoCasesError
    from abdoseg.readers.layouts import require_source_folder
    from abdoseg.steps.ingest import dask_pool, worker_pool
    from abdoseg.steps.ingest import ingest as run_ingest
    from abdoseg.store import Workspace

    cards = _cards(card, folder, labels, modality)
    changes = {"split_crossing": split_crossing} if split_crossing else {}
    cards = [one.model_copy(update=changes) for one in cards]
    require_source_folder(folder)
    store = Workspace.create(workspace)
    failed, strangers = False, []
    for one in cards:
        say(f"[bold]{one.id}[/] {escape(one.title)}")
        try:
            with dask_pool(dask) if dask else worker_pool(_processes(jobs, folder)) as pool, progress_bar() as progress:
                report = run_ingest(
                    store,
                    one,
                    folder,
                    replace=replace,
                    limit=limit,
                    unlabelled=unlabelled,
                    executor=pool,
                    progress=progress,
                )
        except NoCasesError as error:
            strangers.append(error)
            continue
        _print(report)
        failed |= report.failed
    if len(strangers) == len(cards):
        raise strangers[0]
    for stranger in strangers:
        warn(str(stranger))
    _settle_sides(store, cards, assist)
    next_step("abdoseg status, or abdoseg train")
    if failed:
        raise typer.Exit(1)


def _settle_sides(workspace: "Workspace", cards: "list[Card]", assist: str | None) -> None:
    """Let a run decide the doubtful splits of right and left, or say that there are some."""
    from abdoseg.steps.review import flagged_cases

    sources = workspace.sources()
    flagged = [f for one in cards if one.id in sources for f in flagged_cases(workspace, one.id)]
    if flagged and assist:
        let_model_decide(workspace, flagged, assist)
    elif flagged:
        say(f"{counted(len(flagged), 'split')} of right and left in doubt: abdoseg review shows them")


def _cards(name: str, folder: Path, labels: str, modality: str | None) -> "list[Card]":
    """Return the cards called ``name``; that of an nnU-Net folder is made from its dataset.json."""
    from abdoseg.cards import card_from, load_cards, with_labels
    from abdoseg.drafts import card_of

    if name != "nnunet":
        return [with_labels(one, labels) if labels else one for one in load_cards(name)]
    draft = card_of(folder, modality.upper() if modality else None)
    for text in draft.unsure:
        warn(text)
    return [card_from(draft.facts, f"{folder}")]


def _processes(jobs: int, folder: Path) -> int:
    """Return how many processes to start: none for a handful of files, as starting one takes seconds."""
    from abdoseg.devices import available_cores

    few = folder.is_dir() and sum(1 for _, _ in zip(range(9), folder.rglob("*.nii*"), strict=False)) < 9
    return jobs or (1 if few else available_cores())


def _print(report: "IngestReport") -> None:
    repaired = [facts for facts in report.taken if facts.warnings]
    table = Table(box=None, pad_edge=False)
    for title in ("taken", "of these repaired", "already there", "quarantined", "passed over"):
        table.add_column(title, justify="right")
    numbers = (len(report.taken), len(repaired), len(report.present), len(report.quarantined))
    table.add_row(*(str(n) for n in (*numbers, sum(report.skipped.values()))))
    out.print(table)
    for reason, count in report.skipped.items():
        say(f"passed over {count}: {reason}")
    for warning in report.warnings:
        warn(warning)
    _print_cases("repaired", {facts.case: "; ".join(facts.warnings) for facts in repaired})
    _print_cases("suspect", {facts.case: "; ".join(facts.suspicions) for facts in report.taken if facts.suspicions})
    _print_cases("quarantined", report.quarantined)


def _print_cases(title: str, reasons: dict[str, str], at_most: int = 20) -> None:
    if not reasons:
        return
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column(title, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for case, reason in sorted(reasons.items())[:at_most]:
        table.add_row(escape(case), escape(reason))
    out.print(table)
    if len(reasons) > at_most:
        out.print(f"... and {len(reasons) - at_most} more: abdoseg status --json lists all")
