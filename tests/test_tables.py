"""Rows as text, and as a table on a narrow terminal."""

import csv
import io
import json

import pytest
from rich.console import Console

from abdoseg.anatomy import ABDOMEN
from abdoseg.cli._tables import rich_table
from abdoseg.errors import UnknownNameError
from abdoseg.steps.evaluate import Outcome, Row, Score, summarise
from abdoseg.tables import FORMATS, format_rows

ROWS = [
    Row({"dataset": "a|b", "structure": "right_kidney"}, "dsc", 88.74, 7.04, 90.15, 12, (84.06, 92.31), overall=False),
    Row({"dataset": "all", "structure": "average"}, "dsc", 50.0, None, 50.0, 1, None, overall=True),
]


def test_json_has_the_documented_form():
    assert json.loads(format_rows(ROWS, "json")) == {
        "rows": [
            {
                "dataset": "a|b",
                "structure": "right_kidney",
                "metric": "dsc",
                "mean": 88.74,
                "std": 7.04,
                "median": 90.15,
                "n": 12,
                "ci95": [84.06, 92.31],
            },
            {
                "dataset": "all",
                "structure": "average",
                "metric": "dsc",
                "mean": 50.0,
                "std": None,
                "median": 50.0,
                "n": 1,
                "ci95": None,
            },
        ]
    }


def test_csv():
    first, last = csv.DictReader(io.StringIO(format_rows(ROWS, "csv")))
    assert first == {
        "dataset": "a|b",
        "structure": "right_kidney",
        "metric": "dsc",
        "mean": "88.74",
        "std": "7.04",
        "median": "90.15",
        "n": "12",
        "ci95_low": "84.06",
        "ci95_high": "92.31",
    }
    assert (last["std"], last["ci95_low"], last["ci95_high"]) == ("", "", "")


def test_markdown():
    assert format_rows(ROWS, "markdown").splitlines() == [
        "| dataset | structure | metric | mean ± std | median | 95 % CI | n |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        r"| a\|b | right_kidney | dsc (%) | 88.7 ± 7.0 | 90.2 | 84.1–92.3 | 12 |",
        "| **all** | **average** | **dsc (%)** | **50.0 ± –** | **50.0** | **–** | **1** |",
    ]


def test_latex():
    assert format_rows(ROWS, "latex").splitlines() == [
        r"\begin{tabular}{lllrrrr}",
        r"\toprule",
        r"dataset & structure & metric & mean $\pm$ std & median & 95 \% CI & n \\",
        r"\midrule",
        r"a|b & right\_kidney & dsc (\%) & 88.7 $\pm$ 7.0 & 90.2 & 84.1--92.3 & 12 \\",
        r"\midrule",
        r"all & average & dsc (\%) & 50.0 $\pm$ -- & 50.0 & -- & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_rules_stand_only_before_rows_that_sum_up():
    assert format_rows([ROWS[0], ROWS[0], ROWS[1], ROWS[1], ROWS[0]], "latex").count(r"\midrule") == 2


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows_are_a_table_without_rows(name):
    assert format_rows([], name)


def test_unknown_format():
    with pytest.raises(UnknownNameError, match=r"format 'tex' is not known.*Known: json, csv, markdown, latex"):
        format_rows(ROWS, "tex")


def rendered(rows):
    text = io.StringIO()
    Console(file=text, width=80, color_system=None).print(rich_table(rows))
    return text.getvalue().splitlines()


def scores(metrics):
    sources = ("totalsegmentator", "amos-ct", "amos-mri")
    for index, name in enumerate(ABDOMEN.names):
        for case, source in enumerate(sources):
            for metric in metrics:
                value = 100.0 - index - 11 * case
                yield Score(name, metric, value, Outcome.SCORED, source, f"{source}/{source}_{case:04d}", "CT")


@pytest.mark.parametrize("metrics", [("dsc",), ("dsc", "volume_error")])
@pytest.mark.parametrize("by", [("structure",), ("dataset", "structure"), ("subject", "dataset"), ("subject",)])
def test_terminal_table_fits_80_columns(by, metrics):
    rows = summarise(scores(metrics), by)
    lines = rendered(rows)
    assert max(map(len, lines)) <= 80
    shown = " ".join(lines)
    for row in rows:
        spread = "–" if row.std is None else f"{row.std:.1f}"
        assert f"{row.mean:.1f} ± {spread}" in shown
    assert "…" not in shown


def test_terminal_table_names_a_single_metric_above():
    first, *rest = rendered(ROWS)
    assert "dsc (%)" in first
    assert not any("dsc" in line for line in rest)
