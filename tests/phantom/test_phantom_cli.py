"""``abdoseg phantom``: names, ``all`` and the table it prints."""

import json

import pytest

from abdoseg.phantom import write
from abdoseg.phantom.body import Key
from abdoseg.phantom.scanner import scan_person
from abdoseg.phantom.write import DEFAULT_SOURCES, LAYOUTS

SCALE = "8"


@pytest.fixture(autouse=True)
def one_person_a_protocol(monkeypatch):
    """Painting takes the time, and it is tested elsewhere."""
    scans = {}

    def scan(key: Key, protocol, spacing_scale):
        if protocol.modality not in scans:
            scans[protocol.modality] = scan_person(key, protocol, spacing_scale)
        return scans[protocol.modality]

    monkeypatch.setattr(write, "scan_person", scan)


def rows(outcome):
    lines = [line.split() for line in outcome.out.splitlines()]
    return {line[0]: [int(number) for number in line[1:]] for line in lines if line and line[0] in LAYOUTS}


def test_all_writes_every_source(abdoseg, tmp_path):
    outcome = abdoseg("phantom", "out", "--sources", "all", "--cases", 1, "--spacing-scale", SCALE)
    assert outcome.status == 0
    assert rows(outcome) == {name: [1, 0] for name in LAYOUTS}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"truth", *LAYOUTS}
    assert {p.name for p in (tmp_path / "out/truth").iterdir()} == {"README.txt", *LAYOUTS}


def test_the_default_is_four_sources(abdoseg, tmp_path):
    outcome = abdoseg("phantom", "out", "--cases", 2, "--spacing-scale", SCALE)
    assert outcome.status == 0
    assert rows(outcome) == {"word": [2, 0], "amos": [2, 1], "btcv": [2, 0], "totalsegmentator": [2, 0]}
    assert set(DEFAULT_SOURCES) == set(rows(outcome))
    assert not (tmp_path / "out/faults.json").exists()


def test_faults_are_counted_apart_and_listed(abdoseg, tmp_path):
    sources = "totalsegmentator-v1,urogram"
    outcome = abdoseg(
        "phantom", "out", "--sources", sources, "--cases", 1, "--spacing-scale", SCALE, "--faults", "--seed", 4
    )
    assert outcome.status == 0
    assert rows(outcome) == {"totalsegmentator-v1": [1, 0, 1], "urogram": [1, 0, 4]}
    assert len(json.loads((tmp_path / "out/faults.json").read_text())) == 5
    # Both releases of TotalSegmentator are read by one card.
    assert "abdoseg ingest totalsegmentator out/totalsegmentator-v1" in outcome.err


def test_too_many_cases_are_refused_before_anything_is_written(abdoseg, tmp_path):
    outcome = abdoseg("phantom", "out", "--sources", "all", "--cases", 1000)
    assert outcome.status == 2
    assert "cases is 1000" in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_unknown_source_is_refused(abdoseg):
    outcome = abdoseg("phantom", "out", "--sources", "all,urogramm")
    assert outcome.status == 2
    assert "Did you mean urogram" in " ".join(outcome.err.split())
