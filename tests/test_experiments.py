"""Experiments: the paper's tables agree with themselves and its text, files are validated, pages say what they hold."""

import csv
import io
import json
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abdoseg.cards import expand_aliases, list_cards
from abdoseg.config import TrainConfig
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.experiments import (
    Column,
    Ground,
    Options,
    Page,
    RowResult,
    cells_of,
    experiments_folder,
    figure_of,
    grids,
    list_tables,
    load_study,
    missing_names,
    notes_of,
    to_csv,
    to_json,
    to_markdown,
)
from abdoseg.metrics import Outcome, Score, summarise

TABLES = [f"table-{i}" for i in range(1, 10)]
STUDIES = {name: load_study(name) for name in TABLES}
EXPERIMENTS = {e.id: e for study in STUDIES.values() for e in study.experiments}
EIGHT = expand_aliases(
    ("abdomenct1k", "amos", "btcv", "flare22", "nih-pancreas", "totalsegmentator", "urogram", "word")
)
THREE = expand_aliases(("amos", "btcv", "flare22"))


def printed(table: str, row: str, column: str) -> tuple[float, float]:
    study = STUDIES[table]
    found = next(r for r in study.table.rows if " ".join(r) == row)
    return study.experiment_at(found, column)[1].cells[column]


# -- the paper's numbers ---------------------------------------------------------------------------------------------


def test_nine_tables_and_every_cell_has_a_number():
    assert list_tables() == TABLES
    counts = {}
    for name, study in STUDIES.items():
        cells = [
            study.experiment_at(row, c.title)[1].cells[c.title] for row in study.table.rows for c in study.table.columns
        ]
        assert all(0 < mean <= 100 and 0 < std < 50 for mean, std in cells)
        counts[name] = len(cells)
    assert list(counts.values()) == [6, 4, 3, 6 * 17, 6 * 9, 3 * 17, 4, 6, 3]


@pytest.mark.parametrize("name", ["table-4", "table-6"])
def test_averages_are_those_of_their_rows(name):
    study = STUDIES[name]
    for row in study.table.rows:
        _, fill = study.experiment_at(row, "Average")
        means, stds = np.array([fill.cells[title] for title in study.table.titles if title != "Average"]).T
        assert len(means) == 16
        assert fill.cells["Average"][1] == pytest.approx(stds.mean(), abs=0.1)
        if fill.misprint:
            assert (row, fill.cells["Average"][0]) == (("Ours", "MedNeXt"), 84.5)
            assert f"{means.mean():.1f}" in fill.misprint  # 85.46
        else:
            assert fill.cells["Average"][0] == pytest.approx(means.mean(), abs=0.1)


def test_a_number_printed_in_several_tables_is_the_same():
    seen = defaultdict(set)
    for study in STUDIES.values():
        for row in study.table.rows:
            for column in study.table.columns:
                experiment, fill = study.experiment_at(row, column.title)
                seen[experiment.id, column.structure, column.dataset].add(fill.cells[column.title])
    assert all(len(numbers) == 1 for numbers in seen.values())
    repeated = [EXPERIMENTS[id_] for id_, structure, dataset in seen if (structure, dataset) == (None, None)]
    assert len(repeated) == len(EXPERIMENTS)  # every experiment has its overall number


def test_the_overall_number_lies_between_those_of_the_datasets():
    for row in STUDIES["table-1"].table.rows:
        _, fill = STUDIES["table-5"].experiment_at(row, "WORD")
        by_dataset = [mean for mean, _ in fill.cells.values()]
        assert min(by_dataset) < printed("table-1", " ".join(row), "DSC [%]")[0] < max(by_dataset)


