"""From tissues to intensities: CT numbers by contrast phase, MR signal, and what blurs and disturbs them."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from abdoseg.phantom.arrays import BoolArray, FloatArray, UInt8Array
from abdoseg.phantom.body import Key, Phase
from abdoseg.phantom.canvas import Grid, node_indices, upsample
from abdoseg.phantom.tissues import TISSUES, tissues_where

_PHASES: tuple[Phase, ...] = ("none", "arterial", "portal")
_BONES = tissues_where(kinds=("bone",)) & ~tissues_where(names=("disc",))
_CORTEX_HU = 320.0


@dataclass(frozen=True)
class Noise:
    """How a scanner disturbs.

    Parameters
    ----------
    sigma
        Standard deviation of the noise: HU in CT, part of the fat signal in MR.
    blur
        Point spread as a standard deviation in voxels.
    bias
        Strength of the receive field, natural logarithm (MR).
    """

    sigma: float
    blur: float = 0.5
    bias: float = 0.0


def ct_table(key: Key, phase: Phase) -> FloatArray:
    """Return the CT number ``(256,)`` of each tissue in one person's scan."""
    rng = key.rng("contrast")
    taken_up = float(rng.uniform(0.75, 1.12))
    column = _PHASES.index(phase)
    plain = np.array([t.look[0] for t in TISSUES])
    late = np.array([t.look[column] for t in TISSUES])
    own = rng.standard_normal(len(TISSUES)) * np.array([t.spread for t in TISSUES])
    # Blood pool and the organs it feeds shift together; their own spread comes on top.
    table = np.zeros(256, dtype=np.float32)
    table[: len(TISSUES)] = plain + (late - plain) * taken_up + own
    return _pairs_alike(table)


def mr_table(key: Key) -> FloatArray:
    """Return the MR signal ``(256,)`` of each tissue, in units of subcutaneous fat before jitter."""
    rng = key.rng("contrast")
    table = np.zeros(256, dtype=np.float32)
    jitter = np.exp(rng.normal(0.0, 0.06, size=len(TISSUES)))
    table[: len(TISSUES)] = np.array([t.look[3] for t in TISSUES]) * jitter
    fat = tissues_where(names=("subcutaneous_fat", "wall_fat", "visceral_fat"))
    table[fat] *= rng.uniform(0.8, 1.1)
    return _pairs_alike(table)


def _pairs_alike(table: FloatArray) -> FloatArray:
    """Give both sides of the body, and all bones of a kind, the same value."""
    first: dict[str, int] = {}
    for index, tissue in enumerate(TISSUES):
        kin = tissue.name.replace("_left", "").replace("_right", "")
        if kin.startswith(("rib", "vertebra")):
            kin = kin.split("_")[0]
        table[index] = table[first.setdefault(kin, index)]
    return table


def _bone_rim(tissue: UInt8Array) -> BoolArray:
    """Return the bone voxels that touch something else: the dense cortex."""
    bone = _BONES[tissue]
    core = bone.copy()
    for axis in range(3):
        for step in (1, -1):
            core &= np.roll(bone, step, axis=axis)
    return bone & ~core


def render_ct(tissue: UInt8Array, table: FloatArray, noise: Noise, rng: np.random.Generator) -> FloatArray:
    """Return CT numbers (HU) of a tissue volume: partial volume, streaky noise, clipped as scanners do."""
    image = table[tissue]
    image[_bone_rim(tissue)] += np.float32(_CORTEX_HU)
    image = gaussian_filter(image, noise.blur, truncate=3.0)
    image += _grain(tissue.shape, noise.sigma, rng)
    return np.asarray(np.clip(image, -1024.0, 3071.0), dtype=np.float32)


def render_mr(tissue: UInt8Array, table: FloatArray, noise: Noise, rng: np.random.Generator, grid: Grid) -> FloatArray:
    """Return MR magnitudes in arbitrary units of one scanner: bias field, Rician noise, unknown scale."""
    image = gaussian_filter(table[tissue], noise.blur, truncate=3.0)
    counts, _ = node_indices(grid, 140.0)
    lattice = np.maximum(counts, 3)
    field = rng.standard_normal((int(lattice[0]), int(lattice[1]), int(lattice[2]))).astype(np.float32)
    image *= np.exp(np.float32(noise.bias) * upsample(field, grid.shape))
    real = image + _grain(tissue.shape, noise.sigma, rng)
    magnitude = np.hypot(real, _grain(tissue.shape, noise.sigma, rng))
    scale = 10.0 ** rng.uniform(2.3, 6.0)
    return np.asarray(magnitude * np.float32(scale), dtype=np.float32)


def _grain(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> FloatArray:
    """Return noise whose neighbours are a little alike, as after reconstruction."""
    white = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray((white + np.roll(white, 1, 0) * 0.5 + np.roll(white, 1, 1) * 0.5) * (sigma / 1.2247), np.float32)
