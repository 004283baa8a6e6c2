"""docs/experiments.md: its example is an experiment, its table of keys is complete."""

import re
from pathlib import Path

from abdoseg.experiments import Experiment, load_study


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_example_of_the_docs_is_sound(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    study = load_study(written(tmp_path, block))
    assert [e.id for e in study.experiments] == ["none", "half", "half-sparse"]
    for line in ("columns = ", "by = "):
        other = load_study(written(tmp_path, block.replace(f"# {line}", line).replace("cells", "# cells")))
        assert other.table.titles != study.table.titles
    keys = set(re.findall(r"^\| `\[*(\w+)", page, re.MULTILINE))
    assert keys | {"id"} == set(Experiment.model_fields)
