"""What a prediction would cost: windows, seconds and memory, before it is done."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from abdoseg.devices import choose_device
from abdoseg.geometry import harmonised_grid, to_canonical
from abdoseg.inference import WindowGrid
from abdoseg.methods.dynamic import DynamicModel
from abdoseg.methods.parts import Predictor
from abdoseg.model import SegmentationModel
from abdoseg.readers import read_scan
from abdoseg.segmentation import memory_bytes
from abdoseg.zips import at_hand

_REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """What the network's part of a prediction takes.

    Parameters
    ----------
    shape
        ``(X, Y, Z)`` of the scan on the harmonised grid, voxels.
    windows
        Forward passes over a window: one for all structures, times the views of test-time augmentation.
    window_seconds
        Of one of them, measured on a window without data.
    window_seconds_per_structure
        The same with a pass of the whole network for each structure, as dynamic heads were published: as many passes
        as there are structures, and the heads once. None for methods without such heads, and for several runs.
    memory_bytes
        Beside scan and network.
    """

    shape: tuple[int, int, int]
    windows: int
    window_seconds: float
    window_seconds_per_structure: float | None
    memory_bytes: int

    @property
    def seconds(self) -> float:
        """Of all windows."""
        return self.windows * self.window_seconds

    @property
    def seconds_per_structure(self) -> float | None:
        """Of all windows, with a pass for each structure."""
        one = self.window_seconds_per_structure
        return None if one is None else self.windows * one


def explain_cost(model: SegmentationModel, scan_path: Path) -> Cost:
    """Return what predicting a scan would cost; nothing is predicted.

    Parameters
    ----------
    model
        What would predict.
    scan_path
        The scan, in any format of ``abdoseg.readers``.

    Raises
    ------
    CaseError
        If the scan cannot be read.
    ConfigError
        If the device is not there.
    """
    with at_hand(scan_path) as source:
        scan = read_scan(source)
    canonical, affine = to_canonical(scan.array, scan.affine)
    x, y, z = harmonised_grid(canonical.shape, affine, model.spacing_mm).shape
    settings = model.settings()
    windows = len(WindowGrid.over((x, y, z), settings)) * len(settings.views)
    once, per_structure = _window_seconds(model)
    needed = memory_bytes(model, settings, (x, y, z), scan.array.shape)
    return Cost((x, y, z), windows, once, per_structure, needed)


def _window_seconds(model: SegmentationModel) -> tuple[float, float | None]:
    """Return the seconds of a window, and those with a pass for each structure."""
    settings = model.settings()
    device = choose_device(settings.device)
    network = model.network.to(device).eval()
    window = torch.zeros(1, 1, *settings.patch_shape, device=device)
    whole = _median_seconds(lambda: network(window), device)
    inner = network.model if isinstance(network, Predictor) else None
    if not isinstance(inner, DynamicModel):
        return whole, None
    backbone = _median_seconds(lambda: inner(window), device)
    heads, one_pass = max(whole - backbone, 0.0), backbone / inner.passes
    return one_pass + heads, len(model.anatomy) * one_pass + heads


@torch.inference_mode()
def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of some calls, after one that warms up."""
    seconds = []
    for _ in range(1 + _REPEATS):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])
