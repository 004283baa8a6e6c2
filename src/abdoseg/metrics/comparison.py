"""What every metric gets: one prediction beside its reference."""

from dataclasses import dataclass
from functools import cached_property

from abdoseg.annotation import Annotation
from abdoseg.metrics.overlap import OverlapCounts, count_overlap
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
    """

    prediction: Label
    reference: Label
    annotation: Annotation
    spacing_mm: tuple[float, float, float]

    @cached_property
    def counts(self) -> OverlapCounts:
        """Voxel counts, computed once for all metrics that need them; raises CaseError as ``count_overlap`` does."""
        return count_overlap(self.prediction, self.reference, self.annotation)
