"""`abdoseg sample` on a workspace of simulated cases: seconds and memory, by the index that ingest builds.

No voxel is stored: a simulated case is its facts alone, copied from one phantom's with another name. The indexes are
built once (ingest does that), then the command is timed in a process of its own, with the full view and with a sparse
one. ``python benchmarks/sample.py --cases 100000`` needs some 3 GB of disk.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from abdoseg.cards import load_card
from abdoseg.phantom import write_phantoms
from abdoseg.steps.ingest import ingest
from abdoseg.steps.sparsify import sparsify
from abdoseg.store import Settings, Workspace

SOURCES = ("word", "btcv", "totalsegmentator", "amos-ct")


def simulate(folder: Path, cases: int) -> Workspace:
    """Make a workspace of so many cases without voxels."""
    write_phantoms(folder / "raw", ("word",), cases=1, spacing_scale=3.0)
    seed = Workspace.create(folder / "seed", Settings())
    ingest(seed, load_card("word"), folder / "raw" / "word")
    (key,) = seed.case_keys()
    group = json.loads((seed.case_folder(key) / "zarr.json").read_text())
    workspace = Workspace.create(folder / "w", Settings())
    facts = group["attributes"]["facts"]
    for i in range(cases):
        source, case = SOURCES[i % len(SOURCES)], f"case_{i:06d}"
        facts |= {"case": case, "source": source, "patient": case, "fingerprint": f"{i:032x}", "digest": f"{i:032x}"}
        place = workspace.source_folder(source) / case
        place.mkdir(parents=True)
        (place / "zarr.json").write_text(json.dumps(group))
    return workspace


def measure(workspace: Workspace, *options: str) -> tuple[float, float]:
    """Return seconds and peak MiB of `abdoseg sample`, the start of Python included."""
    command = [sys.executable, __file__, "--measure", str(workspace.path), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, mebibytes = done.stdout.split()[-2:]
    return float(seconds), float(mebibytes)


def run_command(path: str, options: list[str]) -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    from abdoseg.cli import app

    start = time.perf_counter()
    with redirect_stdout(StringIO()):
        app(["sample", "--json", "-w", path, *options], standalone_mode=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - start, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help="only time the command on this workspace")
    arguments = parser.parse_args()
    if arguments.measure:
        run_command(arguments.measure[0], arguments.measure[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        workspace = simulate(Path(folder), arguments.cases)
        start = time.perf_counter()
        workspace.briefs()
        print(f"{arguments.cases} cases: indexes built in {time.perf_counter() - start:.1f} s (part of ingest)")
        for view in ("full", "sparse"):
            if view == "sparse":
                sparsify(workspace, ["axial"], 0.2)
            seconds, peak = measure(workspace)
            print(
                f"{arguments.cases} cases, {view} view: sample --n 20000 took {seconds:.1f} s, {peak:.0f} MiB at most"
            )


if __name__ == "__main__":
    main()
