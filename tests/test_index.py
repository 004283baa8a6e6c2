"""The index of a source says what its cases say, whatever happened to either."""

import json
import os

import pytest

from abdoseg.cards import load_card
from abdoseg.case import CaseFacts
from abdoseg.errors import WorkspaceError
from abdoseg.steps.ingest import ingest
from abdoseg.store import CaseBrief, Settings, Workspace
from abdoseg.store import workspace as module
from tests.conftest import word_case


@pytest.fixture
def workspace(tmp_path, word_source) -> Workspace:
    made = Workspace.create(tmp_path / "w", Settings(spacing_mm=4.0))
    ingest(made, load_card("word"), word_source)
    return made


def expected(workspace) -> list[tuple]:
    return [told(f, f.voxels) for f in workspace.facts()]


def told(facts: CaseFacts | CaseBrief, voxels) -> tuple:
    if isinstance(facts, CaseBrief):
        voxels = {name: n for name, n in zip(Settings().structures, voxels, strict=True) if n}
    return (facts.key, facts.modality, facts.patient, facts.split, facts.fingerprint, facts.digest, facts.shape, voxels)


def found(workspace) -> list[tuple]:
    return [told(b, b.voxels) for b in workspace.briefs()]


def index(workspace):
    return workspace.path / "sources" / "word.index.jsonl"


def count_reading(monkeypatch) -> list[str]:
    """Return a list that grows by the name of each case whose facts are read."""
    read, real = [], module.arrays.read_facts

    def counted(folders):
        read.extend(folder.name for folder in folders)
        return real(folders)

    monkeypatch.setattr(module.arrays, "read_facts", counted)
    return read


def test_ingest_builds_it_and_later_commands_open_no_case(workspace, monkeypatch):
    assert index(workspace).is_file()
    truth = expected(workspace)
    read = count_reading(monkeypatch)
    assert found(workspace) == truth
    assert read == []


def test_annotation_and_slices_are_those_of_the_facts(workspace):
    anatomy = workspace.anatomy
    for facts, brief in zip(workspace.facts(), workspace.briefs(), strict=True):
        assert brief.groups.to_json() == facts.annotation
        by_id = {anatomy.structure(i).name: runs for i, runs in brief.occupied().items()}
        assert json.dumps(by_id) == json.dumps(facts.occupied)
        foreground = workspace.read_foreground(facts.key)
        assert brief.voxel_counts().tolist() == foreground.counts().tolist()
        assert json.dumps(foreground.occupied(facts.shape)) == json.dumps(brief.occupied())


@pytest.mark.parametrize("text", ["", "1\n{", "1\n[1,2]\n", "99\n", "\x00\xff", "1\nnull\n"])
def test_a_damaged_index_is_made_again(workspace, text):
    truth = expected(workspace)
    index(workspace).write_text(text)
    assert found(workspace) == truth
    assert index(workspace).read_text().count("\n") == 5


def test_only_what_the_index_lacks_is_read(workspace, monkeypatch):
    lines = index(workspace).read_text().splitlines(keepends=True)
    index(workspace).write_text("".join(line for line in lines if "word_0003" not in line))
    read = count_reading(monkeypatch)
    assert found(workspace) == expected(workspace)
    assert read[:1] == ["word_0003"]
    assert len(read) == 1 + 4  # the four are the facts to compare with
    assert index(workspace).read_text() == "".join(lines)


def test_a_later_ingest_adds_to_it(workspace, tmp_path):
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 7)
    ingest(workspace, load_card("word"), tmp_path / "raw")
    assert index(workspace).read_text().count("\n") == 6
    assert found(workspace) == expected(workspace)


def test_an_ingest_that_finds_all_cases_there_leaves_an_index(workspace, word_source):
    """One that was killed between its last case and the index must not leave the source without."""
    before = index(workspace).read_text()
    index(workspace).unlink()
    assert not ingest(workspace, load_card("word"), word_source).taken
    assert index(workspace).read_text() == before


def test_cases_taken_again_or_removed_are_noticed(workspace, tmp_path):
    word_case(tmp_path / "raw" / "WORD-V0.1.0", 2, shape=(32, 28, 22))
    ingest(workspace, load_card("word"), tmp_path / "raw", replace=True)
    assert found(workspace) == expected(workspace)
    workspace.remove("word", "word_0001")
    assert found(workspace) == expected(workspace)
    workspace.remove("word")
    assert workspace.briefs() == []
    assert not index(workspace).exists()


def test_facts_changed_behind_our_back_are_noticed(workspace):
    file = workspace.case_folder("word/word_0003") / "zarr.json"
    facts = json.loads(file.read_text())
    facts["attributes"]["facts"]["patient"] = "somebody else"
    file.write_text(json.dumps(facts))
    assert found(workspace) == expected(workspace)
    assert workspace.briefs()[2].patient == "somebody else"


def test_other_settings_are_refused(workspace):
    file = workspace.path / "abdoseg.toml"
    file.write_text(file.read_text().replace("spacing_mm = 4.0", "spacing_mm = 3.0"))
    with pytest.raises(WorkspaceError, match="undo the change"):
        Workspace.open(workspace.path).briefs()


def test_a_workspace_that_cannot_be_written_is_read_all_the_same(workspace, monkeypatch):
    truth = expected(workspace)
    index(workspace).unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert found(workspace) == truth
    assert not index(workspace).exists()


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"facts": None}, "facts: "),
        ({"facts": {}}, "source: found nothing, expected a value"),
        (None, "not a stored case"),
        ([1], "not a stored case"),
    ],
)
def test_damaged_facts_are_told_with_their_case(workspace, attributes, reason):
    folder = workspace.case_folder("word/word_0003")
    file = folder / "zarr.json"
    described = json.loads(file.read_text())
    described["attributes"] = (described["attributes"] | attributes) if isinstance(attributes, dict) else attributes
    file.write_text(json.dumps(described))
    with pytest.raises(WorkspaceError) as caught:
        workspace.read_facts("word/word_0003")
    assert str(caught.value).startswith(f"{folder}: not a stored case (")
    assert str(caught.value).endswith("; ingest the case again with --replace")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["bytes", "cut", "description"])
def test_damaged_voxels_are_told_wherever_a_whole_case_is_read(workspace, damage):
    folder = workspace.case_folder("word/word_0003") / "label"
    if damage == "description":
        (folder / "zarr.json").write_text("{}")
    else:
        (shard,) = [path for path in (folder / "c").rglob("*") if path.is_file()]
        whole = shard.read_bytes()
        shard.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"\xff" * 400 + whole[400:])
    with pytest.raises(WorkspaceError) as caught:
        workspace.read_case("word/word_0003")
    assert "--replace" in str(caught.value)
    assert str(folder.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_case_that_cannot_be_taken_away_is_told(workspace, monkeypatch):
    def refuse(self, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(workspace.path), "rename", refuse)
    with pytest.raises(WorkspaceError, match="cannot be removed"):
        workspace.remove("word", "word_0003")
