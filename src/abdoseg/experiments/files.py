"""Experiments on disk: those that ship with the package, and the user's own."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.experiments.model import Experiment, Study, Table
from abdoseg.metrics.aggregate import AVERAGE
from abdoseg.shipped import shipped_folder
from abdoseg.value_errors import faults_of

M = TypeVar("M", bound=BaseModel)


def experiments_folder() -> Path:
    """Return the folder of the experiments that ship with the package."""
    return shipped_folder("experiments")


def list_tables() -> list[str]:
    """Return the ids of the paper's tables."""
    return sorted(path.stem for path in (experiments_folder() / "tables").glob("*.toml"))


def load_study(name: str) -> Study:
    """Return a table of the paper with its experiments, or those in a file of the user's own.

    Parameters
    ----------
    name
        ``table-1`` ... ``table-9``, or a path that ends in ``.toml``.

    Raises
    ------
    UnknownNameError
        If there is no such table.
    ConfigError
        If a file cannot be read or is no experiment; all its faults are told at once.
    """
    if name.endswith(".toml") or "/" in name:
        return _own(Path(name))
    if name not in list_tables():
        raise unknown_name("table", name, list_tables(), "A file of your own is a path that ends in .toml.")
    path = experiments_folder() / "tables" / f"{name}.toml"
    table = _validated(Table, {"id": name, **_read_toml(path)}, path)
    every = [_experiment(file) for file in sorted(experiments_folder().glob("*.toml"))]
    experiments = [e for e in every if any(fill.table == name for fill in e.fills)]
    return _study(table, experiments, "paper", path)


def _experiment(path: Path) -> Experiment:
    return _validated(Experiment, {"id": path.stem, **_read_toml(path)}, path)


def _study(table: Table, experiments: list[Experiment], origin: str, path: Path) -> Study:
    first = {row: i for i, row in reversed(list(enumerate(table.rows)))}
    in_order = sorted(experiments, key=lambda e: min(first.get(f.row, len(first)) for f in _fills(e, table)))
    return _validated(Study, {"table": table, "experiments": in_order, "origin": origin}, path)


def _fills(experiment: Experiment, table: Table) -> list[Any]:
    return [fill for fill in experiment.fills if fill.table == table.id]


def _own(path: Path) -> Study:
    """Return the study of a file with ``title``, ``heads``, ``columns`` or ``by``, and ``[[experiments]]``."""
    if path.stem in list_tables():
        raise ConfigError(f"{path}: {path.stem} is a table of the paper; give the file another name")
    facts = _read_toml(path)
    listed = facts.pop("experiments", None)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed) or not listed:
        raise ConfigError(f"{path}: found no [[experiments]], expected at least one; see docs/experiments.md")
    made = [_own_experiment(entry, number, path) for number, entry in enumerate(listed, start=1)]
    ids = [experiment.id for experiment in made]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: two experiments have the id '{twice}', expected ids of their own")
    by = facts.pop("by", None)
    if by is not None:
        facts["columns"] = _columns_by(by, facts, path)
    rows = list(dict.fromkeys(fill.row for experiment in made for fill in experiment.fills))
    table = _validated(Table, {"title": path.stem, **facts, "id": path.stem, "rows": rows}, path)
    return _study(table, made, "own", path)


def _own_experiment(entry: dict[str, Any], number: int, path: Path) -> Experiment:
    """Return an entry of a user's file; it fills one row, called like the experiment unless it says otherwise."""
    facts = dict(entry)
    name = facts.setdefault("id", f"experiment-{number}")
    title = facts.setdefault("title", name)
    row = facts.pop("row", [title])
    part = {key: facts.pop(key) for key in ("cells", "columns") if key in facts}
    view = facts.get("view")
    if isinstance(view, dict):
        facts["view"] = {"name": f"{path.stem}-{name}", **view}
    facts["fills"] = [{"table": path.stem, "row": row, **part}]
    return _validated(Experiment, facts, path, f"experiment {name}: ")


def _columns_by(by: object, facts: dict[str, Any], path: Path) -> list[dict[str, str]]:
    if by != "structure" or "columns" in facts:
        msg = f"{path}: by: found {by!r}, expected 'structure' and no columns beside it; list any others as columns"
        raise ConfigError(msg)
    columns = [{"title": s.abbreviation, "structure": s.name} for s in ABDOMEN.structures]
    return [*columns, {"title": "Average", "structure": AVERAGE}]


def _validated(model: type[M], facts: dict[str, Any], path: Path, where: str = "") -> M:
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        raise ConfigError(f"{path}: {where}{faults_of(error)}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `abdoseg reproduce --list` shows the tables of the paper") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:  # numbers too long and lists too deep are no TOMLDecodeError
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
