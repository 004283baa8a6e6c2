"""Decisions on cases that somebody had to look at: kept in the workspace, applied whenever the case is taken again."""

import json
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.files import write_text

Action = Literal["keep", "cut", "right", "left", "unknown", "components"]
"""What to do with a label that joins right and left (see :class:`SideDecision`)."""

ACTIONS: tuple[Action, ...] = get_args(Action)


class SideDecision(BaseModel):
    """What somebody decided about one joined pair of a case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action = Field(
        description="keep: by position, crossing parts unknown; cut: those at the midline; right, left: all of it; "
        "unknown: none of it; components: as `sides` says"
    )
    by: str = Field(description="who decided: user, or run NAME")
    sides: tuple[tuple[float, float, float, Literal["right", "left"]], ...] = Field(
        default=(), description="centroid of a component in mm (RAS+), and its side"
    )


class CaseReview(BaseModel):
    """All decisions on one case, by pair: ``right_kidney+left_kidney``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: dict[str, SideDecision] = {}


class Reviews(BaseModel):
    """Decisions on one source's cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    cases: dict[str, CaseReview] = {}

    def of(self, case: str) -> dict[str, SideDecision]:
        """Return pair -> decision of a case."""
        return self.cases[case].pairs if case in self.cases else {}

    def with_decision(self, case: str, pair: str, decision: SideDecision) -> "Reviews":
        """Return the decisions with one more."""
        pairs = {**self.of(case), pair: decision}
        return Reviews(cases={**self.cases, case: CaseReview(pairs=pairs)})


def pair_name(right: str, left: str) -> str:
    """Return the name under which a joined pair is decided."""
    return f"{right}+{left}"


def reviews_file(workspace: Path, source: str) -> Path:
    """Return where a workspace keeps the decisions on a source; `remove` and `ingest --replace` leave it."""
    return workspace / "reviews" / f"{source}.json"


def load_reviews(workspace: Path, source: str) -> Reviews:
    """Return the decisions on a source's cases; none where nobody decided anything.

    Raises
    ------
    WorkspaceError
        If the file is damaged.
    """
    path = reviews_file(workspace, source)
    try:
        return Reviews.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Reviews()
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise WorkspaceError(
            f"{path}: the decisions cannot be read; mend the file, or remove it to decide anew"
        ) from error


def save_reviews(workspace: Path, source: str, reviews: Reviews) -> None:
    """Write the decisions on a source's cases."""
    path = reviews_file(workspace, source)
    write_text(path, json.dumps(reviews.model_dump(mode="json"), indent=1) + "\n")


def require_action(text: str) -> Action:
    """Return the action called ``text``.

    Raises
    ------
    ConfigError
        If it is none a user may choose.
    """
    for action in ACTIONS:
        if action == text and action != "components":
            return action
    raise ConfigError(f"decision '{text}': expected one of {', '.join(a for a in ACTIONS if a != 'components')}")
