"""A workspace in an object store: moto's server stands for S3."""

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("s3fs", reason="s3fs is not installed: no workspace on s3")
from moto.server import ThreadedMotoServer

from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.places import append_text, open_place
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace
from abdoseg.store import arrays as store_arrays


@pytest.fixture(scope="module")
def server():
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """An empty bucket, and the environment in which s3fs finds the server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{abs(hash(request.node.nodeid))}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/work"
    s3fs.S3FileSystem.clear_instance_cache()


def voxels(workspace):
    return {key: workspace.read_case(key) for key in workspace.case_keys()}


def test_the_same_cases_as_on_disk(bucket, word_source, tmp_path):
    remote = Workspace.create(bucket, Settings(spacing_mm=4.0))
    local = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    for workspace in (remote, local):
        assert len(ingest(workspace, load_card("word"), word_source).taken) == 4
    again = Workspace.open(bucket)
    assert again.settings == local.settings
    assert again.sources() == ["word"]
    assert again.facts() == local.facts()
    there, here = voxels(again), voxels(local)
    for key, case in here.items():
        np.testing.assert_array_equal(there[key].image, case.image)
        np.testing.assert_array_equal(there[key].label, case.label)
        np.testing.assert_array_equal(again.read_foreground(key).index, local.read_foreground(key).index)
    assert not ingest(again, load_card("word"), word_source).taken
    assert again.remove("word", "word_0001") == ["word/word_0001"]
    assert "word/word_0001" not in Workspace.open(bucket).case_keys()
    again.remove("word")
    assert Workspace.open(bucket).case_keys() == []


def test_the_whole_line(bucket, word_source, abdoseg, tmp_path):
    small = ["--preset", "small", "--set", "steps=4", "--set", "patch=[16,16,16]", "--set", "log_every=2"]
    assert abdoseg("ingest", "word", word_source, "-w", bucket).status == 0
    assert abdoseg("sparsify", "-w", bucket, "--view", "axial", "--frac", "0.5").status == 0
    trained = abdoseg("train", "-w", bucket, *small, "--device", "cpu")
    assert trained.status == 0, trained.err
    again = abdoseg("train", "-w", bucket, *small, "--device", "cpu")
    assert again.status == 0
    assert "finished" in again.out + again.err
    scored = [abdoseg("eval", "-w", bucket, "--split", "all", "--format", "json") for _ in range(2)]
    assert [s.status for s in scored] == [0, 0]
    assert scored[0].out == scored[1].out  # the second reads the predictions of the first
    status = json.loads(abdoseg("status", "-w", bucket, "--json").out)
    assert status["workspace"] == bucket
    assert abdoseg("inspect", "word", "-w", bucket).status == 0
    assert "<html" in open_place(f"{bucket}/inspect/word/index.html").read_text()
    assert abdoseg("duplicates", "-w", bucket).status in (0, 1)
    scan = next(word_source.rglob("imagesTr/*.nii.gz"))
    assert abdoseg("predict", scan, "-w", bucket, "-o", tmp_path / "organs.nii.gz").status == 0
    assert (tmp_path / "organs.nii.gz").is_file()


def test_a_case_is_there_once_its_last_object_is(bucket, word_source, monkeypatch):
    workspace = Workspace.create(bucket, Settings(spacing_mm=4.0))
    real, written = store_arrays._write_array, []

    def stop_half_way(path, data):
        if written.count("image") == 3 and path.name == "label":
            raise KeyboardInterrupt
        written.append(path.name)
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(store_arrays, "_write_array", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            ingest(workspace, load_card("word"), word_source)
    assert len(workspace.case_keys()) == 2
    before = {f.case: f.digest for f in workspace.facts()}
    report = ingest(workspace, load_card("word"), word_source)
    assert len(report.present) == 2
    assert len(report.taken) == 2
    assert before.items() <= {f.case: f.digest for f in workspace.facts()}.items()
    with monkeypatch.context() as patched:  # taking again: the old case is gone before the new one is half there
        written[:] = ["image"] * 2
        patched.setattr(store_arrays, "_write_array", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            ingest(workspace, load_card("word"), word_source, replace=True)
    assert len(workspace.case_keys()) == 3
    for case in voxels(workspace).values():
        assert case.label.shape == case.image.shape == case.facts.shape


def test_two_processes_of_one_ingest(bucket, word_source, abdoseg):
    done = abdoseg("ingest", "word", word_source, "-w", bucket, "--jobs", "2")
    assert done.status == 0
    assert len(Workspace.open(bucket).case_keys()) == 4


def test_a_bucket_that_is_not_there(bucket, abdoseg):
    outcome = abdoseg("status", "-w", "s3://no-such-bucket/w")
    assert outcome.status == 2
    assert "no bucket 'no-such-bucket'" in outcome.err
    with pytest.raises(WorkspaceError, match="no workspace here"):
        Workspace.open(bucket + "/elsewhere")


def test_a_server_that_does_not_answer(bucket, monkeypatch, abdoseg):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    outcome = abdoseg("status", "-w", "s3://bucket/w")
    assert outcome.status == 2
    assert "cannot be reached" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_places_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="give a local folder"):
        open_place("nowhere://bucket/w")
    assert open_place("C:/data") == Path("C:/data")
    assert open_place(str(tmp_path)) == tmp_path
    assert str(open_place(Path("s3://bucket/w"))) == "s3://bucket/w"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=r"install abdoseg\[s3\]"):
        open_place("s3://a-bucket-of-its-own/w")


def test_text_is_added_to_an_object(bucket):
    file = open_place(f"{bucket}/log.txt")
    append_text(file, "one\n")
    append_text(file, "two\n")
    assert file.read_text() == "one\ntwo\n"