@pytest.mark.parametrize(
    ("better", "worse", "gain"),
    [
        # Section 4.2 and 4.4, in the paper's words.
        (("table-4", "Ours 3D TransUNet", "Average"), ("table-4", "DoDNet 3D TransUNet", "Average"), 5.7),
        (("table-4", "Ours 3D TransUNet", "Average"), ("table-4", "CLIP-driven 3D TransUNet", "Average"), 5.0),
        (("table-3", "CMD (Default)", "DSC [%]"), ("table-3", "Random", "DSC [%]"), 1.2),
        (("table-3", "CMD (Default)", "DSC [%]"), ("table-3", "MDC", "DSC [%]"), 0.8),
        (("table-3", "MDC", "DSC [%]"), ("table-3", "Random", "DSC [%]"), 0.4),
        (("table-7", "8 Sets w/ reg", "DSC [%]"), ("table-7", "8 Sets w/o reg", "DSC [%]"), 0.5),
        (("table-7", "3 Sets w/ reg", "DSC [%]"), ("table-7", "3 Sets w/o reg", "DSC [%]"), 0.9),
        (("table-9", "8 Sets (axial)", "DSC [%]"), ("table-2", "3 Sets", "Overall"), 4.1),
    ],
)
def test_what_the_text_says_of_the_tables(better, worse, gain):
    assert printed(*better)[0] - printed(*worse)[0] == pytest.approx(gain, abs=0.01)


# -- the experiments -------------------------------------------------------------------------------------------------


def test_every_file_is_used_and_every_source_is_a_card():
    assert {path.stem for path in experiments_folder().glob("*.toml")} == set(EXPERIMENTS)
    cards = {card.id for card in list_cards()}
    for experiment in EXPERIMENTS.values():
        assert set(experiment.sources) <= cards
        assert experiment.scoring.sources == EIGHT
        assert set(experiment.settings) | set(experiment.paper_settings) <= set(TrainConfig.model_fields)
        for fill in experiment.fills:
            assert fill.row in STUDIES[fill.table].table.rows


def test_what_is_learnt_from():
    by_sources = defaultdict(set)
    for experiment in EXPERIMENTS.values():
        by_sources[experiment.sources].add(experiment.id)
    assert by_sources.pop(THREE) == {"three-sets", "three-sets-no-entropy"}
    assert set(by_sources) == {EIGHT}
    for axis in ("axial", "sagittal", "coronal"):
        hybrid = EXPERIMENTS[f"hybrid-{axis}"].view
        assert (hybrid.axes, hybrid.fraction) == ((axis,), 0.2)
        assert {*hybrid.sources, *THREE} == set(EIGHT)
        assert not {*hybrid.sources} & {*THREE}
        for percent in (20, 100):
            view = EXPERIMENTS[f"sparse-{axis}-{percent}"].view
            assert (view.axes, view.fraction, view.sources) == ((axis,), percent / 100, ())


def config_of(experiment, **options) -> TrainConfig:
    return Options(**options).config(experiment, 0, experiment.sources)


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_at_the_papers_options_nothing_differs_from_the_paper(name):
    experiment = EXPERIMENTS[name]
    if missing_names(experiment, None):
        pytest.skip(f"not in this version yet: {missing_names(experiment, None)}")
    config = config_of(experiment)
    assert Options().differences(experiment, config) == []
    assert config.steps == (400_000 if name in ("dodnet", "clip-driven") else 200_000)
    entropy = (0.0, 0.0) if name.endswith("no-entropy") else (1.0, 3.0)
    assert (config.entropy_weight, config.entropy_weight_unannotated) == entropy
    assert config.patch == ((96,) * 3 if name == "swin-unetr" else (112,) * 3)


def test_experiments_are_different_trainings_unless_the_network_is_replaced():
    digests = {
        e.id: config_of(e, network="unet_small").digest()
        for e in EXPERIMENTS.values()
        if not missing_names(e, "unet_small")
    }
    same = {id_ for id_, digest in digests.items() if digest == digests["transunet3d"]}
    assert same == {"transunet3d", "unetpp", "swin-unetr", "mednext"}
    assert len(set(digests.values())) == len(digests) - 3


