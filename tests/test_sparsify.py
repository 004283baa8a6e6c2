import pytest

from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, UnknownNameError
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import sparsify
from abdoseg.steps.status import status
from abdoseg.store import Workspace
from abdoseg.views import View


@pytest.fixture
def workspace(tmp_path, word_source):
    made = Workspace.create(tmp_path / "w")
    ingest(made, load_card("word"), word_source)
    return made


def test_a_view_says_what_it_keeps(workspace):
    report = sparsify(workspace, ["axial"], 0.2)
    n = workspace.read_facts("word/word_0001").shape[2]
    # of the three training cases; the test case keeps all labels
    assert report.slices == {"axial": (3 * max(1, int(0.2 * n + 0.5)), 3 * n)}
    assert workspace.active_view_name() == "axial-20"
    assert status(workspace)["views"][0]["slices"]["axial"] == list(report.slices["axial"])


def test_names_tell_views_apart(workspace):
    assert sparsify(workspace, ["axial", "coronal"], 0.1, sources=["word"]).view.name == "axial-coronal-10-word"
    sparsify(workspace, ["axial"], 0.2, name="mine")
    sparsify(workspace, ["axial"], 0.2, name="mine")  # the same again is no conflict
    with pytest.raises(ConfigError, match="view mine: exists with other settings"):
        sparsify(workspace, ["axial"], 0.3, name="mine")


def test_no_voxel_is_copied(workspace):
    before = sorted(path for path in (workspace.path / "sources").rglob("*"))
    sparsify(workspace, ["axial"], 0.2)
    assert sorted(path for path in (workspace.path / "sources").rglob("*")) == before


def test_unknown_sources_and_axes(workspace):
    with pytest.raises(UnknownNameError, match="amos"):
        sparsify(workspace, ["axial"], 0.2, sources=["amos"])
    with pytest.raises(UnknownNameError, match="view 'axail'"):
        sparsify(workspace, ["axail"], 0.2)


def test_a_hybrid_leaves_the_other_sources_alone(workspace):
    facts = workspace.read_facts("word/word_0001")
    view = View(name="h", axes=("axial",), fraction=0.2, sources=("btcv",))
    assert view.apply(facts.groups, facts.source, facts.shape).slices == {}
