"""``abdoseg phantom``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from abdoseg.cli._console import next_step, out, progress_bar, split_names

DEFAULT_SOURCES = "word,amos,btcv,totalsegmentator"


def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to write; each source gets a folder of its own in it.")],
    sources: Annotated[
        list[str] | None, typer.Option(help="Sources whose layout is written.", show_default=DEFAULT_SOURCES)
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases a source.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal voxels.")] = 0,
    spacing_scale: Annotated[float, typer.Option(help="Coarser voxels, smaller files, less time: 2 or 3.")] = 1.0,
) -> None:
    """Write synthetic abdomens in the native layouts of real sources, and the complete truth in OUT/truth."""
    from abdoseg.phantom import write_phantoms

    names = split_names(sources) or split_names([DEFAULT_SOURCES])
    with progress_bar() as progress:
        progress.start(cases * len(names), "drawing phantoms")
        made = write_phantoms(
            folder,
            names,
            cases=cases,
            seed=seed,
            spacing_scale=spacing_scale,
            on_case=lambda source, case: progress.advance(1, f"{source} {case}"),
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("source")
    table.add_column("cases", justify="right")
    table.add_column("MR", justify="right")
    for name in names:
        of = [case for case in made if case.source == name]
        table.add_row(name, str(len(of)), str(sum(case.modality == "MR" for case in of)))
    out.print(table)
    next_step(f"abdoseg ingest {names[0]} {folder / names[0]}")
