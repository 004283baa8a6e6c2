"""Predict: a scan on file to a label map on the scan's own grid.

Read, bring to the grid and intensities of the training cases, run the network in windows, restore, write.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.errors import CaseError, ConfigError
from abdoseg.exporters import Algorithm, Exporter, exporter_for, require_writable
from abdoseg.exporters.statistics import structure_statistics, write_statistics
from abdoseg.files import whole_files
from abdoseg.kernels.values import count_values, translated
from abdoseg.modality import decide_modality, modality_warning
from abdoseg.model import SegmentationModel
from abdoseg.postprocess import Change, PostSettings, postprocess
from abdoseg.previews import Shown, save_preview
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import Scan, read_scan, stated_modality, stem_of
from abdoseg.segmentation import UNCERTAINTY_LEVELS, Clock, segment
from abdoseg.types import Affine, Label, Modality
from abdoseg.zips import at_hand

STAGES = ("read", "harmonise", "network", "restore", "write")
"""What a prediction spends its time on, in order."""


@dataclass(frozen=True)
class Extras:
    """What is done to a label map, and written beside it, when it is asked for.

    Parameters
    ----------
    post
        Post-processing by structure.
    statistics
        File for the facts of each structure, ``.json`` or ``.csv``.
    uncertainty
        File for how undecided the network was at each voxel, 0 to 1; ``.nii.gz`` or ``.nii``.
    preview
        File for a picture of three planes, ``.png``.
    """

    post: PostSettings = field(default_factory=PostSettings)
    statistics: Path | None = None
    uncertainty: Path | None = None
    preview: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written beside the label map."""
        return tuple(path for path in (self.statistics, self.uncertainty, self.preview) if path is not None)

    def check(self) -> None:
        """Raise ConfigError or WorkspaceError if a file could not be written, before any work."""
        for path, suffixes in (
            (self.statistics, (".json", ".csv")),
            (self.uncertainty, (".nii.gz", ".nii")),
            (self.preview, (".png",)),
        ):
            if path is None:
                continue
            if not path.name.lower().endswith(suffixes):
                raise ConfigError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
            require_writable(path)


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
    changes
        What post-processing did.
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
    changes: tuple[Change, ...] = ()


def predict_file(
    model: SegmentationModel,
    scan_path: Path,
    output: Path,
    modality: str | None = None,
    structures: tuple[str, ...] | None = None,
    progress: Progress = SILENT,
    *,
    format_: str | None = None,
    extras: Extras | None = None,
) -> PredictionReport:
    """Predict one scan and write its label map.

    Parameters
    ----------
    model
        What to predict with.
    scan_path
        The scan, in any format of ``abdoseg.readers``.
    output
        The label map to write; its suffix says the format (``abdoseg.exporters``) where ``format_`` does not.
    modality
        ``ct``, ``mr``, or None to take it from the voxels where they make it plain.
    structures
        Names to keep, with the ids they always have; all when None.
    progress
        Receives the windows done, how the modality was decided, and how much memory it takes.
    format_
        Of ``abdoseg.exporters.FORMATS``.
    extras
        Post-processing and further files.

    Raises
    ------
    ConfigError
        If an option cannot be used, the modality has to be said, or an output would overwrite the scan.
    UnknownNameError
        If a name in ``structures`` or the format is unknown.
    CaseError
        If the scan cannot be read or used.
    RunError
        If the network does not fit the structures or returns NaN.
    WorkspaceError
        If an output cannot be written.
    """
    extras = extras or Extras()
    exporter = exporter_for(output, format_)
    for path in (output, *extras.files):
        _require_other_file(scan_path, path)
    kept = kept_ids(model.anatomy, structures)
    with at_hand(scan_path) as source:
        exporter.require(output, source)
        asked = (modality, structures, kept)
        return _predicted(model, (scan_path, source), (exporter, output, extras), asked, progress)


