"""Rows as text, and as a table on a narrow terminal."""

import csv
import io
import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from abdoseg.anatomy import ABDOMEN, Anatomy, Structure
from abdoseg.cli._tables import rich_table
from abdoseg.errors import UnknownNameError
from abdoseg.experiments import Page, RowResult, cells_of, load_study
from abdoseg.experiments.page import paper_grid
from abdoseg.steps.evaluate import Outcome, Row, Score, summarise
from abdoseg.tables import FORMATS, format_rows, latex_table

ROWS = [
    Row(
        *({"dataset": "a|b", "structure": "right_kidney"}, "dsc", 88.74, 7.04, 90.15),
        *(12, 12, (84.06, 92.31)),
        overall=False,
    ),
    Row({"dataset": "all", "structure": "average"}, "dsc", 50.0, None, 50.0, 1, 12, None, overall=True),
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
                "cases": 12,
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
                "cases": 12,
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
        "cases": "12",
    }
    assert (last["std"], last["ci95_low"], last["ci95_high"]) == ("", "", "")


def test_markdown():
    assert format_rows(ROWS, "markdown").splitlines() == [
        "| dataset | structure | metric | mean ± std | median | 95 % CI | n |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        r"| a\|b | right_kidney | dsc (%) | 88.7 ± 7.0 | 90.2 | 84.1–92.3 | 12 |",
        "| **all** | **average** | **dsc (%)** | **50.0 ± –** | **50.0** | **–** | **1 (12)** |",
    ]


