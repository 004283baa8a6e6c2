"""Whether two scans show the same content: align them, then correlate what they share.

Both are reduced to the range of the tissue, smoothed, and rid of what varies slowly, since all bodies are alike in
that; what remains is the anatomy of one person. Every exchange and flip of axes is tried, each with the shift that
cross-correlation proposes; the best one is refined to part of a voxel. Phases of contrast taken in one breath agree as
copies do, and belong together as much.
"""

from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from abdoseg.duplicates.signature import TissueRange, Triple, parabola_top, sampled, tissue_range

T = TypeVar("T", bound=np.generic)

Kind = Literal["identical", "flipped", "cropped", "re-windowed", "resampled"]
"""What tells two copies apart; of a pair several may hold."""

SAME = 0.8
"""Least correlation of repeated scans. Measured on phantoms: copies cropped, turned, re-windowed, resampled and noisy
at once reach 0.9 and more, different people 0.6 at most."""

MIN_OVERLAP = 0.25
"""Least part of the smaller scan's body that both show."""

COARSE_MM, FINE_MM = 8.0, 4.0
"""Grids on which the placement is looked for and on which it is refined and judged."""

SLOW = 2.5
"""Standard deviation of the Gaussian that takes out what varies slowly, in steps of the coarse grid; twice that on the
fine one."""

SURE = 0.85
"""A placement on the coarse grid that correlates as much is the right one: no other way of turning is tried."""

PEAKS = 12
"""Shifts tried for each way of turning: a cross-correlation over the whole favours large overlaps, and the right one of
scans that share a third may be far down its list."""

OTHER_WINDOW = 0.1
"""Intensity percentiles that differ by more than this part of the range come from another window."""

OFF_GRID = 0.1
"""Part of a voxel by which copies must be displaced to be of different grids; the placement is exact to less."""


@dataclass(frozen=True)
class Match:
    """How two scans are the same.

    Parameters
    ----------
    kinds
        ``("identical",)``, or what tells the copies apart as far as can be told: ``flipped`` (axes flipped or
        exchanged), ``cropped``, ``re-windowed`` (another window or scale of intensity), ``resampled`` (the voxels are
        not the same ones: shifted by part of a voxel, of another spacing, noisy or compressed).
    correlation
        Of the two after alignment, over the body both show, -1..1.
    overlap
        Part of the smaller scan's body that both show, 0..1.
    axes
        Which way the second scan's axes lie along those of the first: ``+x+y+z`` when they are the same.
    shift_mm
        What lies at p in the first, from its middle along its axes, lies at p + shift in the turned second.
    """

    kinds: tuple[Kind, ...]
    correlation: float
    overlap: float
    axes: str
    shift_mm: Triple

    @property
    def kind(self) -> str:
        """The kinds as words."""
        return ", ".join(self.kinds)


class _Turn(NamedTuple):
    """Axis ``order[i]`` of a scan becomes axis ``i``, backwards where ``sign[i]`` is -1."""

    order: tuple[int, ...]
    sign: tuple[int, ...]

    def __call__(self, volume: NDArray[T]) -> NDArray[T]:
        return volume.transpose(self.order)[tuple(slice(None, None, s) for s in self.sign)]

    def __str__(self) -> str:
        return "".join(("+" if s > 0 else "-") + "xyz"[axis] for axis, s in zip(self.order, self.sign, strict=True))


TURNS = [_Turn(order, sign) for order in permutations(range(3)) for sign in product((1, -1), repeat=3)]
"""All 48, the one that changes nothing first."""


class _Layer(NamedTuple):
    """A scan on a grid: ``detail`` float32 and ``body`` bool, ``(X, Y, Z)``; detail is 0 outside the body."""

    detail: NDArray[np.float32]
    body: NDArray[np.bool_]

    def turned(self, turn: _Turn) -> "_Layer":
        return _Layer(turn(self.detail), turn(self.body))


class _Scan(NamedTuple):
    """A scan on the fine grid (tissue in 0..1, and how much of a voxel is body), and its layer on the coarse one."""

    tissue: NDArray[np.float32]
    body: NDArray[np.float32]
    coarse: _Layer

    def turned(self, turn: _Turn) -> "_Scan":
        return _Scan(turn(self.tissue), turn(self.body), self.coarse.turned(turn))


class _Placement(NamedTuple):
    """How well the second scan fits the first when it is turned and then displaced by ``shift_mm``."""

    correlation: float
    overlap: float
    turn: _Turn
    shift_mm: NDArray[np.float64]