def test_each_difference_is_told():
    options = {"network": "unet_small", "scale": 0.01, "settings": {"patch": [32, 32, 32], "batch": 2}}
    swin = EXPERIMENTS["swin-unetr"]
    lines = Options(**options).differences(swin, config_of(swin, **options))
    assert lines == [
        "network unet_small (paper: swin_unetr)",
        "steps 2,000 (paper: 200,000)",
        "batch 2 (paper: 8)",
        "patch 32x32x32 (paper: 96x96x96)",
    ]
    small = {"preset": "small"}
    lines = Options(**small).differences(EXPERIMENTS["transunet3d"], config_of(EXPERIMENTS["transunet3d"], **small))
    assert "entropy_ramp 1 (paper: 0)" in lines
    assert "network unet_small (paper: transunet3d)" in lines
    demo = {"preset": "demo"}
    lines = Options(**demo).differences(EXPERIMENTS["transunet3d"], config_of(EXPERIMENTS["transunet3d"], **demo))
    assert "scale 0.95, 1.05 (paper: 0.9, 1.1)" in lines


def test_what_a_row_is_about_stays():
    options = Options(settings={"entropy_weight": 0.5, "learning_rate": 0.01})
    config = options.config(EXPERIMENTS["eight-sets-no-entropy"], 3, ())
    assert (config.entropy_weight, config.learning_rate, config.seed) == (0.0, 0.01, 3)
    assert options.kept(EXPERIMENTS["eight-sets-no-entropy"]) == [
        "entropy_weight stays 0 in spite of --set: it is what the row is about"
    ]
    assert options.kept(EXPERIMENTS["transunet3d"]) == []
    assert options.config(EXPERIMENTS["transunet3d"], 0, ()).entropy_weight == 0.5


def test_a_setting_of_one_method_reaches_that_method_only():
    options = {"settings": {"tasks_per_step": 1}, "network": "unet_small"}
    assert config_of(EXPERIMENTS["transunet3d"], **options).tasks_per_step == 0
    if not missing_names(EXPERIMENTS["dodnet"], None):
        assert config_of(EXPERIMENTS["dodnet"], **options).tasks_per_step == 1


