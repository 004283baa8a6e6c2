"""Patches of 112^3, image and label, out of the store: ours and what others read with, in turn, warm page cache.

1. Boxes, neither turned nor scaled: ours, tensorstore and zarr-python on our files; zarr-python with its default codec
   and chunks of 64^3; blosc2 files.
2. Whole patches, read + turned + scaled: ours (groups included), and blosc2 for the enclosing box with each of MONAI's,
   TorchIO's and batchgeneratorsv2's transforms.
3. Layouts of our files: sides of chunks, codecs, checksums.

Prints patches/s and ratios of the best rounds, and the processor time of a patch, which other work on the machine moves
less. A peer that is not installed is left out with a word. Run from the
checkout: ``python benchmarks/patches.py [--rounds N]``; ``benchmarks/augmentation.py`` has the turning alone.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from scipy.ndimage import gaussian_filter
from zarr.codecs import BloscCodec, Crc32cCodec

import augmentation
from abdoseg.annotation import Annotation
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.kernels.patch import Frame, reach_of, touched_chunks
from abdoseg.patches import PatchSettings, PatchStream, Recipe, find_candidates
from abdoseg.store import Workspace
from abdoseg.store.arrays import open_case, write_case
from abdoseg.store.chunks import open_array

SHAPE, SIDE, CASES, PATCHES = (210, 210, 250), 112, 6, 48
Box = tuple[int, tuple[slice, slice, slice]]
Way = Callable[[Any], object]


def make_case(number: int) -> Case:
    """Return a noisy body with 16 blobs at 2 mm: int16 and uint8."""
    rng = np.random.default_rng(number)
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    image = np.full(SHAPE, -1000, np.float32)
    image[np.broadcast_to(((axes[0] - 105) / 90) ** 2 + ((axes[1] - 105) / 66) ** 2 < 1, SHAPE)] = 40
    label = np.zeros(SHAPE, np.uint8)
    for c in range(1, 17):
        centre, radius = rng.uniform((60, 70, 40), (150, 140, 210)), rng.uniform((8, 8, 10), (24, 20, 60))
        label[sum(((a - m) / r) ** 2 for a, m, r in zip(axes, centre, radius, strict=True)) < 1] = c
    image[label > 0] += 10.0 * label[label > 0]
    noise = gaussian_filter(rng.normal(0, 14, SHAPE).astype(np.float32), 0.6)
    image = np.clip(np.rint(image + noise * (9 / noise.std())), -400, 400).astype(np.int16)
    identity = np.eye(4).tolist()
    facts = CaseFacts(
        case=f"c{number}", source="s", modality="CT", patient=f"c{number}", shape=SHAPE, native_shape=SHAPE,
        affine=identity, native_affine=identity, scale=1 / 800, offset=0.5, window=(-400, 400), fingerprint="f",
        annotation=Annotation.partial(range(1, 17), 16).to_json(), digest=f"{number}", voxels={},
        settings_digest="s", card_digest="c",
    )  # fmt: skip
    return Case(facts, image, label)


def draw_boxes() -> list[Box]:
    rng = np.random.default_rng(1)
    corners = [[int(rng.integers(n - SIDE + 1)) for n in SHAPE] for _ in range(PATCHES)]
    return [(i % CASES, tuple(slice(a, a + SIDE) for a in corner)) for i, corner in enumerate(corners)]  # type: ignore[misc]


# -- where boxes are read from ---------------------------------------------------------------------------------------


def from_ours(folders: Sequence[Path]) -> Way:
    opened = [open_case(folder) for folder in folders]
    return lambda job: (opened[job[0]].image[job[1]], opened[job[0]].label[job[1]])


def from_tensorstore(folders: Sequence[Path]) -> Way:
    import tensorstore as ts

    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})

    def opened(folder: Path) -> Any:
        return ts.open({"driver": "zarr3", "kvstore": f"file://{folder}/"}, context=context).result()

    arrays = [(opened(folder / "image"), opened(folder / "label")) for folder in folders]

    def way(job: Box) -> object:
        futures = [array[job[1]].read() for array in arrays[job[0]]]
        return tuple(future.result() for future in futures)

    return way


def from_zarr(folders: Sequence[Path]) -> Way:
    arrays = [[zarr.open_array(folder / name, mode="r") for name in ("image", "label")] for folder in folders]
    return lambda job: tuple(array[job[1]] for array in arrays[job[0]])


def write_zarr_default(root: Path, cases: Sequence[Case]) -> list[Path]:
    folders = []
    for i, case in enumerate(cases):
        folders.append(root / f"{i}")
        for name, data in (("image", case.image), ("label", case.label)):
            zarr.create_array(root / f"{i}" / name, data=data, chunks=(64, 64, 64))
    return folders


def from_blosc2(root: Path, cases: Sequence[Case], kind: str) -> Way:
    """Write and read blosc2 files: ``fast`` is the best setting found, ``nnU-Net`` about what it writes."""
    import blosc2

    blosc2.set_nthreads(1)
    codec, level = {"fast": (blosc2.Codec.LZ4, 5), "nnU-Net": (blosc2.Codec.ZSTD, 8)}[kind]
    layout = {"fast": ((128,) * 3, (16,) * 3), "nnU-Net": ((64,) * 3, (16, 16, 32))}[kind]
    parameters = {"codec": codec, "clevel": level, "filters": [blosc2.Filter.SHUFFLE]}
    options: dict[str, Any] = {"chunks": layout[0], "blocks": layout[1], "cparams": parameters, "mode": "w"}
    opened = []
    for i, case in enumerate(cases):
        image = case.intensity() if kind == "nnU-Net" else case.image
        files = []
        for name, data in (("image", image), ("label", case.label)):
            path = str(root / f"{i}-{name}.b2nd")
            blosc2.asarray(np.ascontiguousarray(data), urlpath=path, **options)
            files.append(blosc2.open(path, mode="r", dparams={"nthreads": 1}, mmap_mode="r"))
        opened.append(files)
    return lambda job: tuple(array[job[1]] for array in opened[job[0]])


# -- whole patches ---------------------------------------------------------------------------------------------------


def turned(read: Way, transform: augmentation.Way) -> Way:
    """Read the box that encloses a recipe's patch, then turn and scale it."""

    def way(recipe: Recipe) -> object:
        reach = reach_of(recipe.cut, SHAPE)
        where = tuple(slice(a, b) for a, b in zip(reach.start, reach.stop, strict=True))
        image, label = read((int(recipe.facts.case[1:]), where))
        return transform(augmentation.Box(image, label, Frame(reach.start, SHAPE), recipe.cut))

    return way


