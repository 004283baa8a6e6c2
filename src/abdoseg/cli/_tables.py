"""Table rows for a terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from abdoseg.metrics import Row
from abdoseg.metrics.aggregate import ALL
from abdoseg.metrics.paired import PairedRow
from abdoseg.tables import COMPARISON_HEADER, cells, comparison_cells, group_keys, header, metric_title

_NUMBERS = 4


def rich_table(rows: Sequence[Row], title: str = "") -> Table:
    """Return a table that fits 80 columns: names fold, numbers never do; rows that sum up are bold.

    A single metric is named above the table instead of in a column.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    n_names = len(group_keys(rows)) + (len(metrics) > 1)
    above = " · ".join(part for part in (title, metric_title(metrics[0]) if len(metrics) == 1 else "") if part)
    table = Table(title=above or None, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in _shown(header(rows), n_names):
        number = len(table.columns) >= n_names
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        section_ends = following is not None and following.overall != row.overall
        style = "bold" if row.overall else None
        table.add_row(*_shown(cells(row), n_names), style=style, end_section=section_ends)
    return table


def comparison_table(rows: Sequence[PairedRow]) -> Table:
    """Return the table of one metric of a comparison."""
    table = Table(title=metric_title(rows[0].metric), box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, name in enumerate([COMPARISON_HEADER[0], *COMPARISON_HEADER[2:]]):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for row in rows:
        texts = comparison_cells(row)
        table.add_row(texts[0], *texts[2:], style="bold" if row.structure == ALL else None)
    return table


def _shown(texts: Sequence[str], n_names: int) -> list[str]:
    """Return the columns to show: the metric's column goes when there is only one metric."""
    return [*texts[:n_names], *texts[-_NUMBERS:]]
