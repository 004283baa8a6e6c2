"""``abdoseg reproduce``: trainings of a table, on a handful of tiny cases."""

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from abdoseg.cards import load_card
from abdoseg.config import TrainConfig
from abdoseg.errors import ConfigError, RunError, UnknownNameError
from abdoseg.experiments import Options, load_study
from abdoseg.runs import list_runs
from abdoseg.steps.ingest import ingest
from abdoseg.steps.reproduce import reproduce, stands_of
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.conftest import Heard, word_case

TINY = {"patch": (16, 16, 16), "batch": 1, "checkpoint_seconds": 0.0, "validate_every": 0}
OPTIONS = Options(scale=0.005, preset="small", settings=TINY)  # 3 steps

STUDY = """
title = "Two samplers"
heads = ["Sampler"]

[[experiments]]
id = "even"
row = ["CMD"]
cells = { "DSC [%]" = [88.7, 7.0] }

[[experiments]]
id = "any"
row = ["Random"]
settings = { sampler = "random" }
view = { axes = ["axial"], fraction = 0.5 }
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    for number in (1, 2, 3):
        word_case(folder / "raw" / "WORD-V0.1.0", number)
    for number in (4, 5):
        word_case(folder / "raw" / "WORD-V0.1.0", number, "Ts")
    ingest(Workspace.create(folder / "w", Settings(spacing_mm=4.0)), load_card("word"), folder / "raw")
    return folder / "w"


@pytest.fixture
def workspace(ready, tmp_path) -> Workspace:
    return Workspace.open(shutil.copytree(ready, tmp_path / "workspace"))


@pytest.fixture
def study(tmp_path):
    return load_study(written(tmp_path))


def written(folder: Path, text: str = STUDY) -> str:
    path = folder / "samplers.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def never(config: TrainConfig) -> None:
    pytest.fail("nothing is left to train")


def facts_of(made) -> dict:
    return json.loads(made.files[2].read_text(encoding="utf-8"))


def test_a_table_is_trained_scored_and_written_and_a_second_call_trains_nothing(workspace, study):
    made = reproduce(workspace, study, OPTIONS, device="cpu")
    assert made.incomplete == {}
    assert [file.name for file in made.files] == ["table.md", "table.csv", "table.json"]
    assert made.files[0].parent == workspace.path / "reproduce" / "samplers" / OPTIONS.name
    facts = facts_of(made)
    assert [cell["row"] for cell in facts["cells"]] == [["CMD"], ["Random"]]
    assert [cell["paper"] for cell in facts["cells"]] == [{"mean": 88.7, "std": 7.0}, None]
    for cell in facts["cells"]:
        assert 0 <= cell["here"]["mean"] <= 100
        assert cell["here"]["n"] == 2
        assert cell["steps"] == 3
    runs = {run.name: run for run in list_runs(workspace)}
    assert [run.status for run in runs.values()] == ["finished"] * 2
    even, random = (runs[cell["runs"][0]] for cell in facts["cells"])
    assert (even.config.sampler, even.config.view, even.config.steps) == ("cmd", "full", 3)
    assert (random.config.sampler, random.data.view.fraction) == ("random", 0.5)
    assert workspace.active_view_name() == "full"  # the user's choice stays
    texts = [file.read_text(encoding="utf-8") for file in made.files]
    again = reproduce(workspace, study, OPTIONS, device="cpu", trainer=never)
    assert [file.read_text(encoding="utf-8") for file in again.files] == texts


class Killed(BaseException):
    pass


def test_a_killed_one_goes_on_and_ends_as_if_it_had_not_been_killed(workspace, study, ready, tmp_path):
    undisturbed = Workspace.open(shutil.copytree(ready, tmp_path / "undisturbed"))
    expected = facts_of(reproduce(undisturbed, study, OPTIONS, device="cpu"))

    def killed_in_the_second(config: TrainConfig) -> None:
        train(workspace, config, device="cpu", stop_after=1 if config.sampler == "random" else None)
        if config.sampler == "random":
            raise Killed

    with pytest.raises(Killed):
        reproduce(workspace, study, OPTIONS, device="cpu", trainer=killed_in_the_second)
    half = json.loads(next(workspace.path.glob("reproduce/*/*/table.json")).read_text(encoding="utf-8"))
    assert half["cells"][0] == expected["cells"][0]  # the first row stands already
    assert (half["cells"][1]["here"], half["cells"][1]["reason"]) == (None, "not run yet")
    trained = []

    def remembered(config: TrainConfig) -> None:
        trained.append(train(workspace, config, device="cpu"))

    facts = facts_of(reproduce(workspace, study, OPTIONS, device="cpu", trainer=remembered))
    assert facts["cells"] == expected["cells"]
    assert facts["notes"] == expected["notes"]
    assert [report.run.config.sampler for report in trained] == ["random"]
    assert len(list_runs(workspace)) == 2


def test_only_some_rows_and_seeds(workspace, study):
    with pytest.raises(UnknownNameError, match="row of samplers 'mdc' is not known"):
        reproduce(workspace, study, OPTIONS, rows=["mdc"], trainer=never)
    first = reproduce(workspace, study, OPTIONS, rows=["cmd"], device="cpu")
    assert first.incomplete == {}
    assert facts_of(first)["cells"][1]["reason"] == "not asked for, and not finished before"
    states = {stand.experiment.id: stand.finished for stand in stands_of(workspace, study, OPTIONS)}
    assert states == {"even": True, "any": False}
    both = facts_of(reproduce(workspace, study, OPTIONS, rows=["any"], device="cpu"))
    assert all(cell["here"] for cell in both["cells"])  # what was finished before is shown, too
    two = Options(scale=0.005, preset="small", settings=TINY, seeds=(0, 5))
    cell = facts_of(reproduce(workspace, study, two, rows=["even"], device="cpu"))["cells"][0]
    assert cell["seeds"] == [0, 5]
    assert cell["here"]["by_seed"][0] == both["cells"][0]["here"]["mean"]
    assert cell["here"]["mean"] == pytest.approx(sum(cell["here"]["by_seed"]) / 2)
    assert cell["runs"][0] == both["cells"][0]["runs"][0]
    assert len(list_runs(workspace)) == 3


def test_a_model_is_scored_on_sources_it_has_not_seen(workspace, tmp_path, total_source):
    ingest(workspace, load_card("totalsegmentator"), total_source)
    text = STUDY.replace('id = "even"', 'id = "even"\nsources = ["word"]')
    text = 'columns = [{ title = "DSC [%]" }, { title = "T", dataset = "totalsegmentator" }]\n' + text
    study = load_study(written(tmp_path, text.replace("cells = {", 'columns = ["DSC [%]", "T"]\ncells = {')))
    made = reproduce(workspace, study, OPTIONS, rows=["even"], device="cpu")
    overall, total = facts_of(made)["cells"][:2]
    assert (overall["here"]["n"], total["here"]["n"]) == (3, 1)
    run = next(run for run in list_runs(workspace) if run.name == overall["runs"][0])
    assert all(key.startswith("word/") for key in run.data.keys("all"))
    assert "learnt from 3 training cases" in made.page.notes


def test_a_row_that_fails_does_not_cost_the_others(workspace, study):
    heard = Heard()

    def fails(config: TrainConfig) -> None:
        if config.sampler == "random":
            raise RunError("run r: step 2: the loss is not finite")
        train(workspace, config, device="cpu")

    made = reproduce(workspace, study, OPTIONS, device="cpu", trainer=fails, progress=heard)
    assert made.incomplete == {"Random": "run r: step 2: the loss is not finite"}
    assert "Random: no number: run r: step 2: the loss is not finite" in made.page.notes
    assert facts_of(made)["cells"][0]["here"] is not None
    assert any("failed" in line for line in heard.lines)


def test_when_every_row_fails_that_is_an_error(workspace, study):
    def fails(config: TrainConfig) -> None:
        raise RunError("run r: step 2: the loss is not finite")

    with pytest.raises(RunError, match="samplers: no row was completed: run r: step 2"):
        reproduce(workspace, study, OPTIONS, device="cpu", trainer=fails)
    with pytest.raises(RunError, match="is not finished"):
        reproduce(workspace, study, OPTIONS, device="cpu", trainer=lambda config: None)


def test_an_unfinished_run_on_other_cases_is_refused(workspace, study, tmp_path):
    def stops(config: TrainConfig) -> None:
        train(workspace, config, device="cpu", stop_after=1)
        raise Killed

    with pytest.raises(Killed):
        reproduce(workspace, study, OPTIONS, rows=["cmd"], device="cpu", trainer=stops)
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 9)
    ingest(workspace, load_card("word"), tmp_path / "raw")
    with pytest.raises(RunError, match="froze other cases than"):
        reproduce(workspace, study, OPTIONS, rows=["cmd"], device="cpu", trainer=never)


def test_rows_not_asked_for_are_never_trained(workspace, study, tmp_path):
    reproduce(workspace, study, OPTIONS, device="cpu")
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 9)
    ingest(workspace, load_card("word"), tmp_path / "raw")
    assert not any(stand.finished for stand in stands_of(workspace, study, OPTIONS))
    trained = []

    def remembered(config: TrainConfig) -> None:
        trained.append(config.sampler)
        train(workspace, config, device="cpu")

    facts = facts_of(reproduce(workspace, study, OPTIONS, rows=["cmd"], device="cpu", trainer=remembered))
    assert trained == ["cmd"]
    assert facts["cells"][1]["here"] is None


def test_sources_that_are_missing(workspace):
    study = load_study("table-3")
    with pytest.raises(ConfigError, match=r"table-3: cannot be run here; Random, MDC, CMD \(Default\): no case of abd"):
        reproduce(workspace, study, OPTIONS, trainer=never)
    at_hand = Options(scale=1e-5, network="unet_small", settings=TINY, sources_at_hand=True)
    stands = stands_of(workspace, study, at_hand)
    assert [stand.missing for stand in stands] == [()] * 3
    assert all(config.sources == ("word",) for stand in stands for config in stand.configs)
    three = next(s for s in stands_of(workspace, load_study("table-2"), at_hand) if s.experiment.id == "three-sets")
    assert three.missing == ("no training case of amos-ct, amos-mri, btcv, flare22",)
    hybrid = load_study("table-9").experiments[0]
    assert "word" in hybrid.view.sources
    assert stands_of(workspace, load_study("table-9"), at_hand)[0].missing == ()


def test_a_row_that_cannot_run_is_left_out_or_refused_when_named(workspace, tmp_path):
    study = load_study(written(tmp_path, STUDY.replace('sampler = "random"', 'method = "magic"')))
    made = reproduce(workspace, study, OPTIONS, device="cpu")
    assert made.incomplete == {"Random": "method magic is not in this version"}
    with pytest.raises(ConfigError, match="Random: method magic is not in this version"):
        reproduce(workspace, study, OPTIONS, rows=["random"], trainer=never)


def test_without_test_cases_nothing_is_trained(tmp_path, study):
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 1)
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), tmp_path / "raw")
    with pytest.raises(ConfigError, match="no test case of any source"):
        reproduce(workspace, study, OPTIONS, trainer=never)


def test_phantoms_are_told_from_patients(tmp_path, study):
    from abdoseg.phantom.write import _README

    for number in (1, 2):
        word_case(tmp_path / "raw" / "word" / "WORD-V0.1.0", number, "Ts" if number == 2 else "Tr")
    workspace = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), tmp_path / "raw" / "word")
    made = reproduce(workspace, study, OPTIONS, rows=["cmd"], device="cpu")
    assert not any("phantom" in note for note in made.page.notes)
    (tmp_path / "raw" / "truth").mkdir()
    (tmp_path / "raw" / "truth" / "README.txt").write_text(_README, encoding="utf-8")
    made = reproduce(workspace, study, OPTIONS, rows=["cmd"], trainer=never)
    assert "synthetic phantoms, no patients: all sources" in made.page.notes


def test_a_view_of_that_name_with_another_recipe_is_not_overwritten(workspace, study):
    other = study.experiments[1].view.model_copy(update={"fraction": 0.25})
    workspace.save_view(other)
    made = reproduce(workspace, study, OPTIONS, device="cpu")
    assert "exists with other settings" in made.incomplete["Random"]
    assert workspace.view(other.name) == other


# -- the command -----------------------------------------------------------------------------------------------------

SMALL = [
    *("--preset", "small", "--scale", "0.005", "--device", "cpu"),
    *("--set", "patch=[16,16,16]", "--set", "batch=1", "--set", "validate_every=0"),
]


@pytest.fixture
def line(abdoseg, workspace):
    return abdoseg


def test_the_command_prints_the_table(line, tmp_path, workspace):
    done = line("reproduce", written(tmp_path), *SMALL)
    assert done.status == 0
    assert "Two samplers" in done.out
    assert "88.7±7.0" in done.out
    assert "learnt from 3 training cases" in done.out
    assert all(len(text) <= 80 for text in done.out.splitlines())
    assert "wrote workspace/reproduce/samplers" in done.err.replace("\n", "")
    listed = line("reproduce", written(tmp_path), "--list", "--json", *SMALL)
    states = json.loads(listed.out)
    assert [(s["experiment"], s["rows"], s["can_run"]) for s in states] == [
        ("even", ["CMD"], True),
        ("any", ["Random"], True),
    ]
    assert [s["runs"][0]["status"] for s in states] == ["finished", "finished"]
    text = line("reproduce", written(tmp_path), "--list", *SMALL)
    assert text.out.count("finished") == 2
    printed = line("reproduce", written(tmp_path), "--json", *SMALL)
    assert json.loads(printed.out)["table"] == "samplers"
    assert "training:" not in printed.err
    files = {path.suffix: path.read_text(encoding="utf-8") for path in workspace.path.glob("reproduce/*/*/table.*")}
    for format_, suffix in (("json", ".json"), ("csv", ".csv"), ("markdown", ".md")):
        assert line("reproduce", written(tmp_path), "--format", format_, *SMALL).out == files[suffix]
    latex = line("reproduce", written(tmp_path), "--format", "latex", *SMALL).out.splitlines()
    assert latex[0] == "% Two samplers"
    assert r"Sampler &  & DSC [\%] \\" in latex
    assert r"CMD & paper & 88.7$\pm$7.0 \\" in latex
    here = json.loads(files[".json"])["cells"][0]["here"]
    assert rf" & here & {here['mean']:.1f}$\pm${here['std']:.1f} \\" in latex


def test_a_left_out_row_is_status_one(line, tmp_path):
    done = line("reproduce", written(tmp_path, STUDY.replace('sampler = "random"', 'method = "magic"')), *SMALL)
    assert done.status == 1
    assert "1 row without a number" in done.err
    assert "Random: no number: method magic" in done.out


def test_the_list_says_what_is_missing(line, tmp_path):
    done = line("reproduce", "--list")
    assert done.status == 0
    assert all(f"table-{i}:" in done.out for i in range(1, 10))
    assert "cannot run (1)" in done.out
    assert "(1) no case of abdomenct1k, amos-ct" in done.out.replace("\n", " ")
    assert all(len(text) <= 80 for text in done.out.splitlines())
    facts = json.loads(line("reproduce", "--list", "--json").out)
    assert len(facts) == 6 + 2 + 3 + 6 + 6 + 3 + 4 + 6 + 3
    assert not any(fact["can_run"] for fact in facts)
    assert line("reproduce", "table-7", "--list", "--sources-at-hand").out.count("can run, 200,000 steps") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found no table, expected one of table-1, table-2"),
        (["table-10"], "table 'table-10' is not known"),
        (["none.toml"], "none.toml: no such file"),
        (["table-3"], "ingest it, or go without it by"),
        (["table-3", "--scale", "0"], "scale: found 0.0"),
        (["table-3", "--seeds", "a"], "--seeds a: expected whole numbers"),
        (["table-3", "--seeds", "1,1"], "expected different numbers"),
        (["table-3", "--network", "unet"], "network 'unet' is not known"),
        (["table-3", "--preset", "big"], "preset 'big' is not known"),
        (["table-3", "--format", "latx"], "format 'latx' is not known. Did you mean latex"),
        (["--list", "--format", "csv"], "format of --list 'csv' is not known"),
        (["table-3", "--format", "csv", "--json"], "--json: found --format csv too, expected one of them"),
        (["table-3", "--set", "sampler=mdc"], "--set sampler: is given by the experiment"),
        (["table-3", "--set", "precision=int1", "--sources-at-hand"], "configuration: precision"),
        (["table-3", "--rows", "cdm", "--sources-at-hand"], "row of table-3 'cdm' is not known"),
        (["table-2", "--rows", "3 sets", "--sources-at-hand"], "no training case of amos-ct"),
        (["table-3", "-w", "elsewhere"], "elsewhere: no workspace here"),
    ],
)
def test_wrong_use_is_one_line_and_status_two(line, arguments, message):
    done = line("reproduce", *arguments)
    assert done.status == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""


def test_several_processes_are_started_for_each_training(line, tmp_path, workspace, monkeypatch):
    from abdoseg.cli import _launch
    from abdoseg.config import parse_config

    started = []

    def launch(processes, arguments):
        options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        config = parse_config(tomllib.loads(Path(options["--config"]).read_text()), "the file")
        started.append((processes, arguments[0], options["--device"], config.sampler))
        os.write(1, b"said by a process\n")
        train(Workspace.open(options["--workspace"]), config, device="cpu")

    monkeypatch.setattr(_launch, "launch", launch)
    done = line("reproduce", written(tmp_path), *SMALL, "--nproc", "2")
    assert done.status == 0
    assert "said by a process" in done.err
    assert "said by a process" not in done.out
    assert started == [(2, "train", "cpu", "cmd"), (2, "train", "cpu", "random")]


def test_it_is_not_started_as_several_processes(line, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = line("reproduce", "table-3")
    assert done.status == 2
    assert "use --nproc" in done.err


# -- what a row asks of the machine ----------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Let the machine have so many bytes free."""
    return lambda size: monkeypatch.setattr("abdoseg.engine.memory.free_memory", lambda device: size)


