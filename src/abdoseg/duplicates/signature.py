"""A small signature of a scan's content, made once: salient points and what lies around each.

The points stay where they are in the body when the scan is cropped, and their surroundings are told by invariants:
moments that no flip or exchange of axes changes, of intensity ranks that no monotonic window changes. Finding repeated
scans by such points is established for brains (Chauvin et al., NeuroImage 204, 2020; Chauvin and Toews, "Curating
Subject ID Labels using Keypoint Signatures", 2021).
"""

import base64
from dataclasses import dataclass
from functools import lru_cache
from math import factorial, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import lpmv

from abdoseg.errors import WorkspaceError
from abdoseg.geometry import spacing_of
from abdoseg.types import Affine

VERSION = 1
"""Raised whenever a signature of the same image would differ: those of two versions cannot be compared."""

KEYPOINTS = 96
"""Largest number of points a scan has; the most salient ones, so that a crop keeps those of the whole."""

STEP_MM = 4.0
"""Grid on which points are looked for, and width of the Gaussian that samples it: finer detail does not repeat."""

RADIUS_MM = 36.0
"""What lies around a point: far enough to tell people apart, near enough to fit into a cropped scan."""

RADIAL = (3, 2, 2, 2, 2, 2, 2, 2)
"""Radial functions of each spherical degree 0..7 that describe the surroundings."""

POSITION_MM = 0.1
"""Positions are kept as multiples of this."""

TISSUE_FLOOR = 0.07
"""Lowest part of the range of intensities (1st to 99th percentile) that is air, or noise in the air."""

TISSUE_PERCENTILES = (10.0, 90.0)
"""Tissue between these keeps its contrast, fat to enhanced organ; what a narrow window may clip is clipped anyway."""

APART = 3
"""A point is the most salient one of a box of this many grid steps to every side."""

LOWEST_SALIENCE = 1e-3
"""Points less salient than this part of the most salient one are noise."""

DESCRIPTOR_SCALE, DESCRIPTOR_GROWTH = 75.0, 1.45
"""Descriptors of degree l are kept as int8 after multiplication by scale * growth**l: the higher the degree, the
smaller the moments of a body; measured on phantoms, all degrees then spread alike."""

Triple = tuple[float, float, float]


_LEVELS = 1000
"""Steps of tissue intensity that ranks tell apart."""


