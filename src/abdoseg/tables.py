"""Table rows as text: JSON, CSV, Markdown and LaTeX. Pure: nothing is printed."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

from abdoseg.errors import unknown_name
from abdoseg.metrics import METRICS, Row

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
    lines = [_markdown_line(header(rows))]
    lines.append(_markdown_line(["---"] * len(group_keys(rows)) + ["---"] + ["---:"] * 4))
    for row in rows:
        texts = [text.replace("|", r"\|") for text in cells(row)]
        lines.append(_markdown_line([f"**{text}**" for text in texts] if row.overall else texts))
    return "\n".join(lines) + "\n"


def to_latex(rows: Sequence[Row]) -> str:
    """Return a ``tabular`` for the booktabs package, rounded as papers do; a rule precedes rows that sum up."""
    n_names = len(group_keys(rows)) + 1
    lines = [rf"\begin{{tabular}}{{{'l' * n_names}rrrr}}", r"\toprule", _latex_line(header(rows)), r"\midrule"]
    after_overall = True
    for row in rows:
        if row.overall and not after_overall:
            lines.append(r"\midrule")
        after_overall = row.overall
        lines.append(_latex_line(cells(row)))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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
    }
    return "".join(special.get(c, f"\\{c}" if c in "_%&#${}" else c) for c in text)
