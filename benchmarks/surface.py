"""NSD and HD95 of 16 structures on a 512 x 512 x 200 pair: ours and DeepMind's surface-distance, in turn.

Prints one line of JSON: median seconds of each, and how many times faster ours is. Run it from the checkout:
``python benchmarks/surface.py [--repeats N]``. The peer: ``pip install surface-distance``.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
from dice import N, organs
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    prediction, reference = organs(1), organs(2)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "ours": lambda: ours(prediction, reference),
        "surface_distance": lambda: peer(prediction, reference),
    }
    # Also warms up: the first call of ours compiles.
    np.testing.assert_allclose(ways["ours"](), ways["surface_distance"](), atol=1e-6)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    faster = round(median["surface_distance"] / median["ours"], 1)
    print(json.dumps({"seconds": median, "times_faster_than": {"surface_distance": faster}}))


if __name__ == "__main__":
    main()
