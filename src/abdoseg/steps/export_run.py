"""Export a run for other programs."""

import json
from pathlib import Path
from typing import Any

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.files import require_writable
from abdoseg.runs import Run
from abdoseg.sharing import RUN_FORMATS, run_format
from abdoseg.sharing.parts import RunReport
from abdoseg.store import Workspace


def export_run(workspace: Workspace, run: Run, to: str, out: Path, *, force: bool = False) -> RunReport:
    """Write a run for another program.

    Parameters
    ----------
    workspace, run
        What to write.
    to
        Of :data:`abdoseg.sharing.RUN_FORMATS`.
    out
        Folder to write.
    force
        Whether to replace what is there.

    Raises
    ------
    ConfigError
        If the output is there, or a package is missing.
    RunError
        If the run has no weights, or what was written does not compute the same.
    WorkspaceError
        If it cannot be written.
    """
    if to not in RUN_FORMATS:
        raise unknown_name("--to", to, list(RUN_FORMATS), "These take a run.")
    format_ = run_format(to)
    format_.require()
    there = [path for path in format_.files(out) if path.exists()]
    if there and not force:
        raise ConfigError(f"{there[0]}: is there already; choose another --out, or --force to replace it")
    _require_replaceable(to, there)
    require_writable(out / "probe" if to == "onnx" else out.parent / "probe")
    return format_.write(_shared_run(workspace, run), out)


def _require_replaceable(to: str, there: list[Path]) -> None:
    """Refuse to remove a folder that no export has made."""
    for path in there:
        if to == "monai-bundle" and not (path / "configs" / "metadata.json").is_file():
            raise ConfigError(f"{path}: is no MONAI bundle and is not replaced; choose another --out")


def _shared_run(workspace: Workspace, run: Run) -> Any:
    """Return a run with its network and model card."""
    import torch

    from abdoseg.model_card import card_as_markdown, model_card
    from abdoseg.sharing.parts import SharedRun
    from abdoseg.trained import load_model

    model, steps = load_model(run, torch.device("cpu"))
    card = {**model_card(workspace, run), "steps": steps, "validation": None, "best_validation": None}
    file = run.model_file.with_name("model.json")
    if run.status == "finished" and file.is_file():
        card = {**card, **json.loads(file.read_text(encoding="utf-8"))}
    return SharedRun(model, card, card_as_markdown(card))