# -- measuring -------------------------------------------------------------------------------------------------------


def rate(way: Way, jobs: Sequence[Any], threads: int) -> tuple[float, float]:
    """Return patches a second, and the processor time of all threads a patch in milliseconds."""
    start, used = time.perf_counter(), time.process_time()
    if threads == 1:
        for job in jobs:
            way(job)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(way, jobs))
    taken, used = time.perf_counter() - start, time.process_time() - used
    return len(jobs) / taken, used / len(jobs) * 1e3


def compare(title: str, ways: dict[str, Way], jobs: Sequence[Any], threads: int, rounds: int) -> None:
    """Print the best rate of each way, and ours over it; the first is ours."""
    for way in ways.values():
        for job in jobs[:2]:
            way(job)
    best, least = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            slow = name.endswith("*")
            rates, used = rate(way, jobs[: 4 if slow else None], threads)
            best[name], least[name] = max(best[name], rates), min(least[name], used)
    base = best[next(iter(ways))]
    print(f"{title}, {threads} thread{'s' * (threads > 1)}:")
    for name, value in best.items():
        cost = f"{least[name]:7.1f} ms of processor time each"
        print(f"  {name.rstrip('*'):<52} {value:6.1f}/s, ours is {base / value:5.2f} x as fast; {cost}")


def optional(name: str, make: Callable[[], Way]) -> dict[str, Way]:
    try:
        return {name: make()}
    except ImportError as error:
        print(f"{name.rstrip('*')}: left out ({error})")
        return {}


def read_turned(arrays: Sequence[Any], recipe: Recipe) -> None:
    """Read what a turned patch needs of a case, as the stream does."""
    reach = reach_of(recipe.cut, SHAPE)
    for array in arrays:
        array.read(reach.start, np.empty(reach.shape, array.dtype), touched_chunks(recipe.cut, reach, array.chunks))


