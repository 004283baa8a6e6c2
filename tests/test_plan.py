"""What is said before a training starts, and how soon what is wrong is refused."""

import json
import shlex
import subprocess
import sys
from typing import Annotated

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from abdoseg.cards import load_card
from abdoseg.cli._training import configs_by_device, typed_again
from abdoseg.cli.train import sizes
from abdoseg.config import make_config
from abdoseg.errors import ConfigError
from abdoseg.runs import plan_run
from abdoseg.splits import SplitItem, split_cases
from abdoseg.steps.ingest import ingest
from abdoseg.steps.plan import SPLIT_NEEDS, lacks_validation, plan_training
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.conftest import LPS, Heard, word_case, write_nifti

TINY = {"steps": 1, "batch": 1, "patch": (16, 16, 16), "validate_every": 0, "workers": 1}
SMALL = ("--preset", "small", "--set", "patch=[16,16,16]", "--device", "cpu")


@pytest.fixture
def workspace(tmp_path):
    for number in (1, 2):
        word_case(tmp_path / "raw", number)
    made = Workspace.create(tmp_path / "workspace", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), tmp_path / "raw")
    return made


def test_the_dry_run_and_train_warn_of_the_same(workspace):
    config = make_config("small", TINY)
    told = plan_training(workspace, plan_run(workspace, config)[0])["warnings"]
    heard = Heard()
    train(workspace, config, device="cpu", progress=heard)
    of_structures = [line for line in heard.lines if "cannot be learnt" in line]
    assert "portal_splenic_vein: no training case annotates it; it cannot be learnt" in of_structures
    assert "gallbladder: annotated, but no training case holds it; it cannot be learnt" in of_structures
    assert told == [*lacks_validation(plan_run(workspace, config)[0]), *of_structures]


@pytest.mark.parametrize("annotated_from", ["card", "labels"])
def test_what_a_view_hides_or_a_method_leaves_out_is_in_the_plan(workspace, tmp_path, annotated_from):
    word_case(tmp_path / "none", 9)
    label = next(tmp_path.rglob("none/labelsTr/word_0009.nii.gz"))
    write_nifti(label, np.zeros((30, 28, 20), dtype=np.uint8), LPS)
    ingest(workspace, load_card("word"), tmp_path / "none")
    changes = TINY | {"method": "dodnet", "annotated_from": annotated_from}
    told = plan_training(workspace, plan_run(workspace, make_config("small", changes))[0])["warnings"]
    assert [line for line in told if "left out" in line] == [
        "1 training case holds no annotated structure and is left out: dodnet cannot learn from it"
    ]
    others = make_config("small", changes | {"method": "sigmoid"})
    told = plan_training(workspace, plan_run(workspace, others)[0])["warnings"]
    assert not [line for line in told if "left out" in line]


def test_the_dry_run_says_the_run_and_how_to_train_it(workspace, abdoseg):
    typed = (*SMALL, "--set", "structure_weights={liver = 2}", "--name", "mine", "--fold", "1/2", "--seed", 3)
    shown = abdoseg("train", *typed, "--dry-run")
    assert shown.status == 0, shown.err
    lines = shown.err.splitlines()
    assert lines[1] == "run mine: new"
    assert "no validation case" not in shown.err
    assert "warning: portal_splenic_vein: no training case annotates it; it cannot be learnt" in lines
    command = lines[-1].removeprefix("next: ")
    assert sorted(shlex.split(command)) == sorted(["abdoseg", "train", *map(str, typed)])
    plan = json.loads(abdoseg("train", *typed, "--dry-run", "--json").out)
    assert (plan["run"], plan["status"], plan["next"]) == ("mine", "new", command)
    again = json.loads(abdoseg(*shlex.split(command)[1:], "--dry-run", "--json").out)
    assert again["config"] == plan["config"]
    assert [f"warning: {line}" for line in plan["warnings"]] == [line for line in lines if line.startswith("warning")]


