"""What a training will take and see, before it starts."""

from typing import Any

import torch

from abdoseg.engine.checks import check_run
from abdoseg.engine.memory import estimate_memory
from abdoseg.runs import Run
from abdoseg.sampling import SAMPLERS
from abdoseg.store import Workspace
from abdoseg.training_set import open_sampler


def plan_training(
    workspace: Workspace, run: Run, processes: int = 1, device: torch.device | None = None
) -> dict[str, Any]:
    """Return what a run will take and see, as plain values ready for JSON; no scan is opened.

    Parameters
    ----------
    workspace
        Where its cases lie.
    run
        A run, planned or there.
    processes
        That share each batch.
    device
        Where it will be trained; ``None``: not known yet.

    Returns
    -------
    dict
        ``memory_bytes``: ``weights`` (with gradients and the optimiser's moments), ``activations``, ``logits`` and
        ``total`` of a process. ``cache_bytes`` and ``device_cache_bytes``: budgets. ``structures``: name -> ``cases``
        that hold it, and the mean number of ``patches`` centred on it over the whole training (``None`` where the
        sampler draws no structure).

    Raises
    ------
    ConfigError, UnknownNameError, RunError, WorkspaceError
        If the training would be refused.
    """
    check_run(workspace, run, processes, device)
    config = run.config
    memory = estimate_memory(config, run.task(), processes)
    sampler = open_sampler(workspace, run)
    draws = "structure" in SAMPLERS[config.sampler].levels
    share = sampler.probabilities().structure
    names = run.class_names
    return {
        "memory_bytes": {
            "weights": memory.weights,
            "activations": memory.activations,
            "logits": memory.logits,
            "total": memory.total,
        },
        "cache_bytes": config.cache_mb * 2**20,
        "device_cache_bytes": config.device_cache_mb * 2**20,
        "structures": {
            name: {
                "cases": int(sampler.candidates.has[:, i].sum()),
                "patches": float(share[i] * config.steps * config.batch) if draws else None,
            }
            for i, name in enumerate(names)
        },
    }
