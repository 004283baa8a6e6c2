"""Sparse views: which slices of which cases keep their labels.

A view is a recipe and nothing else: cases stay where they are and no voxel is copied. It applies to training
cases only; validation and test keep all labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from abdoseg.annotation import AXES, Annotation
from abdoseg.types import NAME_PATTERN

FULL_VIEW = "full"
"""Name of the view in which every case keeps all its labels."""


def evenly_spaced_slices(n_slices: int, fraction: float) -> NDArray[np.int_]:
    """Return k = max(1, round(f n)) slice indices at floor((i + 1/2) n / k), increasing.

    Parameters
    ----------
    n_slices
        Number of slices n along the axis, at least 1.
    fraction
        Fraction f of slices to keep, in (0, 1].

    References
    ----------
    Chen et al. 2024, Table 8; rounding is half up, so that 2.5 slices are 3 for every n.
    """
    k = min(n_slices, max(1, int(np.floor(fraction * n_slices + 0.5))))
    return np.floor((np.arange(k) + 0.5) * n_slices / k).astype(int)


class View(BaseModel):
    """One sparse view.

    A case of a source named in ``sources`` (all, when empty) keeps evenly spaced slices along each of ``axes``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN, description="file name under views/")
    axes: tuple[str, ...] = Field(description="view directions: axial, coronal, sagittal")
    fraction: float = Field(gt=0, le=1, description="fraction of slices that keep their labels")
    sources: tuple[str, ...] = Field(default=(), description="cards it applies to; empty: all")

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == FULL_VIEW:
            msg = f"'{FULL_VIEW}' stands for all labels; choose another name"
            raise ValueError(msg)
        return name

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(axes) - set(AXES))
        if unknown or not axes:
            msg = f"axes: found {unknown or 'none'}, expected some of {', '.join(AXES)}"
            raise ValueError(msg)
        return axes

    def applies_to(self, source: str) -> bool:
        """Whether the view thins the labels of this source."""
        return not self.sources or source in self.sources

    def kept_slices(self, shape: Sequence[int]) -> dict[int, NDArray[np.bool_]]:
        """Return, for each axis of the view, bool ``(n,)``: the slices of a volume of ``shape`` that stay annotated."""
        kept = {}
        for name in self.axes:
            axis = AXES[name]
            mask = np.zeros(shape[axis], dtype=bool)
            mask[evenly_spaced_slices(shape[axis], self.fraction)] = True
            kept[axis] = mask
        return kept

    def apply(self, annotation: Annotation, source: str, shape: Sequence[int]) -> Annotation:
        """Return the annotation of a case of ``source`` with harmonised ``shape`` as this view shows it."""
        if not self.applies_to(source):
            return annotation
        return annotation.thinned(self.kept_slices(shape))
