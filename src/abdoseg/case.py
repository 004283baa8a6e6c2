"""One scan as the store keeps it: arrays on the harmonised grid, and facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from abdoseg.annotation import Annotation
from abdoseg.types import Affine, Modality, SplitName

CaseStatus = Literal["taken", "repaired"]

Runs = tuple[tuple[int, int], ...]
"""Runs of neighbouring slices along an axis: (first, stop) each, in order."""


class SideSplit(BaseModel):
    """How a label that joins right and left was split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: str = Field(description="right_kidney+left_kidney")
    values: tuple[int, ...] = Field(description="raw label values that join them")
    flags: tuple[str, ...] = Field(default=(), description="why somebody should look at it")
    decided: tuple[str, str] | None = Field(default=None, description="what was decided, and by whom")

    @property
    def open(self) -> bool:
        """Whether somebody should still look at it."""
        return bool(self.flags) and self.decided is None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The flags as sentences, while nobody has decided."""
        return tuple(f"split of {self.pair.replace('+', ' and ')}: {flag}" for flag in self.flags if self.open)


class Measure(BaseModel):
    """What is measured of one structure at ingest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ml: float = Field(description="volume on the harmonised grid")
    mean: float = Field(description="mean intensity: HU within the window (CT), or [0, 1] (MR)")
    gas: float = Field(description="part of its voxels below -200 HU (CT)")
    centre: tuple[float, float, float] = Field(description="mean voxel index, harmonised grid, RAS+")
    cut: bool = Field(description="not all of it: touches the border of the scan, or only some slices are drawn")


class CaseFacts(BaseModel):
    """Everything about a case except its voxels; saved as the attributes of its Zarr group.

    No patient data: identifiers are the source's own pseudonyms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str = Field(description="id within the source, the source's own")
    source: str = Field(description="card id")
    modality: Modality
    patient: str = Field(description="the source's pseudonym; cases of one patient share it")
    split: SplitName | None = Field(default=None, description="side in the source's official split, if it has one")
    shape: tuple[int, int, int] = Field(description="harmonised (X, Y, Z)")
    affine: list[list[float]] = Field(description="harmonised voxel index to mm, RAS+")
    native_shape: tuple[int, int, int] = Field(description="shape of the file's array")
    native_affine: list[list[float]] = Field(description="the file's voxel index to mm, RAS+")
    scale: float = Field(description="windowed intensity in [0, 1] = stored * scale + offset")
    offset: float
    window: tuple[float, float] = Field(description="native intensities that became 0 and 1 (HU for CT)")
    annotation: dict[str, Any] = Field(description="Annotation.to_json()")
    voxels: dict[str, int] = Field(description="labelled voxels per structure, harmonised grid")
    occupied: dict[str, tuple[Runs, Runs, Runs]] = Field(
        default={}, description="by structure: the slices along X, Y and Z that hold it; empty in older cases"
    )
    fingerprint: str = Field(description="hash of the harmonised image; equal for repeated scans")
    digest: str = Field(description="hash of image, label, annotation and affine; another one is another case")
    settings_digest: str = Field(description="hash of the workspace's structures, spacing and windows")
    card_digest: str = Field(description="hash of what the card says about labels and annotation")
    signature: dict[str, Any] | None = Field(default=None, description="to find the scan again among others")
    sides: tuple[SideSplit, ...] = Field(default=(), description="labels that joined right and left")
    measures: dict[str, Measure] = Field(default={}, description="by structure that the case holds")
    suspicions: tuple[str, ...] = Field(default=(), description="what is odd about it; it is taken all the same")
    warnings: tuple[str, ...] = ()
    done: tuple[str, ...] = Field(default=(), description="what ingest changed, in order")

    @property
    def key(self) -> str:
        """``source/case``: unique in a workspace."""
        return f"{self.source}/{self.case}"

    @property
    def groups(self) -> Annotation:
        """The annotation, parsed."""
        return Annotation.from_json(self.annotation)

    @property
    def affine_array(self) -> Affine:
        """``(4, 4)`` harmonised affine."""
        return np.asarray(self.affine, dtype=np.float64)

    @property
    def status(self) -> CaseStatus:
        """``repaired`` when ingest had to warn about something it mended, else ``taken``."""
        return "repaired" if self.warnings else "taken"


@dataclass(frozen=True, eq=False)
class Case:
    """A harmonised case in memory.

    Parameters
    ----------
    facts
        Everything but the voxels.
    image
        int16 ``(X, Y, Z)``; intensity in [0, 1] is ``image * facts.scale + facts.offset``.
    label
        uint8 ``(X, Y, Z)``; structure id, 0 background, 255 unknown.
    """

    facts: CaseFacts
    image: NDArray[np.int16]
    label: NDArray[np.uint8]

    def intensity(self) -> NDArray[np.float32]:
        """Return the windowed image, float32 in [0, 1]."""
        return self.image.astype(np.float32) * np.float32(self.facts.scale) + np.float32(self.facts.offset)


@dataclass(frozen=True, eq=False)
class Foreground:
    """Where the labelled voxels of a case are, by structure.

    Parameters
    ----------
    index
        int32 ``(M,)``: C-order voxel indices, those of structure 1 first, each structure's increasing.
    start
        int ``(N + 1,)``: structure ``c`` owns ``index[start[c - 1]:start[c]]``.
    """

    index: NDArray[np.int32]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, label: NDArray[np.uint8], n_structures: int) -> "Foreground":
        """Collect the labelled voxels of ``label`` ``(X, Y, Z)``."""
        flat = label.reshape(-1)
        where = np.flatnonzero((flat > 0) & (flat <= n_structures))
        values = flat[where]
        order = np.argsort(values, kind="stable")
        start = np.searchsorted(values[order], np.arange(1, n_structures + 2))
        return cls(where[order].astype(np.int32), start.astype(np.int64))

    def of_structure(self, structure_id: int) -> NDArray[np.int32]:
        """Return the voxel indices of structure ``structure_id`` in 1..N."""
        return self.index[self.start[structure_id - 1] : self.start[structure_id]]

    def counts(self) -> NDArray[np.int64]:
        """Return the number of voxels of structures 1..N."""
        return np.diff(self.start)

    def occupied(self, shape: Sequence[int]) -> dict[int, tuple[Runs, Runs, Runs]]:
        """Return, for each structure that is there, the slices along X, Y and Z of ``shape`` that hold it."""
        return {
            structure: _runs_of_voxels(self.of_structure(structure), shape)
            for structure in range(1, len(self.start))
            if len(self.of_structure(structure))
        }


def _runs_of_voxels(index: NDArray[np.int32], shape: Sequence[int]) -> tuple[Runs, Runs, Runs]:
    x, rest = np.divmod(index, shape[1] * shape[2])
    y, z = np.divmod(rest, shape[2])
    return (_runs(x), _runs(y), _runs(z))


def _runs(coordinates: NDArray[np.int32]) -> Runs:
    """Return the runs of neighbouring numbers among ``coordinates``."""
    held = np.bincount(coordinates) > 0
    edges = np.flatnonzero(np.diff(held.astype(np.int8), prepend=0, append=0))
    return tuple((int(first), int(stop)) for first, stop in edges.reshape(-1, 2))
