"""Every planted fault comes out of ingest as it should: taken, quarantined with a reason, or passed over."""

import json

import pytest

from abdoseg.cards import load_cards, with_labels
from abdoseg.phantom import source_names, write_phantoms
from abdoseg.runs import decide_sides
from abdoseg.steps.duplicates import duplicates
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace

pytestmark = pytest.mark.slow

SOURCES = source_names(("all",))
CARDS = {"totalsegmentator-v1": "totalsegmentator"}
URINARY = "1=right_kidney,2=left_kidney,3=bladder"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, SOURCES, cases=1, seed=3, spacing_scale=2.5, faults=True)
    return root, json.loads((root / "faults.json").read_text())


@pytest.mark.parametrize("source", SOURCES)
def test_planted_faults(phantoms, source, tmp_path):
    root, faults = phantoms
    workspace = Workspace.create(tmp_path / "workspace", Settings(spacing_mm=4.0))
    taken, quarantined = set(), {}
    for card in load_cards(CARDS.get(source, source)):
        report = ingest(workspace, with_labels(card, URINARY) if card.labels_by_user else card, root / source)
        taken |= {facts.case for facts in report.taken}
        quarantined |= report.quarantined
    planted = [fault for fault in faults if fault["source"] == source]
    assert planted
    for fault in planted:
        case, expected = fault["case"], fault["expected"]
        if expected in ("taken", "repaired"):
            assert case in taken, (fault, quarantined.get(case))
        elif expected == "quarantined":
            assert quarantined[case], fault
            assert "\n" not in quarantined[case]
        else:
            assert case not in taken, fault
            assert case not in quarantined, fault
    assert set(quarantined) <= {fault["case"] for fault in planted}  # sound cases come through


def test_planted_copies_are_found_and_stay_on_one_side(phantoms, tmp_path):
    """One scan twice in AbdomenCT-1K, and one that NIH Pancreas-CT has too, as DICOM with other axes."""
    root, _ = phantoms
    workspace = Workspace.create(tmp_path / "workspace", Settings(spacing_mm=4.0))
    for source in ("abdomenct1k", "nih-pancreas"):
        ingest(workspace, load_cards(source)[0], root / source)
    report = duplicates(workspace)
    found = {twin.cases for twin in report.twins}
    assert ("abdomenct1k/Case_00297", "abdomenct1k/Case_00928") in found
    assert ("abdomenct1k/Case_01062", "nih-pancreas/PANCREAS_0001") in found
    assert len(found) == 2
    facts = workspace.facts()
    for seed in range(20):
        sides = decide_sides(workspace, facts, seed)
        for a, b in found:
            assert sides[a] == sides[b]
    again = duplicates(workspace)
    assert again.compared == 0
    assert again.twins == report.twins
    workspace.remove("nih-pancreas")
    assert {twin.cases for twin in duplicates(workspace).twins} == {
        ("abdomenct1k/Case_00297", "abdomenct1k/Case_00928")
    }
