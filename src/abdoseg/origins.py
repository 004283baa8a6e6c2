"""What a run's weights learnt from, frozen when it starts: its own sources, and those of the run it starts from."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from abdoseg.store import Workspace

Gives = Literal["weights", "labels"]
"""What one run gives another: weights to start from, or labels to learn from."""


class SourceFacts(BaseModel):
    """What a model card says of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    training_cases: int
    licence: str


class Base(BaseModel):
    """The run that another one starts from, as it was then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    gives: Gives
    steps: int | None = Field(description="optimiser steps its weights had seen; None: not known")
    sources: dict[str, SourceFacts]
    started_from: "Base | None" = None


class Origin(BaseModel):
    """What the weights of a run learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: dict[str, SourceFacts]
    started_from: Base | None = None

    def bases(self) -> Iterator[Base]:
        """Return the run it starts from, the one that run started from, and so on."""
        base = self.started_from
        while base is not None:
            yield base
            base = base.started_from


def sources_of(workspace: Workspace, keys: Sequence[str]) -> dict[str, SourceFacts]:
    """Return the sources of the cases ``keys``, as the workspace records them."""
    records = workspace.records()
    found = {}
    for source in sorted({key.partition("/")[0] for key in keys}):
        card = records[source].card if source in records else {}
        found[source] = SourceFacts(
            title=card.get("title", source),
            training_cases=sum(key.startswith(f"{source}/") for key in keys),
            licence=card.get("access", {}).get("licence", "not known"),
        )
    return found
