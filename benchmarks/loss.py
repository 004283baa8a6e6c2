"""Forward and backward of the loss on 1 x 17 x 112^3 float32: fused, plain, MONAI's DiceFocalLoss, in turn.

Prints ratios of medians, and the memory a call needs above its logits. MONAI's loss has a sigmoid focal term and
knows one kind of annotation: it is a peer for speed only. Run from the checkout: ``python benchmarks/loss.py``.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.losses import DiceFocalLoss
from torch import Tensor

from abdoseg.losses import disambiguation_loss

CLASSES = 17
KINDS = ("one group", "sagittal slices", "coronal slices", "axial slices", "a group a voxel")


def inputs(side: int, kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, label, group and annotated."""
    torch.manual_seed(0)
    shape = (side, side, side)
    logits = (torch.randn(1, CLASSES, *shape) * 3).requires_grad_()
    label = torch.randint(0, CLASSES, (1, *shape)).to(torch.uint8)
    groups = 1 if kind == "one group" else side
    annotated = torch.rand(1, groups, CLASSES - 1) < 0.6
    if kind == "a group a voxel":
        group = torch.randint(0, groups, (1, *shape))
    elif kind == "one group":
        group = torch.zeros(1, *shape)
    else:
        view = [1, 1, 1]
        view[("sagittal slices", "coronal slices", "axial slices").index(kind)] = side
        group = torch.arange(side).view(view).expand(shape)[None]
    return logits, label, group.to(torch.int16).contiguous(), annotated


def slice_by_slice(logits: Tensor, label: Tensor, group: Tensor, annotated: Tensor) -> Tensor:
    """Return focal + dice + entropy written from the equations, a loop over groups."""
    p = logits.softmax(dim=1)[0]
    focal, dice = logits.new_zeros(()), logits.new_zeros(())
    for k in range(annotated.shape[1]):
        inside = group[0] == k
        known = torch.cat([torch.tensor([True]), annotated[0, k]])
        q = p[:, inside]
        merged = torch.cat([(q[0] + q[~known].sum(dim=0))[None], q[1:][known[1:]]])
        names = torch.cumsum(known, 0) - 1
        y = label[0][inside].long()
        y = torch.where(known[y], names[y], 0)
        own = merged.gather(0, y[None])[0].clamp(min=1e-9)
        one_hot = torch.nn.functional.one_hot(y, len(merged)).T
        focal = focal - ((1 - own) ** 2 * own.log()).mean() * inside.sum() / inside.numel()
        overlap = (2 * (merged * one_hot).sum(1) + 1) / (merged.sum(1) + one_hot.sum(1) + 1)
        dice = dice + (1 - overlap.mean()) * inside.sum() / inside.numel()
    entropy = -(p * p.clamp(min=1e-9).log()).sum(dim=0).mean()
    return focal + dice + entropy


def monai_loss(logits: Tensor, label: Tensor, group: Tensor, annotated: Tensor) -> Tensor:  # noqa: ARG001
    return MONAI(logits, label[:, None].long())


def ours(implementation: str) -> Callable[..., Tensor]:
    return lambda *tensors: disambiguation_loss(*tensors, validate=False, implementation=implementation)


MONAI = DiceFocalLoss(softmax=True, to_onehot_y=True, gamma=2.0)
WAYS: dict[str, Callable[..., Tensor]] = {
    "fused": ours("fused"),
    "plain": ours("plain"),
    "from the equations": slice_by_slice,
    "MONAI DiceFocalLoss": monai_loss,
}


def seconds(way: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> float:
    tensors[0].grad = None
    start = time.perf_counter()
    way(*tensors).backward()
    return time.perf_counter() - start


def compare(side: int, repeats: int) -> None:
    base = 0.0
    for kind in KINDS:
        tensors = inputs(side, kind)
        ways = {name: way for name, way in WAYS.items() if name != "MONAI DiceFocalLoss" or kind == "one group"}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats + 1):  # the first round warms up
            for name, way in ways.items():
                times[name].append(seconds(way, tensors))
        median = {name: statistics.median(values[1:]) for name, values in times.items()}
        base = base or median["fused"]
        ratios = ", ".join(f"{median[n] / median['fused']:.1f} x faster than {n}" for n in ways if n != "fused")
        print(f"{kind}: {median['fused'] * 1e3:.0f} ms, {median['fused'] / base:.2f} of one group; {ratios}")


def memory(name: str, side: int) -> None:
    """Print the peak memory above the logits, in units of the logits; called in a process of its own."""
    seconds(WAYS[name], inputs(16, "one group"))
    tensors = inputs(side, "one group")
    before = resident("VmRSS")
    seconds(WAYS[name], tensors)
    above = resident("VmHWM") - before
    print(f"memory of {name}, gradient included: {above / (tensors[0].numel() * 4):.2f} x the logits")


def resident(field: str) -> int:
    """Return a field of the process's status in bytes; getrusage's peak is the parent's, where that is larger."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--memory", help="only the memory of one way")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.memory, arguments.side)
        return
    compare(arguments.side, arguments.repeats)
    for name in WAYS:
        side = str(arguments.side)
        subprocess.run([sys.executable, __file__, "--memory", name, "--side", side], check=True)


if __name__ == "__main__":
    main()