def verify(image_a: NDArray[np.int16], image_b: NDArray[np.int16], spacing_mm: float = 2.0) -> Match | None:
    """Return how two scans are the same; ``None`` when they are not.

    Parameters
    ----------
    image_a, image_b
        Harmonised images, int16 ``(X, Y, Z)``; any monotonic scale of intensity each.
    spacing_mm
        The isotropic spacing of both.

    Notes
    -----
    Copies must have one scale of length. A correlation of at least :data:`SAME` over at least :data:`MIN_OVERLAP` of
    the smaller scan's body makes two scans the same.
    """
    range_a, range_b = tissue_range(image_a), tissue_range(image_b)
    if range_a is None or range_b is None:
        return None
    if image_a.shape == image_b.shape and np.array_equal(image_a, image_b):
        return Match(("identical",), 1.0, 1.0, str(TURNS[0]), (0.0, 0.0, 0.0))
    a, b = _reduced(image_a, range_a, spacing_mm), _reduced(image_b, range_b, spacing_mm)
    found = _placed(a, b)
    if found is None:
        return None
    found = _refined(a, b.turned(found.turn), found)
    if found.correlation < SAME or found.overlap < MIN_OVERLAP:
        return None
    kinds = _kinds(image_a, found.turn(image_b), found, spacing_mm)
    x, y, z = (round(float(s), 2) for s in found.shift_mm)
    return Match(kinds, found.correlation, found.overlap, str(found.turn), (x, y, z))


# -- what is compared -------------------------------------------------------------------------------------------------


def _reduced(image: NDArray[np.int16], tissue: TissueRange, spacing_mm: float) -> _Scan:
    spacing = (spacing_mm,) * 3
    values = sampled(tissue.normalised(image), spacing, FINE_MM, FINE_MM * 0.75)
    body = sampled(tissue.body(image), spacing, FINE_MM, FINE_MM * 0.75)
    coarse = _layer(values, body, COARSE_MM, COARSE_MM * 0.6)
    return _Scan(values, body, coarse)


def _layer(
    tissue: NDArray[np.float32],
    body: NDArray[np.float32],
    step_mm: float,
    sigma_mm: float,
    offset_mm: Triple | NDArray[np.float64] = (0.0, 0.0, 0.0),
) -> _Layer:
    """Sample a scan on the fine grid further, and take out of the tissue what varies slowly within the body."""
    fine = (FINE_MM,) * 3
    values = sampled(tissue, fine, step_mm, sigma_mm, offset_mm)
    inside = sampled(body, fine, step_mm, sigma_mm, offset_mm) > 0.5
    weight = inside.astype(np.float32)
    width = SLOW * COARSE_MM / step_mm
    slow = ndimage.gaussian_filter(values * weight, width, mode="constant", truncate=3.0)
    slow /= np.maximum(ndimage.gaussian_filter(weight, width, mode="constant", truncate=3.0), 1e-3)
    return _Layer((values - slow) * weight, inside)


# -- where they fit ---------------------------------------------------------------------------------------------------


def _placed(a: _Scan, b: _Scan) -> _Placement | None:
    """Return the best placement on the coarse grid; ``None`` when none has the least overlap."""
    best = _best_shift(a.coarse, b.coarse, TURNS[0])
    for turn in TURNS[1:]:
        if best is not None and best.correlation >= SURE:
            break
        other = _best_shift(a.coarse, b.coarse, turn)
        if best is None or (other is not None and other.correlation > best.correlation):
            best = other
    return best


def _best_shift(a: _Layer, b: _Layer, turn: _Turn) -> _Placement | None:
    """Return the best placement of ``b``, turned, on ``a``."""
    b = b.turned(turn)
    shape = [fft.next_fast_len(n + m - 1, real=True) for n, m in zip(a.body.shape, b.body.shape, strict=True)]
    agreement = fft.irfftn(np.conj(fft.rfftn(a.detail, shape)) * fft.rfftn(b.detail, shape), shape)
    least = MIN_OVERLAP * min(int(a.body.sum()), int(b.body.sum()))
    best = None
    for _ in range(PEAKS):
        peak = np.unravel_index(int(agreement.argmax()), agreement.shape)
        steps = [int(p) if p < m else int(p) - n for p, n, m in zip(peak, shape, b.body.shape, strict=True)]
        correlation, voxels = _correlation(a, b, steps)
        if voxels >= least and (best is None or correlation > best.correlation):
            middle = (np.array(b.body.shape) - np.array(a.body.shape)) / 2
            overlap = voxels / max(1, min(int(a.body.sum()), int(b.body.sum())))
            best = _Placement(correlation, overlap, turn, (np.array(steps) - middle) * COARSE_MM)
        around = np.ix_(*[np.arange(p - 1, p + 2) % n for p, n in zip(peak, shape, strict=True)])
        agreement[around] = -np.inf
    return best


