"""Ingest on a Dask cluster of processes gives what it gives alone."""

import pytest

from abdoseg.cards import load_card
from abdoseg.errors import ConfigError
from abdoseg.steps.ingest import dask_pool, ingest
from abdoseg.store import Settings, Workspace

distributed = pytest.importorskip("distributed")

# Dask's own housekeeping as its processes end.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_cluster_of_processes(tmp_path, word_source):
    (word_source / "WORD-V0.1.0" / "imagesTr" / "word_0002.nii.gz").write_bytes(b"no scan")
    alone, spread = (Workspace.create(tmp_path / name, Settings(spacing_mm=4.0)) for name in ("alone", "spread"))
    expected = ingest(alone, load_card("word"), word_source)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        dask_pool(cluster.scheduler_address) as executor,
    ):
        found = ingest(spread, load_card("word"), word_source, executor=executor)
    assert [f.digest for f in found.taken] == [f.digest for f in expected.taken]
    assert found.quarantined == expected.quarantined
    assert set(found.quarantined) == {"word_0002"}
    assert spread.case_keys() == alone.case_keys()


def test_nobody_answers():
    with pytest.raises(ConfigError, match="no scheduler answers there"), dask_pool("tcp://127.0.0.1:9"):
        pass