def _predicted(
    model: SegmentationModel,
    scan_paths: tuple[Path, Path],
    to: tuple[Exporter, Path, Extras],
    asked: tuple[str | None, tuple[str, ...] | None, tuple[int, ...]],
    progress: Progress,
) -> PredictionReport:
    """Do what :func:`predict_file` checked; a scan has a path to call it by and one to read it from."""
    (named, source), (exporter, output, extras), (modality, structures, kept) = scan_paths, to, asked
    clock = Clock()
    with clock.time("read"):
        scan = read_scan(source)
    with _naming(named):
        _require_finite(scan.array)
        decided, reason = decide_modality(scan.array, modality, stated_modality(source))
        # Once it is known that there is something to write, before the network runs.
        if exporter.suffix:
            require_writable(output)
        extras.check()
        progress.say(f"{named.name}: {decided}, {reason}")
        watch = (clock, _Named(progress, f"{named.name}: "))
        wanted = extras.uncertainty is not None
        label, undecided = segment(model, scan, decided, model.settings(), watch, uncertainty=wanted)
    label, changes = postprocess(only(label, kept), extras.post, model.anatomy, _voxel_ml(scan))
    with clock.time("write"):
        made_by = Algorithm(model.name)
        written = exporter.write(label, scan.affine, output, model.anatomy, structures, source, algorithm=made_by)
        if extras.uncertainty is not None and undecided is not None:
            written += (_write_uncertainty(undecided, scan.affine, extras.uncertainty),)
        if extras.statistics is not None:
            rows = structure_statistics(label, scan.array, scan.affine, model.anatomy, structures)
            written += (write_statistics(extras.statistics, rows, stem_of(named), decided),)
        if extras.preview is not None:
            shown = Shown(stem_of(named), scan, decided, model.windows)
            written += (save_preview(extras.preview, shown, label, model.anatomy),)
    return PredictionReport(
        case=stem_of(named),
        shape=scan.grid.shape,
        spacing_mm=scan.grid.spacing_mm,
        modality=decided,
        modality_reason=reason,
        seconds=clock.seconds,
        volume_ml=_volumes_ml(label, scan, model.anatomy, kept),
        outputs=written,
        warnings=(*scan.warnings, *modality_warning(scan.array, decided)),
        changes=changes,
    )


@dataclass(frozen=True)
class _Named:
    """Progress whose lines begin with the scan's name."""

    inner: Progress
    name: str

    def start(self, total: int, title: str) -> None:
        self.inner.start(total, title)

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.inner.advance(amount, note)

    def say(self, text: str) -> None:
        self.inner.say(self.name + text)


def _write_uncertainty(undecided: NDArray[np.int16], affine: Affine, path: Path) -> Path:
    image = nib.Nifti1Image(undecided, affine)
    image.header.set_xyzt_units("mm")
    # Stored in ten-thousandths; every reader scales them back.
    image.header.set_slope_inter(1 / UNCERTAINTY_LEVELS, 0)
    with whole_files(path) as (draft,):
        nib.save(image, draft)
    return path


def _require_other_file(scan_path: Path, output: Path) -> None:
    same = output.resolve() == scan_path.resolve()
    if same or (output.exists() and scan_path.exists() and output.samefile(scan_path)):
        raise ConfigError(f"{output}: is the scan itself, which would be overwritten; choose another output")


def _require_finite(array: NDArray[Any]) -> None:
    # Before the modality is decided: a NaN must not become a question about it.
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CaseError("image: voxels are NaN or infinite; expected finite intensities, write the scan again")


def kept_ids(anatomy: Anatomy, structures: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the ids of the structures to keep, in order; all when None.

    Raises
    ------
    ConfigError, UnknownNameError
        If none is named, or an unknown one.
    """
    if structures is None:
        return tuple(range(1, len(anatomy) + 1))
    if not structures:
        raise ConfigError(f"structures: none was named; expected some of {', '.join(anatomy.names)}")
    return tuple(sorted(set(anatomy.ids_of(structures))))


def only(label: Label, kept: tuple[int, ...]) -> Label:
    """Return a label map with these structures alone; the rest is background."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(kept)] = kept
    return translated(label, table)


def _volumes_ml(label: Label, scan: Scan, anatomy: Anatomy, kept: tuple[int, ...]) -> dict[str, float]:
    voxel_ml = _voxel_ml(scan)
    counts = count_values(label)
    return {anatomy.structure(i).name: float(counts[i]) * voxel_ml for i in kept}


def _voxel_ml(scan: Scan) -> float:
    return abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which scan it was in errors about one."""
    try:
        yield
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
