"""Turn and scale a patch of 112^3, image and label, on one thread: ours, MONAI, TorchIO and batchgeneratorsv2 in turn.

Every way starts from the box of voxels that encloses the turned patch, in memory; ours also gives every voxel its
annotation group. Prints patches/s and ratios of the best rounds. A peer that is not installed is left out with a word.
Run from the checkout: ``python benchmarks/augmentation.py [--rounds N]``.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from abdoseg.augmentation.affine import AffineSettings, draw_affine
from abdoseg.kernels.patch import Cut, Frame, cut_patch, reach_of

SIDE, VOLUME = 112, (210, 210, 250)
DEGREES, SCALE = 15.0, (0.9, 1.1)


class Box(NamedTuple):
    """What a way starts from: the voxels around one patch, and the patch in them."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    frame: Frame
    cut: Cut

    @property
    def intensity(self) -> NDArray[np.float32]:
        return self.image.astype(np.float32) / 800 + np.float32(0.5)


Way = Callable[[Box], object]


def boxes(count: int) -> list[Box]:
    """Draw patches as training does, and the box that each needs."""
    rng = np.random.default_rng(0)
    image = rng.integers(-400, 401, VOLUME).astype(np.int16)
    label = np.repeat(np.repeat(rng.integers(0, 17, (21, 21, 250)), 10, 0), 10, 1).astype(np.uint8)
    found = []
    for _ in range(count):
        matrix = draw_affine(rng, AffineSettings(DEGREES, SCALE)).matrix()
        cut = Cut(np.array([rng.integers(50, n - 50) for n in VOLUME], float), matrix, (SIDE,) * 3)
        reach = reach_of(cut, VOLUME)
        where = tuple(slice(a, b) for a, b in zip(reach.start, reach.stop, strict=True))
        pieces = (np.ascontiguousarray(array[where]) for array in (image, label))
        found.append(Box(*pieces, Frame(reach.start, VOLUME), cut))
    return found


def ours() -> Way:
    known = np.zeros((2, 256), dtype=bool)
    known[0, 1:17] = True
    groups = np.zeros(VOLUME[0], np.int32)
    return lambda box: cut_patch(box.image, box.label, (0, groups), known, box.cut, (1 / 800, 0.5), box.frame)


def monai() -> Way:
    from monai.transforms import RandAffined

    transform = RandAffined(
        ["image", "label"],
        prob=1.0,
        rotate_range=(np.deg2rad(DEGREES),) * 3,
        scale_range=(0.1,) * 3,
        spatial_size=(SIDE,) * 3,
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    return lambda box: transform(
        {"image": torch.from_numpy(box.intensity)[None], "label": torch.from_numpy(box.label)[None]}
    )


def torchio() -> Way:
    import SimpleITK as sitk
    import torchio as tio

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    transform = tio.Compose(
        [tio.RandomAffine(scales=SCALE, degrees=DEGREES, isotropic=True), tio.CropOrPad((SIDE,) * 3)]
    )

    def way(box: Box) -> object:
        image = tio.ScalarImage(tensor=torch.from_numpy(box.intensity)[None])
        return transform(tio.Subject(image=image, label=tio.LabelMap(tensor=torch.from_numpy(box.label)[None])))

    return way


def batchgeneratorsv2() -> Way:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    transform = SpatialTransform(
        patch_size=(SIDE,) * 3,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1.0,
        rotation=(-np.deg2rad(DEGREES), np.deg2rad(DEGREES)),
        p_scaling=1.0,
        scaling=SCALE,
        p_synchronize_scaling_across_axes=1.0,
        bg_style_seg_sampling=False,
    )
    return lambda box: transform(
        image=torch.from_numpy(box.intensity)[None], segmentation=torch.from_numpy(box.label.astype(np.int16))[None]
    )


PEERS: dict[str, Callable[[], Way]] = {
    "MONAI RandAffined": monai,
    "TorchIO RandomAffine": torchio,
    "batchgeneratorsv2 SpatialTransform": batchgeneratorsv2,
}


def installed(makers: dict[str, Callable[[], Way]]) -> dict[str, Way]:
    """Return the ways whose packages are there; say which are not."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name}: left out ({error})")
    return found


def seconds(way: Way, over: list[Box]) -> float:
    """Return the time of one patch."""
    start = time.perf_counter()
    for box in over:
        way(box)
    return (time.perf_counter() - start) / len(over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    many, few = boxes(16), boxes(4)
    ways = installed({"abdoseg": ours, **PEERS})
    for way in ways.values():
        way(many[0])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way, many if name == "abdoseg" else few))
    best = {name: min(values) for name, values in times.items()}
    for name, value in best.items():
        print(f"{name}: {1 / value:.1f} patches/s, ours is {value / best['abdoseg']:.1f} x as fast")


if __name__ == "__main__":
    main()
