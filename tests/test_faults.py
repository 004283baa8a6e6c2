"""Every planted fault comes out of ingest as it should: taken, quarantined with a reason, or passed over."""

import json

import pytest

from abdoseg.cards import load_cards, with_labels
from abdoseg.phantom import source_names, write_phantoms
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
