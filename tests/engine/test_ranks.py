"""Where a process stands, by the variables of torchrun and SLURM."""

import pytest

from abdoseg.config import share
from abdoseg.engine.place import Place, first_node, place_of
from abdoseg.engine.ranks import joined_ranks
from abdoseg.errors import ConfigError

SRUN = {
    "SLURM_JOB_ID": "123456",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(3, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Place()),
        (SRUN, Place(3, 4, 1)),
        # sbatch without srun: one process, though the job has four tasks
        ({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Place()),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, Place()),
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "2"}, Place(0, 2, 0)),  # torchrun started by srun
    ],
)
def test_places(environment, place):
    assert place_of(environment)[0] == place


def test_slurm_says_where_to_meet():
    assert place_of(SRUN)[1] == f"tcp://gpu07:{20000 + 123456 % 20000}"
    assert place_of({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "9"})[1] == "tcp://10.0.0.1:9"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[03-05,9],cpu1", "gpu03"),
        ("a-b[7]", "a-b7"),
        ("rack2-gpu[12,15].site", "rack2-gpu12.site"),
    ],
)
def test_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "-1", "WORLD_SIZE": "2"}])
def test_variables_that_are_no_numbers_are_told(environment):
    with pytest.raises(ConfigError, match=r"RANK.*expected a whole number"):
        place_of(environment)


def test_no_node_is_told():
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        first_node("")


def test_shares_are_a_partition():
    for size in (1, 2, 4, 8):
        numbers = [n for rank in range(size) for n in share(rank, size, 8)]
        assert numbers == list(range(8))
    with pytest.raises(ConfigError, match="batch 8: cannot be shared by 3 processes"):
        share(0, 3, 8)


def test_one_process_talks_to_nobody():
    with joined_ranks("cpu", {}) as ranks:
        assert ranks.first
        assert not ranks.several
        assert ranks.mean([1.5, 2.5]) == [1.5, 2.5]
        assert ranks.gather("a") == ["a"]
        assert ranks.first_does(lambda: 7) == 7


def test_others_that_cannot_be_met_are_told(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    joining = joined_ranks("cpu", {"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="process 1 of 2: cannot meet the others at env://"), joining:
        pass
