"""The model card: what a finished run's weights are, for people and programs."""

from importlib.metadata import version
from typing import Any

from abdoseg.origins import Origin, sources_of
from abdoseg.runs import Run
from abdoseg.store import Workspace


def model_card(workspace: Workspace, run: Run) -> dict[str, Any]:
    """Return the facts of a model card, ready for JSON; ``steps`` and validations are added with the weights.

    Parameters
    ----------
    workspace
        Where its sources are recorded.
    run
        The run.
    """
    settings, config = run.data.settings, run.config
    # Runs of older versions froze no origin.
    origin = run.data.origin or Origin(sources=sources_of(workspace, run.data.keys("train")))
    return {
        "abdoseg": version("abdoseg"),
        "run": run.name,
        "network": config.network,
        "method": config.method,
        "structures": list(settings.structures),
        "spacing_mm": settings.spacing_mm,
        "windows": settings.windows.model_dump(mode="json"),
        "patch": list(config.patch),
        "view": config.view,
        **origin.model_dump(mode="json"),
        "batch": config.batch,
        "intended_use": "Research. Not a medical device.",
    }


def card_as_markdown(card: dict[str, Any]) -> str:
    """Return the card as a page."""
    lines = [f"# {card['run']}", "", card["intended_use"], ""]
    facts = {
        "Made with": f"abdoseg {card['abdoseg']}",
        "Network, method": f"{card['network']}, {card['method']}",
        "Input": f"one channel, RAS+, {card['spacing_mm']:g} mm isotropic, in [0, 1] by the windows below",
        "Windows": ", ".join(f"{name} {value}" for name, value in card["windows"].items()),
        "Patch": " x ".join(str(side) for side in card["patch"]),
        "Training": f"{card['steps']} steps of {card['batch']} patches, view {card['view']}",
        "Validation": _score(card["validation"]),
    }
    best = card["best_validation"]
    if best and best["step"] != card["steps"]:
        facts["Best validation, other weights"] = f"{_score(best)}; those are in {best['file']}"
    if card["started_from"]:
        facts["Started from"] = _started_from(card["started_from"])
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "## Structures, in channel order", "", "0. background"]
    lines += [f"{i}. {name}" for i, name in enumerate(card["structures"], start=1)]
    lines += ["", "## Learnt from", "", "| source | training cases | licence | through |", "|---|---|---|---|"]
    lines += _sources(card["sources"], "this run")
    base = card["started_from"]
    while base:
        lines += _sources(base["sources"], f"{base['gives']} of run {base['run']}")
        base = base["started_from"]
    lines += ["", "Whether weights inherit the terms of the data they learnt from is for you to check.", ""]
    return "\n".join(lines)


def _score(found: dict[str, Any] | None) -> str:
    return f"mean DSC {found['dsc_percent']:.1f} % at step {found['step']}" if found else "none of these weights"


def _started_from(base: dict[str, Any]) -> str:
    steps = "" if base["steps"] is None else f" after {base['steps']} steps"
    what = "its labels were learnt from" if base["gives"] == "labels" else "its weights were the first"
    return f"run {base['run']}{steps}; {what}"


def _sources(sources: dict[str, dict[str, Any]], through: str) -> list[str]:
    return [f"| {s['title']} | {s['training_cases']} | {s['licence']} | {through} |" for s in sources.values()]
