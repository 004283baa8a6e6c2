"""Forward and backward of the loss on 1 x 17 x 112^3 float32: fused, plain, MONAI's DiceFocalLoss, in turn.

Prints ratios of medians, and the memory a call needs above its logits. MONAI's loss has a sigmoid focal term and
knows one kind of annotation: it is a peer for speed only. On a CUDA GPU also the Triton kernel, against the time that
two readings of the logits and one writing take at the measured bandwidth of copying. Run from the checkout:
``python benchmarks/loss.py``.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from monai.losses import DiceFocalLoss
from torch import Tensor

from abdoseg.losses import disambiguation_loss

CLASSES = 17
KINDS = ("one group", "sagittal slices", "coronal slices", "axial slices", "a group a voxel")


GPU_BATCH = 4
"""Patches at once on a GPU: one alone is done in less time than it takes to start."""


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
    for kind in KINDS:
        tensors = inputs(side, kind)
        ways = {name: way for name, way in WAYS.items() if name != "MONAI DiceFocalLoss" or kind == "one group"}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats + 1):  # the first round warms up
            for name, way in ways.items():
                times[name].append(seconds(way, tensors))
        median = {name: statistics.median(values[1:]) for name, values in times.items()}
        ratios = ", ".join(f"{median[n] / median['fused']:.1f} x faster than {n}" for n in ways if n != "fused")
        print(f"{kind}: {median['fused'] * 1e3:.0f} ms; {ratios}")


def compare_kinds(side: int, repeats: int) -> None:
    """Print what each kind of groups costs beside one group: in turn, as the load of the machine moves all of them."""
    kinds = {kind: inputs(side, kind) for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeats + 1):
        for kind, tensors in kinds.items():
            times[kind].append(seconds(WAYS["fused"], tensors))
    least, median = ({kind: f(values[1:]) for kind, values in times.items()} for f in (min, statistics.median))
    for kind in KINDS[1:]:
        ratios = (each[kind] / each[KINDS[0]] for each in (median, least))
        print("{}: {:.2f} times the cost of one group (minima: {:.2f})".format(kind, *ratios))


def compare_on_gpu(side: int, repeats: int) -> None:
    """Print the Triton kernel's time beside that of moving the least number of bytes, and beside plain PyTorch."""
    if not torch.cuda.is_available():
        print("no GPU at hand: the Triton kernel is not timed")
        return
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copies at {bandwidth / 1e9:.0f} GB/s, reading and writing")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for kind in KINDS:
            tensors = on_gpu(inputs(side, kind), dtype)
            ideal = 3 * tensors[0].numel() * tensors[0].element_size() / bandwidth
            triton = gpu_seconds(partial(loss_and_gradient, "triton", tensors), repeats)
            plain = gpu_seconds(partial(loss_and_gradient, "plain", tensors), max(1, repeats // 10))
            print(
                f"{dtype} {kind}: {triton * 1e3:.3f} ms, {triton / ideal:.2f} times two readings and a writing; "
                f"{plain / triton:.1f} x faster than plain"
            )


def loss_and_gradient(implementation: str, tensors: tuple[Tensor, ...]) -> None:
    torch.autograd.grad(ours(implementation)(*tensors), tensors[0])


def on_gpu(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    logits, *rest = (t.expand(GPU_BATCH, *t.shape[1:]).contiguous().cuda() for t in tensors)
    return logits.detach().to(dtype).requires_grad_(), *rest


def copy_bandwidth(size: int = 2**30) -> float:
    """Return bytes a second, read and written, of copying on the GPU."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / gpu_seconds(lambda: target.copy_(source), 50)


def gpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, by the GPU's own clock, after five to warm up."""
    times = []
    for turn in range(repeats + 5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        if turn >= 5:
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


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
    compare_kinds(arguments.side, 2 * arguments.repeats)
    compare_on_gpu(arguments.side, 20 * arguments.repeats)
    for name in WAYS:
        side = str(arguments.side)
        subprocess.run([sys.executable, __file__, "--memory", name, "--side", side], check=True)


if __name__ == "__main__":
    main()
