"""``abdoseg cards``: the registry."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    Commands,
    JsonOption,
    WorkspaceOption,
    counted,
    next_step,
    out,
    print_json,
    warn,
)

app = typer.Typer(cls=Commands, help="The registry: what each known source holds.", no_args_is_help=True)


@app.command("list")
def list_cards(as_json: JsonOption = False) -> None:
    """List the cards."""
    from abdoseg.cards import list_cards as load_all

    rows: list[dict[str, Any]] = [
        {"id": card.id, "title": card.title, "modality": card.modality, "annotated": list(card.annotated)}
        for card in load_all()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("card", "modality", "structures", "title"):
        table.add_column(title, justify="right" if title == "structures" else "left")
    for row in rows:
        table.add_row(row["id"], row["modality"], str(len(row["annotated"])), row["title"])
    out.print(table)


@app.command("show")
def show(card: Annotated[str, typer.Argument(help="Card, alias or path.")], as_json: JsonOption = False) -> None:
    """Show what a card says: how to get the source, its layouts, its labels."""
    from abdoseg.cards import load_cards

    for one in load_cards(card):
        if as_json:
            print_json(one.model_dump(mode="json"))
            continue
        out.print(f"[bold]{one.id}[/]  {one.title} ({one.modality}{f', {one.version}' if one.version else ''})")
        if one.access:
            out.print(f"  get it: {one.access.url}\n          {one.access.how}\n  licence: {one.access.licence}")
        for layout in one.layouts:
            out.print(f"  layout {layout.name}: {layout.image}  {layout.labels or '(no labels)'}", markup=False)
        annotates = ", ".join(one.annotated) or ("what you state with --labels" if one.labels_by_user else "nothing")
        out.print(f"  annotates: {annotates}")
        for value, target in {**one.labels, **one.masks}.items():
            out.print(f"    {value} -> {target if isinstance(target, str) else ' + '.join(target)}", markup=False)
        for rule in one.exceptions:
            out.print(f"  not always: {', '.join(rule.not_annotated)} ({rule.reason})")


@app.command("check")
def check(
    card: Annotated[str, typer.Argument(help="Card or path of your own card.")],
    folder: Annotated[Path | None, typer.Argument(help="Also see what the card finds in this folder.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Check a card; all faults are told at once. With a folder, see which cases it finds there; nothing is stored.

    Where a workspace is there, its structures may be named as well as the paper's.
    """
    from abdoseg.cards import check_structures, load_cards
    from abdoseg.readers.layouts import find_cases
    from abdoseg.store import Settings, Workspace

    settings = Workspace.open(workspace).settings if Workspace.is_at(workspace) else Settings()
    failed = False
    for one in load_cards(card):
        check_structures(one, settings.known)
        out.print(f"{one.id}: good, {len(one.annotated)} structures, {counted(len(one.layouts), 'layout')}")
        if folder is None:
            continue
        finding = find_cases(one, folder)
        out.print(f"  layout {finding.layout}: {len(finding.cases)} cases", markup=False)
        for reason, count in finding.skipped.items():
            out.print(f"  passed over {count}: {reason}", markup=False)
        for case, fault in list(finding.faults.items())[:20]:
            out.print(f"  {case}: {fault}", markup=False)
        failed |= bool(finding.faults)
    if failed:
        raise typer.Exit(1)


@app.command("draft")
def draft(
    folder: Annotated[Path, typer.Argument(help="The folder in which the source was unpacked.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the card here (.toml).")] = None,
    modality: Annotated[str | None, typer.Option(help="CT or MR, where you know it.")] = None,
) -> None:
    """Propose a card from what a folder holds, and say what it is unsure of.

    Known forms: nnU-Net raw (v1, v2) and Decathlon folders, a mask file a structure, folders of images and labels, a
    CSV with columns image and label, HDF5 volumes.
    """
    from abdoseg.drafts import draft_card
    from abdoseg.errors import ConfigError
    from abdoseg.files import write_text

    if modality is not None and modality.upper() not in ("CT", "MR"):
        raise ConfigError(f"--modality: found '{modality}', expected CT or MR")
    if output is not None and output.exists():
        raise ConfigError(f"{output}: is there already; give another name")
    proposed = draft_card(folder, modality.upper() if modality else None)
    if output is None:
        typer.echo(proposed.to_toml(), nl=False)
    else:
        write_text(output, proposed.to_toml())
    for text in proposed.unsure:
        warn(f"look at: {text}")
    for text in proposed.missing:
        warn(f"fill in: {text}")
    target = output or "mine.toml"
    if output is not None:
        first = f"fill in {target}, then " if proposed.missing else ""
        next_step(f"{first}abdoseg cards check {target} {folder}, then abdoseg ingest {target} {folder}")