@pytest.mark.parametrize(
    ("fold", "told"),
    [
        ((), "--fold 1/5 holds some out"),
        (("--fold", "5/9"), "--fold 5/9 holds out nothing here"),
    ],
)
def test_no_validation_case_is_one_line_with_what_to_do(workspace, abdoseg, fold, told):
    shown = abdoseg("train", *SMALL, *fold, "--dry-run")
    (line,) = [line for line in shown.err.splitlines() if "no validation case" in line]
    assert told in line
    done = abdoseg("train", *SMALL, *fold, "--steps", 1, "--set", "validate_every=0", "--set", "batch=1")
    assert done.status == 0
    assert line in done.err.splitlines()


def test_a_split_needs_as_many_patients_as_is_said():
    def sides(n):
        return set(split_cases([SplitItem(f"a/{i}", "a", str(i)) for i in range(n)]).values())

    assert "val" not in sides(SPLIT_NEEDS - 1)
    assert "val" in sides(SPLIT_NEEDS)


@given(st.lists(st.integers(0, 2**36), min_size=1, max_size=4))
def test_shown_sizes_add_up(parts):
    total, shown = sizes({str(i): size for i, size in enumerate(parts)})
    number, unit = total.split()
    step = {"MB": 2**20, "GiB": 2**30}[unit]
    least = 1 if unit == "MB" else 0.1
    assert round(sum(map(float, shown.values())), 6) == float(number)
    assert abs(float(number) * step - sum(parts)) <= least * step / 2 + 1
    for i, size in enumerate(parts):
        assert abs(float(shown[str(i)]) * step - size) <= least * step + 1
    assert (unit == "GiB") == (sum(parts) >= 2**30)


def test_small_sizes_are_not_nothing():
    assert sizes({"weights": 15 * 2**20, "activations": 22 * 2**20 + 2**19}) == (
        "38 MB",
        {"weights": "15", "activations": "23"},
    )
    assert sizes({"weights": 2**30, "logits": 2**29}) == ("1.5 GiB", {"weights": "1.0", "logits": "0.5"})


WITHOUT_TORCH = """
import json, sys
from abdoseg.cli import app
told = {}
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as stop:
        told[" ".join(arguments)] = [stop.code, "torch" in sys.modules]
print(json.dumps(told))
"""

REFUSED = [
    ["train", "--set", "nonsense=1"],
    ["train", "--set", "learning_rate=abc"],
    ["train", "--network", "nope"],
    ["train", "--preset", "nope"],
    ["train", "--view", "nope"],
    ["train", "--sources", "nope"],
    ["train", "--from", "nope"],
    ["train", "--fold", "7/5"],
    ["train", "--name", "a/b"],
    ["train", "--set", "structure_weights.livr=2"],
    ["train", "--set", "source_weights.wrod=2"],
    ["train", "--preset", "small", "--nproc", "3"],
    ["train", "--json"],
    ["sample", "--sampler", "nope"],
    ["sample", "--run", "nope"],
    ["sparsify", "--view", "nope"],
    ["predict", "nope.nii.gz", "-o", "o.nii.gz"],
    ["predict", "workspace/abdoseg.toml", "-o", "o.nii.gz", "--run", "nope"],
    ["predict", "workspace", "-o", "out", "--format", "nope"],
    ["predict", "workspace", "-o", "out", "--modality", "pet"],
    ["predict", "workspace", "-o", "one.nii.gz"],
    ["predict", "workspace"],
]


