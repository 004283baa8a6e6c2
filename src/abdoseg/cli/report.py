"""``abdoseg report``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from abdoseg.cli._console import (
    DEFAULT_WORKSPACE,
    DeviceOption,
    WorkspaceOption,
    next_step,
    progress_bar,
    say,
    split_names,
    warn,
)


def report(
    run: Annotated[
        str | None, typer.Argument(help="Run; default: the newest finished one.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: report.html in the run's folder.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, val, train or all, as the run froze it.")] = "test",
    metrics: Annotated[
        list[str] | None, typer.Option(help="As in abdoseg eval; several: a,b.", show_default="dsc")
    ] = None,
    min_voxels: Annotated[int, typer.Option(min=1, help="Smallest reference structure that counts.")] = 1,
    cases: Annotated[
        int, typer.Option(min=0, max=20, help="Cases to scroll through: the worst, the best, and between.")
    ] = 3,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write one HTML file about a run that opens anywhere, without a network.

    Learning curves, tables, spread, confusion, cases to scroll through, what was drawn, and where it comes from.
    """
    from abdoseg.errors import ConfigError, unknown_name
    from abdoseg.files import write_text
    from abdoseg.metrics import EvalSettings
    from abdoseg.runs import load_run
    from abdoseg.steps.report import report_run
    from abdoseg.store import Workspace

    if split not in ("train", "val", "test", "all"):
        raise unknown_name("split", split, ["test", "val", "train", "all"])
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{output}: expected a name that ends in .html")
    store = Workspace.open(workspace)
    chosen = load_run(store, run)
    settings = EvalSettings(metrics=split_names(metrics) or ("dsc",), min_voxels=min_voxels)
    if chosen.status != "finished":
        warn(f"run {chosen.name} is {chosen.status}; the page shows it as far as it came")
    with progress_bar() as progress:
        page = report_run(store, chosen, split, cases=cases, device=device, settings=settings, progress=progress)
    path = output or chosen.folder / "report.html"
    write_text(path, page)
    say(f"wrote {escape(str(path))}, {len(page.encode()) / 1e6:.1f} MB")
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    next_step(f"open {path} in a browser")
