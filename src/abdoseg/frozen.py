"""What a run freezes of the workspace, and how the runs that a name stands for differ."""

import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from abdoseg.config import CHANGEABLE, TrainConfig
from abdoseg.differences import MOST_TOLD, Difference, as_toml, differences, tell
from abdoseg.origins import Origin
from abdoseg.store import Settings
from abdoseg.types import SplitName
from abdoseg.views import View


class FrozenCase(BaseModel):
    """One case of a run: which, on which side, and what its voxels, labels and annotation were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    side: SplitName
    digest: str


class RunData(BaseModel):
    """Everything of the workspace that a run froze when it started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: tuple[FrozenCase, ...]
    view: View | None = Field(default=None, description="recipe of the sparse view of the training cases")
    settings: Settings = Field(description="structures, spacing and windows of the workspace")
    annotates: dict[str, tuple[str, ...]] = Field(
        default={}, description="structures that each training source annotates; only for methods with a head a source"
    )
    origin: Origin | None = Field(default=None, description="what its weights learn from; runs of old versions: None")
    text_embeddings: str | None = Field(
        default=None, description="what text_embeddings = auto found where it started: clip or learned; else None"
    )

    def is_of(self, other: "RunData") -> bool:
        """Whether both froze the same of a workspace; where weights and embeddings come from is no part of it."""
        apart = {"origin": None, "text_embeddings": None}
        return self.model_copy(update=apart) == other.model_copy(update=apart)

    def keys(self, side: str) -> list[str]:
        """Return the case keys of ``train``, ``val``, ``test`` or ``all``."""
        return [case.key for case in self.cases if side in (case.side, "all")]


_OPTIONS = {
    **{name: f"--{name}" for name in ("preset", "network", "method", "sampler", "view", "sources", "steps", "seed")},
    "fold": "--fold",
    "start_from": "--from",
}
"""Setting -> the option of `abdoseg train` that gives it; others are given by ``--set``."""


def other_settings(found: TrainConfig, there: TrainConfig, file: Path) -> str:
    """Return how a configuration differs from that of a run, and which options give the run's values.

    Parameters
    ----------
    found, there
        What was asked for, and what the run has.
    file
        The run's ``config.toml``.
    """
    # The preset makes no run another one, but most of the values that do.
    told = differences(found, there, CHANGEABLE - {"preset", "validate_every", "validate_cases"})
    if "best" not in (found.final_weights, there.final_weights):
        told = [one for one in told if one.name not in ("validate_every", "validate_cases")]
    all_at_once = f"; --config {shlex.quote(str(file))} gives all" if len(told) > MOST_TOLD else ""
    return tell(told, "the run", {}, _option) + all_at_once


def _option(difference: Difference) -> str:
    """Return the option that gives the run's value, ready to be typed."""
    name, value = difference.name, difference.there
    option = _OPTIONS.get(name)
    if value is None or (name == "sources" and not value):
        return f"leave out {option or name}"
    if name == "fold":
        return f"--fold {value[0]}/{value[1]}"
    if option is not None:
        return f"{option} {shlex.quote(','.join(value) if isinstance(value, list) else str(value))}"
    return f"--set {shlex.quote(f'{name}={as_toml(value)}')}"


def other_data(found: RunData, there: RunData) -> str:
    """Return how what a workspace holds now differs from what a run froze."""
    now, then = ({case.key: case for case in data.cases} for data in (found, there))
    both = now.keys() & then.keys()
    counts = {
        "gone": len(then.keys() - now.keys()),
        "new": len(now.keys() - then.keys()),
        "with other voxels or labels": sum(now[key].digest != then[key].digest for key in both),
        "on another side of the split": sum(now[key].side != then[key].side for key in both),
    }
    told = [f"{n} {what}" for what, n in counts.items() if n]
    parts = [f"cases: {', '.join(told)}"] if told else []
    if found.view != there.view:
        parts.append("the view of that name has another recipe")
    parts += (
        [f"workspace: {text}"] if (text := tell(differences(found.settings, there.settings), "the run", {})) else []
    )
    if found.annotates != there.annotates:
        parts.append("its sources annotate other structures")
    return "; ".join(parts)
