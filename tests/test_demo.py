"""The demo on a handful of phantoms and steps: every part runs; how well it learns is `nox -s demo`."""

import pytest

from abdoseg.errors import ConfigError
from abdoseg.steps.demo import DemoSettings, demo

SMALL = DemoSettings(cases=5, steps=2, compare=True)


@pytest.mark.slow
def test_the_demo_scores_both_columns_and_draws(tmp_path):
    report = demo(tmp_path / "demo", SMALL)
    assert report.picture.read_bytes().startswith(b"\x89PNG")
    assert set(report.tables) == {"self_disambiguation", "background"}
    rows = {row.structure: row for row in report.tables["background"]}
    assert rows["liver"].annotated
    assert rows["liver"].hidden is None  # every source draws the liver
    assert report.held_out >= 4
    again = demo(tmp_path / "demo", SMALL)
    assert again.tables == report.tables
    with pytest.raises(ConfigError, match="another size or seed"):
        demo(tmp_path / "demo", DemoSettings(cases=6))


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and no demo"):
        demo(tmp_path, SMALL)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