@dataclass(frozen=True, eq=False)
class Signature:
    """What is kept of a scan to find it again.

    Parameters
    ----------
    positions
        int16 ``(K, 3)``: points along the array axes from the middle of the volume, in :data:`POSITION_MM`.
    descriptors
        int8 ``(K, D)``: what lies around each point; like surroundings lie near each other.
    """

    positions: NDArray[np.int16]
    descriptors: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def positions_mm(self) -> NDArray[np.float32]:
        """float32 ``(K, 3)``: points along the array axes from the middle of the volume, mm."""
        return self.positions.astype(np.float32) * np.float32(POSITION_MM)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; about 4 kB."""
        return {
            "version": VERSION,
            "positions": base64.b64encode(self.positions.astype("<i2").tobytes()).decode(),
            "descriptors": base64.b64encode(self.descriptors.tobytes()).decode(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Signature":
        """Undo :meth:`to_json`.

        Raises
        ------
        WorkspaceError
            If the signature is of another version, or damaged.
        """
        if data.get("version") != VERSION:
            found = data.get("version")
            raise WorkspaceError(f"signature: version {found}, expected {VERSION}; ingest the case again")
        try:
            positions = np.frombuffer(base64.b64decode(data["positions"], validate=True), dtype="<i2")
            descriptors = np.frombuffer(base64.b64decode(data["descriptors"], validate=True), dtype=np.int8)
            return cls(positions.astype(np.int16).reshape(-1, 3), descriptors.reshape(len(positions) // 3, LENGTH))
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(f"signature: damaged ({error}); ingest the case again") from error


LENGTH = RADIAL[0] + sum(n * (n + 1) // 2 for n in RADIAL[1:])
"""Numbers in one descriptor."""


def signature(image: NDArray[np.int16], affine: Affine) -> Signature:
    """Return the signature of a harmonised image.

    Parameters
    ----------
    image
        int16 ``(X, Y, Z)``; any monotonic scale of intensity.
    affine
        ``(4, 4)``, voxel index to mm; only its spacing counts.

    Returns
    -------
    Signature
        Without a point when the image has no contrast or is thinner than some millimetres.
    """
    tissue = tissue_range(image)
    if tissue is None:
        return Signature(np.zeros((0, 3), dtype=np.int16), np.zeros((0, LENGTH), dtype=np.int8))
    coarse = sampled(tissue.normalised(image), spacing_of(affine), STEP_MM, STEP_MM)
    points = salient_points(coarse)
    from_middle_mm = (points - (np.array(coarse.shape) - 1) / 2) * STEP_MM
    positions = np.rint(from_middle_mm / POSITION_MM).astype(np.int16)
    return Signature(positions, _described(coarse, points))


# -- intensities ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TissueRange:
    """Intensities of a scan's tissue, in stored values.

    Parameters
    ----------
    floor
        Air is below.
    low, high
        Tissue intensities that become 0 and 1.
    """

    floor: float
    low: float
    high: float

    def normalised(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 of the image's shape, clipped to 0..1: equal for all windows that hold the tissue."""
        # In place, since a whole-body scan has hundreds of megabytes.
        out = image.astype(np.float32)
        np.clip(out, self.low, self.high, out=out)
        out -= np.float32(self.low)
        out /= np.float32(self.high - self.low)
        return out

    def body(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 of the image's shape: 1 in the body, 0 in the air."""
        return (image > self.floor).astype(np.float32)


def tissue_range(image: NDArray[Any]) -> TissueRange | None:
    """Return the range of the tissue's intensities; ``None`` when the image has no contrast.

    Clipping has to come before anything is smoothed: behind an edge that one copy has clipped and the other has not,
    smoothed values differ for good.
    """
    blocks = _block_means(image)
    if blocks.size == 0:
        return None
    lowest, highest = (float(q) for q in np.percentile(blocks, (1, 99)))
    floor = lowest + TISSUE_FLOOR * (highest - lowest)
    tissue = blocks[blocks > floor]
    if tissue.size == 0:
        return None
    low, high = (float(q) for q in np.percentile(tissue, TISSUE_PERCENTILES))
    return TissueRange(floor, low, high) if high > low else None


def _block_means(image: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the means of blocks of 2 x 2 x 2 voxels, in a row: quieter than voxels, an eighth as many."""
    # Thin axes stay as they are; the last voxel of an odd axis is left out.
    sizes = [2 if n > 16 else 1 for n in image.shape]
    whole = image[tuple(slice(n - n % k) for n, k in zip(image.shape, sizes, strict=True))]
    total = whole.astype(np.float32)
    for axis, size in enumerate(sizes):  # pair by pair: four times as fast as the mean over three axes
        if size == 2:
            pairs = np.moveaxis(total, axis, 0)
            total = np.moveaxis(pairs[::2] + pairs[1::2], 0, axis)
    return np.asarray(total / np.float32(np.prod(sizes))).reshape(-1)


# -- grids ------------------------------------------------------------------------------------------------------------


def sampled(
    volume: NDArray[np.float32],
    spacing_mm: Triple,
    step_mm: float,
    sigma_mm: float,
    offset_mm: Triple | NDArray[np.float64] = (0.0, 0.0, 0.0),
) -> NDArray[np.float32]:
    """Sample a volume with a Gaussian on an isotropic grid about its middle.

    Parameters
    ----------
    volume
        ``(X, Y, Z)``.
    spacing_mm
        Of the volume.
    step_mm, sigma_mm
        Spacing of the new grid, and standard deviation of the Gaussian.
    offset_mm
        How far the new grid is displaced.

    Returns
    -------
    ndarray
        float32 ``(X', Y', Z')``; a flipped volume gives the flipped result. Beyond the border the Gaussian's rest is
        scaled up, as if nothing were there.
    """
    x, y, z = (
        _sampling(n, float(s), step_mm, sigma_mm, float(o))
        for n, s, o in zip(volume.shape, spacing_mm, offset_mm, strict=True)
    )
    # One product of matrices an axis, in an order that never moves the volume about.
    volume = volume @ z.T
    volume = (x @ volume.reshape(len(volume), -1)).reshape(len(x), *volume.shape[1:])
    return np.asarray(y @ volume)


def _sampling(n: int, spacing_mm: float, step_mm: float, sigma_mm: float, offset_mm: float) -> NDArray[np.float32]:
    """Return float32 ``(m, n)``: the weights of n voxels in m samples; rows sum to 1."""
    m = max(1, int((n - 1) * spacing_mm / step_mm + 1e-6) + 1)
    at = (np.arange(m) - (m - 1) / 2) * step_mm + offset_mm
    voxel = (np.arange(n) - (n - 1) / 2) * spacing_mm
    exponent = 0.5 * np.square((at[:, None] - voxel) / sigma_mm)
    # The nearest voxel counts 1, so that a sample far outside the volume still has a weight to divide by.
    weight = np.exp(exponent.min(axis=1, keepdims=True) - exponent)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)


# -- points -----------------------------------------------------------------------------------------------------------


def salient_points(coarse: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the most salient points ``(K, 3)`` of a coarse volume, in fractional voxels, the first the most salient.

    Salience is the geometric mean of the structure tensor's eigenvalues: large where intensity changes along all three
    axes, so that a point is held in place from every side (Harris corners in 3-D; Rohr, 1997).
    """
    salience = _salience(coarse)
    size = tuple(2 * min(APART, (n - 1) // 2) + 1 for n in coarse.shape)
    peak = salience == ndimage.maximum_filter(salience, size=size, mode="nearest")
    peak &= salience > LOWEST_SALIENCE * max(float(salience.max()), 1e-6)
    # At the border the surroundings and the gradient end; a thin scan has no more than its middle to offer.
    margin = [min(2, (n - 1) // 4) for n in coarse.shape]
    inner = np.zeros(coarse.shape, dtype=bool)
    inner[tuple(slice(d, n - d) for d, n in zip(margin, coarse.shape, strict=True))] = True
    found = np.argwhere(peak & inner)
    order = np.argsort(-salience[tuple(found.T)], kind="stable")[:KEYPOINTS]
    return _between_voxels(salience, found[order])


def _salience(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    gradient = [ndimage.gaussian_filter(coarse, 1.0, order=[int(a == b) for b in range(3)]) for a in range(3)]
    (xx, xy, xz), (yy, yz), (zz,) = (
        [ndimage.gaussian_filter(gradient[a] * gradient[b], 1.5) for b in range(a, 3)] for a in range(3)
    )
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return np.asarray(np.cbrt(np.maximum(determinant, 0.0)))


def _between_voxels(salience: NDArray[np.float32], peaks: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return peaks ``(K, 3)`` moved to the top of the parabola through each and its neighbours along every axis."""
    padded = np.pad(salience, 1, mode="edge")
    moved = peaks.astype(np.float64)
    for axis, step in enumerate(np.eye(3, dtype=np.intp)):
        before, at, after = (padded[tuple((peaks + 1 + d * step).T)].astype(np.float64) for d in (-1, 0, 1))
        moved[:, axis] += parabola_top(before, at, after)
    return moved


def parabola_top(before: Any, at: Any, after: Any) -> NDArray[np.float64]:
    """Return where, in steps, the parabola through three values one step apart has its top; within -1..1."""
    bend = np.minimum(np.asarray(before, dtype=np.float64) - 2 * at + after, 0.0)
    slope = 0.5 * (np.asarray(after, dtype=np.float64) - before)
    top = np.divide(-slope, bend, out=np.zeros_like(bend), where=bend < 0)
    return np.asarray(np.clip(top, -1.0, 1.0), dtype=np.float64)


# -- what lies around a point -----------------------------------------------------------------------------------------


def _described(coarse: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return the descriptors int8 ``(K, D)`` of the surroundings of points ``(K, 3)``.

    Zernike moments in 3-D (Novotni and Klein, 2003) of the ranks of the intensities around a point. Sums of their
    products over all orders m of a degree are the same however the scan is turned or mirrored.
    """
    if len(points) == 0:
        return np.zeros((0, LENGTH), dtype=np.int8)
    offsets, basis = _zernike(RADIUS_MM / STEP_MM)
    # Smoother than the points were looked for on: a point found half a voxel off then still sees the same.
    smooth = ndimage.gaussian_filter(coarse, 1.0)
    at = (points[:, None, :] + offsets).reshape(-1, 3).T
    patch = ndimage.map_coordinates(smooth, at, order=1, mode="nearest").reshape(len(points), -1)
    # Rounded, since clipped voxels are equal but for the last bits.
    ranks = _ranks(np.rint(patch * _LEVELS).astype(np.int64))
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-6)
    parts = [_invariants(np.einsum("ko,onm->knm", ranks, b, optimize=True)) for b in basis]
    scaled = [part * DESCRIPTOR_SCALE * DESCRIPTOR_GROWTH**degree for degree, part in enumerate(parts)]
    return np.clip(np.rint(np.concatenate(scaled, axis=1)), -127, 127).astype(np.int8)


def _ranks(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the ranks 1, 2, ... of levels ``(K, n)`` along the rows, equal ones sharing their mean rank.

    SciPy's ``rankdata`` gives the same; importing it takes half a second of every process.
    """
    rows = np.arange(len(levels))[:, None]
    counts = np.bincount((levels + rows * (_LEVELS + 1)).reshape(-1), minlength=len(levels) * (_LEVELS + 1))
    counts = counts.reshape(len(levels), _LEVELS + 1)
    rank = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(np.take_along_axis(rank, levels, axis=1), dtype=np.float64)


def _invariants(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for moments ``(K, n, 2 l + 1)`` of one degree, what no turn or mirror changes.

    The moments themselves for degree 0, else the ``n (n + 1) / 2`` products of radial functions, as roots with sign: of
    the size of moments again.
    """
    if moments.shape[2] == 1:
        return moments[:, :, 0]
    rows, columns = np.triu_indices(moments.shape[1])
    products = np.einsum("knm,kjm->knj", moments, moments)[:, rows, columns]
    return np.asarray(np.sign(products) * np.sqrt(np.abs(products)))


@lru_cache(maxsize=1)
def _zernike(radius: float) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return offsets ``(O, 3)`` in a ball of ``radius`` voxels, and for every degree l a basis ``(O, n, 2 l + 1)``.

    The basis functions are ``r^l`` times even polynomials of r times spherical harmonics, of unit length; the radial
    ones are orthogonal. The constant is left out: the mean of ranks is the same everywhere.
    """
    reach = np.arange(-int(radius), int(radius) + 1)
    offsets = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)
    distance = np.linalg.norm(offsets, axis=1)
    offsets, distance = offsets[distance <= radius], distance[distance <= radius] / radius
    basis = []
    for degree, count in enumerate(RADIAL):
        constant = int(degree == 0)
        powers = np.stack([distance ** (degree + 2 * k) for k in range(count + constant)], axis=1)
        radial = np.linalg.qr(powers)[0]
        # QR leaves signs open, and they must be the same on every machine.
        radial = (radial * np.sign((radial * powers).sum(axis=0)))[:, constant:]
        functions = radial[:, :, None] * _harmonics(offsets, degree)[:, None, :]
        lengths = np.sqrt(np.square(functions).sum(axis=0).mean(axis=-1, keepdims=True))
        basis.append(functions / lengths)
    return offsets, basis


def _harmonics(offsets: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Return the real spherical harmonics ``(O, 2 l + 1)`` of one degree, in the directions of ``(O, 3)`` offsets."""
    x, y, z = offsets.T
    height = z / np.maximum(np.linalg.norm(offsets, axis=1), 1e-9)
    turn = np.arctan2(y, x)
    columns = []
    for order in range(-degree, degree + 1):
        m = abs(order)
        norm = (2 * degree + 1) / (4 * pi) * factorial(degree - m) / factorial(degree + m)
        wave = np.cos(m * turn) if order >= 0 else np.sin(m * turn)
        columns.append(np.sqrt(norm * (2 if m else 1)) * lpmv(m, degree, height) * wave)
    return np.stack(columns, axis=1)
