"""Predict one scan, with a manifest beside its label map; what is done is not done again."""

from dataclasses import dataclass
from pathlib import Path

from abdoseg.exporters import EXPORTERS
from abdoseg.exporters import parts as exporter_parts
from abdoseg.model import SegmentationModel
from abdoseg.postprocess import PostSettings
from abdoseg.progress import SILENT, Progress
from abdoseg.readers import stem_of
from abdoseg.steps import manifest as manifests
from abdoseg.steps.manifest import Manifest
from abdoseg.steps.predict import Extras, PredictionReport, predict_file
from abdoseg.steps.predict_folder import FolderOptions


@dataclass(frozen=True)
class AloneReport:
    """What came of one scan.

    Parameters
    ----------
    prediction
        None where the files were there already, by the same weights and options from the same voxels.
    manifest
        The file that says so.
    """

    prediction: PredictionReport | None
    manifest: Path


def predict_alone(
    model: SegmentationModel,
    scan: Path,
    output: Path,
    options: FolderOptions | None = None,
    statistics: Path | None = None,
    progress: Progress = SILENT,
) -> AloneReport:
    """Predict one scan, unless it was, and write ``<stem>.manifest.json`` beside its label map.

    Parameters
    ----------
    model, scan, output, progress
        As in :func:`~abdoseg.steps.predict.predict_file`.
    options
        How; ``format_`` may be empty, and the output's suffix decides. A preview is ``<stem>.png``, an uncertainty map
        ``<stem>.uncertainty.nii.gz``.
    statistics
        Where these go, if anywhere.

    Raises
    ------
    ConfigError
        As in ``predict_file``, or if a file of the manifest's name is no manifest.
    UnknownNameError, CaseError, RunError, WorkspaceError
        As in ``predict_file``.
    """
    options = options or FolderOptions(format_="")
    stem = exporter_parts.stem_of(output, tuple(EXPORTERS))
    picture = output.with_name(f"{stem}.png") if options.preview else None
    undecided = output.with_name(f"{stem}.uncertainty.nii.gz") if options.uncertainty else None
    extras = Extras(options.post or PostSettings(), statistics, undecided, picture)
    told = options.as_json() | {"statistics": statistics is not None}
    manifest = Manifest.read(output.with_name(f"{stem}.{manifests.NAME}"), manifests.header_of(model, told))
    if scan.exists() and manifest.scans.get(stem_of(scan)) is not None and _is_there(manifest, scan, output, extras):
        return AloneReport(None, manifest.path)
    report = predict_file(
        model,
        scan,
        output,
        options.modality,
        options.structures,
        progress,
        format_=options.format_ or None,
        extras=extras,
    )
    path = manifests.write_alone(manifest.path, manifest.header, scan, report)
    return AloneReport(report, path)


def _is_there(manifest: Manifest, scan: Path, output: Path, extras: Extras) -> bool:
    """Whether all that is asked for was written for this scan; a file in another folder is not known to be its."""
    name = stem_of(scan)
    if not manifest.holds(name, manifests.digest_of(scan)):
        return False
    written = {manifest.path.parent / file for file in manifest.scans[name]["outputs"]}
    folders = {path.parent for path in written}
    return (output in written or output in folders) and written.issuperset(extras.files)
