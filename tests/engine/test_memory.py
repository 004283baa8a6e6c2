"""What a training needs of memory is a lower bound, and one that cannot fit is refused before anything is made."""

import json
import re
from pathlib import Path

import pytest
import torch

from abdoseg.cards import load_card
from abdoseg.config import TrainConfig, make_config
from abdoseg.engine import free_memory as machine
from abdoseg.engine.memory import estimate_memory, memory_shortage
from abdoseg.errors import ConfigError
from abdoseg.methods.task import Task
from abdoseg.runs import list_runs, plan_run
from abdoseg.steps.ingest import ingest
from abdoseg.steps.plan import plan_training
from abdoseg.steps.train import train
from abdoseg.store import Settings, Workspace
from tests.conftest import word_case

CPU = torch.device("cpu")
TASK = Task(("liver", "spleen"), (("word", (1, 2)),))
TINY = {"steps": 2, "patch": (16, 16, 16), "batch": 4, "validate_every": 0}


def config(**changes) -> TrainConfig:
    return make_config("small", {**TINY, **changes})


@pytest.fixture
def free(monkeypatch):
    """Let the machine have so many bytes free."""

    def have(size: int | None) -> None:
        monkeypatch.setattr("abdoseg.engine.memory.free_memory", lambda device: size)

    return have


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("memory")
    for number in (1, 2):
        word_case(folder / "raw" / "WORD-V0.1.0", number)
    made = Workspace.create(folder / "w", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), folder / "raw")
    return made


# -- the estimate ----------------------------------------------------------------------------------------------------


def test_the_estimate_counts_copies_patches_and_widths():
    base = estimate_memory(config(), TASK)
    assert base.logits == 2 * 4 * 3 * 16**3 * 4
    assert estimate_memory(config(accumulate=4), TASK).activations == base.activations / 4
    assert estimate_memory(config(), TASK, processes=2).activations == base.activations / 2
    assert base.gradients == base.weights / 4
    assert base.at_once == base.total - base.gradients
    large = estimate_memory(config(network="unetr", patch=(32, 16, 16), batch=1), TASK)
    assert large.activations + large.logits < large.gradients
    assert large.at_once == large.weights
    assert estimate_memory(config(average_decay=0.9), TASK).weights == base.weights / 4 * 5
    double = estimate_memory(config(precision="float64"), TASK)
    assert (double.weights, double.activations) == (2 * base.weights, 2 * base.activations)
    assert estimate_memory(config(checkpointing=True), TASK).activations < 0.6 * base.activations


def test_the_estimate_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    estimate_memory(config(patch=(32, 16, 16)), TASK)
    assert torch.equal(torch.rand(4), expected)


# -- what is told ----------------------------------------------------------------------------------------------------


def test_what_fits_exactly_is_not_short(free):
    need = estimate_memory(config(), TASK).at_once
    for size, short in ((need, False), (need - 1, True), (None, False)):
        free(size)
        assert bool(memory_shortage(config(), TASK, CPU)) == short


def test_processes_of_one_machine_share_its_memory(free):
    need = estimate_memory(config(), TASK, processes=2).at_once
    free(2 * need)
    assert memory_shortage(config(), TASK, CPU, 2, here=2) == ""
    free(2 * need - 1)
    assert "in each of 2 processes, and cpu has" in memory_shortage(config(), TASK, CPU, 2, here=2)
    assert memory_shortage(config(), TASK, CPU, 2, here=1) == ""  # a GPU each


def test_the_paper_on_a_machine_of_24_gib(free):
    free(20 * 2**30)
    paper = make_config("paper", {"method": "dodnet"})
    told = memory_shortage(paper, TASK, CPU)
    assert "\n" not in told
    assert re.search(r"transunet3d with 8 patches of 112x112x112 at once takes at least [23]\d\.\d GiB, ", told)
    assert "cpu has 20.0 GiB free; take less at once by --set accumulate=2, --set checkpointing=true" in told
    assert memory_shortage(make_config("paper", {"method": "dodnet", "accumulate": 2}), TASK, CPU) == ""
    assert memory_shortage(make_config("paper", {"compile": True}), TASK, CPU) == ""  # not known what it keeps


def test_passes_are_only_proposed_where_they_help(free):
    chosen = {"patch": (32, 32, 32)}
    parts = estimate_memory(config(**chosen), TASK)
    of_one = (parts.activations + parts.logits) // 4
    for patches, expected in ((3, "accumulate=2, "), (1, "accumulate=4, "), (0, None)):
        free(parts.weights - parts.gradients + patches * of_one)
        told = memory_shortage(config(**chosen), TASK, CPU)
        assert (expected in told) if expected else ("accumulate" not in told)
    free(parts.weights - parts.gradients + of_one)
    assert "accumulate=4, " in memory_shortage(config(**chosen, accumulate=2), TASK, CPU)
    assert memory_shortage(config(**chosen, accumulate=4), TASK, CPU) == ""


