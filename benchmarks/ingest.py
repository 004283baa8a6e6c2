"""One 512 x 512 x 200 CT with labels, from .nii.gz to the 2 mm grid: ours, MONAI and SimpleITK, in turn.

The peers take labels by nearest neighbour; ours keeps each structure's volume, as ingest does. The measuring and the
writing of a case are not in it. Prints medians, ratios and the memory above idle of each way, in a process of its own.
Run from the checkout: ``python benchmarks/ingest.py [--repeats N]``.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from abdoseg import harmonise
from abdoseg.case import Foreground
from abdoseg.readers import read_scan
from abdoseg.relabel import on_grid_of
from abdoseg.windows import Windows

SHAPE, SPACING_MM = (512, 512, 200), (0.8, 0.8, 2.5)
WINDOW = Windows()


def write_scan(folder: Path) -> tuple[Path, Path]:
    """Write a noisy body with 16 blobs, LPS, int16 and uint8."""
    rng = np.random.default_rng(0)
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    body = ((axes[0] - 256) / 220) ** 2 + ((axes[1] - 256) / 160) ** 2 < 1
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[np.broadcast_to(body, SHAPE)] = 40
    label = np.zeros(SHAPE, dtype=np.uint8)
    for c in range(1, 17):
        centre, radius = rng.uniform((150, 170, 30), (360, 340, 170)), rng.uniform((20, 20, 8), (60, 50, 30))
        label[sum(((a - m) / r) ** 2 for a, m, r in zip(axes, centre, radius, strict=True)) < 1] = c
    image[label > 0] += (10 * label[label > 0]).astype(np.int16)
    image += rng.normal(0, 14, SHAPE).astype(np.int16)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    paths = folder / "ct.nii.gz", folder / "label.nii.gz"
    nib.save(nib.Nifti1Image(image, affine), paths[0])
    nib.save(nib.Nifti1Image(label, affine), paths[1])
    return paths


def ours(image: Path, label: Path, nearest_axes: tuple[int, ...] = ()) -> None:
    with ThreadPoolExecutor(1) as pool:  # as ingest does
        reading = pool.submit(read_scan, label)
        scan, labels = read_scan(image), reading.result()
    found = harmonise.harmonise_image(scan.array, scan.affine, "CT", WINDOW, 2.0)
    harmonise.harmonise_label(on_grid_of(scan, labels, "label"), scan.affine, found.grid, nearest_axes)


def ours_nearest(image: Path, label: Path) -> None:
    ours(image, label, nearest_axes=(0, 1, 2))


def simpleitk(image: Path, label: Path) -> None:
    scan = sitk.ReadImage(str(image))
    filter_ = sitk.ResampleImageFilter()
    filter_.SetOutputSpacing((2.0, 2.0, 2.0))
    size = [round((n - 1) * s / 2.0 + 1) for n, s in zip(scan.GetSize(), scan.GetSpacing(), strict=True)]
    filter_.SetSize(size)
    filter_.SetOutputOrigin(scan.GetOrigin())
    filter_.SetOutputDirection(scan.GetDirection())
    filter_.SetInterpolator(sitk.sitkLinear)
    array = sitk.GetArrayFromImage(filter_.Execute(scan))
    ((np.clip(array, -400, 400) + 400) / 800).astype(np.float16)
    filter_.SetInterpolator(sitk.sitkNearestNeighbor)
    sitk.GetArrayFromImage(filter_.Execute(sitk.ReadImage(str(label))))


def monai(image: Path, label: Path) -> None:
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, ScaleIntensityRanged, Spacingd

    keys = ("image", "label")
    Compose(
        [
            LoadImaged(keys, dtype=np.float32),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=(2.0, 2.0, 2.0), mode=("bilinear", "nearest"), dtype=np.float32),
            ScaleIntensityRanged("image", -400, 400, 0, 1, clip=True),
        ]
    )({"image": str(image), "label": str(label)})


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours,
    "ours, nearest labels as the peers": ours_nearest,
    "SimpleITK": simpleitk,
    "MONAI (float32)": monai,
}


def parts(image: Path, label: Path) -> dict[str, float]:
    """Return the seconds of the steps of our own."""
    seconds = {}

    def clock(name: str, start: float) -> float:
        now = time.perf_counter()
        seconds[name] = now - start
        return now

    start = time.perf_counter()
    scan = read_scan(image)
    labels = read_scan(label)
    start = clock("read both", start)
    found = harmonise.harmonise_image(scan.array, scan.affine, "CT", WINDOW, 2.0)
    start = clock("image to 2 mm", start)
    kept = harmonise.harmonise_label(labels.array, labels.affine, found.grid)
    start = clock("labels to 2 mm, volumes kept", start)
    Foreground.of(kept, 16)
    clock("list of labelled voxels", start)
    return seconds


def memory(name: str, image: Path, label: Path) -> None:
    WAYS[name](*[path.with_name(f"small_{path.name}") for path in (image, label)])  # imports and compiled code
    idle = resident("VmRSS")
    WAYS[name](image, label)
    print(f"memory of {name} above idle: {resident('VmHWM') - idle:.0f} MiB")


def resident(field: str) -> float:
    """Return a field of the process's status in MiB; getrusage's peak is the parent's, where that is larger."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", nargs=2, metavar=("WAY", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.memory:
        folder = Path(arguments.memory[1])
        memory(arguments.memory[0], folder / "ct.nii.gz", folder / "label.nii.gz")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_scan(folder)
        for path in paths:
            scan = nib.load(path)
            nib.save(
                nib.Nifti1Image(np.asanyarray(scan.dataobj)[200:260, 200:260, :30], scan.affine),
                folder / f"small_{path.name}",
            )
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.repeats + 1):
            for way, run in WAYS.items():
                start = time.perf_counter()
                run(*paths)
                times[way].append(time.perf_counter() - start)
        median = {way: statistics.median(values[1:]) for way, values in times.items()}
        for way in WAYS:
            ratios = [f"{median[way] / median[name]:.1f} x {name.split(' as ')[0]}" for name in list(WAYS)[:2]]
            print(f"{way}: {median[way]:.2f} s, {', '.join(ratios)}")
        parts(*paths)
        print("; ".join(f"{step} {seconds:.2f} s" for step, seconds in parts(*paths).items()))
        for way in WAYS:
            subprocess.run([sys.executable, __file__, "--memory", way, name], check=True)


if __name__ == "__main__":
    main()
