"""Ways in which public files are damaged. Each is a function of a path, or a function that makes one.

A damage to a structure that is in no voxel, as small ones are in coarse phantoms, leaves the file as it is.
"""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from abdoseg.phantom.arrays import Float64Array, Triple
from abdoseg.phantom.layouts import Damage

Voxels = NDArray[Any]
_NEIGHBOURS = np.ones((3, 3, 3))
_GZIP_TRAILER = 8
"""Bytes of checksum and length at the end of a gzip file."""


def as_written(path: Path) -> None:
    """Leave a file as it is: the fault is in what was written, or where."""


# --- headers: the voxels stay, the affine is another, stated by the sform alone -------------------------------------


def _placed(place: Callable[[Float64Array], Float64Array]) -> Damage:
    def damage(path: Path) -> None:
        image = nib.load(path)
        affine = place(np.array(image.affine, dtype=np.float64))
        moved = nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
        moved.set_qform(None, code=0)
        moved.set_sform(affine, code=1)
        moved.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
        nib.save(moved, path)

    return damage


def skewed(by: float) -> Damage:
    """Turn the first axis towards the second: their cosine becomes ``by`` instead of 0."""

    def place(affine: Float64Array) -> Float64Array:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        first = affine[:3, 0] / lengths[0] * np.sqrt(1.0 - by**2) + affine[:3, 1] / lengths[1] * by
        affine[:3, 0] = first * lengths[0]
        return affine

    return _placed(place)


def nudged(mm: float) -> Damage:
    """Shift the origin by ``mm`` and the spacing by a millionth, as another program's rounding does."""

    def place(affine: Float64Array) -> Float64Array:
        affine[:3, :3] *= 1.0 + 1e-6
        affine[:3, 3] += mm * np.array([1.0, -1.0, 0.5])
        return affine

    return _placed(place)


def respaced(spacing_mm: Triple) -> Damage:
    """State another spacing than the scan's own."""

    def place(affine: Float64Array) -> Float64Array:
        affine[:3, :3] *= np.asarray(spacing_mm) / np.linalg.norm(affine[:3, :3], axis=0)
        return affine

    return _placed(place)


def tipped(path: Path) -> None:
    """State the slice axis as front to back, which it is not: y and z of the world change places."""
    _placed(lambda affine: np.asarray(affine[[0, 2, 1, 3]]))(path)


def turned_to(codes: str) -> Damage:
    """Store the same volume along other array axes: nothing is wrong, the arrays just do not match."""

    def damage(path: Path) -> None:
        image = nib.load(path)
        now = nib.io_orientation(image.affine)
        turn = nib.orientations.ornt_transform(now, nib.orientations.axcodes2ornt(codes))
        nib.save(image.as_reoriented(turn), path)

    return damage


def states_nothing(path: Path) -> None:
    """Take both codes of the header to 0: no program may trust its orientation."""
    image = nib.load(path)
    bare = nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    bare.set_qform(None, code=0)
    bare.set_sform(None, code=0)
    nib.save(bare, path)


# --- voxels: the header stays --------------------------------------------------------------------------------------


def _edited(edit: Callable[[Voxels], Voxels]) -> Damage:
    def damage(path: Path) -> None:
        image = nib.load(path)
        voxels = edit(np.asanyarray(image.dataobj))
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header, dtype=voxels.dtype), path)

    return damage


def cast(dtype: DTypeLike) -> Damage:
    """Store the same numbers in another type."""
    return _edited(lambda voxels: voxels.astype(dtype))


def fractions(path: Path) -> None:
    """Blur a label along its first axis, as resampling with linear interpolation does."""
    _edited(lambda v: np.asarray(0.5 * v + 0.5 * np.roll(v, 1, axis=0), dtype=np.float32))(path)


def not_a_number(path: Path) -> None:
    """Put NaN into a corner."""

    def edit(voxels: Voxels) -> Voxels:
        result = voxels.astype(np.float32)
        result[:2, :2, :2] = np.nan
        return result

    _edited(edit)(path)


def stacked(n: int) -> Damage:
    """Give a volume a fourth axis of length ``n``."""
    return _edited(lambda voxels: np.stack([voxels] * n, axis=-1))


def revalued(values: Mapping[int, int]) -> Damage:
    """Write other label values."""

    def edit(voxels: Voxels) -> Voxels:
        table = np.arange(256, dtype=voxels.dtype)
        table[list(values)] = list(values.values())
        return np.asarray(table[voxels])

    return _edited(edit)


def half_revalued(value: int, other: int) -> Damage:
    """Write another value in that half of a structure that comes first along the first axis."""

    def edit(voxels: Voxels) -> Voxels:
        result, index = voxels.copy(), np.argwhere(voxels == value)
        if len(index):
            result[tuple(index[index[:, 0] <= np.median(index[:, 0])].T)] = other
        return result

    return _edited(edit)


def one_cut_in_two(value: int) -> Damage:
    """Clear a slice through the largest component of a value, so that two pieces are left of it."""

    def edit(voxels: Voxels) -> Voxels:
        result = voxels.copy()
        parts, n = ndimage.label(voxels == value, structure=_NEIGHBOURS)
        if n == 0:
            return result
        index = np.argwhere(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))
        for axis, at in _cuts(index):
            slice_of_it = index[:, axis] == at
            if _count_pieces(index[~slice_of_it]) == 2:
                result[tuple(index[slice_of_it].T)] = 0
                break
        return result

    return _edited(edit)


def _cuts(index: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the inner slices (axis, position) of voxels ``(n, 3)``, the middle of the longest axis first."""
    low, high = index.min(axis=0), index.max(axis=0)
    axes = sorted(range(3), key=lambda axis: int(low[axis] - high[axis]))
    return [
        (axis, at)
        for axis in axes
        for at in sorted(range(low[axis] + 1, high[axis]), key=lambda at: abs(2 * at - low[axis] - high[axis]))
    ]


def _count_pieces(index: NDArray[np.intp]) -> int:
    """Return how many connected components voxels ``(n, 3)`` form."""
    box = np.zeros(index.max(axis=0) - index.min(axis=0) + 1, dtype=np.bool_)
    box[tuple((index - index.min(axis=0)).T)] = True
    return int(ndimage.label(box, structure=_NEIGHBOURS)[1])


def grown(voxels_wide: int) -> Damage:
    """Grow a mask, into its neighbours too."""
    return _edited(lambda mask: ndimage.binary_dilation(mask, iterations=voxels_wide).astype(np.uint8))


def flipped(axis: int) -> Damage:
    """Store the voxels the other way round along an axis; the header says nothing of it."""
    return _edited(lambda voxels: np.flip(voxels, axis))


def shortened(n: int) -> Damage:
    """Leave out the last ``n`` slices."""
    return _edited(lambda voxels: voxels[..., :-n])


# --- bytes and files -----------------------------------------------------------------------------------------------


def cut_off(share: float) -> Damage:
    """Keep only the first part of a file, as a broken download does."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def garbled(path: Path) -> None:
    """Change voxels inside a gzip file whose stream still unpacks: only the checksum can tell."""
    whole = path.read_bytes()
    content = bytearray(gzip.decompress(whole))
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64 * [0x55])
    changed = gzip.compress(bytes(content), compresslevel=1, mtime=0)
    path.write_bytes(changed[:-_GZIP_TRAILER] + whole[-_GZIP_TRAILER:])


def moved_from(other: str) -> Damage:
    """Bring a file from another place, given relative to the folder of the new one."""

    def damage(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / other).rename(path)

    return damage


def filled_with(content: bytes) -> Damage:
    """Write a file of the given content."""

    def damage(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return damage
