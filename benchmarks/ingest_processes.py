"""The whole of ingest, from .nii.gz to the stored case, by one process and by two.

Copies of one 512 x 512 x 200 CT with 16 structures. Everything is in it: checks, signature, measures, compression,
writing; not the start of the processes. Prints seconds a case, the ratio, megabytes and files a case, and the memory of
a worker above its idle size. Run from the checkout: ``python benchmarks/ingest_processes.py [--cases N]``.
"""

import argparse
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from ingest import resident, write_scan

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import Card
from abdoseg.cards.registry import card_from
from abdoseg.steps.ingest import THREAD_VARIABLES, ingest
from abdoseg.store import Workspace


def card() -> Card:
    layout = {
        "name": "copies",
        "image": "case{number}/ct.nii.gz",
        "label": "case{number}/label.nii.gz",
        "case": "case{number}",
        "groups": {"number": "[0-9]+"},
    }
    labels = {str(i): name for i, name in enumerate(ABDOMEN.names, start=1)}
    facts = {"id": "copies", "title": "copies", "modality": "CT", "annotated": ABDOMEN.names, "labels": labels}
    return card_from({**facts, "layouts": [layout]}, "benchmark")


def work(folder: str, name: str, only: list[str]) -> tuple[float, float]:
    """Take some cases into a workspace; return seconds, and the memory above idle in MiB."""
    workspace = Workspace.create(Path(folder) / name)
    source = Path(folder) / "source"
    ingest(workspace, card(), source, only=["case0"], replace=True)  # imports, compiled code
    idle = resident("VmRSS")
    start = time.perf_counter()
    report = ingest(workspace, card(), source, only=only, replace=True)
    seconds = time.perf_counter() - start
    if len(report.taken) != len(only):
        raise SystemExit(f"not taken: {report.quarantined}")
    return seconds, resident("VmHWM") - idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    with tempfile.TemporaryDirectory() as name:
        image, label = write_scan(Path(name))
        cases = [f"case{i}" for i in range(arguments.cases)]
        for case in cases:
            folder = Path(name) / "source" / case
            folder.mkdir(parents=True)
            for path in (image, label):
                os.link(path, folder / path.name)
        for processes in (1, 2) * arguments.repeats:
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                shares = [cases[i::processes] for i in range(processes)]
                # A workspace for each: one source is taken by one ingest at a time.
                futures = [pool.submit(work, name, f"w{processes}{i}", share) for i, share in enumerate(shares)]
                done = [future.result() for future in futures]
            seconds = max(seconds for seconds, _ in done)
            print(
                f"{processes} process(es): {seconds / len(cases):.2f} s a case, "
                f"memory above idle {max(memory for _, memory in done):.0f} MiB"
            )
        stored = Path(name) / "w10" / "sources" / "copies.zarr" / "case1"
        files = [path for path in stored.rglob("*") if path.is_file()]
        print(f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {len(files)} files a case")
        shutil.rmtree(Path(name) / "source")


if __name__ == "__main__":
    main()