def _correlation(a: _Layer, b: _Layer, steps: list[int]) -> tuple[float, int]:
    """Return correlation and number of the voxels in both bodies, when voxel i of ``a`` is i + steps of ``b``."""
    in_a, in_b = _shared(a.body.shape, b.body.shape, steps)
    both = a.body[in_a] & b.body[in_b]
    voxels = int(np.count_nonzero(both))
    if voxels < 2:
        return -1.0, voxels
    x, y = a.detail[in_a][both], b.detail[in_b][both]
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt(np.dot(x, x) * np.dot(y, y)))
    return (float(np.dot(x, y)) / size if size > 0 else -1.0), voxels


def _shared(a: tuple[int, ...], b: tuple[int, ...], steps: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of two volumes of shapes ``a`` and ``b`` that lie on each other, empty where none do."""
    begin = [max(0, -s) for s in steps]
    end = [max(low, min(n, m - s)) for low, n, m, s in zip(begin, a, b, steps, strict=True)]
    in_a = tuple(slice(low, high) for low, high in zip(begin, end, strict=True))
    in_b = tuple(slice(low + s, high + s) for low, high, s in zip(begin, end, steps, strict=True))
    return in_a, in_b


def _refined(a: _Scan, b: _Scan, found: _Placement) -> _Placement:
    """Return the placement on the fine grid, to part of a step; ``b`` is turned already."""
    fixed = _layer(a.tissue, a.body, FINE_MM, FINE_MM * 0.6)
    shift = found.shift_mm
    middle = (np.array(b.body.shape) - np.array(a.body.shape)) / 2
    for attempt in range(4):
        # Whole steps are a matter of indices; the rest displaces the grid on which b is sampled.
        at = shift / FINE_MM + middle
        steps = [int(s) for s in np.rint(at)]
        moving = _layer(b.tissue, b.body, FINE_MM, FINE_MM * 0.6, (at - steps) * FINE_MM)
        correlation, voxels = _correlation(fixed, moving, steps)
        move = _climb(fixed, moving, steps, correlation) if attempt < 3 else np.zeros(3)
        if np.abs(move).max() < 0.02:
            break
        shift = shift + move * FINE_MM
    overlap = voxels / max(1, min(int(fixed.body.sum()), int(moving.body.sum())))
    return found._replace(correlation=correlation, overlap=overlap, shift_mm=shift)


def _climb(a: _Layer, b: _Layer, steps: list[int], correlation: float) -> NDArray[np.float64]:
    """Return ``(3,)`` how many steps further along each axis the correlation has its top, at most one."""
    move = np.zeros(3)
    for axis in range(3):
        before, after = (_correlation(a, b, [s + d * (i == axis) for i, s in enumerate(steps)])[0] for d in (-1, 1))
        if before - 2 * correlation + after < 0:
            move[axis] = float(parabola_top(before, correlation, after))
        else:
            move[axis] = 1.0 if after > before else -1.0
    return move


# -- how they differ --------------------------------------------------------------------------------------------------


def _kinds(a: NDArray[np.int16], b: NDArray[np.int16], found: _Placement, spacing_mm: float) -> tuple[Kind, ...]:
    """Return what tells copies apart; ``b`` is turned already."""
    at = found.shift_mm / spacing_mm + (np.array(b.shape) - np.array(a.shape)) / 2
    steps = [int(s) for s in np.rint(at)]
    in_a, in_b = _shared(a.shape, b.shape, steps)
    x, y = a[in_a], b[in_b]
    # Interpolation in another order of axes rounds otherwise.
    equal = int(np.abs(x.astype(np.int32) - y).max(initial=0)) <= 1
    # A copy of other voxels may end a voxel earlier or later without being cropped.
    spare = 0 if equal else 2
    windowed = not equal and _other_window(x, y)
    told: dict[Kind, bool] = {
        "flipped": found.turn != TURNS[0],
        "cropped": any(max(n, m) - k > spare for n, m, k in zip(a.shape, b.shape, x.shape, strict=True)),
        "re-windowed": windowed,
        "resampled": not equal and (not windowed or float(np.abs(at - steps).max()) > OFF_GRID),
    }
    return tuple(kind for kind, holds in told.items() if holds) or ("identical",)


def _other_window(x: NDArray[np.int16], y: NDArray[np.int16]) -> bool:
    """Whether the intensities of the same part of a body, in two copies, come from different windows."""
    thin = tuple(slice(None, None, 2 if n > 16 else 1) for n in x.shape)
    levels = np.array([np.percentile(v[thin], (1, 5, 25, 50, 75, 95, 99)) for v in (x, y)])
    width = float(np.ptp(levels, axis=1).max())
    return bool(width > 0 and np.abs(levels[0] - levels[1]).max() > OTHER_WINDOW * width)
