"""What another program must know to use a run's network."""

from typing import Any

from abdoseg.harmonise import MR_LEVELS, ct_levels
from abdoseg.sharing.parts import SharedRun


def network_facts(run: SharedRun) -> dict[str, Any]:
    """Return classes, grid, intensities and windows of a run's network, ready for JSON."""
    model, card = run.model, run.card
    low, high = model.windows.ct_hu
    classes = ["background", *model.anatomy.names]
    return {
        "run": model.name,
        "abdoseg": card["abdoseg"],
        "network": card["network"],
        "method": card["method"],
        "steps": card["steps"],
        "classes": dict(enumerate(classes)),
        "output": "scores of every class; the best class is the label",
        "input": {
            "shape": [1, 1, *model.patch_shape],
            "layout": "batch, channel, X, Y, Z; fixed sizes",
            "orientation": "RAS+",
            "spacing_mm": model.spacing_mm,
            "range": [0.0, 1.0],
            "outside": 0.0,
        },
        "intensities": {
            "CT": {"low_hu": low, "high_hu": high, "levels": ct_levels((low, high))},
            "MR": {"percentiles_of_voxels_above_0": list(model.windows.mr_percentiles), "levels": MR_LEVELS},
        },
        "windows": {"overlap": 0.5, "weights": "gaussian, sigma an eighth of the side", "average": "scores"},
        "intended_use": card["intended_use"],
    }
