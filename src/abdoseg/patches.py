"""Training patches: store, sampling and augmentation put together. Pure numpy; nothing here loads torch.

Example ``t`` of a run is a pure function of (seed, t): any worker, rank or resumed run gets the same patch for the
same number, whatever was asked before.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import AffineSettings, draw_affine
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.kernels.patch import Cut, cut_patch, renumber_groups
from abdoseg.sampling import (
    Candidates,
    CaseEntry,
    Centre,
    Purpose,
    Sampler,
    choose_anywhere,
    choose_background,
    choose_foreground,
    count_candidates,
    stream,
)

T = TypeVar("T")

ShownCase = tuple[CaseFacts, Annotation]
"""A case's facts, and its annotation as the view shows it."""

DEFAULT_CACHE_BYTES = 2 * 2**30
"""Memory for cases that may be asked for again, per process."""


class CaseReader(Protocol):
    """Where voxels come from; :class:`abdoseg.store.Workspace` is one."""

    def read_case(self, key: str) -> Case:
        """Return image, label and facts of the case ``source/case``."""
        ...

    def read_foreground(self, key: str) -> Foreground:
        """Return the labelled voxels of the case ``source/case``."""
        ...


@dataclass(frozen=True)
class PatchSettings:
    """What patches are like.

    Parameters
    ----------
    shape
        Voxels along X, Y and Z.
    affine
        How far a patch may be turned and scaled.
    sampler
        Key of :data:`abdoseg.sampling.SAMPLERS`.
    seed
        The run's seed.
    mix
        Share of each kind of annotation, as pairs of ``"partial"`` or ``"sparse"`` and a number; empty: no mixing.
    """

    shape: tuple[int, int, int] = (112, 112, 112)
    affine: AffineSettings = field(default_factory=AffineSettings)
    sampler: str = "cmd"
    seed: int = 0
    mix: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            msg = f"patch shape: found {self.shape}, expected three numbers of voxels, each at least 1"
            raise ConfigError(msg)


@dataclass(frozen=True, eq=False)
class Patch:
    """One example.

    Parameters
    ----------
    image
        float32 ``(1, x, y, z)``, windowed to [0, 1]; 0 outside the scan.
    label
        uint8 ``(x, y, z)``; structure id, 0 wherever the annotation does not vouch for it.
    group
        int16 ``(x, y, z)``; row of ``annotated``, -1 outside the scan.
    annotated
        bool ``(G, N)``; rows of the groups that occur in the patch. At most one of them is empty.
    case
        ``source/case``.
    structure
        What was drawn: structure id, 0 background, ``None`` where the sampler draws no structure.
    centre
        The scan's voxel at index ``n // 2`` of the patch.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    group: NDArray[np.int16]
    annotated: NDArray[np.bool_]
    case: str
    structure: int | None
    centre: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Batch:
    """Several examples, stacked.

    Parameters
    ----------
    image
        float32 ``(B, 1, x, y, z)``.
    label
        uint8 ``(B, x, y, z)``.
    group
        int16 ``(B, x, y, z)``.
    annotated
        bool ``(B, G, N)``; an example with fewer groups has empty rows at the end, which no voxel refers to.
    cases
        ``source/case`` of each example.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    group: NDArray[np.int16]
    annotated: NDArray[np.bool_]
    cases: tuple[str, ...]


class PatchStream:
    """All examples of a run, by number.

    Parameters
    ----------
    cases
        The run's frozen list of cases, each with its annotation as the view shows it.
    reader
        Where voxels come from.
    settings
        What patches are like.
    cache_bytes
        Memory for cases that may be asked for again; each process has its own.
    candidates
        What :func:`find_candidates` returned for the same cases, to spare the search; ``None``: search now.

    Raises
    ------
    ConfigError
        If there is no case.
    WorkspaceError
        If a slice list does not fit its case.
    """

    def __init__(
        self,
        cases: Sequence[ShownCase],
        reader: CaseReader,
        settings: PatchSettings | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        candidates: Candidates | None = None,
    ) -> None:
        for facts, annotation in cases:
            _check_fits(facts, annotation)
        self.settings = settings or PatchSettings()
        self.cases = tuple(cases)
        self.reader = reader
        self.cache = ByteCache(cache_bytes)
        self.candidates = candidates or find_candidates(cases, reader)
        self.sampler = Sampler(self.candidates, self.settings.sampler, self.settings.seed, dict(self.settings.mix))

    def example(self, t: int) -> Patch:
        """Return example ``t``: a pure function of (seed, t)."""
        draw = self.sampler.draw(t)
        facts, annotation = self.cases[draw.case_index]
        case = self.cache.get(("case", facts.key), lambda: self.reader.read_case(facts.key), case_bytes)
        centre = self._centre(t, draw.structure, case, annotation)
        affine = draw_affine(stream(self.settings.seed, t, Purpose.SPACE), self.settings.affine)
        rows = np.concatenate([annotation.rows, np.zeros((1, annotation.n_structures), dtype=bool)])
        axis, groups = annotation.slice_groups(centre.axis, case.label.shape)
        # Groups in which nothing is known are all alike: no term has them. They share the last row.
        groups = np.where(rows[groups].any(axis=1), groups, len(rows) - 1).astype(np.int32)
        cut = cut_patch(
            case.image,
            case.label,
            (axis, groups),
            _known_labels(rows),
            Cut(np.array(centre.voxel, dtype=np.float64), affine.matrix(), self.settings.shape),
            (facts.scale, facts.offset),
        )
        used = renumber_groups(cut.group, len(rows))
        return Patch(cut.image[None], cut.label, cut.group, rows[used], facts.key, draw.structure, centre.voxel)

    def _centre(self, t: int, structure: int | None, case: Case, annotation: Annotation) -> Centre:
        """Choose the centre voxel of example ``t``."""
        generator = stream(self.settings.seed, t, Purpose.VOXEL)
        if structure is None:
            return choose_anywhere(generator, annotation, case.label.shape)
        if structure == 0:
            return choose_background(generator, case.label, annotation)
        key = case.facts.key
        foreground = self.cache.get(("foreground", key), lambda: self.reader.read_foreground(key), foreground_bytes)
        try:
            return choose_foreground(generator, structure, foreground, annotation, case.label.shape)
        except LookupError as error:
            msg = f"{key}: found {error}, though it had some when the run was set up; ingest it again with --replace"
            raise WorkspaceError(msg) from error


