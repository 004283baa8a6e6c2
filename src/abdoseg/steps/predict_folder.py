"""Predict every scan of a folder: what is done is not done again, and a scan that fails does not stop the others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abdoseg.errors import AbdosegError, ConfigError
from abdoseg.exporters import FORMATS
from abdoseg.model import SegmentationModel
from abdoseg.postprocess import PostSettings
from abdoseg.progress import SILENT, Progress
from abdoseg.scans import find_scans
from abdoseg.steps import manifest as manifests
from abdoseg.steps.manifest import Manifest
from abdoseg.steps.predict import Extras, PredictionReport, predict_file


@dataclass(frozen=True)
class FolderOptions:
    """How the scans of a folder are predicted.

    Parameters
    ----------
    modality, structures, format_
        As in :func:`~abdoseg.steps.predict.predict_file`; of every scan.
    post
        Post-processing by structure.
    uncertainty, statistics, preview
        Whether each scan gets these files too.
    """

    modality: str | None = None
    structures: tuple[str, ...] | None = None
    format_: str = "nifti"
    post: PostSettings | None = None
    uncertainty: bool = False
    statistics: bool = True
    preview: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the options as the manifest keeps them."""
        rules = {} if self.post is None else {name: vars(rule) for name, rule in self.post.rules.items()}
        return {
            "modality": self.modality,
            "structures": None if self.structures is None else list(self.structures),
            "format": self.format_,
            "post": rules,
            "uncertainty": self.uncertainty,
            "statistics": self.statistics,
            "preview": self.preview,
        }


@dataclass(frozen=True)
class FolderReport:
    """What came of a folder.

    Parameters
    ----------
    predicted
        Name -> report of the scans predicted now.
    skipped
        Names of those that were there already, by the same weights and options.
    failed
        Name -> why.
    manifest
        The file that says so.
    """

    predicted: dict[str, PredictionReport]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    manifest: Path


def predict_folder(
    model: SegmentationModel,
    folder: Path,
    output: Path,
    options: FolderOptions | None = None,
    progress: Progress = SILENT,
    share: tuple[int, int] = (0, 1),
) -> FolderReport:
    """Predict all scans below a folder.

    Parameters
    ----------
    model
        What to predict with.
    folder
        Scans, at any depth (:func:`~abdoseg.scans.find_scans`).
    output
        Folder for the label maps; made if it is not there.
    options
        How.
    progress
        As in :func:`~abdoseg.steps.predict.predict_file`, and told of scans that failed.
    share
        (i, n): of every n scans, the i-th, from 0; n processes that get another i each predict the whole folder.

    Raises
    ------
    ConfigError
        If there is no scan, the output is no folder or lies within the input, or an option cannot be used.
    UnknownNameError
        If a format is unknown.
    WorkspaceError
        If the manifest cannot be written.
    """
    options = options or FolderOptions()
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is a file; expected a folder for the predictions of a folder")
    if output.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{output}: lies within {folder}, and would be taken for scans; choose a folder beside it")
    scans = dict(list(find_scans(folder).items())[share[0] :: share[1]])
    header = manifests.header_of(model, options.as_json())
    manifest = Manifest.read(output / manifests.NAME, header, shared=share[1] > 1)
    predicted: dict[str, PredictionReport] = {}
    skipped: list[str] = []
    failed: dict[str, str] = {}
    for name, scan in scans.items():
        digest = manifests.digest_of(scan)
        if manifest.holds(name, digest):
            skipped.append(name)
            continue
        try:
            report = _one(model, scan, output, name, options, progress)
        except AbdosegError as error:
            failed[name] = str(error)
            progress.say(f"{name}: failed: {error}")
            manifest.note(name, {"scan": str(scan), "sha256": digest, "error": str(error)})
            continue
        predicted[name] = report
        manifest.note(name, {"scan": str(scan), "sha256": digest, **manifests.facts_of(report, output)})
    return FolderReport(predicted, tuple(skipped), failed, manifest.path)


def _one(
    model: SegmentationModel, scan: Path, output: Path, name: str, options: FolderOptions, progress: Progress
) -> PredictionReport:
    extras = Extras(
        post=options.post or PostSettings(),
        statistics=output / f"{name}.statistics.json" if options.statistics else None,
        uncertainty=output / f"{name}.uncertainty.nii.gz" if options.uncertainty else None,
        preview=output / f"{name}.png" if options.preview else None,
    )
    suffix = FORMATS[options.format_].suffix if options.format_ in FORMATS else ""
    return predict_file(
        model,
        scan,
        output / f"{name}{suffix}",
        options.modality,
        options.structures,
        progress,
        format_=options.format_,
        extras=extras,
    )
