"""Bodies made of random organs, drawn on any grid: the same seed is the same person, however it is scanned."""

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations, product

import numpy as np

from abdoseg.harmonise import harmonise_image
from abdoseg.windows import Windows

SPACING = 3.0
EXTENT = np.array([270.0, 210.0, 330.0])
TURNS = [(order, sign) for order in permutations(range(3)) for sign in product((1, -1), repeat=3)]

Image = np.ndarray


def draw(seed: int, spacing: tuple[float, float, float] = (SPACING,) * 3, shift: float = 0.0) -> Image:
    """HU, float32: an oval of fat with a spine and a hundred organs; the grid may be displaced by ``shift`` mm."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(0.0, extent, s) + shift for extent, s in zip(EXTENT, spacing, strict=True)]
    image = np.full([len(axis) for axis in axes], -1000.0, dtype=np.float32)
    middle, width = EXTENT / 2, np.array([rng.uniform(100, 120), rng.uniform(75, 90), 1e6])
    paint(image, axes, middle, width, -100.0)
    for _ in range(100):
        center = middle + np.clip(rng.normal(0, 0.45, 3), -0.8, 0.8) * np.minimum(width, EXTENT[2] / 2)
        value = float(rng.choice([30, 50, 80, 120, 180, 300, -900], p=[0.2, 0.25, 0.2, 0.15, 0.1, 0.05, 0.05]))
        paint(image, axes, center, rng.uniform(6, 30, 3), value)
    for z in np.arange(rng.uniform(0, 20), EXTENT[2], rng.uniform(28, 36)):
        paint(image, axes, np.array([middle[0], middle[1] - 50, z]), np.array([18, 15, 11]), 350.0)
    return image


def paint(image: Image, axes: list[Image], center: Image, size: Image, value: float) -> None:
    """Blend an ellipsoid in, its edge a few mm wide, within its box only."""
    box = [np.searchsorted(axis, (c - s - 8, c + s + 8)) for axis, c, s in zip(axes, center, size, strict=True)]
    inside = tuple(slice(low, high) for low, high in box)
    parts = [(axis[i] - c) / s for axis, i, c, s in zip(axes, inside, center, size, strict=True)]
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(*parts, indexing="ij", sparse=True)))
    share = np.clip(0.5 + (1 - radius) * size.min() / 4, 0, 1).astype(np.float32)
    image[inside] += share * (np.float32(value) - image[inside])


def harmonised(hu: Image, spacing: tuple[float, float, float] = (SPACING,) * 3) -> Image:
    """int16 on the tests' grid, as ingest makes it."""
    return harmonise_image(hu, np.diag([*spacing, 1.0]), "CT", Windows(), SPACING).image


@lru_cache(maxsize=32)
def person(seed: int) -> Image:
    """A harmonised scan of a person."""
    image = harmonised(draw(seed))
    image.flags.writeable = False
    return image


def turned(image: Image, number: int) -> Image:
    order, sign = TURNS[number]
    return image.transpose(order)[tuple(slice(None, None, s) for s in sign)]


def cropped(image: Image, low: tuple[float, float, float], high: tuple[float, float, float]) -> Image:
    """Cut off parts (0..1) of every axis at its low and its high end."""
    cut = zip(image.shape, low, high, strict=True)
    return image[tuple(slice(round(a * n), n - round(b * n)) for n, a, b in cut)]


def noisy(image: Image, sigma: float, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 800).astype(np.int16)


def clipped(hu: Image) -> Image:
    return np.clip(hu, -160, 240)


def everything(seed: int) -> Image:
    """Cropped by 40 %, other window, displaced, noisy, turned."""
    hu = clipped(draw(seed, shift=1.2))
    return turned(cropped(noisy(harmonised(hu), 10.0), (0, 0, 0.3), (0, 0, 0.1)), 7 + 5 * seed % 41)


FAR_OFF: dict[str, tuple[Callable[[int], Image], set[str]]] = {
    "lower 40 % cut off": (lambda s: cropped(person(s), (0, 0, 0.4), (0, 0, 0)), {"cropped"}),
    "cropped on both ends": (lambda s: cropped(person(s), (0, 0, 0.25), (0, 0, 0.15)), {"cropped"}),
    "cropped into the body": (lambda s: cropped(person(s), (0.15, 0.2, 0), (0.2, 0.1, 0)), {"cropped"}),
    "displaced by 0.4 voxel": (lambda s: harmonised(draw(s, shift=0.4 * SPACING)), {"resampled"}),
    "turned": (lambda s: turned(person(s), 13 + s), {"flipped"}),
    "upside down": (lambda s: person(s)[:, :, ::-1], {"flipped"}),
    "clipped to -160..240 HU": (lambda s: harmonised(clipped(draw(s))), {"re-windowed"}),
    "0..255 for HU": (lambda s: harmonised((clipped(draw(s)) + 160) / 400 * 255), {"re-windowed"}),
    "noisy": (lambda s: noisy(person(s), 15.0), {"resampled"}),
    "thick slices": (lambda s: harmonised(draw(s, (2.0, 2.0, 5.0)), (2.0, 2.0, 5.0)), {"resampled"}),
    "everything": (everything, {"flipped", "cropped", "re-windowed", "resampled"}),
}
"""How a copy was made, and what is to be told of it."""