@given(st.floats(1e-6, 3.0))
def test_the_scale_scales_steps_and_validation(scale):
    ours = config_of(EXPERIMENTS["transunet3d"], scale=scale)
    assert ours.steps == max(1, int(200_000 * scale + 0.5))
    assert ours.validate_every == max(1, int(5000 * scale + 0.5))
    factor = EXPERIMENTS["dodnet"].model_copy(update={"settings": {}})
    assert abs(config_of(factor, scale=scale).steps - 2 * ours.steps) <= 2
    assert config_of(EXPERIMENTS["transunet3d"], settings={"validate_every": 0}, scale=scale).validate_every == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"scale": float("nan")}, "above 0"),
        ({"seeds": ()}, "different numbers"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"seeds": (-1,)}, "at least 0"),
        ({"preset": "papr"}, "Did you mean paper"),
        ({"network": "unet_smal"}, "Did you mean unet_small"),
        ({"settings": {"seed": 3}}, "given by --seeds"),
        ({"settings": {"method": "background"}}, "given by the experiment"),
        ({"settings": {"stepz": 3}}, "Did you mean steps"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        Options(**options)


def test_other_options_have_other_names():
    every = [
        Options(),
        Options(scale=0.01),
        Options(network="unet_small"),
        Options(preset="small"),
        Options(seeds=(0, 1)),
        Options(seeds=(1,)),
        Options(settings={"batch": 2}),
        Options(settings={"batch": 4}),
        Options(sources_at_hand=True),
    ]
    assert len({options.name for options in every}) == len(every)
    assert Options().name == "paper"


def test_names_that_are_missing_are_told():
    experiment = EXPERIMENTS["transunet3d"].model_copy(update={"settings": {"method": "magic", "network": "wand"}})
    assert missing_names(experiment, None) == [
        "method magic is not in this version",
        "network wand is not in this version",
    ]
    assert missing_names(experiment, "unet_small") == ["method magic is not in this version"]


# -- files -----------------------------------------------------------------------------------------------------------

OWN = """
title = "Ramps"
heads = ["Ramp"]
by = "structure"

[[experiments]]
id = "none"
title = "no ramp"
sources = ["amos"]

[[experiments]]
id = "half"
settings = { entropy_ramp = 0.5 }
view = { axes = ["axial"], fraction = 0.5 }
row = ["first half"]
cells = { Sp = [90.0, 1.0] }
columns = ["Sp", "Average"]

[[experiments]]
id = "rest"
row = ["first half"]
columns = ["RK", "LK", "GB", "Eso", "L", "St", "A", "PC", "Pan", "RAG", "LAG", "Duo", "B", "PU", "PSV"]
"""


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own(tmp_path):
    study = load_study(own(tmp_path, OWN))
    assert study.origin == "own"
    assert study.table.rows == (("no ramp",), ("first half",))
    assert study.table.titles[-1] == "Average"
    none, half, rest = study.experiments
    assert none.sources == ("amos-ct", "amos-mri")
    assert half.view.name == "mine-half"
    assert study.experiment_at(("first half",), "Sp") == (half, half.fills[0])
    assert study.experiment_at(("first half",), "RK")[0] == rest
    assert study.rows_of(half) == ["first half Sp Average"]
    assert config_of(half).entropy_ramp == 0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "half"', 'id = "none"', "two experiments have the id 'none'"),
        ("entropy_ramp = 0.5", "entropy_rump = 0.5", "Did you mean entropy_ramp"),
        ("entropy_ramp = 0.5", "steps = 5", "steps: is not set here"),
        ("entropy_ramp = 0.5", "seed = 5", "seed: is not set here"),
        ("cells = { Sp", "cells = { Spleen", "has no column Spleen"),
        ('columns = ["RK", ', 'columns = ["Sp", "RK", ', "filled by half and rest"),
        ('"RK", "LK"', '"LK"', "column RK: no experiment fills it"),
        ('row = ["first half"]\ncells', 'row = ["first", "half"]\ncells', "expected one for each of"),
        ('by = "structure"', 'by = "dataset"', "expected 'structure'"),
        ('by = "structure"', "colours = 3", "colours: found an unknown name"),
        ("fraction = 0.5", "fraction = 1.5", "view.fraction"),
        ("[[experiments]]", "[[experiment]]", "found no"),
        ("title =", "title", "not valid TOML"),
        ("90.0, 1.0", "90.0", "cells.Sp"),
    ],
)
def test_faults_of_a_file_are_told(tmp_path, old, new, message):
    assert old in OWN
    with pytest.raises(ConfigError, match=message) as caught:
        load_study(own(tmp_path, OWN.replace(old, new)))
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean table-3"):
        load_study("table3")
    with pytest.raises(ConfigError, match="no such file"):
        load_study(str(tmp_path / "none.toml"))
    (tmp_path / "table-1.toml").write_text(OWN)
    with pytest.raises(ConfigError, match="is a table of the paper"):
        load_study(str(tmp_path / "table-1.toml"))


def test_an_installed_package_finds_its_experiments(tmp_path, monkeypatch):
    monkeypatch.setattr("abdoseg.shipped.__file__", str(tmp_path / "abdoseg" / "shipped.py"))
    assert experiments_folder() == tmp_path / "abdoseg" / "_experiments"
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert shipped["experiments"] == "abdoseg/_experiments"


# -- from scores to a page -------------------------------------------------------------------------------------------

STRUCTURES = ("spleen", "liver", "pancreas")


def scores_of(values: np.ndarray) -> list[Score]:
    """Scores of subjects by structures; NaN: not annotated; even subjects are of word, odd ones of btcv."""
    return [
        Score(
            STRUCTURES[c],
            "dsc",
            None if np.isnan(value) else float(value),
            Outcome.NOT_ANNOTATED if np.isnan(value) else Outcome.SCORED,
            ("word", "btcv")[s % 2],
            f"case-{s}",
        )
        for s, row in enumerate(values)
        for c, value in enumerate(row)
    ]


