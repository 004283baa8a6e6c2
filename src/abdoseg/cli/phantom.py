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
        list[str] | None, typer.Option(help="Sources whose layout is written, or all.", show_default=DEFAULT_SOURCES)
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases a source.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal voxels.")] = 0,
    spacing_scale: Annotated[float, typer.Option(help="Coarser voxels, smaller files, less time: 2 or 3.")] = 1.0,
    faults: Annotated[
        bool, typer.Option("--faults", help="Add cases with each source's known faults; OUT/faults.json lists them.")
    ] = False,
) -> None:
    """Write synthetic abdomens in the native layouts of real sources, and the complete truth in OUT/truth.

    Sources: word, amos, btcv, totalsegmentator (v2), totalsegmentator-v1, abdomenct1k, flare22, nih-pancreas, urogram;
    all for every one.
    """
    from abdoseg.phantom import count_scans, source_names, write_phantoms
    from abdoseg.phantom.write import LAYOUTS

    names = source_names(split_names(sources) or split_names([DEFAULT_SOURCES]))
    with progress_bar() as progress:
        progress.start(count_scans(names, cases, faults=faults), "drawing phantoms")
        made = write_phantoms(
            folder,
            names,
            cases=cases,
            seed=seed,
            spacing_scale=spacing_scale,
            faults=faults,
            on_case=lambda source, case: progress.advance(1, f"{source} {case}"),
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("source")
    for title in ("cases", "MR", *(["with a fault"] if faults else [])):
        table.add_column(title, justify="right")
    for name in names:
        of = [case for case in made if case.source == name]
        sound = [case for case in of if not case.fault]
        counts = [len(sound), sum(case.modality == "MR" for case in sound), *([len(of) - len(sound)] if faults else [])]
        table.add_row(name, *map(str, counts))
    out.print(table)
    next_step(f"abdoseg ingest {LAYOUTS[names[0]].card or names[0]} {folder / names[0]}")
