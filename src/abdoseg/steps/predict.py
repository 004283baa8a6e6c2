"""Predict: a scan on file to a label map on the scan's own grid.

Read, bring to the grid and intensities of the training cases, run the network in windows, restore, write.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.case import Case
from abdoseg.errors import CaseError, ConfigError, RunError
from abdoseg.exporters import exporter_for, require_writable
from abdoseg.geometry import axis_positions, from_canonical, spacing_of, to_canonical
from abdoseg.harmonise import harmonise_image
from abdoseg.inference import InferenceSettings, sliding_window_logits, windows_of
from abdoseg.kernels.label_resample import resample_nearest
from abdoseg.kernels.restore import argmax_labels, restore_labels
from abdoseg.kernels.values import count_values, translated
from abdoseg.modality import decide_modality, modality_warning
from abdoseg.model import SegmentationModel
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import READERS, Scan, read_scan, stated_modality
from abdoseg.types import Label, Modality

STAGES = ("read", "harmonise", "network", "restore", "write")
"""What a prediction spends its time on, in order."""

SPACING_TOLERANCE_MM = 1e-3
"""A stored case whose spacing is further than this from the model's was harmonised for another one."""


@dataclass(frozen=True)
class PredictionReport:
    """What was predicted, and how.

    Parameters
    ----------
    case
        Name of the scan: its file's, without the suffix.
    shape, spacing_mm
        The scan's own grid, on the axes of its file; mm.
    modality, modality_reason
        What the scan was taken for, and why.
    seconds
        Wall time of each of :data:`STAGES`.
    volume_ml
        Millilitres of each structure asked for; 0 where none was found.
    outputs
        Files written, the label map first.
    warnings
        What was odd.
    """

    case: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modality: Modality
    modality_reason: str
    seconds: dict[str, float]
    volume_ml: dict[str, float]
    outputs: tuple[Path, ...]
    warnings: tuple[str, ...]


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin


def predict_file(
    model: SegmentationModel,
    scan_path: Path,
    output: Path,
    modality: str | None = None,
    structures: tuple[str, ...] | None = None,
    progress: Progress = SILENT,
) -> PredictionReport:
    """Predict one scan and write its label map.

    Parameters
    ----------
    model
        What to predict with.
    scan_path
        The scan, in any format of ``abdoseg.readers``.
    output
        The label map to write; its suffix says the format (``abdoseg.exporters``).
    modality
        ``ct``, ``mr``, or None to take it from the voxels where they make it plain.
    structures
        Names to keep, with the ids they always have; all when None.
    progress
        Receives the windows done, and how the modality was decided.

    Raises
    ------
    ConfigError
        If an option cannot be used, the modality has to be said, or the output would overwrite the scan.
    UnknownNameError
        If a name in ``structures`` is unknown.
    CaseError
        If the scan cannot be read or used.
    RunError
        If the network does not fit the structures or returns NaN.
    WorkspaceError
        If the output cannot be written.
    """
    exporter = exporter_for(output)
    _require_other_file(scan_path, output)
    kept = _kept_ids(model.anatomy, structures)
    clock = _Clock()
    with clock.time("read"):
        scan = read_scan(scan_path)
    with _naming(scan_path):
        _require_finite(scan.array)
        decided, reason = decide_modality(scan.array, modality, stated_modality(scan_path))
        require_writable(output)
        progress.say(f"{scan_path.name}: {decided}, {reason}")
        label = _segment(model, scan, decided, model.settings(), (clock, progress))
    label = _only(label, kept)
    with clock.time("write"):
        written = exporter.write(label, scan.affine, output, model.anatomy, structures, scan_path)
    return PredictionReport(
        case=_case_name(scan_path),
        shape=scan.grid.shape,
        spacing_mm=scan.grid.spacing_mm,
        modality=decided,
        modality_reason=reason,
        seconds=clock.seconds,
        volume_ml=_volumes_ml(label, scan, model.anatomy, kept),
        outputs=written,
        warnings=(*scan.warnings, *modality_warning(scan.array, decided)),
    )


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
    return _segment(model, scan, modality, settings or model.settings(), (_Clock(), SILENT))


