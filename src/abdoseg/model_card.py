"""The model card: what a finished run's weights are, for people and programs."""

from importlib.metadata import version
from typing import Any

from abdoseg.runs import Run
from abdoseg.store import Workspace


def model_card(workspace: Workspace, run: Run, validation: tuple[float, int] | None) -> dict[str, Any]:
    """Return the facts of a model card, ready for JSON.

    Parameters
    ----------
    workspace
        Where its sources are recorded.
    run
        The run.
    validation
        Best mean DSC on validation cases, in per cent, and its step; ``None`` without validation.
    """
    settings, config = run.data.settings, run.config
    keys = run.data.keys("train")
    records = workspace.records()
    sources = {}
    for source in sorted({key.partition("/")[0] for key in keys}):
        card = records[source].card if source in records else {}
        sources[source] = {
            "training_cases": sum(key.startswith(f"{source}/") for key in keys),
            "title": card.get("title", source),
            "licence": card.get("access", {}).get("licence", "not known"),
        }
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
        "sources": sources,
        "steps": config.steps,
        "batch": config.batch,
        "validation": None if validation is None else {"dsc_percent": validation[0], "step": validation[1]},
        "intended_use": "Research. Not a medical device.",
    }


def card_as_markdown(card: dict[str, Any]) -> str:
    """Return the card as a page."""
    lines = [f"# {card['run']}", "", card["intended_use"], ""]
    validation = card["validation"]
    facts = {
        "Made with": f"abdoseg {card['abdoseg']}",
        "Network, method": f"{card['network']}, {card['method']}",
        "Input": f"one channel, RAS+, {card['spacing_mm']:g} mm isotropic, in [0, 1] by the windows below",
        "Windows": ", ".join(f"{name} {value}" for name, value in card["windows"].items()),
        "Patch": " x ".join(str(side) for side in card["patch"]),
        "Training": f"{card['steps']} steps of {card['batch']} patches, view {card['view']}",
        "Validation": "none" if not validation else "mean DSC {dsc_percent:.1f} % at step {step}".format(**validation),
    }
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "## Structures, in channel order", "", "0. background"]
    lines += [f"{i}. {name}" for i, name in enumerate(card["structures"], start=1)]
    lines += ["", "## Learnt from", "", "| source | training cases | licence |", "|---|---|---|"]
    lines += [f"| {s['title']} | {s['training_cases']} | {s['licence']} |" for s in card["sources"].values()]
    lines += ["", "Whether weights inherit the terms of the data they learnt from is for you to check.", ""]
    return "\n".join(lines)
