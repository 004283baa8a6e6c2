"""NSD and HD95 of 16 structures on a 512 x 512 x 200 pair: ours and DeepMind's surface-distance in turn; MONAI's once.

Prints one line of JSON: median seconds of each, and how many times faster ours is. Run it from the checkout:
``python benchmarks/surface.py [--repeats N] [--no-monai]``. The first peer: ``pip install surface-distance``.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from dice import N, organs
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric
from monai.networks.utils import one_hot
from numpy.typing import NDArray

from abdoseg.metrics.surface import normalised_surface_dice, robust_hausdorff_mm, surface_pairs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from surface_distance import metrics as deepmind

SPACING = (0.8, 0.8, 2.5)
TOLERANCE_MM = 2.0


def ours(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    pairs = surface_pairs(prediction, reference, SPACING, range(1, N + 1)).values()
    return np.array([(normalised_surface_dice(pair, TOLERANCE_MM), robust_hausdorff_mm(pair)) for pair in pairs])


def peer(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    found = []
    for c in range(1, N + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            distances = deepmind.compute_surface_distances(reference == c, prediction == c, SPACING)
        nsd = deepmind.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)
        found.append((nsd, deepmind.compute_robust_hausdorff(distances, 95)))
    return np.array(found)


def monai(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return NSD, by the same definition, and HD95 by MONAI; making its one-hot volumes is part of what it takes."""
    pair = [one_hot(torch.from_numpy(label)[None, None], N + 1, dtype=torch.uint8) for label in (prediction, reference)]
    nsd = SurfaceDiceMetric([TOLERANCE_MM] * N, include_background=False, reduction="none", use_subvoxels=True)
    hd95 = HausdorffDistanceMetric(include_background=False, percentile=95, reduction="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.stack([metric(*pair, spacing=SPACING)[0].double().numpy() for metric in (nsd, hd95)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--monai", action=argparse.BooleanOptionalAction, default=True, help="the slow peer")
    arguments = parser.parse_args()
    prediction, reference = organs(1), organs(2)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "ours": lambda: ours(prediction, reference),
        "surface_distance": lambda: peer(prediction, reference),
    }
    # Also warms up: the first call of ours compiles.
    np.testing.assert_allclose(ways["ours"](), ways["surface_distance"](), atol=1e-6)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    if arguments.monai:
        start = time.perf_counter()
        found = monai(prediction, reference)
        seconds["monai"] = [time.perf_counter() - start]
        # The surface of its HD95 is one of voxels, so distances are near, not equal: within a voxel's diagonal.
        near = [1e-5, float(np.linalg.norm(SPACING))]
        np.testing.assert_array_less(np.abs(found - ways["ours"]()), [near] * N, err_msg="monai")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    faster = {name: round(median[name] / median["ours"], 1) for name in median if name != "ours"}
    print(json.dumps({"seconds": median, "times_faster_than": faster}))


if __name__ == "__main__":
    main()
