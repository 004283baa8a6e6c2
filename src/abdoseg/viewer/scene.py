"""What a page shows: one image, up to two label maps on its grid, and what is known about them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.annotation import AXES, Annotation
from abdoseg.errors import CaseError
from abdoseg.kernels.values import count_values
from abdoseg.types import UNKNOWN_LABEL, Affine, Label

LARGEST_SIDE = 2048
"""Voxels along an axis that the graphics of browsers take in a 3D texture."""

LARGEST_VOXELS = 2**29
"""Voxels of a volume; more than a 512 x 512 x 2000 scan does not fit a browser's memory."""

BROWSER_BYTES_A_VOXEL = 16
"""About what the page keeps of each voxel, all layers and textures together."""

REFERENCE_ONLY, PREDICTION_ONLY, OTHER_STRUCTURE = 1, 2, 3
"""Values of a difference map."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its label maps, all RAS+ and on one grid.

    Parameters
    ----------
    title
        Of the page.
    image
        int16 ``(X, Y, Z)``; intensity (HU for CT) is ``image * slope + intercept``.
    slope, intercept
        Of the intensities.
    affine
        ``(4, 4)``, voxel index to mm, RAS+.
    anatomy
        What label values mean.
    modality
        ``CT``, ``MR``, or None where nobody said.
    reference, prediction
        uint8 ``(X, Y, Z)``: structure id, 0 background, 255 unknown; None where there is none.
    reference_title, prediction_title
        Where they come from.
    annotation
        Which structures the reference knows where; None where its file does not say.
    notes
        What the user should know.
    """

    title: str
    image: NDArray[np.int16]
    slope: float
    intercept: float
    affine: Affine
    anatomy: Anatomy
    modality: str | None = None
    reference: Label | None = None
    prediction: Label | None = None
    reference_title: str = ""
    prediction_title: str = ""
    annotation: Annotation | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, label in self.label_maps().items():
            if label.shape != self.image.shape or label.dtype != np.uint8:
                msg = f"{what}: found {label.dtype} {label.shape}, expected uint8 {self.image.shape}"
                raise ValueError(msg)

    def label_maps(self) -> dict[str, Label]:
        """Return the label maps that are there: ``reference``, ``prediction``."""
        both = {"reference": self.reference, "prediction": self.prediction}
        return {name: label for name, label in both.items() if label is not None}

    @property
    def browser_bytes(self) -> int:
        """About how much memory the page takes."""
        return BROWSER_BYTES_A_VOXEL * self.image.size

    def facts(self) -> dict[str, Any]:
        """Return what the page reads beside the volumes, as JSON values."""
        found = {name: found_structures(label) for name, label in self.label_maps().items()}
        ids = sorted({*range(1, len(self.anatomy) + 1), *(i for one in found.values() for i in one)})
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000
        return {
            "title": self.title,
            "modality": self.modality,
            "shape": list(self.image.shape),
            "megabytes": math.ceil(self.browser_bytes / 1e6),
            "notes": list(self.notes),
            "layers": [*found, *(["difference"] if len(found) == 2 else [])],
            "titles": {"reference": self.reference_title, "prediction": self.prediction_title},
            "range": self._usual_range(),
            "structures": [
                {
                    **_look(self.anatomy, i),
                    "annotated": self._annotated(i),
                    **{name: _told(one.get(i), voxel_ml) for name, one in found.items()},
                }
                for i in ids
            ],
            "annotation": self._annotation_facts(),
        }

    def _usual_range(self) -> list[float]:
        """Return the 1st and 99th percentile of the intensities above the lowest, for an automatic window."""
        sample = self.image[:: max(1, self.image.shape[0] // 128), :: max(1, self.image.shape[1] // 128)]
        above = sample[sample > sample.min()]
        low, high = np.percentile(above if above.size else sample, (1, 99)) * self.slope + self.intercept
        return [float(low), float(high) if high > low else float(low) + 1.0]

    def _annotated(self, structure: int) -> str:
        """Return where the reference knows a structure: everywhere, in some slices, nowhere; empty if nobody said."""
        if self.reference is None or self.annotation is None or structure > len(self.anatomy):
            return ""
        if structure not in self.annotation.structure_ids:
            return "not annotated"
        return "; ".join(self._slices_of(self.annotation, structure)) or "annotated"

    @staticmethod
    def _slices_of(annotation: Annotation, structure: int) -> Iterator[str]:
        for name, axis in AXES.items():
            if axis in annotation.slices:
                known = annotation.rows[annotation.slices[axis], structure - 1]
                if not known.all():
                    yield f"annotated in {known.sum()} of {known.size} {name} slices"

    def _annotation_facts(self) -> dict[str, Any] | None:
        if self.reference is None or self.annotation is None:
            return None
        return {
            "rows": [[int(i) + 1 for i in np.flatnonzero(row)] for row in self.annotation.rows],
            "slices": {str(axis): groups.tolist() for axis, groups in self.annotation.slices.items()},
        }


@dataclass(frozen=True)
class Found:
    """A structure in a label map: how many voxels, and the one of them nearest to their mean, ``(x, y, z)``."""

    voxels: int
    centre: tuple[int, int, int]


def require_viewable(shape: tuple[int, ...]) -> None:
    """Raise CaseError where a volume is more than a browser can hold."""
    if max(shape) > LARGEST_SIDE or math.prod(shape) > LARGEST_VOXELS:
        found = " x ".join(map(str, shape))
        raise CaseError(
            f"image: found {found} voxels; a browser takes up to {LARGEST_SIDE} a side and {LARGEST_VOXELS:,} in all; "
            "cut or resample the scan"
        )


def found_structures(label: Label) -> dict[int, Found]:
    """Return structure id -> where it lies, for every value above 0 of ``label`` ``(X, Y, Z)``."""
    counts = count_values(label)
    boxes = ndimage.find_objects(label)
    return {
        i: Found(int(counts[i]), _centre(label[box] == i, box)) for i, box in enumerate(boxes, 1) if box is not None
    }


def _centre(mask: NDArray[np.bool_], box: tuple[slice, ...]) -> tuple[int, int, int]:
    # A voxel of the structure itself: the mean of a bent one, such as the duodenum, lies outside.
    where = np.argwhere(mask)
    nearest = where[np.square(where - where.mean(axis=0)).sum(axis=1).argmin()]
    x, y, z = (int(i) + side.start for i, side in zip(nearest, box, strict=True))
    return x, y, z


def difference_of(reference: Label, prediction: Label, annotation: Annotation | None) -> Label:
    """Return where two label maps differ, uint8 ``(X, Y, Z)``.

    Parameters
    ----------
    reference, prediction
        uint8 ``(X, Y, Z)``, structure ids; where the reference is 255 nothing is known, so nothing differs.
    annotation
        What the reference knows; a structure predicted where nobody looked for it is no difference.

    Returns
    -------
    Label
        :data:`REFERENCE_ONLY`, :data:`PREDICTION_ONLY`, :data:`OTHER_STRUCTURE`, else 0.
    """
    seen = prediction if annotation is None else _known(prediction, annotation)
    drawn = reference if annotation is None else _known(reference, annotation)
    found = np.zeros(reference.shape, dtype=np.uint8)
    differs = (drawn != seen) & (reference != UNKNOWN_LABEL)
    found[differs & (seen == 0)] = REFERENCE_ONLY
    found[differs & (drawn == 0)] = PREDICTION_ONLY
    found[differs & (drawn > 0) & (seen > 0)] = OTHER_STRUCTURE
    return found


def _known(label: Label, annotation: Annotation) -> Label:
    """Return ``label`` where a slice list of any axis vouches for it, else 0."""
    known = annotation.known_label(label)
    for axis in annotation.axes()[1:]:
        known = np.maximum(known, annotation.known_label(label, axis))
    return known


def _told(found: Found | None, voxel_ml: float) -> dict[str, Any] | None:
    return None if found is None else {"ml": found.voxels * voxel_ml, "centre": list(found.centre)}


def _look(anatomy: Anatomy, i: int) -> dict[str, Any]:
    if i <= len(anatomy):
        structure = anatomy.structure(i)
    elif i == UNKNOWN_LABEL:
        structure = Structure("unknown", "left out by the annotators (255)", "?", "#8a8a8a")
    else:
        # Values beyond the anatomy are shown, by number: the page is for looking at what a file holds.
        structure = Structure(f"value_{i}", f"value {i}, no structure's", str(i), _other_colour(i))
    return {"id": i, "name": structure.name, "title": structure.title, "colour": structure.colour}


def _other_colour(i: int) -> str:
    """Return a colour for a value that is no structure's, light and grey enough not to pass for one."""
    level = 120 + 37 * i % 100
    return f"#{level:02x}{level:02x}{min(255, level + 30):02x}"