def compare_layouts(root: Path, case: Case, recipes: Sequence[Recipe], rounds: int) -> None:
    """Print rates and sizes of our reader on other chunks and codecs, and Zarr's time for the whole case."""
    lz4, zstd = (BloscCodec(cname=name, clevel=5, shuffle="bitshuffle") for name in ("lz4", "zstd"))
    layouts: dict[str, tuple[int, list[Any]]] = {
        "32^3 lz4 (the store's)": (32, [lz4]),
        "32^3 lz4 + checksums": (32, [lz4, Crc32cCodec()]),
        "32^3 zstd": (32, [zstd]),
        "64^3 lz4": (64, [lz4]),
        "64^3 zstd": (64, [zstd]),
        "16^3 lz4": (16, [lz4]),
    }
    ways: dict[str, Way] = {}
    turned_ways: dict[str, Way] = {}
    whole: dict[str, Way] = {}
    sizes = {}
    for name, (chunk, compressors) in layouts.items():
        folder = root / name.replace(" ", "_")
        shards = tuple(-(-n // chunk) * chunk for n in SHAPE)
        for part, data in (("image", case.image), ("label", case.label)):
            zarr.create_array(
                folder / part, data=data, chunks=(chunk,) * 3, shards=shards, compressors=compressors, fill_value=0
            )
        arrays = [open_array(folder / part, folder / part, holds_something=True) for part in ("image", "label")]
        sizes[name] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        ways[name] = lambda job, arrays=arrays: tuple(array[job[1]] for array in arrays)
        turned_ways[name] = partial(read_turned, arrays)
        whole[name + "*"] = lambda _, folder=folder: [zarr.open_array(folder / n)[...] for n in ("image", "label")]
    compare("layouts, boxes of 112^3", ways, [(0, box) for _, box in draw_boxes()], 1, rounds)
    compare("layouts, reading for turned patches", turned_ways, recipes, 1, rounds)
    compare("layouts, whole cases by zarr-python", whole, [0, 0], 1, rounds)
    for name, size in sizes.items():
        print(f"  {name:<58} {size / 1e6:6.2f} MB a case")


def zarr_ways(root: Path, cases: Sequence[Case], folders: Sequence[Path]) -> dict[str, Way]:
    return {
        "abdoseg": from_ours(folders),
        **optional("tensorstore, the same files", lambda: from_tensorstore(folders)),
        "zarr-python, the same files*": from_zarr(folders),
        "zarr-python, default codec, 64^3*": from_zarr(write_zarr_default(root / "default", cases)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        workspace = Workspace.create(root / "work")
        cases = [make_case(i) for i in range(CASES)]
        folders = [workspace.case_folder(case.facts.key) for case in cases]
        for case, folder in zip(cases, folders, strict=True):
            write_case(folder, workspace.incoming, case, Foreground.of(case.label, 16))
        (root / "fast").mkdir()
        (root / "nnunet").mkdir()
        fast = optional("blosc2 lz4, chunks 128^3, blocks 16^3", lambda: from_blosc2(root / "fast", cases, "fast"))
        nnunet = optional("blosc2 zstd float32, as nnU-Net", lambda: from_blosc2(root / "nnunet", cases, "nnU-Net"))
        ways = zarr_ways(root, cases, folders) | fast | nnunet
        for threads in (1, 2):
            compare("boxes", ways, draw_boxes(), threads, rounds)

        shown = [(case.facts, case.facts.groups) for case in cases]
        candidates = find_candidates(shown, workspace)
        plain, kept = (PatchStream(shown, workspace, PatchSettings(), size, candidates) for size in (0, 2**31))
        recipes = [plain.recipe(t) for t in range(PATCHES)]
        whole: dict[str, Way] = {
            "abdoseg, from disk": plain.patch,
            "abdoseg, cases in memory": lambda recipe: kept.patch(in_memory[recipe.facts.key, recipe.centre]),
        }
        in_memory = {(r.facts.key, r.centre): r for r in (kept.recipe(t) for t in range(PATCHES))}
        for peer, transform in augmentation.installed(augmentation.PEERS).items():
            for reader in fast.values():
                whole[f"blosc2 lz4 + {peer}*"] = turned(reader, transform)
        compare("whole patches", whole, recipes, 1, rounds)
        print(f"  in memory: {kept.cache}")
        compare_layouts(root / "layouts", cases[0], recipes, rounds)


if __name__ == "__main__":
    main()
