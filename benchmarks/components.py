"""The two largest 26-connected components of a joined organ, 512 x 512 x 200: ours, SciPy, SimpleITK, cc3d in turn.

Prints medians and ratios. Run from the checkout: ``python benchmarks/components.py [--repeats N]``. The last peer:
``pip install connected-components-3d``.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.components import Components

SHAPE = (512, 512, 200)
Mask = NDArray[np.bool_]


def two_organs_and_specks() -> Mask:
    """Return two ellipsoids and specks all over the scan, as files have them: the first axis is the fast one."""
    rng = np.random.default_rng(0)
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    mask = np.zeros(SHAPE, dtype=bool)
    for x in (170, 350):
        mask |= ((axes[0] - x) / 45) ** 2 + ((axes[1] - 300) / 50) ** 2 + ((axes[2] - 100) / 40) ** 2 < 1
    mask[tuple(rng.integers(0, n, 2000) for n in SHAPE)] = True
    return np.asfortranarray(mask)


def ours(mask: Mask) -> Mask:
    components = Components.of(mask)
    keep = np.zeros(len(components.voxels), dtype=bool)
    keep[np.argsort(components.voxels)[-2:]] = True
    out = np.zeros_like(mask)
    components.write(components.runs, keep, out)
    return out


def scipy(mask: Mask) -> Mask:
    # In the order of memory, which it takes four times less for.
    numbers, n = ndimage.label(mask.T, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(numbers.reshape(-1), minlength=n + 1)
    sizes[0] = 0
    keep = np.zeros(n + 1, dtype=bool)
    keep[np.argsort(sizes)[-2:]] = True
    return keep[numbers].T


def simpleitk(mask: Mask) -> Mask:
    image = sitk.GetImageFromArray(mask.T.astype(np.uint8))
    fully_connected = True  # SimpleITK 2.5 takes no names here
    numbers = sitk.RelabelComponent(sitk.ConnectedComponent(image, fully_connected))
    return (sitk.GetArrayViewFromImage(numbers).T <= 2) & mask


def cc3d(mask: Mask) -> Mask:
    from cc3d import largest_k

    return largest_k(mask, k=2, connectivity=26) > 0


WAYS: dict[str, Callable[[Mask], Mask]] = {"ours": ours, "SciPy": scipy, "SimpleITK": simpleitk}
if importlib.util.find_spec("cc3d"):
    WAYS["connected-components-3d"] = cc3d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    mask = two_organs_and_specks()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    expected = scipy(mask)
    for _ in range(arguments.repeats + 1):  # the first compiles
        for way, run in WAYS.items():
            start = time.perf_counter()
            found = run(mask)
            times[way].append(time.perf_counter() - start)
            if not np.array_equal(found, expected):
                raise SystemExit(f"{way}: another mask than SciPy's")
    median = {way: statistics.median(values[1:]) for way, values in times.items()}
    for way in WAYS:
        print(f"{way}: {1000 * median[way]:.1f} ms, {median[way] / median['ours']:.1f} x ours")
    if cc3d not in WAYS.values():
        print("connected-components-3d: is not installed")


if __name__ == "__main__":
    main()
