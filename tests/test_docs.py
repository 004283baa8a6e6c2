"""Docs that do not run are wrong: every Python block is executed, every command and option is described."""

import re
from pathlib import Path

import pytest
import typer

from abdoseg.cards import load_card
from abdoseg.steps.ingest import ingest
from abdoseg.store import Workspace

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
CARDS = [
    block
    for page in PAGES
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "[[layouts]]" in block
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, word_source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ingest(Workspace.create("workspace"), load_card("word"), word_source)
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize("block", CARDS)
def test_cards_in_docs_are_sound(block, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(block)
    assert load_card(str(path)).annotated


def test_there_are_blocks_to_test():
    assert len(BLOCKS) >= 2
    assert CARDS


def test_every_command_and_option_is_described():
    from abdoseg.cli import app

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")

    def walk(command, path):
        assert f"`{path}`" in text, f"docs/commands.md lacks {path}; `nox -s docs` writes it"
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in ("--install-completion", "--show-completion"):
                    assert option in text, f"docs/commands.md lacks {path} {option}; `nox -s docs` writes it"
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    root = typer.main.get_command(app)
    for name, child in root.commands.items():
        walk(child, f"abdoseg {name}")


def test_settings_named_in_the_docs_are_there():
    from abdoseg.config import TrainConfig

    named = {name for page in PAGES for name in re.findall(r"--set '?([a-z_]+)", page.read_text(encoding="utf-8"))}
    rows = re.findall(r"^\| (?:memory|speed|another optimum|the authors' code) \|.*$", training_page(), re.MULTILINE)
    assert len(rows) == 4
    named |= {name for row in rows for name in re.findall(r"`([a-z_]+)[=`]", row)}
    assert named - set(TrainConfig.model_fields) == set()


def training_page() -> str:
    return (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