def test_latex():
    assert format_rows(ROWS, "latex").splitlines() == [
        r"\begin{tabular}{lllrrrr}",
        r"\toprule",
        r"dataset & structure & metric & mean $\pm$ std & median & 95 \% CI & n \\",
        r"\midrule",
        r"a$|$b & right\_kidney & dsc (\%) & 88.7 $\pm$ 7.0 & 90.2 & 84.1--92.3 & 12 \\",
        r"\midrule",
        r"all & average & dsc (\%) & 50.0 $\pm$ -- & 50.0 & -- & 1 (12) \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_rules_stand_only_before_rows_that_sum_up():
    assert format_rows([ROWS[0], ROWS[0], ROWS[1], ROWS[1], ROWS[0]], "latex").count(r"\midrule") == 2


def small_scores():
    """Two cases of two sources: a liver of 90 and 80, a spleen of 70 and a right kidney of 60 in one of them."""
    values = {"1": {"spleen": 70.0, "liver": 90.0}, "2": {"liver": 80.0, "right_kidney": 60.0}}
    return [
        Score(name, metric, None if value is None else sign * value, Outcome.SCORED, f"set_{case}", case)
        for metric, sign in (("dsc", 1), ("volume_difference", -1))
        for case, held in values.items()
        for name in ("liver", "spleen", "right_kidney")
        for value in (held.get(name),)
    ]


def test_latex_by_structure_is_laid_out_as_in_the_paper():
    dsc = [score for score in small_scores() if score.metric == "dsc"]
    assert format_rows(summarise(dsc, ("structure",)), "latex", "run_1").splitlines() == [
        "% Average: over the structures, of means and of standard deviations, as in Tables 4 and 6 of Chen et al.",
        r"\begin{tabular}{llrrrr}",
        r"\toprule",
        r"Method & Metric & Sp & RK & L & Average \\",
        r"\midrule",
        r"run\_1 & dsc (\%) & 70.0 & 60.0 & 85.0 & 71.7 \\",
        r" &  & $\pm$-- & $\pm$-- & $\pm$7.1 & $\pm$7.1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_by_dataset_has_a_row_for_each_metric():
    assert format_rows(summarise(small_scores(), ("dataset",)), "latex", "x").splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"Method & Metric & set\_1 & set\_2 & Overall \\",
        r"\midrule",
        r"x & dsc (\%) & 80.0 & 70.0 & 75.0 \\",
        r" &  & $\pm$-- & $\pm$-- & $\pm$7.1 \\",
        r"\addlinespace",
        r" & volume\_difference (ml) & $-$80.0 & $-$70.0 & $-$75.0 \\",
        r" &  & $\pm$-- & $\pm$-- & $\pm$7.1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_of_the_paper_s_structures_has_its_columns_and_its_average():
    """The ± of the average is the mean of the structures', not how much their means differ."""
    rows = summarise(scores(("dsc",)), ("structure",))
    table = format_rows(rows, "latex", "ours").splitlines()
    titles = ["Sp", "RK", "LK", "GB", "Eso", "L", "St", "A", "PC", "Pan", "RAG", "LAG", "Duo", "B", "PU", "PSV"]
    assert table[3] == " & ".join(["Method", "Metric", *titles, "Average"]) + r" \\"
    means, spreads = (line.removesuffix(r" \\").split(" & ") for line in table[5:7])
    assert means[2:] == [f"{89 - i:.1f}" for i in range(16)] + ["81.5"]
    assert spreads[2:] == [r"$\pm$11.0"] * 17  # 0, 11 and 22 below, of every structure


def test_latex_of_other_structures_and_of_what_one_metric_lacks():
    anatomy = Anatomy((Structure("tumour", "tumour", "T&N", "#000000"), Structure("liver", "liver", "Li", "#000001")))
    found = [
        Score(structure, metric, 50.0, Outcome.SCORED, "a", "1")
        for structure, metric in (("liver", "dsc"), ("cyst_1", "dsc"), ("tumour", "hd95"))
    ]
    table = format_rows(summarise(found, ("structure",)), "latex", "m", anatomy).splitlines()
    assert table[3] == r"Method & Metric & T\&N & Li & cyst\_1 & Average \\"
    assert table[5] == r"m & dsc (\%) & -- & 50.0 & 50.0 & 50.0 \\"
    assert table[6] == r" &  &  & $\pm$-- & $\pm$-- & $\pm$-- \\"
    assert table[8] == r" & hd95 (mm) & 50.0 & -- & -- & 50.0 \\"


@pytest.mark.parametrize("by", [(), ("modality",), ("subject",), ("structure", "dataset"), ("dataset", "modality")])
def test_latex_of_other_groupings_has_a_line_a_row(by):
    rows = summarise(small_scores(), by)
    lines = format_rows(rows, "latex", "x").splitlines()
    assert sum("dsc" in line or "volume" in line for line in lines) == len(rows)
    assert "median" in lines[2]


def assert_compiles(text):
    """Braces are balanced, nothing special is bare, each row has as many cells as the columns' specification."""
    plain = re.sub(r"\\[_%&#${}]", "", text)
    body = [line for line in plain.splitlines() if not line.startswith("%")]
    assert plain.isascii()
    for line in body:
        depth = list(itertools.accumulate({"{": 1, "}": -1}.get(c, 0) for c in line))
        assert min(depth, default=0) >= 0
        assert not depth or depth[-1] == 0
        assert not set("%#_^~") & set(line)
        assert line.count("$") % 2 == 0
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", plain)
    rows = [line for line in body if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {len(columns) - 1}
    assert not any(line.lstrip().startswith(("[", "*")) for line in rows)
    assert len(body) == len(rows) + len([line for line in body if re.fullmatch(r"\\[a-z]+(\{.*\})*", line)])


names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_b 5% {c} #1 $x$ d&e", r"a\_b 5\% \{c\} \#1 \$x\$ d\&e"),
        ("~/a^b\\c", r"\textasciitilde{}/a\textasciicircum{}b\textbackslash{}c"),
        ("a<b>c|d", "a$<$b$>$c$|$d"),
        ("[a]", "{}[a]"),
        ("*a", "{}*a"),
    ],
)
def test_latex_escapes_what_is_special(name, expected):
    table = latex_table(["x"], 1, [([name], False)])
    assert table.splitlines()[4] == expected + r" \\"
    assert_compiles(table)


@given(names, names, names, st.sampled_from([(), ("structure",), ("dataset",), ("subject", "structure")]))
def test_latex_is_sound_whatever_things_are_called(method, dataset, structure, by):
    found = [
        Score(name, metric, -1.25, Outcome.SCORED, dataset, f"{dataset}/1")
        for metric in ("dsc", "volume_difference")
        for name in {structure, "liver"}
    ]
    assert_compiles(format_rows(summarise(found, by), "latex", method))


def test_the_grid_of_a_wide_table_of_the_paper_sets_means_over_their_deviations():
    study = load_study("table-4")
    scores = [
        Score(name, "dsc", value, Outcome.SCORED, "word", f"word/{i}")
        for name, values in (("spleen", (80.0, 90.0)), ("liver", (70.0, 76.0)))
        for i, value in enumerate(values)
    ]
    dodnet, _ = study.experiment_at(("DoDNet", "3D TransUNet"), "Sp")
    cells = cells_of(study, [RowResult(dodnet, runs=("a",), scores=(scores,), cases=2)])
    grid = paper_grid(Page(study, cells, (), {}))
    assert grid.header[:5] == ("Method", "Base", "", "Sp", "RK")
    assert len(grid.body) == 2 * 6
    paper, here, following = grid.body[:3]
    assert paper[:5] == ("DoDNet", "3D TransUNet", "paper", "92.6\n±11.9", "90.6\n±13.2")
    assert here[:5] == ("", "", "here", "85.0\n±7.1", "–")
    assert (paper[-1], here[-1]) == ("80.0\n±18.7", "79.0\n±5.7")  # means of 85 and 73, of 7.1 and 4.2
    assert following[0] == "CLIP-driven"
    assert set(grid.body[3][3:]) == {"–"}


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