def segment_case(
    model: SegmentationModel, case: Case, settings: InferenceSettings | None = None, progress: Progress = SILENT
) -> Label:
    """Return the label map of a stored case on its harmonised grid, uint8 ``(X, Y, Z)``, RAS+.

    Raises
    ------
    RunError
        If the case has another spacing than the model, or the network does not fit or returns NaN.
    """
    spacing = np.array(spacing_of(case.facts.affine_array))
    if np.abs(spacing - model.spacing_mm).max() > SPACING_TOLERANCE_MM:
        found = " x ".join(f"{s:g}" for s in spacing)
        raise RunError(
            f"{case.facts.key}: stored at {found} mm, {model.name} expects {model.spacing_mm:g} mm; "
            "ingest the source into a workspace of that spacing"
        )
    return argmax_labels(_scores(model, case.intensity(), settings or model.settings(), progress))


def _segment(
    model: SegmentationModel,
    scan: Scan,
    modality: Modality,
    settings: InferenceSettings,
    watch: tuple[_Clock, Progress],
) -> Label:
    clock, progress = watch
    with clock.time("harmonise"):
        image = harmonise_image(scan.array, scan.affine, modality, model.windows, model.spacing_mm)
    with clock.time("network"):
        scores = _scores(model, image.intensity(), settings, progress)
    with clock.time("restore"):
        canonical, affine = to_canonical(scan.array, scan.affine)
        step = np.array(spacing_of(affine)) / np.array(image.grid.spacing_mm)
        label = _restored(scores, (canonical.shape[0], canonical.shape[1], canonical.shape[2]), step, settings)
        native: Label = from_canonical(label, scan.affine)
    return native


def _scores(
    model: SegmentationModel, image: NDArray[np.float32], settings: InferenceSettings, progress: Progress
) -> NDArray[np.float32]:
    progress.start(len(windows_of(image.shape, settings)), "predicting")
    scores = sliding_window_logits(model.network, image, settings, lambda _done, _total: progress.advance())
    expected = 1 + len(model.anatomy)
    if len(scores) != expected:
        raise RunError(f"{model.name}: the network has {len(scores)} outputs, {expected} expected (with background)")
    return scores


def _restored(
    scores: NDArray[np.float32], shape: tuple[int, int, int], step: NDArray[np.float64], settings: InferenceSettings
) -> Label:
    if settings.restore == "scores":
        return restore_labels(scores, shape, step)
    label = argmax_labels(scores)
    return resample_nearest(label, axis_positions(shape, step, label.shape))


def _require_other_file(scan_path: Path, output: Path) -> None:
    same = output.resolve() == scan_path.resolve()
    if same or (output.exists() and scan_path.exists() and output.samefile(scan_path)):
        raise ConfigError(f"{output}: is the scan itself, which would be overwritten; choose another output")


def _require_finite(array: NDArray[Any]) -> None:
    # Before the modality is decided: a NaN must not become a question about it.
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CaseError("image: voxels are NaN or infinite; expected finite intensities, write the scan again")


def _kept_ids(anatomy: Anatomy, structures: tuple[str, ...] | None) -> tuple[int, ...]:
    if structures is None:
        return tuple(range(1, len(anatomy) + 1))
    if not structures:
        raise ConfigError(f"structures: none was named; expected some of {', '.join(anatomy.names)}")
    return tuple(sorted(set(anatomy.ids_of(structures))))


def _only(label: Label, kept: tuple[int, ...]) -> Label:
    table = np.zeros(256, dtype=np.uint8)
    table[list(kept)] = kept
    return translated(label, table)


def _volumes_ml(label: Label, scan: Scan, anatomy: Anatomy, kept: tuple[int, ...]) -> dict[str, float]:
    voxel_ml = abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
    counts = count_values(label)
    return {anatomy.structure(i).name: float(counts[i]) * voxel_ml for i in kept}


def _case_name(path: Path) -> str:
    suffix = next((s for s in READERS if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which scan it was in errors about one."""
    try:
        yield
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
