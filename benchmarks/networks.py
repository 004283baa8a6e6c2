"""Networks: seconds and memory of a forward and of forward + backward; transunet3d plain and as prediction uses it.

``python benchmarks/networks.py`` times the forms of transunet3d in turn, in one process; with ``--all`` every network,
each in a process of its own (memory is what a call needs at most above the built network). On a CUDA GPU where there is
one: there also a training step of transunet3d in float32 eager mode, then with bfloat16, checkpointing, channels-last
memory and the compiler one by one; with ``--training`` on a CPU too, without the compiler. Run from the checkout.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Form:
    """How a training step is computed."""

    bfloat16: bool = False
    compiled: bool = False
    checkpointing: bool = False
    channels_last: bool = False


FORMS = {
    "float32 eager": Form(),
    "bfloat16 autocast": Form(bfloat16=True),
    "+ checkpointed": Form(bfloat16=True, checkpointing=True),
    "+ channels last": Form(bfloat16=True, checkpointing=True, channels_last=True),
    "bfloat16, compiled": Form(bfloat16=True, compiled=True),
    "... + checkpointed": Form(bfloat16=True, compiled=True, checkpointing=True),
    "... + channels last": Form(bfloat16=True, compiled=True, checkpointing=True, channels_last=True),
}


def training(side: int, repeats: int) -> None:
    """Print samples/s and memory of a training step in each form, each in a process of its own."""
    print(f"transunet3d, {side}^3, {DEVICE.type}: a training step of one sample, and all memory it takes")
    first: dict[str, float] = {}
    for name, form in FORMS.items():
        if form.compiled and DEVICE.type == "cpu":
            continue  # its compiler takes longer than all the rest
        cell = child("transunet3d", side, "forward", repeats, "--form", name)
        first = first or cell
        ratios = f"{samples(cell) / samples(first):5.2f} x {cell['mib']:8.0f} MiB {cell['mib'] / first['mib']:5.2f} x"
        print(
            f"  {name:20s} {cell['wall']:8.3f} s ({cell['cpu']:.2f} CPU) {samples(cell):8.3f} samples/s {ratios}",
            flush=True,
        )


def one_form(form: Form, side: int, repeats: int) -> None:
    """Measure a training step in this process and print it as JSON."""
    before = resident()
    step = training_step(form, side)
    step()  # from here on is there what the optimiser remembers and the compiler makes
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = (min(column) for column in zip(*(seconds(step) for _ in range(repeats)), strict=True))
    used = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else most_resident() - before
    print(json.dumps({"wall": wall, "cpu": cpu, "mib": used / 2**20}))


def training_step(form: Form, side: int) -> Callable[[], None]:
    """Return forward, backward and AdamW's step of transunet3d on one sample."""
    layout = torch.channels_last_3d if form.channels_last else torch.contiguous_format
    network = built("transunet3d", checkpointing=form.checkpointing).train().to(memory_format=layout)
    x = torch.rand(1, 1, side, side, side, device=DEVICE).contiguous(memory_format=layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    computed = torch.compile(network) if form.compiled else network

    def step() -> None:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=form.bfloat16):
            logits = computed(x)
        logits.float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def peak(call: Callable[[], None]) -> int:
    """Return the bytes that a call needs at most above what is there."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    before = resident()
    call()
    return most_resident() - before


def resident() -> int:
    """Return the bytes of main memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def most_resident() -> int:
    """Return the most bytes that it ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(name: str, side: int, work: str, repeats: int, *, checkpointing: bool) -> None:
    """Measure one network in this process and print it as JSON."""
    network, x = built(name, checkpointing=checkpointing), torch.rand(1, 1, side, side, side, device=DEVICE)
    times: list[tuple[float, float]] = []
    needed = peak(lambda: times.append(seconds(lambda: WORK[work](network, x))))
    times += [seconds(lambda: WORK[work](network, x)) for _ in range(repeats - 1)]
    wall, cpu = (min(column) for column in zip(*times, strict=True))
    print(json.dumps({"wall": wall, "cpu": cpu, "mib": needed / 2**20}))


def every(side: int, repeats: int) -> None:
    print(
        f"{side}^3, {DEVICE.type}: least seconds of {repeats}, CPU seconds, samples a second (on a CPU: a CPU second), "
        "MiB above the built network"
    )
    for name in NETWORKS:
        cells = {
            "forward": child(name, side, "forward", repeats),
            "forward + backward": child(name, side, "forward + backward", repeats),
            "checkpointed": child(name, side, "forward + backward", repeats, "--checkpointing"),
        }
        row = (
            f"{label} {cell['wall']:.2f} s ({cell['cpu']:.2f}) {samples(cell):.3f}/s {cell['mib']:.0f} MiB"
            for label, cell in cells.items()
        )
        print(f"  {name:20s}", "; ".join(row), flush=True)


def samples(cell: dict[str, float]) -> float:
    return 1 / cell["cpu" if DEVICE.type == "cpu" else "wall"]


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
    parser.add_argument("--training", action="store_true", help="training steps of transunet3d, on a CPU too")
    parser.add_argument("--one", choices=list(NETWORKS), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=list(WORK), default="forward", help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=list(FORMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        one_form(FORMS[arguments.form], arguments.side, arguments.repeats)
        return
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
    if not arguments.training:
        transunet3d(arguments.side, arguments.repeats)
    if arguments.training or DEVICE.type == "cuda":
        training(arguments.side, arguments.repeats)


if __name__ == "__main__":
    main()
