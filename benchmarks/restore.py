"""Labels on the scan's own grid: ours against interpolating every channel with PyTorch.

python benchmarks/restore.py [--quick]
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from abdoseg.kernels.restore import argmax_labels, restore_labels


def blob_scores(shape: tuple[int, int, int, int], noise: float = 0.0) -> NDArray[np.float32]:
    """Return smooth scores with one ellipsoid a class."""
    rng = np.random.default_rng(1)
    axes = [np.arange(n, dtype=np.float32) for n in shape[1:]]
    scores = np.empty(shape, dtype=np.float32)
    scores[0] = 0.0
    for c in range(1, shape[0]):
        centre = [rng.uniform(0.25, 0.75) * n for n in shape[1:]]
        radius = [rng.uniform(0.05, 0.16) * n for n in shape[1:]]
        d = [((a - m) / r) ** 2 for a, m, r in zip(axes, centre, radius, strict=True)]
        scores[c] = 6 * (1 - np.sqrt(d[0][:, None, None] + d[1][None, :, None] + d[2][None, None, :]))
    if noise:
        scores += noise * rng.standard_normal(shape, dtype=np.float32)
    return scores


def grid_sample_labels(
    scores: NDArray[np.float32], shape: tuple[int, int, int], step: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Interpolate every channel at the same positions with ``grid_sample``, then argmax."""
    ends = [n - 1 for n in scores.shape[1:]]
    lines = [
        torch.from_numpy((np.minimum(np.arange(n) * s, e) / e * 2 - 1).astype(np.float32))
        for n, s, e in zip(shape, step, ends, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)[None]
    volume = torch.nn.functional.grid_sample(torch.from_numpy(scores)[None], grid, align_corners=True)
    return volume[0].argmax(0).to(torch.uint8).numpy()


def interpolate_labels(
    scores: NDArray[np.float32], shape: tuple[int, int, int], step: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Interpolate every channel with ``interpolate`` (corners aligned: a peer for time only), then argmax."""
    del step
    volume = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], size=shape, mode="trilinear", align_corners=True
    )
    return volume[0].argmax(0).to(torch.uint8).numpy()


def timed(run: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return seconds and result."""
    begin = time.perf_counter()
    result = run(*args)
    return time.perf_counter() - begin, result


def main() -> None:
    """Print times, ratios, peak memory and agreement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the volume")
    quick = parser.parse_args().quick
    native, harmonised = ((200, 200, 80), (83, 83, 100)) if quick else ((512, 512, 200), (210, 210, 250))
    step = np.array([(h - 1) / (n - 1) for h, n in zip(harmonised, native, strict=True)])
    scores = blob_scores((17, *harmonised))
    restore_labels(scores[:, :4, :4, :4].copy(), (5, 5, 5), step)  # compile
    ours, label = min((timed(restore_labels, scores, native, step) for _ in range(3)), key=lambda pair: pair[0])
    read, _ = min((timed(argmax_labels, scores) for _ in range(3)), key=lambda pair: pair[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"restore_labels      {ours:8.2f} s, of which argmax {read:.2f} s; process peak {peak:.2f} GiB")
    print(f"foreground          {100 * (label > 0).mean():8.2f} %")
    half, _ = timed(restore_labels, scores.astype(np.float16), native, step)
    print(f"... from float16    {half:8.2f} s")
    noisy, _ = timed(restore_labels, blob_scores((17, *harmonised), noise=20.0), native, step)
    print(f"... from pure noise {noisy:8.2f} s")
    for name, peer in (("F.interpolate", interpolate_labels), ("F.grid_sample", grid_sample_labels)):
        seconds, other = timed(peer, scores, native, step)
        same = 100 * (other == label).mean()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:<20}{seconds:8.2f} s, {seconds / ours:.0f} x; same {same:.5f} %; process peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
