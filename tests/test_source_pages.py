import re
from pathlib import Path

import pytest

from abdoseg.cards import list_cards
from abdoseg.cards.registry import card_from
from abdoseg.source_pages import SHOWN_CASES, source_page, write_source_pages

FOLDER = Path(__file__).parents[1] / "docs" / "sources"
CARDS = list_cards()
ALL = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)


def page_of(card):
    return (FOLDER / f"{card.id}.md").read_text(encoding="utf-8")


def test_committed_pages_are_those_of_the_cards(tmp_path):
    written = {path.name: path.read_text(encoding="utf-8") for path in write_source_pages(tmp_path)}
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*")}
    assert committed.keys() == written.keys() == {"README.md", *(f"{card.id}.md" for card in CARDS)}
    for name, text in written.items():
        assert committed[name] == text, f"docs/sources/{name}: the card changed; `nox -s docs` writes the page again"


@ALL
def test_page_names_every_structure_value_and_file(card):
    page = page_of(card)
    for text in (*card.annotated, *card.labels, *card.dropped, *card.ignored, *card.masks):
        assert f"`{text}`" in page, text
    for layout in card.layouts:
        for template in filter(None, (layout.image, layout.labels)):
            assert all(part in page for part in template.split("/")), template


@ALL
def test_page_tells_what_the_card_knows(card):
    page = " ".join(page_of(card).replace("\\", "").split())
    free = [*card.evidence, *card.overlaps.values(), *card.suspect.values(), *card.exclude.values()]
    free += [rule.reason for rule in (*card.exceptions, *card.unlabelled, *card.variants)]
    free += [card.access.licence, card.access.citation, card.access.url] if card.access else []
    for text in free:
        assert " ".join(text.replace("\\", "").split()) in page, text


def test_links_lead_somewhere():
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_running_text_is_not_too_wide():
    for page in FOLDER.glob("*.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 120 or line.startswith("|"), f"{page.name}: {line}"


def mine(**facts):
    layout = {
        "name": "flat",
        "image": "images/{case}.nii.gz",
        "label": "labels/{case}.nii.gz",
        "case": "{case}",
        "groups": {"case": "[^/]+"},
    }
    card = {"id": "mine", "title": "Mine", "modality": "CT", "annotated": ["liver"], "labels": {"1": "liver"}}
    return card_from({**card, "layouts": [layout], **facts}, "test")


def test_files_of_two_folders_are_one_tree():
    tree = "FOLDER/\n├── images/\n│   └── {case}.nii.gz    (image)\n└── labels/\n    └── {case}.nii.gz    (label)\n"
    assert tree in source_page(mine())


def test_many_cases_of_one_reason_are_counted():
    page = source_page(mine(suspect={f"c{i}": "noisy" for i in range(SHOWN_CASES + 3)}))
    assert "and 3 more: noisy" in page
    assert f"`c{SHOWN_CASES}`" not in page


def test_values_merged_dropped_and_ignored_are_told_apart():
    page = source_page(
        mine(
            annotated=["right_kidney", "left_kidney"],
            labels={"1": ["right_kidney", "left_kidney"]},
            dropped={"2": "a *bold* colon"},
            ignored={"255": "not drawn"},
            sparse={"kind": "table", "table": "slices.csv"},
            overlaps={"word": "some", "elsewhere": "all"},
        )
    )
    assert "| `1` | `right_kidney`, `left_kidney`, split by side |" in page
    assert r"| `2` | background | a \*bold\* colon |" in page
    assert "| `255` | unknown | not drawn |" in page
    assert "`slices.csv` lists the annotated slices" in page
    assert "- elsewhere: all" in page


def test_overlaps_with_known_sources_are_links():
    assert "- [word](word.md): some" in source_page(mine(overlaps={"word": "some"}), {"word"})
