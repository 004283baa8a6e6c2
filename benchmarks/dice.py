"""Dice of 16 structures on a 512 x 512 x 200 pair: ours, a numpy loop and SimpleITK, in turn; MONAI's metric once.

Prints one line of JSON: median seconds of each, and how many times faster ours is. Run it from the checkout:
``python benchmarks/dice.py [--repeats N] [--no-monai]``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import DiceMetric
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.metrics import count_overlap, dice

SHAPE = (512, 512, 200)
N = 16
ANNOTATION = Annotation.partial(range(1, N + 1), N)


def organs(seed: int) -> NDArray[np.uint8]:
    """Return ellipsoids, uint8 (X, Y, Z); about 8 % of the voxels are labelled, as in an abdominal scan."""
    generator = np.random.default_rng(seed)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for c in range(1, N + 1):
        centre = np.array([110 + 95 * ((c - 1) % 4), 110 + 95 * ((c - 1) // 4), 100]) + generator.integers(-3, 4, 3)
        radius = np.array([42.0, 42.0, 20.0 + 3 * c]) + generator.uniform(-2, 2, 3)
        low = np.maximum(np.floor(centre - radius).astype(int), 0)
        high = np.minimum(np.ceil(centre + radius).astype(int) + 1, SHAPE)
        axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        inside = sum(((x - m) / r) ** 2 for x, m, r in zip(axes, centre, radius, strict=True)) < 1
        label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][inside] = c
    return label


def ours(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    return dice(count_overlap(prediction, reference, ANNOTATION))


def numpy_loop(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    scores = []
    for c in range(1, N + 1):
        p, r = prediction == c, reference == c
        scores.append(2 * np.count_nonzero(p & r) / (np.count_nonzero(p) + np.count_nonzero(r)))
    return np.array(scores)


def simpleitk(prediction: sitk.Image, reference: sitk.Image) -> NDArray[np.float64]:
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(reference, prediction)
    return np.array([measures.GetDiceCoefficient(c) for c in range(1, N + 1)])


def monai(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    metric = DiceMetric(include_background=False, reduction="none", num_classes=N + 1)
    pair = (torch.from_numpy(label)[None, None] for label in (prediction, reference))
    return metric(*pair)[0].double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--monai", action=argparse.BooleanOptionalAction, default=True, help="the slow peer")
    arguments = parser.parse_args()
    prediction, reference = organs(1), organs(2)
    images = sitk.GetImageFromArray(prediction), sitk.GetImageFromArray(reference)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "ours": lambda: ours(prediction, reference),
        "numpy_loop": lambda: numpy_loop(prediction, reference),
        "simpleitk": lambda: simpleitk(*images),
    }
    expected = ways["numpy_loop"]()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():  # also warms up: the first call of ours compiles
        np.testing.assert_allclose(way(), expected, rtol=1e-12, err_msg=name)
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    if arguments.monai:
        start = time.perf_counter()
        found = monai(prediction, reference)
        seconds["monai"] = [time.perf_counter() - start]
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg="monai")  # float32
    median = {name: statistics.median(values) for name, values in seconds.items()}
    faster = {name: round(median[name] / median["ours"], 1) for name in median if name != "ours"}
    labelled = round(float(np.count_nonzero(reference)) / reference.size, 3)
    print(json.dumps({"seconds": median, "times_faster_than": faster, "labelled_fraction": labelled}))


if __name__ == "__main__":
    main()
