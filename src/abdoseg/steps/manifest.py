"""What was predicted, with what, from what, how fast: the file beside predictions."""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from abdoseg.errors import ConfigError
from abdoseg.files import write_text
from abdoseg.model import SegmentationModel
from abdoseg.steps.predict import PredictionReport

NAME = "manifest.json"
"""Of the manifest in an output folder; that of one label map begins with the map's name."""


def header_of(model: SegmentationModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for how scans are predicted: another header, another prediction.

    Parameters
    ----------
    model
        What predicts.
    options
        How, as JSON.
    """
    settings = model.settings()
    return {
        "abdoseg": version("abdoseg"),
        "torch": version("torch"),
        "python": platform.python_version(),
        "model": model.name,
        "weights_sha256": weights_digest(model),
        "structures": list(model.anatomy.names),
        "spacing_mm": model.spacing_mm,
        "device": settings.device.partition(":")[0],
        "patch": list(settings.patch_shape),
        "overlap": settings.overlap,
        "window_weights": settings.weights,
        "average": settings.average,
        "restore": settings.restore,
        "views": [[view.scale, *view.shift] for view in settings.views],
        "options": dict(options),
    }


def facts_of(report: PredictionReport, folder: Path) -> dict[str, Any]:
    """Return what the manifest in ``folder`` says about one scan."""
    return {
        "outputs": [str(path.relative_to(folder)) for path in report.outputs if path.is_relative_to(folder)],
        "modality": report.modality,
        "shape": list(report.shape),
        "spacing_mm": list(report.spacing_mm),
        "volume_ml": report.volume_ml,
        "seconds": report.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "changes": [str(change) for change in report.changes],
        "warnings": list(report.warnings),
    }


def write_alone(path: Path, header: Mapping[str, Any], scan: Path, report: PredictionReport) -> Path:
    """Write the manifest of a single scan.

    Raises
    ------
    WorkspaceError
        If it cannot be written.
    """
    facts = {"scan": str(scan), "sha256": digest_of(scan), **facts_of(report, path.parent)}
    _write(path, header, {report.case: facts})
    return path


def scans_in(path: Path) -> dict[str, Any]:
    """Return name -> facts of the scans in a manifest; none where there is no manifest.

    Raises
    ------
    ConfigError
        If the file is no manifest.
    """
    return _read(path)[1] if path.is_file() else {}


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return header and scans."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return facts["header"], dict(facts["scans"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: is no manifest of predictions ({error!r}); move it away, or choose another output"
        ) from error


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


def peak_memory_mb() -> float | None:
    """Return the most memory this process has had so far, megabytes; None on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@dataclass
class Manifest:
    """The file beside the predictions of a folder; written again after every scan, by several processes in turn.

    Parameters
    ----------
    path
        The file.
    header
        How scans are predicted now.
    scans
        Name -> what is known of it, of those predicted so.
    shared
        Whether other processes write to it too; a lock is left beside it then.
    """

    path: Path
    header: Mapping[str, Any]
    scans: dict[str, Any] = field(default_factory=dict)
    shared: bool = False

    @classmethod
    def read(cls, path: Path, header: Mapping[str, Any], *, shared: bool = False) -> "Manifest":
        """Read what was done by the same weights and options; anything else is to be done again.

        Raises
        ------
        ConfigError
            If the file is no manifest.
        """
        manifest = cls(path, header, shared=shared)
        manifest.refresh()
        return manifest

    def refresh(self) -> None:
        """Read what other processes have noted."""
        if not self.path.is_file():
            return
        header, scans = _read(self.path)
        if header == self.header:
            self.scans = scans

    def holds(self, name: str, digest: str) -> bool:
        """Whether a scan was predicted so, and its files are there."""
        facts = self.scans.get(name, {})
        if facts.get("sha256") != digest or "outputs" not in facts:
            return False
        return all((self.path.parent / file).exists() for file in facts["outputs"])

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Add what came of a scan.

        Raises
        ------
        WorkspaceError
            If the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")) if self.shared else nullcontext():
            self.refresh()
            self.scans[name] = facts
            _write(self.path, self.header, self.scans)


def _write(path: Path, header: Mapping[str, Any], scans: Mapping[str, Any]) -> None:
    told = {"header": dict(header), "scans": dict(sorted(scans.items()))}
    write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
