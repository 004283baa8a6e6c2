"""Predict the cases of a run's split from the store, each on the grid of the file that it was taken from."""

from pathlib import Path

import numpy as np

from abdoseg.case import Case
from abdoseg.errors import AbdosegError, ConfigError, unknown_name
from abdoseg.exporters import FORMATS, Algorithm, exporter_for
from abdoseg.geometry import spacing_of
from abdoseg.kernels.values import count_values
from abdoseg.model import SegmentationModel
from abdoseg.postprocess import PostSettings, postprocess
from abdoseg.progress import SILENT, Progress
from abdoseg.runs import Run, keys_of_split, read_frozen
from abdoseg.segmentation import Clock, segment_case_natively
from abdoseg.steps import manifest as manifests
from abdoseg.steps.manifest import Manifest
from abdoseg.steps.predict import PredictionReport, kept_ids, only
from abdoseg.steps.predict_folder import FolderOptions, FolderReport
from abdoseg.store import Workspace

FROM_THE_STORE = ("nifti", "nifti-per-structure", "nrrd", "metaimage")
"""Formats that need no file of the scan: those of DICOM refer to its series."""


def predict_split(
    model: SegmentationModel,
    cases: tuple[Workspace, Run, str],
    output: Path,
    options: FolderOptions | None = None,
    progress: Progress = SILENT,
    share: tuple[int, int] = (0, 1),
) -> FolderReport:
    """Predict the cases of a split as the run froze it; ``SOURCE/CASE`` becomes ``SOURCE_CASE.nii.gz``.

    Parameters
    ----------
    model
        What to predict with; of the run, or of several.
    cases
        Where they are, whose split it is, and which: ``train``, ``val``, ``test`` or ``all``.
    output, options, progress, share
        As in :func:`~abdoseg.steps.predict_folder.predict_folder`. Modalities are those of the cases; there are no
        statistics, pictures and uncertainty maps, for which the scan itself is needed.

    Raises
    ------
    ConfigError
        If the split holds no case, the output is no folder, or the format needs the scan's own files.
    UnknownNameError
        If a structure or the format is unknown.
    WorkspaceError
        If the manifest cannot be written.
    """
    (workspace, run, split), options = cases, options or FolderOptions()
    if options.format_ not in FORMATS:
        raise unknown_name("format", options.format_, list(FORMATS))
    if options.format_ not in FROM_THE_STORE:
        raise ConfigError(
            f"--format {options.format_}: refers to the files of a scan, which the store does not hold; choose one of "
            f"{', '.join(FROM_THE_STORE)}, or predict the files themselves"
        )
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is a file; expected a folder for the predictions of a split")
    keys = keys_of_split(run, split)[share[0] :: share[1]]
    frozen = {case.key: case for case in run.data.cases}
    header = manifests.header_of(model, options.as_json())
    manifest = Manifest.read(output / manifests.NAME, header, shared=share[1] > 1)
    predicted: dict[str, PredictionReport] = {}
    skipped: list[str] = []
    failed: dict[str, str] = {}
    for key in keys:
        name, digest = key.replace("/", "_"), frozen[key].digest
        if manifest.holds(name, digest):
            skipped.append(name)
            continue
        try:
            case = workspace.read_case(read_frozen(workspace, run, frozen[key]).key)
            report = _one(model, case, output, name, options, progress)
        except AbdosegError as error:
            failed[name] = str(error)
            progress.say(f"{name}: failed: {error}")
            manifest.note(name, {"scan": key, "sha256": digest, "error": str(error)})
            continue
        predicted[name] = report
        manifest.note(name, {"scan": key, "sha256": digest, **manifests.facts_of(report, output)})
    return FolderReport(predicted, tuple(skipped), failed, manifest.path)


def _one(
    model: SegmentationModel, case: Case, folder: Path, name: str, options: FolderOptions, progress: Progress
) -> PredictionReport:
    facts, clock = case.facts, Clock()
    exporter = exporter_for(folder / f"{name}{FORMATS[options.format_].suffix}", options.format_)
    affine = np.asarray(facts.native_affine, dtype=np.float64)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    with clock.time("network"):
        label = segment_case_natively(model, case, model.settings(), progress)
    kept = kept_ids(model.anatomy, options.structures)
    label, changes = postprocess(only(label, kept), options.post or PostSettings(), model.anatomy, voxel_ml)
    with clock.time("write"):
        path = folder / f"{name}{exporter.suffix}"
        made_by = Algorithm(model.name)
        written = exporter.write(label, affine, path, model.anatomy, options.structures, None, algorithm=made_by)
    counts = count_values(label)
    return PredictionReport(
        case=name,
        shape=facts.native_shape,
        spacing_mm=spacing_of(affine),
        modality=facts.modality,
        modality_reason="as its source says",
        seconds=clock.seconds,
        volume_ml={model.anatomy.structure(i).name: float(counts[i]) * voxel_ml for i in kept},
        outputs=written,
        warnings=(),
        changes=changes,
    )
