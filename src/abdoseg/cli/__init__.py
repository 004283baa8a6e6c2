"""The command line: one thin file a subcommand, which parses, calls one step and prints.

Nothing here may import torch, monai or zarr at module level: ``abdoseg --help`` answers at once.
"""

import typer

from abdoseg.cli import (
    cards,
    demo,
    duplicates,
    evaluate,
    export,
    ingest,
    init,
    inspect_,
    list_,
    phantom,
    predict,
    remove,
    report,
    reproduce,
    review,
    sample,
    sparsify,
    status,
    train,
    view,
)
from abdoseg.cli._console import Commands
from abdoseg.cli._process import tune

app = typer.Typer(
    name="abdoseg",
    cls=Commands,
    help="One abdominal CT/MR segmentation model from many datasets whose labels do not agree.",
    epilog="Start with `abdoseg demo`, or `abdoseg ingest CARD FOLDER`. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

app.command("ingest")(ingest.ingest)
app.command("init")(init.init)
app.command("status")(status.status)
app.command("sparsify")(sparsify.sparsify)
app.command("sample")(sample.sample)
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("eval")(evaluate.evaluate)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("reproduce")(reproduce.reproduce)
app.command("duplicates")(duplicates.duplicates)
app.command("inspect")(inspect_.inspect)
app.command("view")(view.view)
app.command("review")(review.review)
app.command("remove")(remove.remove)
app.command("list")(list_.list_)
app.add_typer(cards.app, name="cards")
app.command("phantom")(phantom.phantom)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from abdoseg import __version__

        typer.echo(f"abdoseg {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    tune()
    app()
