"""What all commands share: consoles, progress, options, errors as one line."""

import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text
from typer.core import TyperGroup

from abdoseg.devices import check_device_name
from abdoseg.engine.place import is_first_process
from abdoseg.errors import AbdosegError, one_line
from abdoseg.places import client_errors
from abdoseg.progress import SILENT, Progress

out = Console(highlight=False, soft_wrap=False)
"""Results."""

err = Console(stderr=True, highlight=False)
"""Messages, bars and errors, so that results can be piped."""

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="ABDOSEG_WORKSPACE",
        help="The workspace: a folder, or s3://BUCKET/FOLDER.",
        rich_help_panel="Common",
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]


def _known_device(name: str) -> str:
    check_device_name(name)
    return name


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=_known_device)]
"""Where to compute; a wrong name is refused before PyTorch is loaded."""

DEFAULT_WORKSPACE = Path("workspace")

SECONDS_BETWEEN_LINES = 60.0
"""How often progress is told where there is no terminal."""


class Commands(TyperGroup):
    """Command group that turns our own errors into one line and status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AbdosegError as error:
            if error.told_elsewhere:
                raise typer.Exit(2) from error
            err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            if is_first_process():
                err.print("stopped; type the same command to go on")
            raise typer.Exit(130) from error
        except client_errors() as error:
            err.print(f"[bold red]error:[/] the object store: {escape(one_line(str(error)))}", soft_wrap=True)
            raise typer.Exit(2) from error
        except BrokenPipeError as error:
            # The reader of a pipe went away (`... | head`); Python would complain again when it flushes.
            sys.stdout = None
            raise typer.Exit(0) from error


def counted(n: int, what: str) -> str:
    """Return ``1 case`` or ``3 cases``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def say(text: str) -> None:
    """Print a message (not a result)."""
    err.print(text)


def warn(text: str) -> None:
    """Print a warning."""
    err.print(f"[yellow]warning:[/] {escape(text)}")


def next_step(*commands: str) -> None:
    """Say what to type next, each command in one line, however long: a broken one cannot be copied."""
    for word, command in zip(chain(["next:"], repeat("or:")), commands, strict=False):
        err.print(f"[dim]{word}[/] {escape(command)}", soft_wrap=True)


def in_workspace(context: typer.Context, *words: str) -> str:
    """Return the command of some words, with the workspace if one was typed: without it, it would look elsewhere."""
    source = context.get_parameter_source("workspace")
    typed = source is not None and source.name == "COMMANDLINE"
    return shlex.join([*words, *(["--workspace", str(context.params["workspace"])] if typed else [])])


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    typer.echo(json.dumps(value, indent=1))


def split_names(values: list[str] | None) -> tuple[str, ...]:
    """Return names given as ``a,b`` or as repeated options."""
    return tuple(name.strip() for value in values or [] for name in value.split(",") if name.strip())


class NotedBars(Bars):
    """Bars with a line of text below them: beside them, a long one would push bar and estimate off the screen."""

    note = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Return what is drawn."""
        yield self.make_tasks_table(self.tasks)
        if self.note:
            yield Text(self.note, style="dim", no_wrap=True, overflow="ellipsis")


class BarProgress:
    """Progress as a bar on a terminal and as plain lines elsewhere."""

    def __init__(self, bars: NotedBars | None) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._total = self._done = self._said = self._skipped = 0
        self._began = self._said_at = 0.0
        self._title = ""

    def start(self, total: int, title: str) -> None:
        """Begin a stretch."""
        self._total, self._done, self._said, self._title = total, 0, 0, title
        self._began = self._said_at = time.monotonic()
        self._skipped = 0
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(title, total=total)
            self._bars.note = ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count units; without a terminal, a line every tenth of the way."""
        self._done += amount
        if amount > 1 and self._done == amount:
            self._skipped = amount  # done before, by the run that is resumed: no measure of the pace
        if self._bars is not None and self._task is not None:
            self._bars.note = note
            self._bars.update(self._task, advance=amount)
        elif self._total:
            self._line(note)

    def _line(self, note: str) -> None:
        """Print a line each tenth of the way, and each minute, with what is left at this pace."""
        tenth, now = 10 * self._done // self._total, time.monotonic()
        if tenth == self._said and now - self._said_at < SECONDS_BETWEEN_LINES:
            return
        self._said, self._said_at = tenth, now
        left = (now - self._began) / max(1, self._done - self._skipped) * (self._total - self._done)
        rest = f"  about {left:.0f} s left" if self._done > self._skipped and left >= 1 else ""
        err.print(escape(f"{self._title}: {self._done}/{self._total}  {note}{rest}".rstrip()), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        err.print(escape(text))


@contextmanager
def progress_bar(*, silent: bool = False) -> Iterator[Progress]:
    """Show progress while the block runs; ``silent``: show none."""
    if silent:
        yield SILENT
        return
    if not err.is_terminal:
        yield BarProgress(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with NotedBars(*columns, console=err, transient=True) as bars:
        yield BarProgress(bars)
