"""Repeated scans: how surely they are found on people nobody tuned anything on, and how long the search takes.

Phantoms are scanned as CT and as MR, and copied: 40 % cut off, another window, noise, another orientation. Prints how
many copies are found, the least correlation of a copy and the greatest of two strangers, the seconds of a comparison,
and the seconds in which the signatures of 3,000 scans name their candidates (made by shuffling the points of the
phantoms, as so many phantoms would take hours). Run from the checkout: ``python benchmarks/duplicates.py``.
"""

import argparse
import importlib
import time
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from abdoseg.duplicates import Signature, candidate_pairs, signature
from abdoseg.harmonise import harmonise_image
from abdoseg.phantom import amos
from abdoseg.phantom.body import Key
from abdoseg.phantom.scanner import scan_person
from abdoseg.windows import Windows

MM = 3.0
AFFINE = np.diag([MM, MM, MM, 1.0])
Image = NDArray[np.int16]

verifying = importlib.import_module("abdoseg.duplicates.verify")  # the package's name for it is the function


def person(number: int, modality: str, seed: int) -> Image:
    protocol = amos.CT if modality == "CT" else amos.MR
    scan = scan_person(Key(seed, "benchmark", number), protocol, 2.0)
    return harmonise_image(scan.image, scan.affine, protocol.modality, Windows(), MM).image


def copied(image: Image, rng: np.random.Generator) -> Image:
    """Cut off 40 % along the body, narrow the window, add noise, turn."""
    cut = rng.uniform(0, 0.4)
    n = image.shape[2]
    part = image[:, :, round(cut * n) : n - round((0.4 - cut) * n)]
    low, high = np.percentile(part, (20, 98))
    noise = rng.normal(0, 0.0125 * (high - low), part.shape)
    part = np.clip(np.rint(np.clip(part, low, high) + noise), 0, None).astype(np.int16)
    turn = verifying.TURNS[rng.integers(48)]
    return np.ascontiguousarray(turn(part))


def correlation(a: Image, b: Image) -> tuple[float, float]:
    """Return the correlation that decides, and the seconds it took; -1 where nothing overlaps."""
    start = time.perf_counter()
    ranges = [verifying.tissue_range(image) for image in (a, b)]
    one, two = (verifying._reduced(image, r, MM) for image, r in zip((a, b), ranges, strict=True))
    found = verifying._placed(one, two)
    best = verifying._refined(one, two.turned(found.turn), found).correlation if found else -1.0
    return best, time.perf_counter() - start


def crowd(prints: list[Signature], count: int, rng: np.random.Generator) -> dict[str, Signature]:
    """Return signatures of many made from the points of a few, in other places and a little altered."""
    positions = np.concatenate([p.positions for p in prints])
    descriptors = np.concatenate([p.descriptors for p in prints]).astype(np.float64)
    size = max(len(p) for p in prints)
    made = {}
    for i in range(count):
        at, like = rng.integers(len(positions), size=(2, size))
        altered = descriptors[like] + rng.normal(0, 0.5 * descriptors.std(), (size, descriptors.shape[1]))
        made[f"{i:05d}"] = Signature(positions[at], np.clip(np.rint(altered), -127, 127).astype(np.int8))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of strangers to compare, of each modality")
    parser.add_argument("--scans", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    prints: list[Signature] = []
    for modality in ("CT", "MR"):
        people = {f"{i:02d}": person(i, modality, arguments.seed) for i in range(arguments.people)}
        copies = {f"{key}copy": copied(image, rng) for key, image in people.items()}
        signatures = {key: signature(image, AFFINE) for key, image in (people | copies).items()}
        prints += signatures.values()
        planted = {(key, f"{key}copy") for key in people}
        named = {pair[:2] for pair in candidate_pairs(signatures)}
        twins, times = zip(*[correlation(people[a], copies[b]) for a, b in sorted(planted)], strict=True)
        chosen = rng.permutation(list(combinations(people, 2)))[: arguments.pairs]
        strangers, slow = zip(*[correlation(people[a], people[b]) for a, b in chosen], strict=True)
        print(
            f"{modality}: {len(named & planted)} of {len(planted)} copies named by signatures, with "
            f"{len(named - planted)} strangers; {sum(t >= verifying.SAME for t in twins)} confirmed, correlation of "
            f"copies {min(twins):.2f} and more, of {len(chosen)} pairs of strangers {max(strangers):.2f} at most; "
            f"{np.median(times):.2f} s a comparison, {np.median(slow):.2f} s for strangers"
        )
    everyone = crowd(prints, arguments.scans, rng)
    start = time.perf_counter()
    found = candidate_pairs(everyone)
    print(f"{arguments.scans} scans: {len(found)} candidates in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
