import pytest

from abdoseg.cards import load_card
from abdoseg.steps.ingest import ingest
from abdoseg.store import Settings, Workspace
from tests.conftest import word_case


@pytest.fixture(scope="session")
def many_cases(tmp_path_factory):
    """Ten WORD cases, so that there are validation cases; tests must not change it."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(1, 11):
        word_case(folder / "raw" / "WORD-V0.1.0", number, "Ts" if number == 10 else "Val" if number == 9 else "Tr")
    workspace = Workspace.create(folder / "w", Settings(spacing_mm=4.0))
    ingest(workspace, load_card("word"), folder / "raw")
    return workspace