@st.composite
def seeds_of_scores(draw):
    n_seeds, n_subjects = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.uniform(0, 100, (n_seeds, n_subjects, 3))
    absent = rng.random((n_subjects, 3)) < 0.3
    absent[:, 0] = False
    values[:, absent] = np.nan
    return values


@given(seeds_of_scores())
def test_figures_are_the_plain_means(values):
    scores = [scores_of(of_seed) for of_seed in values]
    overall = figure_of(scores, Column(title="x"))
    subjects = np.nanmean(values, axis=2)
    assert overall.mean == pytest.approx(subjects.mean())
    assert overall.std == pytest.approx(np.sqrt((subjects.std(axis=1, ddof=1) ** 2).mean()))
    assert overall.by_seed == pytest.approx(subjects.mean(axis=1))
    assert overall.n == values.shape[1]
    assert overall.ci95[0] <= overall.mean <= overall.ci95[1]
    spleen = figure_of(scores, Column(title="x", structure="spleen"))
    assert spleen.mean == pytest.approx(values[:, :, 0].mean())
    word = figure_of(scores, Column(title="x", dataset="word"))
    assert word.mean == pytest.approx(subjects[:, ::2].mean())
    assert word.n == len(subjects[0, ::2])
    held = [c for c in range(3) if np.isfinite(values[0, :, c]).any()]
    average = figure_of(scores, Column(title="x", structure="average"))
    assert average.mean == pytest.approx(np.mean([np.nanmean(values[:, :, c]) for c in held]))
    stds = [
        np.mean([np.nanstd(of_seed[:, c], ddof=1) for c in held if np.isfinite(of_seed[:, c]).sum() > 1])
        for of_seed in values
    ]
    assert average.std == pytest.approx(np.sqrt(np.mean(np.square(stds))))


def test_one_seed_is_what_eval_says():
    values = np.random.default_rng(1).uniform(0, 100, (7, 3))
    row = summarise(scores_of(values), [])[0]
    figure = figure_of([scores_of(values)], Column(title="x"))
    assert (figure.mean, figure.std, figure.ci95, figure.n) == (row.mean, row.std, row.ci95, row.n)
    assert figure_of([scores_of(values)], Column(title="x", structure="bladder")) is None
    assert figure_of([scores_of(values)], Column(title="x", dataset="amos-ct")) is None


def test_seeds_scored_on_other_cases_are_a_bug():
    values = np.full((2, 3), 50.0)
    other = values.copy()
    other[1, 1] = np.nan
    with pytest.raises(ValueError, match="some seeds only"):
        figure_of([scores_of(values), scores_of(other)], Column(title="x"))
    with pytest.raises(ValueError, match="some seeds only"):
        figure_of([scores_of(values), scores_of(values[:1])], Column(title="x"))


def filled(name: str, options: Options = Options(network="unet_small")) -> Page:  # noqa: B008
    study = STUDIES[name]
    rng = np.random.default_rng(0)
    results = []
    for number, experiment in enumerate(study.experiments):
        if number == 1:
            results.append(RowResult(experiment, reason="method magic is not in this version"))
            continue
        scores = [
            Score(structure, "dsc", rng.uniform(0, 100), Outcome.SCORED, source, f"{source}/{i}")
            for source in EIGHT
            for i in range(3)
            for structure in ("spleen", "liver", "left_adrenal_gland")
        ]
        plain = experiment.model_copy(update={"settings": {"network": "unet_small"}})
        configs = tuple(Options(network="unet_small").config(plain, seed, ()) for seed in options.seeds)
        runs = tuple(f"run-{number}-{seed}" for seed in options.seeds)
        results.append(RowResult(experiment, configs, runs, (scores,) * len(options.seeds), 90))
    ground = Ground(2.0, dict.fromkeys(EIGHT, 3), frozenset(EIGHT), ())
    return Page(study, cells_of(study, results), notes_of(study, results, options, ground), {})


def markdown_table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in rows]


