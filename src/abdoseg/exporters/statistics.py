"""Facts of each structure in a label map: volume, intensity, where it lies, whether the scan cuts it off."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.errors import CaseError, ConfigError
from abdoseg.exporters.parts import requested_ids, require_label_map
from abdoseg.files import write_text
from abdoseg.geometry import axis_codes
from abdoseg.kernels.label_statistics import LabelStatistics, label_statistics
from abdoseg.types import Affine, Label, Modality

_SIDES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))

_UNITS: dict[Modality | None, str] = {"CT": "HU", "MR": "", None: ""}

Index = tuple[int, int, int]


@dataclass(frozen=True)
class StructureStatistics:
    """Facts of one structure.

    Parameters
    ----------
    name
        The structure.
    voxels, volume_ml
        Its size; 0 where it was not found, and then the other facts are ``None``.
    mean, std
        Of the scan's own intensities in it, HU for CT; the standard deviation of all its voxels (ddof 0).
    first, last
        Voxel indices of the corners of its box on the axes of the scan's file, both inside.
    low_mm, high_mm
        The box that holds all its voxels to their outer faces, RAS+ mm.
    borders
        Sides of the scan on which it reaches the last voxels: it may go on outside, and its volume is then that of a
        part.
    """

    name: str
    voxels: int
    volume_ml: float
    mean: float | None = None
    std: float | None = None
    first: Index | None = None
    last: Index | None = None
    low_mm: tuple[float, float, float] | None = None
    high_mm: tuple[float, float, float] | None = None
    borders: tuple[str, ...] = ()

    @property
    def touches_border(self) -> bool:
        """Whether it reaches the edge of the scan."""
        return bool(self.borders)


def structure_statistics(
    label: Label,
    image: NDArray[Any],
    affine: Affine,
    anatomy: Anatomy,
    structures: tuple[str, ...] | None = None,
) -> tuple[StructureStatistics, ...]:
    """Return the facts of each structure asked for, in the order of their ids, those not found too.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)``, structure ids.
    image
        The scan ``(X, Y, Z)`` on the same axes, any real type.
    affine
        ``(4, 4)`` of these axes, voxel index to mm, RAS+.
    anatomy, structures
        What the ids mean, and which are asked for; all when None.

    Raises
    ------
    CaseError
        If the image holds NaN or infinite values inside a structure.
    UnknownNameError
        If a name in ``structures`` is not in ``anatomy``.
    ValueError
        If ``label`` is not a uint8 volume of the image's shape.
    """
    require_label_map(label)
    if image.shape != label.shape:
        raise ValueError(f"image: found shape {image.shape}, expected that of the label, {label.shape}")
    found = label_statistics(label, image)
    return tuple(
        _one(i, anatomy.structure(i).name, found, (label.shape, affine)) for i in requested_ids(anatomy, structures)
    )


def _one(i: int, name: str, found: LabelStatistics, grid: tuple[tuple[int, ...], Affine]) -> StructureStatistics:
    shape, affine = grid
    voxels = int(found.voxels[i])
    if not voxels:
        return StructureStatistics(name, 0, 0.0)
    if not np.isfinite(found.std[i]):
        raise CaseError(f"image: voxels in {name} are NaN or infinite; expected finite intensities, write it again")
    low, high = _box_mm(found.first[i], found.last[i], affine)
    return StructureStatistics(
        name=name,
        voxels=voxels,
        volume_ml=voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        mean=float(found.mean[i]),
        std=float(found.std[i]),
        first=_index(found.first[i]),
        last=_index(found.last[i]),
        low_mm=low,
        high_mm=high,
        borders=_borders(found.first[i], found.last[i], shape, affine),
    )


def _index(values: NDArray[np.int64]) -> Index:
    x, y, z = values.tolist()
    return x, y, z


def _box_mm(
    first: NDArray[np.int64], last: NDArray[np.int64], affine: Affine
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    faces = np.stack([first - 0.5, last + 0.5])
    corners = np.stack(np.meshgrid(*faces.T, indexing="ij"), axis=-1).reshape(-1, 3)
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    (x0, y0, z0), (x1, y1, z1) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    return (x0, y0, z0), (x1, y1, z1)


def _borders(
    first: NDArray[np.int64], last: NDArray[np.int64], shape: tuple[int, ...], affine: Affine
) -> tuple[str, ...]:
    sides = []
    for axis, code in enumerate(axis_codes(affine)):
        sides += [_SIDES[_OPPOSITE[code]]] if first[axis] == 0 else []
        sides += [_SIDES[code]] if last[axis] == shape[axis] - 1 else []
    return tuple(sides)


def write_statistics(
    path: Path, rows: tuple[StructureStatistics, ...], case: str, modality: Modality | None = None
) -> Path:
    """Write the facts of a label map as ``.json`` or ``.csv``, whole or not at all.

    Parameters
    ----------
    path
        File to write.
    rows
        From :func:`structure_statistics`.
    case
        Name of the scan.
    modality
        Of the scan; says the unit of its intensities.

    Raises
    ------
    ConfigError
        If the suffix is another.
    WorkspaceError
        If the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _TEXTS:
        raise ConfigError(f"{path}: unknown format of statistics; expected a file name ending in .json or .csv")
    write_text(path, _TEXTS[suffix](rows, case, _UNITS[modality]))
    return path


def _as_json(rows: tuple[StructureStatistics, ...], case: str, unit: str) -> str:
    structures = [{**asdict(row), "touches_border": row.touches_border} for row in rows]
    facts = {"case": case, "intensity_unit": unit, "structures": structures}
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _as_csv(rows: tuple[StructureStatistics, ...], case: str, unit: str) -> str:
    out = io.StringIO()
    table = [{"case": case, "intensity_unit": unit, **_flat(row)} for row in rows]
    # One header whatever was asked for, so that the tables of many scans can be put under each other.
    writer = csv.DictWriter(
        out, ["case", "intensity_unit", *_flat(StructureStatistics("", 0, 0.0))], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _flat(row: StructureStatistics) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key, value in asdict(row).items():
        if key in ("first", "last", "low_mm", "high_mm"):
            stem, _, unit = key.partition("_")
            three = value or ("", "", "")
            cells |= {f"{stem}_{axis}{'_' + unit if unit else ''}": v for axis, v in zip("xyz", three, strict=True)}
        elif key == "borders":
            cells["borders"] = " ".join(value)
        else:
            cells[key] = "" if value is None else value
    return {**cells, "touches_border": row.touches_border}


_TEXTS = {".json": _as_json, ".csv": _as_csv}
