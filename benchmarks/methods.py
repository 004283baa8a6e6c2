"""What each method costs on one network: a training step and a prediction of a patch, in turn.

Prints ratios of medians against `self_disambiguation`, the memory that the loss keeps for the gradient, and the
dynamic heads as they were published, with a pass of the whole network for each structure. Run from the checkout:
``python benchmarks/methods.py [--network unet_small] [--patch 64]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from abdoseg.anatomy import ABDOMEN
from abdoseg.methods import METHODS
from abdoseg.methods.assemble import build_model, method_for
from abdoseg.methods.parts import LossSettings, Predictor, TorchBatch
from abdoseg.methods.task import Task

N = len(ABDOMEN)
OURS = "self_disambiguation"
TASK = Task(ABDOMEN.names, sources=tuple((f"source {i}", tuple(range(1, N + 1))) for i in range(8)))
AS_PUBLISHED = Task(ABDOMEN.names, TASK.sources, passes_per_structure=True)


def batch_of(patch: int) -> TorchBatch:
    """Return two patches with every structure annotated."""
    torch.manual_seed(0)
    shape = (2, patch, patch, patch)
    return TorchBatch(
        image=torch.rand(2, 1, patch, patch, patch),
        label=torch.randint(0, N + 1, shape).to(torch.uint8),
        group=torch.zeros(shape, dtype=torch.int16),
        annotated=torch.ones(2, 1, N, dtype=torch.bool),
        source=torch.tensor([0, 1]),
        number=torch.tensor([0, 1]),
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Step:
    """One training step of a method, and the prediction of one of its patches."""

    def __init__(self, network: str, method: str, task: Task, batch: TorchBatch) -> None:
        torch.manual_seed(0)
        self.method, self.batch = method_for(network, method), batch
        self.model = build_model(network, method, task)
        self.predictor = Predictor(self.model, self.method.scores)

    def train(self) -> None:
        """Forward and backward."""
        self.model.train().zero_grad()
        outputs = self.model(*self.method.inputs(self.batch))
        self.method.loss(outputs, self.batch, LossSettings()).total.backward()

    def predict(self) -> None:
        """Scores of one patch."""
        self.predictor.eval()
        with torch.inference_mode():
            self.predictor(self.batch.image[:1])

    def kept_bytes(self) -> int:
        """Return what the loss, without the network, keeps for the gradient."""
        outputs = self.model.train()(*self.method.inputs(self.batch))
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            self.method.loss(outputs, self.batch, LossSettings())
        return sum(kept.values())


def main() -> None:
    """Measure all methods in turn and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="unet_small")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    batch = batch_of(options.patch)
    steps = {name: Step(options.network, name, TASK, batch) for name in METHODS}
    for name in ("dodnet", "clip_driven"):
        steps[f"{name}, a pass for each structure"] = Step(options.network, name, AS_PUBLISHED, batch)
    train: dict[str, list[float]] = {name: [] for name in steps}
    predict: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repeats + 1):  # the first round warms up
        for name, step in steps.items():
            train[name].append(seconds(step.train))
            predict[name].append(seconds(step.predict))
    medians = {
        kind: {name: statistics.median(values[1:]) for name, values in times.items()}
        for kind, times in (("train", train), ("predict", predict))
    }
    side = f"{options.patch}^3"
    print(f"{options.network}, {side}, {N} structures, {torch.get_num_threads()} threads")
    for name, step in steps.items():
        train_told, predict_told = (
            f"{each[name] * 1e3:.0f} ms ({each[name] / each[OURS]:.2f})" for each in medians.values()
        )
        kept = f"{step.kept_bytes() / 2**20:.0f} MiB"
        print(
            f"{name}: training step of 2 patches {train_told}, prediction of one {predict_told}; the loss keeps {kept}"
        )


if __name__ == "__main__":
    main()
