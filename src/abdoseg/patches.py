"""Training patches: store, sampling and augmentation put together. Pure numpy; nothing here loads torch.

Example ``t`` of a run is a pure function of (seed, t): any worker, rank or resumed run gets the same patch for the
same number, whatever was asked before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from abdoseg.annotation import Annotation
from abdoseg.augmentation.affine import AffineSettings, draw_affine
from abdoseg.augmentation.flip import FlipSettings, draw_flip, mirrored_id, mirrored_labels, mirrored_rows
from abdoseg.augmentation.intensity import IntensityParameters, IntensitySettings, draw_intensity
from abdoseg.case import CaseFacts, Foreground
from abdoseg.errors import ConfigError, WorkspaceError
from abdoseg.kernels.patch import Cut, CutPatch, Frame, Reach, cut_patch, reach_of, renumber_groups, touched_chunks
from abdoseg.kernels.scratch import Scratch
from abdoseg.sampling import (
    Candidates,
    CaseEntry,
    Centre,
    Purpose,
    Sampler,
    Weights,
    choose_anywhere,
    choose_background,
    choose_foreground,
    held_by_voxels,
    kind_of,
    stream,
)
from abdoseg.store.arrays import OpenCase
from abdoseg.store.cache import CaseCache
from abdoseg.store.chunks import PartlyRead

ShownCase = tuple[CaseFacts, Annotation]
"""A case's facts, and its annotation as the view shows it."""

Padding = Literal["outside", "background"]
"""What voxels beyond the scan are: no part of any group, or background of the nearest slice's group."""

DEFAULT_CACHE_BYTES = 0
"""Memory for cases that may be asked for again, per process: at most a sixth of the cutting time is to be gained."""

_IMAGE_BOX, _LABEL_BOX = Scratch(), Scratch()
"""The box of voxels that a thread's patch is cut from."""