def find_candidates(cases: Sequence[ShownCase], reader: CaseReader, names: Sequence[str] | None = None) -> Candidates:
    """Return what can be drawn from ``cases``.

    Parameters
    ----------
    cases
        Facts, and the annotation as the view shows it.
    reader
        Where the labelled voxels come from.
    names
        The structures in id order. With them, a case without slice lists is counted by its facts, unread.
    """
    return Candidates.of(_entry(facts, annotation, reader, names) for facts, annotation in cases)


def _entry(facts: CaseFacts, annotation: Annotation, reader: CaseReader, names: Sequence[str] | None) -> CaseEntry:
    """Count the candidates of one case."""
    if annotation.slices or names is None:
        counts = count_candidates(reader.read_foreground(facts.key), annotation, facts.shape)
    else:
        counts = np.array([facts.voxels.get(name, 0) for name in names]) * annotation.rows[0]
    kind = "sparse" if annotation.slices else "partial"
    return CaseEntry(facts.key, facts.source, facts.modality, counts, kind)


def _check_fits(facts: CaseFacts, annotation: Annotation) -> None:
    """Refuse a slice list that is not as long as its axis."""
    for axis, groups in annotation.slices.items():
        if len(groups) != facts.shape[axis]:
            msg = (
                f"{facts.key}: found {len(groups)} annotated or hidden slices along axis {axis}, expected "
                f"{facts.shape[axis]}; the case changed since: run sparsify again"
            )
            raise WorkspaceError(msg)


def _known_labels(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return bool ``(G, 256)``: whether a label value is an annotated structure of the group."""
    known = np.zeros((len(rows), 256), dtype=bool)
    known[:, 1 : rows.shape[1] + 1] = rows
    return known


def collate(patches: Sequence[Patch]) -> Batch:
    """Stack examples of one shape."""
    n_groups = max(len(patch.annotated) for patch in patches)
    return Batch(
        np.stack([patch.image for patch in patches]),
        np.stack([patch.label for patch in patches]),
        np.stack([patch.group for patch in patches]),
        np.stack([np.pad(patch.annotated, ((0, n_groups - len(patch.annotated)), (0, 0))) for patch in patches]),
        tuple(patch.case for patch in patches),
    )


def case_bytes(case: Case) -> int:
    """Return the memory of a case's voxels."""
    return case.image.nbytes + case.label.nbytes


def foreground_bytes(foreground: Foreground) -> int:
    """Return the memory of a list of labelled voxels."""
    return foreground.index.nbytes + foreground.start.nbytes


class ByteCache:
    """Keeps what was used last, within a number of bytes. Threads may share it; a pickled copy is empty.

    Parameters
    ----------
    budget
        Bytes never exceeded. What is larger than all of it is not kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._entries: OrderedDict[tuple[str, str], tuple[int, Any]] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, int]:
        return {"budget": self.budget}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["budget"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[str, str], load: Callable[[], T], size_of: Callable[[T], int]) -> T:
        """Return what is kept under ``key``, else load it and keep it if it fits."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                value: T = self._entries[key][1]
                return value
        value = load()
        size = size_of(value)
        with self._lock:
            if size <= self.budget and key not in self._entries:
                self._make_room(size)
                self._entries[key] = (size, value)
                self.used += size
        return value

    def _make_room(self, size: int) -> None:
        """Drop what was used longest ago until ``size`` bytes fit."""
        while self.used + size > self.budget:
            _, (dropped, _) = self._entries.popitem(last=False)
            self.used -= dropped