TWO_SIZES = STUDY.replace('sampler = "random"', "patch = [64, 64, 64]")


def test_a_row_without_enough_memory_is_left_out_or_refused_before_anything_is_made(workspace, tmp_path, free):
    study = load_study(written(tmp_path, TWO_SIZES))
    free(2**26)
    made = reproduce(workspace, study, OPTIONS, device="cpu")
    (reason,) = made.incomplete.values()
    assert reason.startswith("memory: unet_small with 1 patch of 64x64x64 at once takes at least 0.1 GiB, and cpu has")
    assert f"Random: no number: {reason}" in made.page.notes
    assert [run.config.patch for run in list_runs(workspace)] == [(16, 16, 16)]
    assert [view.name for view in workspace.views()] == []
    with pytest.raises(ConfigError, match="samplers: cannot be run here; Random: memory: unet_small"):
        reproduce(workspace, study, OPTIONS, rows=["random"], device="cpu", trainer=never)
    assert reproduce(workspace, study, OPTIONS, device="cpu", ignore_memory=True).incomplete == {}
    free(2**20)  # what is finished needs no memory
    assert reproduce(workspace, study, OPTIONS, device="cpu", trainer=never).incomplete == {}


def test_the_papers_row_is_not_started_on_a_small_machine(line, free, workspace):
    free(20 * 2**30)
    done = line("reproduce", "table-1", "--rows", "DoDNet 3D TransUNet", "--sources-at-hand", "--device", "cpu")
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "transunet3d with 8 patches of 112x112x112 at once takes at least" in done.err
    assert "nevertheless by --ignore-memory" in done.err
    assert not list(workspace.path.glob("runs/*")) + list(workspace.path.glob("reproduce"))


def test_a_long_training_on_a_cpu_is_announced(workspace, study):
    heard = Heard()
    long = Options(scale=1500.0, preset="small", settings=TINY)

    def stops(config: TrainConfig) -> None:
        raise Killed

    with pytest.raises(Killed):
        reproduce(workspace, study, long, device="cpu", trainer=stops, progress=heard)
    (told,) = [text for text in heard.lines if text.startswith("on a CPU")]
    assert "900,000 steps of 1 patch of 16x16x16 are 12 times the voxels of --preset small; that preset" in told
    heard.lines.clear()
    reproduce(workspace, study, OPTIONS, device="cpu", progress=heard)
    assert not any(text.startswith("on a CPU") for text in heard.lines)
