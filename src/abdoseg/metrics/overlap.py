"""Voxel counts of prediction and reference, and the metrics that need nothing else.

Only voxels whose reference is known count: not those labelled 255, and for structure ``c`` only those of groups
whose row knows ``c``. Source: ``2 |A n B| / (|A| + |B|)``, Dice 1945; the rules are those of Chen et al.,
section 4.2.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.errors import CaseError
from abdoseg.types import UNKNOWN_LABEL, Label

DiceFormula = Literal["plain", "authors"]
"""``plain``: ``2 I / (P + R)``; ``authors``: ``(2 I + 1) / (P + R + 1)``, as in the authors' code."""

_Codes = list[NDArray[np.int64]]

_VOXELS_WORTH_A_TABLE = 2**22


@dataclass(frozen=True, eq=False)
class OverlapCounts:
    """Known voxels of each structure, int64 ``(N,)``; entry ``c - 1`` is structure ``c``.

    Parameters
    ----------
    intersection
        Voxels in both.
    predicted
        Voxels of the prediction.
    reference
        Voxels of the reference.
    unknown
        Voxels of the reference labelled 255, one number for all structures.
    """

    intersection: NDArray[np.int64]
    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]
    unknown: int = 0


def count_overlap(prediction: Label, reference: Label, annotation: Annotation) -> OverlapCounts:
    """Count the known voxels of prediction, reference and both, for all structures in one pass.

    Parameters
    ----------
    prediction
        uint8 ``(X, Y, Z)``, structure ids 0..N; any memory order.
    reference
        uint8 ``(X, Y, Z)``, the same, and 255 where nobody knows.
    annotation
        Where which structure is known. With lists along several axes a voxel is known if one of them knows it.

    Raises
    ------
    CaseError
        If shapes or dtypes do not fit, or a value is not allowed.
    """
    from abdoseg.kernels.overlap import count_confusion

    _check_pair(prediction, reference)
    codes, known = _slice_codes(annotation, reference.shape)
    prediction, reference, codes = _in_memory_order(prediction, reference, codes)
    # Part, group, value in the reference, value predicted.
    counts = np.zeros((_parts(reference.size, len(known)), len(known), 256, 256), dtype=np.int64)
    count_confusion(_flat(prediction), _flat(reference), tuple(codes), counts)
    counts = counts.sum(axis=0) if len(counts) > 1 else counts[0]
    n = annotation.n_structures
    _check_values("prediction", np.asarray(counts.any(axis=(0, 1))), n, allow_unknown=False)
    _check_values("reference", np.asarray(counts.any(axis=(0, 2))), n, allow_unknown=True)
    unknown = int(counts[:, UNKNOWN_LABEL].sum())
    counts = counts[:, : n + 1, : n + 1]
    return OverlapCounts(
        intersection=(known * np.einsum("gcc->gc", counts)[:, 1:]).sum(axis=0),
        predicted=(known * counts.sum(axis=1)[:, 1:]).sum(axis=0),
        reference=(known * counts.sum(axis=2)[:, 1:]).sum(axis=0),
        unknown=unknown,
    )


def dice(counts: OverlapCounts, formula: DiceFormula = "plain") -> NDArray[np.float64]:
    """Return the Dice coefficient of each structure, float64 ``(N,)`` in [0, 1].

    Nothing is added to numerator or denominator unless ``formula`` is ``authors``; where both volumes lack the
    structure the plain value is NaN.
    """
    smooth = 1.0 if formula == "authors" else 0.0
    with np.errstate(invalid="ignore"):
        return (2.0 * counts.intersection + smooth) / (counts.predicted + counts.reference + smooth)


def volume_difference_ml(counts: OverlapCounts, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return predicted less true volume of each structure, float64 ``(N,)`` in ml, over known voxels."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    return np.asarray((counts.predicted - counts.reference) * voxel_ml)


def volume_error_ml(counts: OverlapCounts, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the absolute difference in volume of each structure, float64 ``(N,)`` in ml, over known voxels."""
    return np.abs(volume_difference_ml(counts, spacing_mm))


def _check_pair(prediction: Label, reference: Label) -> None:
    for name, volume in (("prediction", prediction), ("reference", reference)):
        if volume.dtype != np.uint8 or volume.ndim != 3:
            msg = f"{name}: found {volume.dtype} of shape {volume.shape}; expected uint8 (X, Y, Z)"
            raise CaseError(msg)
    if prediction.shape != reference.shape:
        msg = (
            f"prediction: found shape {prediction.shape}; expected the reference's {reference.shape}; "
            "bring both to one grid"
        )
        raise CaseError(msg)


def _slice_codes(annotation: Annotation, shape: tuple[int, ...]) -> tuple[_Codes, NDArray[np.bool_]]:
    """Return three code arrays whose sum is a voxel's group, and ``known`` bool ``(G, N)`` of those groups."""
    if not annotation.slices:
        return [np.zeros(n, dtype=np.int64) for n in shape], annotation.rows[:1]
    codes: _Codes = []
    known = np.zeros((1, annotation.n_structures), dtype=bool)
    for axis, n in enumerate(shape):
        groups = annotation.slices.get(axis)
        if groups is None:
            codes.append(np.zeros(n, dtype=np.int64))
            continue
        if len(groups) != n:
            msg = f"annotation: found {len(groups)} slices along axis {axis}; expected {n}, as the reference has"
            raise CaseError(msg)
        rows, index = np.unique(annotation.rows[groups], axis=0, return_inverse=True)
        codes.append(index.reshape(-1).astype(np.int64) * len(known))
        known = (rows[:, None] | known[None]).reshape(-1, annotation.n_structures)
    return codes, known


def _in_memory_order(prediction: Label, reference: Label, codes: _Codes) -> tuple[Label, Label, _Codes]:
    """Turn both volumes so that the reference is read as it lies in memory; files are often Fortran-ordered."""
    order = sorted(range(3), key=lambda axis: -abs(reference.strides[axis]))
    turned = [slice(None, None, -1 if reference.strides[axis] < 0 else 1) for axis in order]
    steps = tuple(turned)
    moved = [np.ascontiguousarray(codes[axis][step]) for axis, step in zip(order, steps, strict=True)]
    return prediction.transpose(order)[steps], reference.transpose(order)[steps], moved


def _parts(voxels: int, groups: int) -> int:
    """Return how many threads count; each has a table of half a MB a group, so that small volumes want one."""
    from numba import get_num_threads

    return max(1, min(int(get_num_threads()), voxels // (groups * _VOXELS_WORTH_A_TABLE)))


def _flat(volume: Label) -> Label:
    """Return the voxels in C order, aligned to 8 bytes; a view where that is possible."""
    flat = np.ascontiguousarray(volume).reshape(-1)
    return flat if flat.ctypes.data % 8 == 0 else flat.copy()


def _check_values(name: str, present: NDArray[np.bool_], n_structures: int, *, allow_unknown: bool) -> None:
    """Raise CaseError when ``present`` bool ``(256,)`` holds another value than those allowed."""
    wrong = [
        v for v in np.flatnonzero(present).tolist() if v > n_structures and not (allow_unknown and v == UNKNOWN_LABEL)
    ]
    if wrong:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        expected = f"0 to {n_structures}" + (f" or {UNKNOWN_LABEL} (unknown)" if allow_unknown else "")
        raise CaseError(f"{name}: found label values {shown}; expected {expected}; map the values to structure ids")
