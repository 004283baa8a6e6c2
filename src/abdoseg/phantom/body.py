"""Draw a random person: size, sex, fat, contrast phase, and where and how large each organ is.

The body frame is RAS in mm. x grows to the person's right, y to the front, z to the head; the origin is the
middle of the disc between the first and second lumbar vertebra.
"""

from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

from abdoseg.phantom.arrays import Float64Array, Triple
from abdoseg.phantom.shapes import Ellipsoid, Tube, rotation
from abdoseg.phantom.warp import Warp, draw_warp

Sex = Literal["m", "f"]
Phase = Literal["none", "arterial", "portal"]


@dataclass(frozen=True)
class Key:
    """What the randomness of a case hangs on: nothing else changes its voxels."""

    seed: int
    source: str
    index: int

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator of its own for one purpose, so that no draw moves another."""
        entropy = [self.seed, crc32(self.source.encode()), self.index, crc32(purpose.encode())]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


@dataclass(frozen=True)
class Spread:
    """How an organ varies between people.

    Parameters
    ----------
    pivot
        Point of the body frame that the organ is scaled and turned about, mm.
    shift
        Standard deviation of its own shift along x, y, z, mm.
    size
        Standard deviation of the logarithm of its linear size.
    tilt
        Standard deviation of its turn about each axis, degrees.
    group
        Another organ whose shift it shares, or empty.
    """

    pivot: Triple
    shift: Triple = (2.0, 2.0, 3.0)
    size: float = 0.05
    tilt: float = 4.0
    group: str = ""


SPREADS: dict[str, Spread] = {
    "liver": Spread((60, 20, 60), (3.0, 3.0, 5.0), 0.04, 3.0),
    "gallbladder": Spread((66, 70, -4), (4.0, 3.0, 4.0), 0.13, 9.0, "liver"),
    "spleen": Spread((-112, -10, 76), (2.0, 4.0, 7.0), 0.07, 7.0),
    "stomach": Spread((-62, 55, 65), (4.0, 4.0, 6.0), 0.08, 4.0),
    "duodenum": Spread((45, 45, -12), (3.0, 2.0, 5.0), 0.06, 4.0),
    "pancreas": Spread((10, 48, 5), (2.0, 2.0, 3.0), 0.05, 4.0, "duodenum"),
    "portal": Spread((10, 46, 8), (1.0, 1.0, 1.0), 0.03, 1.5, "duodenum"),
    "right_kidney": Spread((64, -1, -4), (3.0, 3.0, 8.0), 0.06, 6.0),
    "left_kidney": Spread((-64, 0, 10), (3.0, 3.0, 8.0), 0.06, 6.0),
    "right_adrenal": Spread((32, 2, 58), (1.5, 1.5, 3.0), 0.05, 6.0),
    "left_adrenal": Spread((-36, 8, 58), (1.5, 1.5, 3.0), 0.05, 6.0),
    "aorta": Spread((-10, 30, 0), (3.0, 2.0, 8.0), 0.08, 0.0),
    "postcava": Spread((24, 28, 0), (2.0, 2.0, 6.0), 0.08, 0.0),
    "esophagus": Spread((-20, 46, 110), (2.0, 2.0, 3.0), 0.06, 3.0),
    "bladder": Spread((0, 26, -250), (4.0, 3.0, 3.0), 0.23, 5.0),
    "prostate": Spread((0, 16, -266), (2.0, 2.0, 3.0), 0.10, 6.0),
    "uterus": Spread((0, 0, -210), (7.0, 4.0, 5.0), 0.09, 8.0),
    "colon": Spread((0, 50, -30), (5.0, 3.0, 10.0), 0.03, 2.0),
}


@dataclass(frozen=True)
class Placement:
    """Where one person's organ went: scaled and turned about ``pivot``, then shifted."""

    pivot: Float64Array
    shift: Float64Array
    size: float
    tilt: Triple

    def points(self, points: Float64Array) -> Float64Array:
        """Return moved points ``(n, 3)``, mm."""
        moved = (np.asarray(points, dtype=float) - self.pivot) * self.size @ rotation(self.tilt).T
        return np.asarray(moved + self.pivot + self.shift)

    def point(self, point: Triple) -> Triple:
        """Return one moved point."""
        x, y, z = self.points(np.asarray([point], dtype=float))[0]
        return float(x), float(y), float(z)

    def ellipsoid(self, center: Triple, semi: Triple, tilt: Triple = (0.0, 0.0, 0.0)) -> Ellipsoid:
        """Return a moved ellipsoid; the organ's own turn is added to ``tilt``."""
        a, b, c = (s * self.size for s in semi)
        return Ellipsoid(self.point(center), (a, b, c), self.turned(tilt))

    def turned(self, tilt: Triple) -> Triple:
        """Return a tilt with the organ's own turn added (angles are small enough to add)."""
        return tilt[0] + self.tilt[0], tilt[1] + self.tilt[1], tilt[2] + self.tilt[2]

    def tube(self, points: list[Triple], radii: tuple[float, ...], haustra: float = 0.0) -> Tube:
        """Return a moved tube."""
        sized = tuple(r * self.size for r in radii)
        return Tube(self.points(np.asarray(points, dtype=float)), sized, haustra)


