"""The files of a training, in its run's folder."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from abdoseg.checkpoints import MODEL, load_tensors, save_tensors
from abdoseg.engine.fit import Share
from abdoseg.engine.state import TrainState, Validation
from abdoseg.errors import RunError
from abdoseg.files import write_text
from abdoseg.model_card import card_as_markdown


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training saves.

    Parameters
    ----------
    folder
        The run's.
    checkpoint
        State to resume from.
    model
        Weights of the finished run; a run is finished once this file is there.
    """

    folder: Path
    checkpoint: Path
    model: Path

    @property
    def best(self) -> Path:
        """Weights of the best validation."""
        return self.checkpoint.with_name("best.safetensors")

    def save(self, state: TrainState) -> None:
        """Save the state to resume from."""
        state.save(self.checkpoint)

    def save_best(self, state: TrainState) -> None:
        """Save the weights of the best validation; the state that remembers which it was follows at once."""
        assert state.best is not None  # the caller has just set it
        facts = {"step": str(state.best.step), "validation_dsc": repr(state.best.score)}
        save_tensors(self.best, state.usable().state_dict(), facts)
        state.save(self.checkpoint)

    def save_broken(self, state: TrainState, share: Share, rank: int) -> str:
        """Save a batch whose loss or gradient is not finite, and the weights that met it; return where."""
        file = self.folder / f"broken-step-{state.step}-process-{rank}.safetensors"
        tensors: dict[str, Tensor] = {MODEL + key: value for key, value in state.network.state_dict().items()}
        for i, part in enumerate(share.parts):
            for name in ("image", "label", "group", "annotated", "source", "number"):
                tensors[f"part{i}.{name}"] = getattr(part, name)
        save_tensors(file, tensors, {"step": str(state.step), "cases": json.dumps(share.cases)})
        return str(file)

    def finish(self, state: TrainState, facts: dict[str, str], card: dict[str, Any], *, best: bool) -> None:
        """Write the model card, and last the model: the weights of the last step, or those of the best validation.

        Raises
        ------
        RunError
            If those of the best validation are asked for and not there.
        """
        weights, step, validation = state.usable().state_dict(), state.step, state.validated
        if best:
            if state.best is None or not self.best.is_file():
                raise RunError(
                    f"{self.best}: not there, no validation gave a score; the weights of the last step are in "
                    f"{self.checkpoint}; train with --set final_weights=last --from {self.folder.name}, or with "
                    "validation cases that hold annotated structures"
                )
            weights, told = load_tensors(self.best)
            step, validation = int(told["step"]), state.best
        card = {
            **card,
            "steps": step,
            "validation": _as_facts(validation if validation is not None and validation.step == step else None),
            "best_validation": _as_facts(state.best, self.best),
        }
        write_text(self.model.with_name("model.json"), json.dumps(card, indent=1) + "\n")
        write_text(self.model.with_name("MODEL_CARD.md"), card_as_markdown(card))
        save_tensors(self.model, weights, {**facts, "step": str(step)})


def _as_facts(found: Validation | None, file: Path | None = None) -> dict[str, Any] | None:
    """Return a validation as a card tells it; JSON has no NaN."""
    if found is None or not math.isfinite(found.score):
        return None
    where = {} if file is None else {"file": f"{file.parent.name}/{file.name}"}
    return {"dsc_percent": found.score, "step": found.step, **where}
