"""What a prediction is asked for, checked before PyTorch is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from abdoseg.cli._console import split_names

if TYPE_CHECKING:
    from abdoseg.anatomy import Anatomy
    from abdoseg.postprocess import PostSettings
    from abdoseg.runs import Run


@dataclass(frozen=True)
class Asked:
    """The options of a prediction that can be wrong.

    Parameters
    ----------
    scan, split, output
        What to predict, and where to.
    many
        Whether that is several scans.
    modality, structures, format_, statistics
        As typed.
    pictures
        Whether files beside the label map are asked for that need the scan.
    nproc
        Processes.
    """

    scan: Path | None
    split: str | None
    output: Path | None
    many: bool
    modality: str | None
    structures: tuple[str, ...] | None
    format_: str | None
    statistics: Path | None
    pictures: bool
    nproc: int


def check_asked(asked: Asked) -> None:
    """Refuse options that do not go together, or name nothing.

    Raises
    ------
    ConfigError, UnknownNameError
        Saying which.
    """
    from abdoseg.errors import ConfigError, unknown_name
    from abdoseg.exporters import EXPORTERS, exporter_for

    _check_what(asked)
    if asked.modality not in (None, "ct", "mr"):
        raise ConfigError(f"--modality '{asked.modality}': unknown; expected ct or mr")
    if asked.format_ is not None:
        from abdoseg.exporters import FORMATS

        if asked.format_ not in FORMATS:
            raise unknown_name("format", asked.format_, list(FORMATS))
    output = asked.output
    if output is not None and not asked.many:
        exporter_for(output, asked.format_)
    elif output is not None and not output.is_dir() and output.name.lower().endswith(tuple(EXPORTERS)):
        raise ConfigError(f"{output}: is the name of one label map; several scans need a folder")


def check_scan(scan: Path | None) -> None:
    """Refuse a scan that is not there.

    Raises
    ------
    ConfigError
        Saying so.
    """
    from abdoseg.errors import ConfigError

    if scan is not None and not scan.exists():
        raise ConfigError(f"{scan}: no such file or folder; give a scan, or a folder of scans")


def _check_what(asked: Asked) -> None:
    from abdoseg.errors import ConfigError, unknown_name

    scan, split, statistics = asked.scan, asked.split, asked.statistics
    if (scan is None) == (split is None):
        raise ConfigError("give a scan, or a folder of scans, or --split; one of them")
    if split is not None and split not in ("train", "val", "test", "all"):
        raise unknown_name("--split", split, ["train", "val", "test", "all"])
    if asked.nproc > 1 and not asked.many:
        raise ConfigError(f"--nproc {asked.nproc}: processes share the scans of a folder; {scan} is one scan")
    if split is not None and (asked.pictures or statistics is not None):
        raise ConfigError(
            "--split: predicts from the store, which does not hold the scans themselves; pictures, statistics and "
            "uncertainty need the scan's own file"
        )
    if asked.many and statistics is not None:
        raise ConfigError(f"--statistics {statistics}: {scan} is a folder of scans; theirs are beside each label map")
    if statistics is not None and statistics.suffix.lower() not in (".json", ".csv"):
        raise ConfigError(f"--statistics {statistics}: expected a name that ends in .json or .csv")


def check_windows(overlap: float, weights: str) -> None:
    """Refuse windows that there are not.

    Raises
    ------
    ConfigError, UnknownNameError
        Saying which option.
    """
    from abdoseg.errors import ConfigError, unknown_name

    if not 0 <= overlap < 1:
        raise ConfigError(f"--overlap {overlap:g}: expected at least 0 and less than 1")
    if weights not in ("gaussian", "constant"):
        raise unknown_name("--weights", weights, ["gaussian", "constant"])


def check_names(runs: "list[Run]", structures: tuple[str, ...] | None) -> "Anatomy":
    """Return the structures of the runs, once those asked for are known to be among them.

    Raises
    ------
    RunError, UnknownNameError
        If a run has no weights yet, or lacks a structure.
    """
    from abdoseg.errors import RunError

    for run in runs:
        if run.status == "not started":
            raise RunError(f"run {run.name}: no trained weights yet; `abdoseg train` goes on with it")
        if structures is not None:
            run.anatomy.ids_of(structures)
    return runs[0].anatomy


def post_settings(
    anatomy: "Anatomy", largest: list[str] | None, fill_holes: list[str] | None, min_ml: list[str] | None
) -> "PostSettings":
    from abdoseg.postprocess import PostSettings

    volumes = dict(_volume(entry) for entry in split_names(min_ml))
    return PostSettings.of(anatomy, split_names(largest), split_names(fill_holes), volumes)


def _volume(entry: str) -> tuple[str, float]:
    from abdoseg.errors import ConfigError

    name, _, volume = entry.partition("=")
    try:
        return name, float(volume)
    except ValueError as error:
        raise ConfigError(f"--min-ml: found {entry!r}; expected NAME=MILLILITRES, as in spleen=1 or all=0.2") from error