# -- before anything is made -----------------------------------------------------------------------------------------


def test_a_training_that_cannot_fit_is_refused_and_leaves_no_folder(workspace, free):
    free(2**20)
    with pytest.raises(ConfigError, match=r"memory: unet_small with 4 patches .* nevertheless by --ignore-memory"):
        train(workspace, config(), name="refused", device="cpu")
    assert not (workspace.runs_folder / "refused").exists()
    assert train(workspace, config(), name="forced", device="cpu", ignore_memory=True).outcome == "trained"
    assert train(workspace, config(), name="forced", device="cpu").outcome == "already finished"


def test_so_is_an_unfinished_one_on_a_smaller_machine(workspace, free):
    train(workspace, config(seed=1), name="half", device="cpu", stop_after=1)
    free(2**20)
    with pytest.raises(ConfigError, match="memory: unet_small with 4 patches"):
        train(workspace, config(seed=1), name="half", device="cpu")
    free(None)
    assert train(workspace, config(seed=1), name="half", device="cpu").outcome == "trained"


def test_the_plan_warns_of_it(workspace, free):
    run, _ = plan_run(workspace, config(seed=2))
    need = estimate_memory(config(), run.task()).at_once
    free(need)
    assert not any("memory" in line for line in plan_training(workspace, run, 1, CPU)["warnings"])
    free(need - 1)
    assert plan_training(workspace, run, 1, CPU)["warnings"][0].startswith("memory: unet_small with 4 patches")
    assert not any("memory" in line for line in plan_training(workspace, run)["warnings"])  # no device yet


def test_on_the_command_line(workspace, free, abdoseg):
    options = ("--preset", "small", "--device", "cpu", "--steps", 1, "--name", "typed", "-w", workspace.path)
    options += ("--set", "patch=[16,16,16]", "--set", "validate_every=0")
    free(2**20)
    done = abdoseg("train", *options)
    assert done.status == 2
    assert "nevertheless by --ignore-memory" in done.err
    plan = json.loads(abdoseg("train", *options, "--dry-run", "--json").out)
    assert plan["warnings"][0].startswith("memory: ")
    assert "typed" not in {run.name for run in list_runs(workspace)}
    assert abdoseg("train", *options, "--ignore-memory").status == 0


# -- what is free ----------------------------------------------------------------------------------------------------

MEMINFO = "MemTotal:       24000 kB\nMemFree:          500 kB\nMemAvailable:    8000 kB\n"


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Write the files by which Linux tells its memory."""
    groups = tmp_path / "groups"
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    second, first = machine._OF_VERSION[""], machine._OF_VERSION["memory"]
    monkeypatch.setattr(machine, "_OF_VERSION", {"": (groups, *second[1:]), "memory": (groups / "memory", *first[1:])})

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")

    return write


def test_free_is_what_the_kernel_can_give(linux):
    linux("proc/meminfo", MEMINFO)
    assert machine.free_memory(CPU) == 8000 * 1024


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/jobs/7", "groups", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/jobs/7",
            "groups/memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_job_has_what_its_limits_leave(linux, line, folder, names):
    limit, use, files = names
    linux("proc/meminfo", MEMINFO)
    linux("proc/self/cgroup", f"9:cpu:/elsewhere\n{line}\n")
    linux(f"{folder}/jobs/{limit}", "6000\n")  # of the group around it
    linux(f"{folder}/jobs/{use}", "5500\n")
    linux(f"{folder}/jobs/memory.stat", f"anon 7\n{files} 400\n")
    linux(f"{folder}/jobs/7/{limit}", "5000\n")
    linux(f"{folder}/jobs/7/{use}", "4500\n")
    assert machine.free_memory(CPU) == 500
    linux(f"{folder}/jobs/7/{use}", "3000\n")
    assert machine.free_memory(CPU) == 900
    linux(f"{folder}/jobs/{limit}", "max\n")
    assert machine.free_memory(CPU) == 2000
    linux(f"{folder}/jobs/7/{use}", "9000\n")
    assert machine.free_memory(CPU) == 0


def test_elsewhere_it_is_what_is_installed_or_nobody_knows(linux, monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}
    monkeypatch.setattr(machine.os, "sysconf", sizes.__getitem__)
    assert machine.free_memory(CPU) == 40960
    monkeypatch.delattr(machine.os, "sysconf")
    assert machine.free_memory(CPU) is None
    assert machine.free_memory(torch.device("meta")) is None


def test_a_gpu_has_what_its_driver_and_pytorch_have_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert machine.free_memory(torch.device("cuda", 0)) == 1300


def test_this_machine_says_what_it_has():
    if not Path("/proc/meminfo").is_file():
        pytest.skip("no Linux")
    assert 2**20 < machine.free_memory(CPU) < 2**50
