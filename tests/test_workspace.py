import json

import numpy as np
import pytest

from abdoseg.cards import load_card
from abdoseg.errors import ConfigError, UnknownNameError, WorkspaceError
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace
from abdoseg.views import View


def test_create_open_and_settings(tmp_path):
    made = Workspace.create(tmp_path / "w", Settings(spacing_mm=3.0, structures=("liver", "spleen")))
    opened = Workspace.open(tmp_path / "w")
    assert opened.settings == made.settings
    assert opened.anatomy.names == ("liver", "spleen")
    assert Workspace.create(tmp_path / "w").settings == made.settings
    with pytest.raises(ConfigError, match="a workspace with other settings is there"):
        Workspace.create(tmp_path / "w", Settings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 99\n", "workspace format 99, expected 1"),
        ("not toml", "cannot be read"),
        ("spacing_mm = -1\n", "cannot be read"),
        ("colour = 'red'\n", "cannot be read"),
    ],
)
def test_foreign_settings_are_refused(tmp_path, text, message):
    (tmp_path / "abdoseg.toml").write_text(text)
    with pytest.raises(WorkspaceError, match=message):
        Workspace.open(tmp_path)


def test_a_case_of_another_format_is_refused_with_a_way_out(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, load_card("word"), word_source)
    file = workspace.case_folder("word/word_0001") / "zarr.json"
    facts = json.loads(file.read_text())
    facts["attributes"]["abdoseg_format"] = 7
    file.write_text(json.dumps(facts))
    with pytest.raises(WorkspaceError, match=r"case format 7, expected 1; .*ingest the source again"):
        workspace.facts()


def test_what_is_asked_for_and_not_there(tmp_path, word_source):
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, load_card("word"), word_source)
    with pytest.raises(WorkspaceError, match="not a stored case"):
        workspace.read_case("word/word_0099")
    with pytest.raises(UnknownNameError, match="Did you mean word"):
        workspace.case_keys(["wodr"])
    with pytest.raises(UnknownNameError, match="view 'nope'"):
        workspace.view("nope")
    with pytest.raises(UnknownNameError, match="view 'nope'"):
        workspace.activate_view("nope")


def test_a_case_without_any_label_can_be_stored(tmp_path):
    from tests.conftest import LPS, body, write_nifti

    write_nifti(tmp_path / "raw/imagesTr/word_0001.nii.gz", body((12, 12, 12)), LPS)
    write_nifti(tmp_path / "raw/labelsTr/word_0001.nii.gz", np.zeros((12, 12, 12), np.uint8), LPS)
    workspace = Workspace.create(tmp_path / "w")
    ingest(workspace, load_card("word"), tmp_path / "raw")
    assert workspace.read_foreground("word/word_0001").counts().sum() == 0
    assert workspace.read_facts("word/word_0001").groups.has_annotation


def test_views_are_kept(tmp_path):
    workspace = Workspace.create(tmp_path / "w")
    assert workspace.active_view_name() == "full"
    view = View(name="v", axes=("axial",), fraction=0.2)
    workspace.save_view(view)
    workspace.activate_view("v")
    assert Workspace.open(tmp_path / "w").view(workspace.active_view_name()) == view
