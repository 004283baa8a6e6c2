"""What every metric gets: one prediction beside its reference."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.metrics.overlap import OverlapCounts, count_overlap
from abdoseg.metrics.surface import SurfacePair, surface_pairs
from abdoseg.types import Label


@dataclass(frozen=True, eq=False)
class Comparison:
    """One prediction and its reference on the same grid.

    Parameters
    ----------
    prediction
        uint8 ``(X, Y, Z)``, structure ids 0..N.
    reference
        uint8 ``(X, Y, Z)``, the same, and 255 where nobody knows.
    annotation
        Where which structure is known.
    spacing_mm
        Voxel side along X, Y, Z.
    names
        Of structures 1..N.
    """

    prediction: Label
    reference: Label
    annotation: Annotation
    spacing_mm: tuple[float, float, float]
    names: tuple[str, ...]

    @cached_property
    def counts(self) -> OverlapCounts:
        """Voxel counts, computed once for all metrics that need them; raises CaseError as ``count_overlap`` does."""
        return count_overlap(self.prediction, self.reference, self.annotation)

    @cached_property
    def known_everywhere(self) -> NDArray[np.bool_]:
        """Whether each structure is known in every voxel, bool ``(N,)``: only then is its whole surface known."""
        annotation = self.annotation
        if self.counts.unknown:
            return np.zeros(annotation.n_structures, dtype=bool)
        if not annotation.slices:
            return np.asarray(annotation.rows[0])
        by_axis = [annotation.rows[groups].all(axis=0) for groups in annotation.slices.values()]
        return np.asarray(np.any(by_axis, axis=0))

    @cached_property
    def surfaces(self) -> dict[int, SurfacePair]:
        """Surfaces of the structures (ids) that both volumes hold and the reference knows everywhere."""
        counts = self.counts
        measured = self.known_everywhere & (counts.predicted > 0) & (counts.reference > 0)
        ids = (np.flatnonzero(measured) + 1).tolist()
        return surface_pairs(self.prediction, self.reference, self.spacing_mm, ids)

    @property
    def diagonal_mm(self) -> float:
        """Length of the scan's diagonal: no two surfaces lie further apart."""
        return float(np.linalg.norm(np.array(self.reference.shape) * self.spacing_mm))
