"""Repeated scans that were found: kept in the workspace, so that every later split keeps them on one side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from abdoseg.errors import WorkspaceError
from abdoseg.files import write_text


class Twin(BaseModel):
    """Two cases that show one scan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: tuple[str, str] = Field(description="their keys, sorted")
    fingerprints: tuple[str, str] = Field(description="of the images that were compared")
    kinds: tuple[str, ...] = Field(description="identical, or what tells the copies apart")
    correlation: float
    overlap: float = Field(description="part of the smaller body that both show")
    axes: str = Field(description="how the second one's axes lie along the first one's")


class Twins(BaseModel):
    """What the last search found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    pairs: tuple[Twin, ...] = ()
    different: tuple[tuple[str, str], ...] = Field(
        default=(), description="fingerprints of candidates that were compared and are not one scan"
    )

    def of(self, fingerprints: Mapping[str, str]) -> list[Twin]:
        """Return the pairs of which both cases are still there, with the images that were compared."""
        return [
            twin for twin in self.pairs if tuple(fingerprints.get(case) for case in twin.cases) == twin.fingerprints
        ]


def load_twins(workspace: Path) -> Twins:
    """Return what the last search found; nothing where there was none.

    Raises
    ------
    WorkspaceError
        If the file is damaged.
    """
    path = workspace / "duplicates.json"
    try:
        return Twins.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Twins()
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise WorkspaceError(f"{path}: cannot be read; remove it and run `abdoseg duplicates` again") from error


def save_twins(workspace: Path, twins: Twins) -> None:
    """Write what a search found."""
    write_text(workspace / "duplicates.json", twins.model_dump_json(indent=1) + "\n")
