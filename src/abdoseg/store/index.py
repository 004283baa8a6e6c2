"""What splits and samplers need of every case, in one small file a source: a command need not open 100,000 cases.

The index says nothing that the cases do not: each line holds the stamp of the case's ``zarr.json`` that it was read
from, and a line whose stamp is old is read anew. Deleting an index is harmless.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.case import CaseFacts, Runs
from abdoseg.errors import WorkspaceError
from abdoseg.files import write_text
from abdoseg.types import Modality, SplitName

INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class CaseBrief:
    """The part of :class:`abdoseg.case.CaseFacts` that an index keeps, small in memory.

    Parameters
    ----------
    case, source, modality, patient, split, fingerprint, digest, settings_digest, shape
        As in the facts.
    voxels
        Labelled voxels of structures 1..N.
    annotation_text, occupied_text
        JSON of the annotation, and of the slices by structure id; parsed when asked for.
    stamp
        Of the file it was read from.
    """

    case: str
    source: str
    modality: Modality
    patient: str
    split: SplitName | None
    fingerprint: str
    digest: str
    settings_digest: str
    shape: tuple[int, int, int]
    voxels: tuple[int, ...]
    annotation_text: str
    occupied_text: str
    stamp: str

    @property
    def key(self) -> str:
        """``source/case``."""
        return f"{self.source}/{self.case}"

    @property
    def groups(self) -> Annotation:
        """The annotation, parsed."""
        return Annotation.from_json(json.loads(self.annotation_text))

    def voxel_counts(self) -> NDArray[np.int64]:
        """Return the labelled voxels of structures 1..N: int64 ``(N,)``."""
        return np.array(self.voxels, dtype=np.int64)

    def occupied(self) -> dict[int, tuple[Runs, Runs, Runs]]:
        """Return, by structure id, the slices along X, Y and Z that hold it; empty for older cases."""
        return {int(i): runs for i, runs in json.loads(self.occupied_text).items()}

    @property
    def tells_slices(self) -> bool:
        """Whether it is known which slices hold a structure; cases stored by older versions do not say."""
        return self.occupied_text != "{}" or not any(self.voxels)

    @classmethod
    def of(cls, facts: CaseFacts, names: Sequence[str], stamp: str) -> "CaseBrief":
        """Return the brief of a case; ``names`` are the structures in id order."""
        ids = {name: i for i, name in enumerate(names, start=1)}
        return cls(
            case=facts.case,
            source=facts.source,
            modality=facts.modality,
            patient=facts.patient,
            split=facts.split,
            fingerprint=facts.fingerprint,
            digest=facts.digest,
            settings_digest=facts.settings_digest,
            shape=facts.shape,
            voxels=tuple(facts.voxels.get(name, 0) for name in names),
            annotation_text=_compact(facts.annotation),
            occupied_text=_compact({ids[name]: runs for name, runs in facts.occupied.items() if name in ids}),
            stamp=stamp,
        )

    def to_line(self) -> str:
        """Return a line of the file."""
        return json.dumps(list(asdict(self).values()), separators=(",", ":")) + "\n"


def _compact(facts: Mapping[Any, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


_FIELDS = tuple(field.name for field in fields(CaseBrief))
_SHARED = [i for i, name in enumerate(_FIELDS) if name in {"source", "modality", "settings_digest", "annotation_text"}]
_LISTS = [i for i, name in enumerate(_FIELDS) if name in {"shape", "voxels"}]


def read_index(file: Path) -> dict[str, CaseBrief]:
    """Return the briefs of an index by case; none where there is no index, or one that cannot be read."""
    try:
        version, *lines = file.read_text(encoding="utf-8").splitlines()
        if json.loads(version) != INDEX_VERSION:
            return {}
        return {brief.case: brief for brief in map(_brief, lines)}
    except (OSError, ValueError, TypeError, IndexError):
        return {}


def _brief(line: str) -> CaseBrief:
    values = json.loads(line)
    for i in _SHARED:  # the same text in thousands of cases takes memory once
        values[i] = intern(values[i])
    for i in _LISTS:
        values[i] = tuple(values[i])
    return CaseBrief(*values)


def write_index(file: Path, briefs: Iterable[CaseBrief]) -> None:
    """Write an index; where nothing can be written (a read-only workspace) the next command reads the cases again."""
    with suppress(WorkspaceError):
        write_text(file, f"{INDEX_VERSION}\n" + "".join(brief.to_line() for brief in briefs))
