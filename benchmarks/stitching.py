"""Sliding windows over a scan of 210 x 210 x 250: ours against MONAI's, with a network that costs next to nothing.

Each way runs in a process of its own, so that its peak memory is its own; the ways alternate. A time less the network's
own is the cost of stitching. ``python benchmarks/stitching.py [--rounds 3]``.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from abdoseg.inference import InferenceSettings, sliding_window_boxes
from abdoseg.inference.restoring import labels_of_boxes
from abdoseg.kernels.restore import argmax_labels

SHAPE, PATCH, CLASSES = (210, 210, 250), (112, 112, 112), 17


class StandIn(nn.Module):
    """Scores of 17 classes from a voxel's value."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(1, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 1, X, Y, Z)`` to ``(B, 17, X, Y, Z)``."""
        scores: torch.Tensor = self.head(x)
        return scores


def peak_mb() -> float:
    """Return the most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(way: str) -> None:
    """Run one way once, and print its seconds and memory above idle."""
    torch.manual_seed(0)
    network = StandIn().eval()
    image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    argmax_labels(np.zeros((2, 2, 2, 2), dtype=np.float32))  # compile
    before = peak_mb()
    begin = time.perf_counter()
    with torch.inference_mode():
        if way == "monai":
            volume = torch.from_numpy(image)[None, None]
            scores = sliding_window_inference(volume, PATCH, 1, network, overlap=0.5, mode="gaussian")
            label = scores[0].argmax(0).to(torch.uint8).numpy()
        elif way == "network":
            for _ in range(36):
                network(torch.from_numpy(image[:112, :112, :112])[None, None])
            label = np.zeros(1, dtype=np.uint8)
        else:
            settings = InferenceSettings(PATCH)
            label = labels_of_boxes(sliding_window_boxes(network, image, settings), SHAPE)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "mb": peak_mb() - before, "sum": int(label.astype(np.int64).sum())}))


def main() -> None:
    """Alternate the ways and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=("ours", "monai", "network"))
    options = parser.parse_args()
    if options.way:
        one(options.way)
        return
    found: dict[str, list[dict[str, float]]] = {"ours": [], "monai": [], "network": []}
    for _ in range(options.rounds):
        for way, results in found.items():
            command = [sys.executable, __file__, "--way", way]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    median = {way: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for way, rs in found.items()}
    for way, values in median.items():
        print(f"{way:<8} {values['seconds']:6.2f} s, {values['mb']:6.0f} MB above idle")
    ours, monai, network = median["ours"], median["monai"], median["network"]
    overhead = (monai["seconds"] - network["seconds"]) / (ours["seconds"] - network["seconds"])
    print(f"stitching {overhead:.2f} times faster than MONAI; memory {ours['mb'] / monai['mb']:.2f} of MONAI's")
    print(f"same labels: {ours['sum'] == monai['sum']}")


if __name__ == "__main__":
    main()