@dataclass(frozen=True)
class Subject:
    """One person as scanned.

    Parameters
    ----------
    key
        Seed of all further draws.
    sex
        ``m`` or ``f``.
    phase
        Contrast phase.
    warp
        Deformation of the model's body.
    subcutaneous_mm
        Thickness of the fat under the skin.
    visceral
        Amount of fat in the cavity, 0 (thin) to 1 (obese).
    places
        Placement of each organ of :data:`SPREADS`.
    """

    key: Key
    sex: Sex
    phase: Phase
    warp: Warp
    subcutaneous_mm: float
    visceral: float
    places: dict[str, Placement]

    @property
    def halo_mm(self) -> float:
        """Thickness of the fat around solid organs, body mm."""
        return 1.5 + 2.5 * self.visceral


def draw_subject(key: Key, phase: Phase) -> Subject:
    """Return the person of a case.

    Sexes alternate, so that even a few cases hold both.
    """
    rng = key.rng("body")
    sex: Sex = "m" if (key.index + crc32(key.source.encode())) % 2 else "f"
    height = rng.normal(0.0, 0.035) + (0.015 if sex == "m" else -0.035)
    girth = float(np.clip(rng.normal(0.45, 0.25), 0.0, 1.0))
    scale = np.exp([height + rng.normal(0.02, 0.03), height + rng.normal(0.0, 0.03), height])
    origin = np.array([rng.uniform(-25, 25), rng.uniform(-60, 20), rng.uniform(-500, 500)])
    subcutaneous = 8.0 + 24.0 * girth + (4.0 if sex == "f" else 0.0)
    visceral = float(np.clip(girth + rng.normal(0.0, 0.15) - (0.1 if sex == "f" else 0.0), 0.0, 1.0))
    warp = draw_warp(key.rng("warp"), scale, origin)
    return Subject(key, sex, phase, warp, subcutaneous, visceral, _draw_places(key))


def _draw_places(key: Key) -> dict[str, Placement]:
    """Return the placement of every organ; groups share a shift."""
    shifts = {name: key.rng(f"shift {name}").normal(0.0, spread.shift) for name, spread in SPREADS.items()}
    places = {}
    for name, spread in SPREADS.items():
        rng = key.rng(f"place {name}")
        size = float(np.exp(np.clip(rng.normal(0.0, spread.size), -2.2 * spread.size, 2.2 * spread.size)))
        a, b, c = rng.normal(0.0, spread.tilt, size=3)
        shift = shifts[name] + (shifts[spread.group] if spread.group else 0.0)
        places[name] = Placement(np.asarray(spread.pivot, float), shift, size, (float(a), float(b), float(c)))
    return places
