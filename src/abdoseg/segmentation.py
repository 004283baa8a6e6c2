"""A model over a scan: harmonised, predicted in windows, brought back to the scan's own grid while it is predicted."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from abdoseg.case import Case
from abdoseg.errors import RunError
from abdoseg.geometry import axis_positions, from_canonical, spacing_of, to_canonical
from abdoseg.harmonise import harmonise_image
from abdoseg.inference import InferenceSettings, WindowGrid, open_voxels, sliding_window_boxes
from abdoseg.inference.restoring import Boxes, Uncertainty, labels_of_boxes, restored_labels_of_boxes
from abdoseg.kernels.label_resample import resample_nearest
from abdoseg.kernels.resample import resample_window
from abdoseg.model import SegmentationModel
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import Scan
from abdoseg.types import Label, Modality

T = TypeVar("T")

UNCERTAINTY_LEVELS = 10_000
"""Steps of the uncertainty map, 0 (certain) to 1 (all classes alike)."""

SPACING_TOLERANCE_MM = 1e-3
"""A stored case whose spacing is further than this from the model's was harmonised for another one."""


class Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the time of a block."""
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Hand items on, and count the time it takes to make them."""
        self.seconds[stage] = 0.0
        source = iter(items)
        while True:
            begin = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds[stage] += time.perf_counter() - begin
            yield item


def segment_scan(
    model: SegmentationModel, scan: Scan, modality: Modality, settings: InferenceSettings | None = None
) -> Label:
    """Return the label map of a scan on the axes of its own file, uint8 ``(X, Y, Z)``.

    Parameters
    ----------
    model, scan, modality
        What to predict, with what, as what.
    settings
        Windows and weights; the model's own when None.

    Raises
    ------
    CaseError
        If the scan's voxels cannot be used.
    RunError
        If the network does not fit the structures or returns NaN.
    """
    return segment(model, scan, modality, settings or model.settings(), (Clock(), SILENT))[0]


def segment_case(
    model: SegmentationModel, case: Case, settings: InferenceSettings | None = None, progress: Progress = SILENT
) -> Label:
    """Return the label map of a stored case on its harmonised grid, uint8 ``(X, Y, Z)``, RAS+.

    Raises
    ------
    RunError
        If the case has another spacing than the model, or the network does not fit or returns NaN.
    """
    _require_spacing(model, case)
    boxes = _boxes(model, case.intensity(), settings or model.settings(), progress)
    return labels_of_boxes(boxes, case.facts.shape)


def segment_case_natively(
    model: SegmentationModel, case: Case, settings: InferenceSettings, progress: Progress = SILENT
) -> Label:
    """Return the label map of a stored case on the axes of the file that it was taken from, uint8 ``(X, Y, Z)``.

    Raises
    ------
    RunError
        As :func:`segment_case`.
    """
    _require_spacing(model, case)
    facts = case.facts
    native_affine = np.asarray(facts.native_affine, dtype=np.float64)
    # Of the axes alone: the store has no voxels of the file.
    canonical, affine = to_canonical(np.broadcast_to(np.uint8(0), facts.native_shape), native_affine)
    shape = (canonical.shape[0], canonical.shape[1], canonical.shape[2])
    step = np.array(spacing_of(affine)) / np.array(spacing_of(facts.affine_array))
    boxes = _boxes(model, case.intensity(), settings, progress)
    return from_canonical(_restored(boxes, facts.shape, shape, step, settings), native_affine)


def _require_spacing(model: SegmentationModel, case: Case) -> None:
    spacing = np.array(spacing_of(case.facts.affine_array))
    if np.abs(spacing - model.spacing_mm).max() > SPACING_TOLERANCE_MM:
        found = " x ".join(f"{s:g}" for s in spacing)
        raise RunError(
            f"{case.facts.key}: stored at {found} mm, {model.name} expects {model.spacing_mm:g} mm; "
            "ingest the source into a workspace of that spacing"
        )


def memory_bytes(
    model: SegmentationModel, settings: InferenceSettings, shape: tuple[int, int, int], native: tuple[int, ...]
) -> int:
    """Return what a prediction keeps beside the scan and the network: scores that wait, windows', image, labels.

    Windows are those of a batch, and one of air alone.

    Parameters
    ----------
    model, settings
        What predicts, and how.
    shape, native
        Of the scan, harmonised and its own.
    """
    grid = WindowGrid.over(shape, settings)
    classes = 1 + len(model.anatomy)
    window = (settings.batch + 1) * math.prod(settings.patch_shape) * classes
    return 4 * (open_voxels(grid) * (classes + 1) + window + math.prod(grid.shape)) + math.prod(native)


def segment(
    model: SegmentationModel,
    scan: Scan,
    modality: Modality,
    settings: InferenceSettings,
    watch: tuple[Clock, Progress],
    *,
    uncertainty: bool = False,
) -> tuple[Label, NDArray[np.int16] | None]:
    """Return the label map on the file's own axes, and how undecided it is, in ten-thousandths, if asked."""
    clock, progress = watch
    with clock.time("harmonise"):
        image = harmonise_image(scan.array, scan.affine, modality, model.windows, model.spacing_mm)
    intensity = image.intensity()
    shape = (intensity.shape[0], intensity.shape[1], intensity.shape[2])
    needed = memory_bytes(model, settings, shape, scan.array.shape)
    progress.say(f"about {math.ceil(needed / 1e6)} MB beside scan and network")
    undecided = None
    if uncertainty:
        averaged = settings.average == "softmax"
        undecided = Uncertainty(shape, probabilities=averaged, independent=model.independent_heads)
    boxes = _boxes(model, intensity, settings, progress)
    watched = clock.each("network", boxes if undecided is None else undecided.watched(boxes))
    canonical, affine = to_canonical(scan.array, scan.affine)
    native = (canonical.shape[0], canonical.shape[1], canonical.shape[2])
    step = np.array(spacing_of(affine)) / np.array(image.grid.spacing_mm)
    with clock.time("restore"):
        label = _restored(watched, shape, native, step, settings)
        found = None
        if undecided is not None:
            positions = axis_positions(native, step, shape)
            found = resample_window(undecided.map, positions, (0.0, 1.0), UNCERTAINTY_LEVELS)
            found = from_canonical(found, scan.affine)
    # Boxes are asked for while labels are restored.
    clock.seconds["restore"] -= clock.seconds["network"]
    restored: Label = from_canonical(label, scan.affine)
    return restored, found


def _boxes(
    model: SegmentationModel, image: NDArray[np.float32], settings: InferenceSettings, progress: Progress
) -> Boxes:
    progress.start(len(WindowGrid.over(image.shape, settings)), "predicting")
    expected = 1 + len(model.anatomy)
    for box, scores in sliding_window_boxes(model.network, image, settings, lambda _done, _total: progress.advance()):
        if len(scores) != expected:
            raise RunError(
                f"{model.name}: the network has {len(scores)} outputs, {expected} expected (with background)"
            )
        yield box, scores


def _restored(
    boxes: Boxes,
    source: tuple[int, int, int],
    shape: tuple[int, int, int],
    step: NDArray[np.float64],
    settings: InferenceSettings,
) -> Label:
    if settings.restore == "scores":
        return restored_labels_of_boxes(boxes, source, shape, step)
    label = labels_of_boxes(boxes, source)
    return resample_nearest(label, axis_positions(shape, step, label.shape))
