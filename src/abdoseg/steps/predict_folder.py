"""Predict every scan of a folder: what is done is not done again, and a scan that fails does not stop the others."""

import hashlib
import json
import platform
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from abdoseg.errors import AbdosegError, ConfigError
from abdoseg.exporters import FORMATS
from abdoseg.files import write_text
from abdoseg.model import SegmentationModel
from abdoseg.postprocess import PostSettings
from abdoseg.progress import SILENT, Progress
from abdoseg.scans import find_scans
from abdoseg.steps.predict import Extras, PredictionReport, predict_file

MANIFEST = "manifest.json"
"""In the output folder: what was predicted, with what, from what."""


@dataclass(frozen=True)
class FolderOptions:
    """How the scans of a folder are predicted.

    Parameters
    ----------
    modality, structures, format_
        As in :func:`~abdoseg.steps.predict.predict_file`; of every scan.
    post
        Post-processing by structure.
    uncertainty, statistics
        Whether each scan gets these files too.
    """

    modality: str | None = None
    structures: tuple[str, ...] | None = None
    format_: str = "nifti"
    post: PostSettings | None = None
    uncertainty: bool = False
    statistics: bool = True

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
    scans = find_scans(folder)
    manifest = _Manifest.read(output / MANIFEST, _header(model, options))
    predicted: dict[str, PredictionReport] = {}
    skipped: list[str] = []
    failed: dict[str, str] = {}
    for name, scan in scans.items():
        digest = digest_of(scan)
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
        manifest.note(name, {"scan": str(scan), "sha256": digest, **_facts(report, output)})
    return FolderReport(predicted, tuple(skipped), failed, manifest.path)


def _one(
    model: SegmentationModel, scan: Path, output: Path, name: str, options: FolderOptions, progress: Progress
) -> PredictionReport:
    extras = Extras(
        post=options.post or PostSettings(),
        statistics=output / f"{name}.statistics.json" if options.statistics else None,
        uncertainty=output / f"{name}.uncertainty.nii.gz" if options.uncertainty else None,
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


def digest_of(scan: Path) -> str:
    """Return the SHA-256 of a file, or of the files of a folder with their names."""
    total = hashlib.sha256()
    for path in _files_of(scan):
        if scan.is_dir():
            total.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def _files_of(scan: Path) -> Iterator[Path]:
    if scan.is_dir():
        yield from sorted(path for path in scan.iterdir() if path.is_file())
    else:
        yield scan


def weights_digest(model: SegmentationModel) -> str:
    """Return the SHA-256 of a network's weights, names and numbers."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _header(model: SegmentationModel, options: FolderOptions) -> dict[str, Any]:
    settings = model.settings()
    return {
        "abdoseg": version("abdoseg"),
        "torch": version("torch"),
        "python": platform.python_version(),
        "model": model.name,
        "weights_sha256": weights_digest(model),
        "structures": list(model.anatomy.names),
        "spacing_mm": model.spacing_mm,
        "device": settings.device,
        "patch": list(settings.patch_shape),
        "overlap": settings.overlap,
        "window_weights": settings.weights,
        "average": settings.average,
        "restore": settings.restore,
        "views": [[view.scale, *view.shift] for view in settings.views],
        "options": options.as_json(),
    }


def _facts(report: PredictionReport, output: Path) -> dict[str, Any]:
    return {
        "outputs": [str(path.relative_to(output)) for path in report.outputs],
        "modality": report.modality,
        "shape": list(report.shape),
        "spacing_mm": list(report.spacing_mm),
        "volume_ml": report.volume_ml,
        "seconds": report.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "changes": [str(change) for change in report.changes],
        "warnings": list(report.warnings),
    }


def peak_memory_mb() -> float:
    """Return the most memory this process has had so far, megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@dataclass(frozen=True)
class _Manifest:
    """The file beside the predictions; written again after every scan."""

    path: Path
    header: Mapping[str, Any]
    scans: dict[str, Any]

    @classmethod
    def read(cls, path: Path, header: Mapping[str, Any]) -> "_Manifest":
        """Read what was done by the same weights and options; anything else is to be done again."""
        if not path.is_file():
            return cls(path, header, {})
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            same, scans = facts["header"] == header, dict(facts["scans"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: is no manifest of predictions ({error!r}); move it away, or choose another output"
            ) from error
        return cls(path, header, scans if same else {})

    def holds(self, name: str, digest: str) -> bool:
        facts = self.scans.get(name, {})
        if facts.get("sha256") != digest or "outputs" not in facts:
            return False
        return all((self.path.parent / file).exists() for file in facts["outputs"])

    def note(self, name: str, facts: dict[str, Any]) -> None:
        self.scans[name] = facts
        told = {"header": dict(self.header), "scans": dict(sorted(self.scans.items()))}
        write_text(self.path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
