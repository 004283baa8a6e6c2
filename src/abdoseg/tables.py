"""Table rows as text: JSON, CSV, Markdown and LaTeX. Pure: nothing is printed."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

from abdoseg.errors import unknown_name
from abdoseg.metrics import METRICS, Row
from abdoseg.metrics.aggregate import ALL
from abdoseg.metrics.paired import PairedRow

MISSING = "–"
"""Stands for a number that is not defined, in tables for people."""


def to_json(rows: Sequence[Row]) -> str:
    """Return ``{"rows": [...]}``; keys not grouped by are left out, numbers are not rounded, DSC is in per cent."""
    return json.dumps({"rows": [row.to_json() for row in rows]}, indent=2, allow_nan=False) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Return one line a row under a header; numbers are not rounded, undefined ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*group_keys(rows), "metric", "mean", "std", "median", "n", "ci95_low", "ci95_high"])
    for row in rows:
        writer.writerow([*row.keys.values(), row.metric, row.mean, row.std, row.median, row.n, *(row.ci95 or ("", ""))])
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """Return a table in GitHub's Markdown, rounded as papers do; rows that sum up are bold."""
    return _markdown(header(rows), len(group_keys(rows)) + 1, [(cells(row), row.overall) for row in rows])


def to_latex(rows: Sequence[Row]) -> str:
    """Return a ``tabular`` for the booktabs package, rounded as papers do; a rule precedes rows that sum up."""
    return _latex_table(header(rows), len(group_keys(rows)) + 1, [(cells(row), row.overall) for row in rows])


FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "json": to_json,
    "csv": to_csv,
    "markdown": to_markdown,
    "latex": to_latex,
}
"""Name -> function from rows to text."""


def format_rows(rows: Sequence[Row], name: str) -> str:
    """Return the rows in the format called ``name``.

    Raises
    ------
    UnknownNameError
        If there is no such format.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, list(FORMATS))
    return FORMATS[name](rows)


def group_keys(rows: Sequence[Row]) -> list[str]:
    """Return what the rows are grouped by."""
    return list(rows[0].keys) if rows else []


def header(rows: Sequence[Row]) -> list[str]:
    """Return the titles of the columns of :func:`cells`."""
    return [*group_keys(rows), "metric", "mean ± std", "median", "95 % CI", "n"]


def cells(row: Row) -> list[str]:
    """Return the texts of one row for people: groups, metric with unit, numbers with one decimal."""
    spread = MISSING if row.std is None else f"{row.std:.1f}"
    interval = MISSING if row.ci95 is None else f"{row.ci95[0]:.1f}–{row.ci95[1]:.1f}"
    numbers = [f"{row.mean:.1f} ± {spread}", f"{row.median:.1f}", interval, str(row.n)]
    return [*row.keys.values(), metric_title(row.metric), *numbers]


def metric_title(name: str) -> str:
    """Return name and unit of a metric, for example ``dsc (%)``."""
    return f"{name} ({METRICS[name].unit})" if name in METRICS else name


def format_comparison(rows: Sequence[PairedRow], name: str) -> str:
    """Return the rows of a comparison in the format called ``name``; numbers for programs are not rounded.

    Raises
    ------
    UnknownNameError
        If there is no such format.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, list(FORMATS))
    facts = [row.to_json() for row in rows]
    if name == "json":
        return json.dumps({"rows": facts}, indent=2, allow_nan=False) + "\n"
    if name == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COMPARISON_FIELDS)
        for row in rows:
            ends = row.ci95 or ("", "")
            writer.writerow([*(getattr(row, key) for key in COMPARISON_FIELDS[:-2]), *ends])
        return text.getvalue()
    lines = [(comparison_cells(row), row.structure == ALL) for row in rows]
    return (_markdown if name == "markdown" else _latex_table)(COMPARISON_HEADER, 2, lines)


COMPARISON_FIELDS = (
    *("structure", "metric", "mean_a", "mean_b", "difference", "n", "p", "p_holm"),
    *("ci95_low", "ci95_high"),
)
"""Columns of a comparison as CSV."""

COMPARISON_HEADER = ("structure", "metric", "A", "B", "A − B", "95 % CI", "n", "p", "p Holm")
"""Titles of the columns of :func:`comparison_cells`."""


def comparison_cells(row: PairedRow) -> list[str]:
    """Return the texts of one row of a comparison for people."""
    interval = MISSING if row.ci95 is None else f"{row.ci95[0]:.1f} to {row.ci95[1]:.1f}"
    means = [f"{row.mean_a:.1f}", f"{row.mean_b:.1f}", f"{row.difference:+.1f}"]
    return [row.structure, metric_title(row.metric), *means, interval, str(row.n), _p(row.p), _p(row.p_holm)]


def _p(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


_Lines = Sequence[tuple[list[str], bool]]
"""Texts of a row, and whether it sums up others."""


def _markdown(head: Sequence[str], n_names: int, rows: _Lines) -> str:
    lines = [_markdown_line(head), _markdown_line(["---"] * n_names + ["---:"] * (len(head) - n_names))]
    for texts, overall in rows:
        safe = [text.replace("|", r"\|") for text in texts]
        lines.append(_markdown_line([f"**{text}**" for text in safe] if overall else safe))
    return "\n".join(lines) + "\n"


def _latex_table(head: Sequence[str], n_names: int, rows: _Lines) -> str:
    columns = "l" * n_names + "r" * (len(head) - n_names)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_line(head), r"\midrule"]
    after_overall = True
    for texts, overall in rows:
        if overall and not after_overall:
            lines.append(r"\midrule")
        after_overall = overall
        lines.append(_latex_line(texts))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _markdown_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(_latex(text) for text in texts) + r" \\"


def _latex(text: str) -> str:
    if text == MISSING:
        return "--"
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "−": "$-$",
        "<": "$<$",
    }
    return "".join(special.get(c, f"\\{c}" if c in "_%&#${}" else c) for c in text)
