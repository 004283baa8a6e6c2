"""Where each value of a label map lies, and the intensities under it, in one pass."""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from abdoseg.kernels.memory import MemoryOrder


class LabelStatistics(NamedTuple):
    """Facts of each value 0..255 of a label map; those of 0, the background, are not filled in.

    ``voxels`` int64 ``(256,)``; ``first`` and ``last`` int64 ``(256, 3)``, its box on the axes of the array
    (last below first where the value does not occur); ``mean`` and ``std`` float64 ``(256,)`` of the image, NaN
    where it does not occur (the standard deviation is that of all voxels, not an estimate from a sample).
    """

    voxels: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def label_statistics(label: NDArray[np.uint8], image: NDArray[Any] | None = None) -> LabelStatistics:
    """Return facts of each value.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)``, any strides.
    image
        Of the same shape, any real type and strides; without it, ``mean`` and ``std`` are those of the label.
    """
    order = MemoryOrder.of(label)
    shown = label if image is None else image
    labels, values = np.ascontiguousarray(order.view(label)), order.view(shown)
    count = np.zeros(256, dtype=np.int64)
    boxes = np.empty((256, 2, 3), dtype=np.int64)
    boxes[:, 0], boxes[:, 1] = labels.shape, -1
    sums = np.zeros((256, 3), dtype=np.float64)
    _gather(labels, values, count, boxes, sums)
    first, last = _on_the_arrays_axes(boxes, order, labels.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift, mean = sums[:, 0], sums[:, 1] / count
        variance = sums[:, 2] / count - mean**2
    return LabelStatistics(count, first, last, shift + mean, np.sqrt(np.maximum(variance, 0)))


def _on_the_arrays_axes(
    boxes: NDArray[np.int64], order: MemoryOrder, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, last = np.empty((256, 3), dtype=np.int64), np.empty((256, 3), dtype=np.int64)
    for i, (axis, back) in enumerate(zip(*order, strict=True)):
        low, high = boxes[:, 0, i], boxes[:, 1, i]
        first[:, axis], last[:, axis] = (shape[i] - 1 - high, shape[i] - 1 - low) if back else (low, high)
    return first, last


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _gather(labels, values, count, boxes, sums):  # type: ignore[no-untyped-def]
    na, nb, nc = labels.shape
    for a in range(na):
        for b in range(nb):
            for c in range(nc):
                v = labels[a, b, c]
                if v == 0:
                    continue
                x = np.float64(values[a, b, c])
                box = boxes[v]
                if count[v] == 0:
                    # Around its first voxel a structure's intensities are small numbers: their squares do not cancel.
                    sums[v, 0] = x
                    box[0, 0] = a
                count[v] += 1
                x -= sums[v, 0]
                sums[v, 1] += x
                sums[v, 2] += x * x
                box[1, 0] = a  # a only grows
                box[0, 1] = min(box[0, 1], b)
                box[1, 1] = max(box[1, 1], b)
                box[0, 2] = min(box[0, 2], c)
                box[1, 2] = max(box[1, 2], c)
