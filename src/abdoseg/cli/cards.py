"""``abdoseg cards``: the registry."""

from typing import Annotated, Any

import typer
from rich.table import Table

from abdoseg.cli._console import Commands, JsonOption, out, print_json

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
        out.print(f"[bold]{one.id}[/]  {one.title} ({one.modality}, {one.version})")
        if one.access:
            out.print(f"  get it: {one.access.url}\n          {one.access.how}\n  licence: {one.access.licence}")
        for layout in one.layouts:
            out.print(f"  layout {layout.name}: {layout.image}  {layout.label or layout.masks}", markup=False)
        out.print(f"  annotates: {', '.join(one.annotated)}")
        for value, target in {**one.labels, **one.masks}.items():
            out.print(f"    {value} -> {target if isinstance(target, str) else ' + '.join(target)}", markup=False)
        for rule in one.exceptions:
            out.print(f"  not always: {', '.join(rule.not_annotated)} ({rule.reason})")


@app.command("check")
def check(card: Annotated[str, typer.Argument(help="Card or path of your own card.")]) -> None:
    """Check a card; all faults are told at once."""
    from abdoseg.cards import check_structures, load_cards

    for one in load_cards(card):
        check_structures(one)
        out.print(f"{one.id}: good, {len(one.annotated)} structures, {len(one.layouts)} layouts")
