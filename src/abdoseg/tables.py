"""Table rows as text: JSON, CSV, Markdown and LaTeX. Pure: nothing is printed."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.errors import unknown_name
from abdoseg.metrics import METRICS, Row
from abdoseg.metrics.aggregate import ALL, AVERAGE
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
    writer.writerow([*group_keys(rows), "metric", "mean", "std", "median", "n", "ci95_low", "ci95_high", "cases"])
    for row in rows:
        numbers = [row.mean, row.std, row.median, row.n, *(row.ci95 or ("", "")), row.cases]
        writer.writerow([*row.keys.values(), row.metric, *numbers])
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """Return a table in GitHub's Markdown, rounded as papers do; rows that sum up are bold."""
    return _markdown(header(rows), len(group_keys(rows)) + 1, [(cells(row), row.overall) for row in rows])


def to_latex(rows: Sequence[Row], method: str = "", anatomy: Anatomy = ABDOMEN) -> str:
    """Return a ``tabular`` for the booktabs package, rounded as papers do.

    Rows by structure or by dataset alone are laid out as in Tables 4 to 6 of Chen et al.: a column a group, a row a
    metric, each mean over its standard deviation. Others have a line a row, and a rule precedes those that sum up.

    Parameters
    ----------
    rows
        Of one model.
    method
        Its name, for the first column of the wide layout.
    anatomy
        Order and abbreviations of the structures; others keep their names and come last.
    """
    if group_keys(rows) in (["structure"], ["dataset"]):
        return _wide_latex(rows, method, anatomy)
    return latex_table(header(rows), len(group_keys(rows)) + 1, [(cells(row), row.overall) for row in rows])


FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "json": to_json,
    "csv": to_csv,
    "markdown": to_markdown,
    "latex": to_latex,
}
"""Name -> function from rows to text."""


def format_rows(rows: Sequence[Row], name: str, method: str = "", anatomy: Anatomy = ABDOMEN) -> str:
    """Return the rows in the format called ``name``; ``method`` and ``anatomy`` are for :func:`to_latex`.

    Raises
    ------
    UnknownNameError
        If there is no such format.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, list(FORMATS))
    return to_latex(rows, method, anatomy) if name == "latex" else FORMATS[name](rows)


def group_keys(rows: Sequence[Row]) -> list[str]:
    """Return what the rows are grouped by."""
    return list(rows[0].keys) if rows else []


def header(rows: Sequence[Row]) -> list[str]:
    """Return the titles of the columns of :func:`cells`."""
    return [*group_keys(rows), "metric", "mean ± std", "median", "95 % CI", "n"]


def cells(row: Row) -> list[str]:
    """Return the texts of one row for people: groups, metric with unit, numbers with one decimal.

    Where ``n`` counts the structures of an average, the number of cases stands behind it in brackets.
    """
    spread = MISSING if row.std is None else f"{row.std:.1f}"
    interval = MISSING if row.ci95 is None else f"{row.ci95[0]:.1f}–{row.ci95[1]:.1f}"
    n = f"{row.n} ({row.cases})" if row.overall and row.n != row.cases else str(row.n)
    numbers = [f"{row.mean:.1f} ± {spread}", f"{row.median:.1f}", interval, n]
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
    return (_markdown if name == "markdown" else latex_table)(COMPARISON_HEADER, 2, lines)


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


def latex_table(head: Sequence[str], n_names: int, rows: _Lines, notes: Sequence[str] = ()) -> str:
    """Return a ``tabular`` for the booktabs package; special characters of the texts are escaped.

    Parameters
    ----------
    head
        Titles of the columns.
    n_names
        How many of the columns, the first ones, hold names; numbers stand at the right.
    rows
        Texts, and whether the row sums up others: a rule precedes those. A text of several lines takes as many.
    notes
        Lines that stand above it as comments.
    """
    columns = "l" * n_names + "r" * (len(head) - n_names)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *_latex_lines(head), r"\midrule"]
    blocks = [_latex_lines(texts) for texts, _ in rows]
    stacked = any(len(block) > 1 for block in blocks)
    after_overall = True
    for i, (block, (_, overall)) in enumerate(zip(blocks, rows, strict=True)):
        if overall and not after_overall:
            lines.append(r"\midrule")
        elif stacked and i:
            lines.append(r"\addlinespace")
        after_overall = overall
        lines += block
    comments = [f"% {' '.join(note.split())}" for note in notes]
    return "\n".join([*comments, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _wide_latex(rows: Sequence[Row], method: str, anatomy: Anatomy) -> str:
    (key,) = group_keys(rows)
    short = {s.name: s.abbreviation for s in anatomy.structures} if key == "structure" else {}
    place = {name: i for i, name in enumerate(short)}
    found = {row.keys[key] for row in rows if not row.overall}
    names = sorted(found, key=lambda name: (place.get(name, len(place)), name))
    lines: list[tuple[list[str], bool]] = []
    for metric in dict.fromkeys(row.metric for row in rows):
        of_metric = [row for row in rows if row.metric == metric]
        texts = {row.keys[key]: _stacked(row.mean, row.std) for row in of_metric if not row.overall}
        numbers = [texts.get(name, MISSING) for name in names]
        lines.append((["" if lines else method, metric_title(metric), *numbers, _summary(of_metric)], False))
    title, notes = ("Average", [_AVERAGE_NOTE]) if key == "structure" else ("Overall", [])
    return latex_table(["Method", "Metric", *(short.get(name, name) for name in names), title], 2, lines, notes)


_AVERAGE_NOTE = "Average: over the structures, of means and of standard deviations, as in Tables 4 and 6 of Chen et al."


def _summary(rows: Sequence[Row]) -> str:
    """Return the last cell of one metric; the spread of an average is that within structures, not between them."""
    overall = next((row for row in reversed(rows) if row.overall), None)
    if overall is None:
        return MISSING
    stds = [row.std for row in rows if not row.overall and row.std is not None]
    within = float(np.mean(stds)) if stds else None
    return _stacked(overall.mean, within if AVERAGE in overall.keys.values() else overall.std)


def _stacked(mean: float, std: float | None) -> str:
    """Return a mean over its standard deviation, two lines."""
    spread = MISSING if std is None else f"{std:.1f}"
    return f"{mean:z.1f}\n±{spread}".replace("-", "−")


def _markdown_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _latex_lines(texts: Sequence[str]) -> list[str]:
    """Return the lines of a row, one unless a text has several."""
    split = zip_longest(*(text.split("\n") for text in texts), fillvalue="")
    lines = [" & ".join(_latex(text) for text in line) + r" \\" for line in split]
    # After the end of a row LaTeX takes these for its options.
    return ["{}" + line if line.startswith(("[", "*")) else line for line in lines]


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
        ">": "$>$",
        "|": "$|$",
    }
    return "".join(special.get(c, f"\\{c}" if c in "_%&#${}" else c) for c in text)