class CaseReader(Protocol):
    """Where voxels come from; :class:`abdoseg.store.Workspace` is one."""

    def open_case(self, key: str) -> OpenCase:
        """Return the case ``source/case``, of which parts can be read."""
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
    weights
        By level, as :class:`abdoseg.sampling.Sampler` takes them; empty: uniform draws.
    padding
        What voxels beyond the scan are; ``"background"`` is the authors' way. The image is 0 there either way.
    flip
        How often a patch is mirrored.
    intensity
        How often and how far intensities change; drawn here, applied by :mod:`abdoseg.augmentation.apply`.

    Raises
    ------
    ConfigError
        If the shape is not three positive numbers, or ``padding`` is neither of its words.
    """

    shape: tuple[int, int, int] = (112, 112, 112)
    affine: AffineSettings = field(default_factory=AffineSettings)
    sampler: str = "cmd"
    seed: int = 0
    weights: Weights = field(default_factory=dict)
    padding: Padding = "outside"
    flip: FlipSettings = field(default_factory=FlipSettings)
    intensity: IntensitySettings = field(default_factory=IntensitySettings)

    def __post_init__(self) -> None:
        if self.padding not in ("outside", "background"):
            raise ConfigError(f"padding: found {self.padding!r}, expected 'outside' or 'background'")
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
    intensity
        The changes of intensity drawn for it, which are not applied yet; ``None`` where none are set.
    shown
        The structure by its name in the patch: if mirrored, that of the other side.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    group: NDArray[np.int16]
    annotated: NDArray[np.bool_]
    case: str
    structure: int | None
    centre: tuple[int, int, int]
    intensity: IntensityParameters | None = None
    shown: int | None = None


@dataclass(frozen=True, eq=False)
class Recipe:
    """How one example is cut.

    Parameters
    ----------
    facts, case
        The case, and its voxels.
    structure, centre, intensity
        See :class:`Patch`.
    slices
        ``(axis, groups (n,))``: row of ``rows`` of every slice along ``axis``.
    rows
        bool ``(G, N)``; the last is empty, for unknown voxels and slices of which nothing is known.
    cut
        Where the patch lies, turned, scaled and flipped.
    mirrored
        Whether right is left, so that structures change their names.
    """

    facts: CaseFacts
    case: OpenCase
    structure: int | None
    centre: tuple[int, int, int]
    slices: tuple[int, NDArray[np.int32]]
    rows: NDArray[np.bool_]
    cut: Cut
    mirrored: bool
    intensity: IntensityParameters | None

    @property
    def known(self) -> NDArray[np.bool_]:
        """Bool ``(G, 256)``: whether a label value is an annotated structure of the group."""
        return _known_labels(self.rows)

    @property
    def window(self) -> tuple[float, float]:
        """Scale and offset of the intensities."""
        return self.facts.scale, self.facts.offset


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
    intensity
        The changes of intensity drawn for each example, which are not applied yet; empty where none are set.
    structures
        :attr:`Patch.shown` of each example.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    group: NDArray[np.int16]
    annotated: NDArray[np.bool_]
    cases: tuple[str, ...]
    intensity: tuple[IntensityParameters, ...] = ()
    structures: tuple[int | None, ...] = ()


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
        Memory for cases that may be asked for again; each process has its own, its threads share it. 0: none.
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
        self.cache = CaseCache(cache_bytes)
        self.candidates = candidates or find_candidates(cases, reader)
        self.sampler = Sampler(self.candidates, self.settings.sampler, self.settings.seed, self.settings.weights)

    def case_of(self, t: int) -> str:
        """Return the case, ``source/case``, that example ``t`` is cut from."""
        return self.cases[self.sampler.draw(t).case_index][0].key

    def example(self, t: int) -> Patch:
        """Return example ``t``: a pure function of (seed, t).

        Raises
        ------
        WorkspaceError
            If the case is gone, damaged, or another one took its place.
        """
        return self.patch(self.recipe(t))

    def recipe(self, t: int) -> Recipe:
        """Return how example ``t`` is cut; of the case, no more is read than the choice of its centre needs."""
        settings = self.settings
        draw = self.sampler.draw(t)
        facts, annotation = self.cases[draw.case_index]
        case = self.cache.case(facts.key, lambda: self._open(facts))
        centre = self._centre(t, draw.structure, facts, case, annotation)
        generator = stream(settings.seed, t, Purpose.SPACE)
        affine, flip = draw_affine(generator, settings.affine), draw_flip(generator, settings.flip)
        rows = np.concatenate([annotation.rows, np.zeros((1, annotation.n_structures), dtype=bool)])
        axis, groups = annotation.slice_groups(centre.axis, facts.shape)
        # Groups in which nothing is known are all alike: no term has them. They share the last row.
        groups = np.where(rows[groups].any(axis=1), groups, len(rows) - 1).astype(np.int32)
        cut = Cut(np.array(centre.voxel, dtype=np.float64), affine.matrix() @ flip.matrix(), settings.shape)
        intensity = None
        if settings.intensity.enabled:
            intensity = draw_intensity(stream(settings.seed, t, Purpose.INTENSITY), settings.intensity)
        return Recipe(facts, case, draw.structure, centre.voxel, (axis, groups), rows, cut, flip.axes[0], intensity)

    def patch(self, recipe: Recipe) -> Patch:
        """Return the patch of a recipe, cut out of the case in memory or out of the box that it needs."""
        image, label, frame = _voxels(recipe)
        cut = cut_patch(
            *(image, label, recipe.slices, recipe.known, recipe.cut, recipe.window, frame),
            padding_is_background=self.settings.padding == "background",
        )
        return _finished(recipe, cut, self.settings.flip.partners)

    def _open(self, facts: CaseFacts) -> OpenCase:
        """Open a case, and see that it is the one that the run was set up with."""
        case = self.reader.open_case(facts.key)
        if case.digest != facts.digest or case.image.shape != facts.shape:
            msg = f"{facts.key}: was taken in again with other voxels or annotation since the run was set up"
            raise WorkspaceError(f"{msg}; start a new run, or ingest the earlier files again")
        return case

    def _centre(
        self, t: int, structure: int | None, facts: CaseFacts, case: OpenCase, annotation: Annotation
    ) -> Centre:
        """Choose the centre voxel of example ``t``."""
        generator = stream(self.settings.seed, t, Purpose.VOXEL)
        if structure is None:
            return choose_anywhere(generator, annotation, facts.shape)
        if structure == 0:
            return choose_background(generator, case.label, annotation)
        try:
            return choose_foreground(generator, structure, case.foreground, annotation, facts.shape)
        except LookupError as error:
            msg = f"{facts.key}: found {error}, though it had some when the run was set up"
            raise WorkspaceError(f"{msg}; ingest it again with --replace") from error


def _voxels(recipe: Recipe) -> tuple[NDArray[np.int16], NDArray[np.uint8], Frame | None]:
    """Return image and label, whole or the box that the patch needs and where it lies."""
    image, label = recipe.case.image, recipe.case.label
    if isinstance(image, np.ndarray) and isinstance(label, np.ndarray):
        return image, label, None
    reach = reach_of(recipe.cut, image.shape)
    boxes = [_read(array, reach, recipe.cut, scratch) for array, scratch in ((image, _IMAGE_BOX), (label, _LABEL_BOX))]
    return boxes[0], boxes[1], Frame(reach.start, recipe.facts.shape)


def _read(array: PartlyRead | NDArray[Any], reach: Reach, cut: Cut, scratch: Scratch) -> NDArray[Any]:
    """Return the box that a patch needs; parts that it does not look at hold anything."""
    start, stop = reach
    if isinstance(array, np.ndarray):
        return array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    box = scratch.array(reach.shape, array.dtype)
    array.read(start, box, touched_chunks(cut, reach, array.chunks))
    return box


def _finished(recipe: Recipe, cut: CutPatch, partners: Sequence[int]) -> Patch:
    """Return what was cut by a recipe, its groups numbered anew and, if mirrored, its structures named anew."""
    used = renumber_groups(cut.group, len(recipe.rows))
    label, rows, shown = cut.label, recipe.rows[used], recipe.structure
    if recipe.mirrored:
        label, rows = mirrored_labels(label, partners), mirrored_rows(rows, partners)
        shown = mirrored_id(shown, partners)
    arrays = (cut.image[None], label, cut.group, rows)
    return Patch(*arrays, recipe.facts.key, recipe.structure, recipe.centre, recipe.intensity, shown)


def find_candidates(cases: Sequence[ShownCase], reader: CaseReader) -> Candidates:
    """Return what can be drawn from ``cases``, found among their labelled voxels.

    A workspace has an index that tells the same without a look at any voxel.
    """
    entries = []
    for facts, annotation in cases:
        held = held_by_voxels(reader.read_foreground(facts.key), annotation, facts.shape)
        entries.append(CaseEntry(facts.key, facts.source, facts.modality, held, kind_of(annotation)))
    return Candidates.of(entries)


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
        tuple(patch.intensity for patch in patches if patch.intensity is not None),
        tuple(patch.shown for patch in patches),
    )
