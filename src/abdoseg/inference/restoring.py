"""Labels on the scan's own grid from boxes of scores that come one after the other; only their seams are kept."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from abdoseg.inference.windows import Box
from abdoseg.kernels.restore import RestoredLabels, argmax_labels
from abdoseg.types import Label

Boxes = Iterable[tuple[Box, NDArray[np.float32]]]


def labels_of_boxes(boxes: Boxes, shape: tuple[int, int, int]) -> Label:
    """Return the best class of each voxel, uint8 ``(X, Y, Z)``; the boxes share the grid of ``shape`` out."""
    labels: Label = np.empty(shape, dtype=np.uint8)
    for box, scores in boxes:
        labels[box] = argmax_labels(scores)
    return labels


def restored_labels_of_boxes(
    boxes: Boxes, source: tuple[int, int, int], shape: tuple[int, int, int], step: NDArray[np.float64]
) -> Label:
    """Return what :func:`~abdoseg.kernels.restore.restore_labels` makes of the whole volume of scores.

    Parameters
    ----------
    boxes
        Boxes that share the harmonised grid out, each with its scores, as
        :func:`~abdoseg.inference.sliding_window_boxes` gives them: lower neighbours first.
    source
        ``(X, Y, Z)`` of the harmonised grid.
    shape, step
        The scan's own grid: its shape in RAS+ order, and its spacing over the harmonised one.

    Returns
    -------
    ndarray
        uint8 ``(X', Y', Z')``.
    """
    restored = RestoredLabels(shape, step, source)
    seams = _Seams(source)
    for box, scores in boxes:
        restored.fill(*seams.joined(box, scores))
    return restored.labels


class Uncertainty:
    """How undecided the scores were at each voxel of the harmonised grid, in [0, 1].

    Entropy of the classes' probabilities over its largest value, ``-sum p log p / log C``: 0 where one class is
    certain, 1 where all are equally likely. The probabilities are the softmax of the mean scores. Of independent heads,
    the largest entropy that one of them has, ``-(p log p + (1 - p) log (1 - p)) / log 2``: 0 where all are certain, 1
    where one says 0.5.

    Parameters
    ----------
    shape
        ``(X, Y, Z)`` of the grid.
    probabilities
        Whether the scores are probabilities already.
    independent
        Whether they are those of independent heads: background's is not looked at.
    """

    def __init__(self, shape: tuple[int, int, int], *, probabilities: bool = False, independent: bool = False) -> None:
        self.map: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
        self._probabilities, self._independent = probabilities, independent

    def watched(self, boxes: Boxes) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Hand the boxes on, and note how undecided each of them is."""
        for box, scores in boxes:
            self.map[box] = self._of(scores)
            yield box, scores

    def _of(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(scores) == 1:
            return np.zeros(scores.shape[1:], dtype=np.float32)
        given = torch.from_numpy(scores)
        if self._independent:
            # Entropy falls with the distance from 0.5: one head decides.
            p = given[1:].clamp(0, 1) if self._probabilities else given[1:].sigmoid()
            least = 0.5 - (p - 0.5).abs_().amin(0)
            p = torch.stack([least, 1 - least])
        else:
            p = given.clamp_min(0) if self._probabilities else given.softmax(0)
        entropy: NDArray[np.float32] = torch.special.entr(p).sum(0).div_(math.log(len(p))).clamp_(0, 1).numpy()
        return entropy


class _Seams:
    """The last voxel layers of the boxes so far, for the boxes that come after them."""

    def __init__(self, source: tuple[int, int, int]) -> None:
        self._source = source
        # By axis: the scores of the layer below a box that begins there, over the whole of the other two axes.
        self._layers: dict[tuple[int, int], NDArray[np.float32]] = {}

    def joined(self, box: Box, scores: NDArray[np.float32]) -> tuple[tuple[int, int, int], NDArray[np.float32]]:
        """Return a box with the layers before it: its first voxel, and its scores."""
        grown = [slice(max(side.start - 1, 0), side.stop) for side in box]
        block = np.empty((len(scores), *(side.stop - side.start for side in grown)), dtype=np.float32)
        block[:, *(slice(side.start - g.start, None) for side, g in zip(box, grown, strict=True))] = scores
        # Every layer as far as it goes: the later ones bring the edges and the corner with them.
        for axis in range(3):
            if grown[axis].start < box[axis].start:
                others = [g if other != axis else slice(0, 1) for other, g in enumerate(grown)]
                first = [slice(None)] * 3
                first[axis] = slice(0, 1)
                block[:, *first] = self._layers[axis, box[axis].start][:, *others]
        self._forget(box)
        for axis in range(3):
            self._keep(axis, box, grown, block)
        return (grown[0].start, grown[1].start, grown[2].start), block

    def _forget(self, box: Box) -> None:
        """Drop the layers that this box was the last to need: none comes after it beside them."""
        for axis, start in enumerate(side.start for side in box):
            others = (side.stop == n for i, (side, n) in enumerate(zip(box, self._source, strict=True)) if i != axis)
            if all(others):
                self._layers.pop((axis, start), None)

    def _keep(self, axis: int, box: Box, grown: list[slice], block: NDArray[np.float32]) -> None:
        stop = box[axis].stop
        if stop == self._source[axis]:
            return
        if (axis, stop) not in self._layers:
            shape = [1 if other == axis else n for other, n in enumerate(self._source)]
            self._layers[axis, stop] = np.empty((len(block), *shape), dtype=np.float32)
        last = [slice(None)] * 3
        last[axis] = slice(-1, None)
        target = [slice(0, 1) if other == axis else g for other, g in enumerate(grown)]
        self._layers[axis, stop][:, *target] = block[:, *last]
