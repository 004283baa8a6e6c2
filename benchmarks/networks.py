"""Networks: seconds and memory of a forward and of forward + backward; transunet3d plain and as prediction uses it.

``python benchmarks/networks.py`` times the forms of transunet3d in turn, in one process; with ``--all`` every network,
each in a process of its own (memory is what a call needs at most above the built network). On a CUDA GPU where there is
one: there also forward + backward of transunet3d in float32 eager mode against bfloat16, compiled and checkpointed. Run
from the checkout.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from abdoseg.networks import NETWORKS, build_network

OUT = 17
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def built(name: str, *, checkpointing: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, OUT, checkpointing=checkpointing).to(DEVICE)


def forward(network: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        network(x)


def in_bfloat16(network: nn.Module, x: Tensor) -> None:
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        forward(network, x)


def forward_backward(network: nn.Module, x: Tensor) -> None:
    network.zero_grad()
    network(x).square().mean().backward()


def backward_in_bfloat16(network: nn.Module, x: Tensor) -> None:
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        logits = network(x)
    network.zero_grad()
    logits.float().square().mean().backward()


WORK = {"forward": forward, "forward + backward": forward_backward}


def seconds(call: Callable[[], None]) -> tuple[float, float]:
    """Return wall time and this process's CPU time; other work on the machine moves the first more."""
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def in_turn(calls: dict[str, Callable[[], None]], repeats: int) -> None:
    """Print each call's least times, and how much faster it is than the first by both clocks."""
    for call in calls.values():
        call()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    least = {name: [min(column) for column in zip(*times, strict=True)] for name, times in taken.items()}
    first = next(iter(least.values()))
    for name, (wall, cpu) in least.items():
        ratio = f"{first[0] / wall:5.2f} x" + (f", by CPU time {first[1] / cpu:5.2f} x" if DEVICE.type == "cpu" else "")
        print(f"  {name:45s} {wall:8.3f} s {1 / wall:8.3f} samples/s {ratio}")


def transunet3d(side: int, repeats: int) -> None:
    x = torch.rand(1, 1, side, side, side, device=DEVICE)
    plain = built("transunet3d")
    fast, parts = plain.for_prediction(), plain.for_prediction(keep_features=True)
    in_turn(
        {
            "plain": lambda: forward(plain.eval(), x),
            "for_prediction(keep_features=True)": lambda: forward(parts, x),
            "for_prediction()": lambda: forward(fast, x),
            "for_prediction(), bfloat16 autocast": lambda: in_bfloat16(fast, x),
        },
        repeats,
    )
    if DEVICE.type == "cuda":
        on_a_gpu(plain.train(), x, repeats)


def on_a_gpu(plain: nn.Module, x: Tensor, repeats: int) -> None:
    lean = built("transunet3d", checkpointing=True)
    compiled = torch.compile(lean)
    calls = {
        "forward + backward, float32 eager": lambda: forward_backward(plain, x),
        "the same, bfloat16, compiled, checkpointed": lambda: backward_in_bfloat16(compiled, x),
    }
    in_turn(calls, repeats)
    for name, call in calls.items():
        print(f"  {name:45s} {peak(call) / 2**20:8.0f} MiB")


def peak(call: Callable[[], None]) -> int:
    """Return the bytes that a call needs at most above what is there."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    statm = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - statm


def one(name: str, side: int, work: str, repeats: int, *, checkpointing: bool) -> None:
    """Measure one network in this process and print it as JSON."""
    network, x = built(name, checkpointing=checkpointing), torch.rand(1, 1, side, side, side, device=DEVICE)
    times: list[tuple[float, float]] = []
    needed = peak(lambda: times.append(seconds(lambda: WORK[work](network, x))))
    times += [seconds(lambda: WORK[work](network, x)) for _ in range(repeats - 1)]
    wall, cpu = (min(column) for column in zip(*times, strict=True))
    print(json.dumps({"wall": wall, "cpu": cpu, "mib": needed / 2**20}))


def every(side: int, repeats: int) -> None:
    print(f"{side}^3, {DEVICE.type}: least seconds of {repeats}, CPU seconds, MiB above the built network")
    for name in NETWORKS:
        cells = {
            "forward": child(name, side, "forward", repeats),
            "forward + backward": child(name, side, "forward + backward", repeats),
            "checkpointed": child(name, side, "forward + backward", repeats, "--checkpointing"),
        }
        row = (
            f"{label} {cell['wall']:.2f} s ({cell['cpu']:.2f}) {cell['mib']:.0f} MiB" for label, cell in cells.items()
        )
        print(f"  {name:20s}", "; ".join(row), flush=True)


def child(name: str, side: int, work: str, repeats: int, *flags: str) -> dict[str, float]:
    options = ["--one", name, "--side", str(side), "--work", work, "--repeats", str(repeats), *flags]
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64, help="voxels a side of the patch, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="every network")
    parser.add_argument("--one", choices=list(NETWORKS), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=list(WORK), default="forward", help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(
            arguments.one,
            arguments.side,
            arguments.work,
            arguments.repeats,
            checkpointing=arguments.checkpointing,
        )
        return
    if arguments.all:
        every(arguments.side, arguments.repeats)
        return
    print(f"transunet3d, {arguments.side}^3, {DEVICE.type}")
    transunet3d(arguments.side, arguments.repeats)


if __name__ == "__main__":
    main()