@pytest.mark.parametrize("name", TABLES)
def test_pages_hold_every_number(name):
    page = filled(name)
    table = page.study.table
    rows = markdown_table(to_markdown(page))
    assert len({len(row) for row in rows}) == 1
    assert all(re.fullmatch("---:?", cell) for cell in rows[1])
    assert len(set(map(tuple, rows[0:1]))) == 1
    assert len(rows[0]) == len(set(rows[0]))  # no two columns are called the same
    lines = list(csv.DictReader(io.StringIO(to_csv(page))))
    facts = json.loads(to_json(page))
    assert len(lines) == len(facts["cells"]) == len(page.cells) == len(table.rows) * len(table.columns)
    for cell, line, fact in zip(page.cells, lines, facts["cells"], strict=True):
        assert (float(line["paper_mean"]), float(line["paper_std"])) == cell.paper
        assert fact["paper"] == {"mean": cell.paper[0], "std": cell.paper[1]}
        assert line["mean"] == ("" if cell.here is None else repr(cell.here.mean))
        assert (fact["here"] or {"mean": None})["mean"] == (None if cell.here is None else cell.here.mean)
        assert line["reason"] == cell.result.reason
    shown = [text for row in rows[2:] for text in row]
    for cell in page.cells:
        assert f"{cell.paper[0]:.1f}±{cell.paper[1]:.1f}" in shown
        if cell.here is not None:
            assert any(text.startswith(f"{cell.here.mean:.1f}±") for text in shown)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [80, 120, 1000])
def test_grids_fit_and_hold_every_number_once(name, width):
    page = filled(name)
    parts = grids(page, width)
    assert all(grid.width() <= width for grid in parts)
    numbers = [text for grid in parts for row in grid.body for text in row[grid.names :]]
    assert len(numbers) == 2 * len(page.cells)
    assert sorted(numbers[::2]) == sorted(f"{c.paper[0]:.1f}±{c.paper[1]:.1f}" for c in page.cells)
    upright = width == 1000 or len(page.study.table.columns) <= 2
    assert (len(parts) == 1 and parts[0].names == len(page.study.table.heads)) or not upright


def test_a_part_has_one_row_at_least_where_nothing_fits():
    assert len(grids(filled("table-4"), 10)) == 6


def test_what_stands_under_a_table():
    notes = "\n".join(filled("table-1").notes)
    assert "one training a row, seed 0" in notes
    assert "200,000 steps, as in the paper" in notes
    assert "network unet_small" in notes
    assert "CLIP-driven 3D TransUNet: no number: method magic is not in this version" in notes
    assert "scored on 27 test cases" in notes
    assert "mm" not in notes
    notes = "\n".join(filled("table-4").notes)
    assert "misprinted" in notes
    assert "no number: RK, LK" in notes
    notes = "\n".join(filled("table-3", Options(network="unet_small", seeds=(0, 1))).notes)
    assert "mean over seeds 0, 1; a cell's seeds are up to 0.0 apart" in notes


def test_where_the_numbers_come_from_is_told():
    study = STUDIES["table-2"]
    config = Options().config(EXPERIMENTS["transunet3d"], 0, ("word",))
    scores = scores_of(np.full((2, 3), 50.0))
    results = [RowResult(e, (config,), ("the-same",), (scores,), 4) for e in study.experiments]
    ground = Ground(4.0, {"word": 1, "btcv": 1, "amos-ct": 0}, frozenset(("word", "btcv", "amos-ct")), ("word",))
    notes = "\n".join(notes_of(study, results, Options(sources_at_hand=True), ground))
    assert "grid of 4 mm (paper: 2 mm)" in notes
    assert "synthetic phantoms, no patients: word" in notes
    assert "without a test case: amos-ct" in notes
    assert "3 Sets: learnt without amos-mri, flare22: not in this workspace" in notes
    assert "the same training here, so their numbers do not differ: 3 Sets, 8 Sets" in notes
    assert "scored on 2 test cases (btcv 1, word 1)" in notes