def test_what_is_wrong_is_refused_before_torch_is_loaded(workspace):
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(REFUSED)]
    done = subprocess.run(command, cwd=workspace.path.parent, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {" ".join(arguments): [2, False] for arguments in REFUSED}
    assert "run 'nope' is not known: there are no runs yet" in done.stderr
    assert done.stderr.count("error:") == len(REFUSED)
    assert "Known: ." not in done.stderr


def test_what_only_one_device_would_refuse_waits_for_the_device(workspace, abdoseg):
    """With 8 passes the paper's batch of 8 can be shared, the small preset's of 2 cannot."""
    told = abdoseg("train", "--set", "accumulate=8", "--dry-run", "--device", "auto")
    assert told.status == 2
    assert "batch 2: cannot be shared evenly by accumulate = 8" in told.err


def test_random_draws_no_structures_and_says_so(workspace, abdoseg):
    shown = abdoseg("sample", "--n", 20, "--sampler", "random", "--seed", 4, "--set", "source_weights.word=2")
    assert shown.status == 2  # random draws no source either
    typed = ("--sampler", "random", "--seed", 4, "--fold", "1/2")
    shown = abdoseg("sample", "--n", 20, *typed)
    assert shown.status == 0
    assert "it draws no structures" in shown.err
    assert "never drawn" not in shown.err
    assert "gallbladder" not in shown.out
    assert shlex.split(shown.err.splitlines()[-1])[1:] == ["abdoseg", "train", *map(str, typed)]
    found = json.loads(abdoseg("sample", "--n", 20, *typed, "--json").out)
    assert found["draws_structures"] is False
    assert found["skipped"] == []


def test_sample_of_a_run_says_how_to_go_on_with_it(workspace, abdoseg):
    train(workspace, make_config("small", TINY | {"steps": 2, "seed": 5}), name="half", device="cpu", stop_after=1)
    shown = abdoseg("sample", "--n", 20, "--run", "half", "-w", workspace.path)
    command = shlex.split(shown.err.splitlines()[-1].removeprefix("next: "))
    plan = json.loads(abdoseg(*command[1:], "--device", "cpu", "--dry-run", "--json").out)
    assert (plan["run"], plan["status"], plan["config"]["seed"]) == ("half", "unfinished", 5)
    train(workspace, make_config("small", TINY | {"steps": 2, "seed": 5}), name="half", device="cpu")
    shown = abdoseg("sample", "--n", 20, "--run", "half", "-w", workspace.path)
    assert shown.err.splitlines()[-1] == f"next: abdoseg eval --run half --workspace {shlex.quote(str(workspace.path))}"


def test_sparsify_goes_on_in_the_same_workspace_and_wraps_with_an_indent(workspace, abdoseg):
    names = ",".join(workspace.anatomy.names[:9])
    shown = abdoseg("sparsify", "--view", "axial", "--structures", names, "--name", "v", "-w", workspace.path)
    assert shown.err.splitlines()[-1] == f"next: abdoseg train --workspace {shlex.quote(str(workspace.path))}"
    first, second, third, *_ = shown.out.splitlines()[1:]
    assert first.startswith("  20 % of the axial slices, evenly spaced, of spleen,")
    assert second.startswith("    ")
    assert not second.startswith("     ")
    told = [line for line in abdoseg("status", "-w", workspace.path).out.splitlines() if line in (first, second, third)]
    assert told == [first, second, third]
    assert max(map(len, shown.out.splitlines())) <= 80


def test_what_is_wrong_for_one_kind_of_device_is_left_to_the_other(workspace):
    made = configs_by_device(workspace, "auto", None, None, ["accumulate=4"])
    assert list(made) == ["cuda"]  # 8 patches there, 2 on a CPU
    with pytest.raises(ConfigError, match="batch 2"):
        configs_by_device(workspace, "cpu", None, None, ["accumulate=4"])


def test_a_command_typed_again_has_its_flags():
    app = typer.Typer()

    @app.command()
    def look(
        context: typer.Context,
        deep: Annotated[bool, typer.Option("--deep")] = False,
        near: Annotated[bool, typer.Option("--near")] = False,
        name: Annotated[str, typer.Option()] = "all",
    ) -> None:
        assert (deep, near) == (True, False)
        typer.echo(typed_again(context, "look"))

    told = CliRunner().invoke(app, ["--deep", "--name", "my cases"])
    assert told.stdout == "abdoseg look --deep --name 'my cases'\n"
