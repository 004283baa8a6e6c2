"""What the formats share: what they are given, and what they give back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from abdoseg.anatomy import Anatomy
from abdoseg.annotation import Annotation
from abdoseg.case import Case
from abdoseg.types import Affine, Modality, SplitName

if TYPE_CHECKING:
    from abdoseg.model import SegmentationModel

Record = dict[str, Any]
"""What is noted of a case that was written; ready for JSON."""


@dataclass(frozen=True)
class SharedCase:
    """One case, as it is to be written.

    Parameters
    ----------
    id
        Its name in the export, fit for a file.
    case
        Its voxels.
    annotation
        What is known of it: by its source, less what a view hides.
    side
        Its side of the split.
    """

    id: str
    case: Case
    annotation: Annotation
    side: SplitName


@dataclass(frozen=True)
class CasePlan:
    """What holds for all cases of an export.

    Parameters
    ----------
    anatomy
        Structures of the workspace, in the order of their ids.
    listed
        Ids of those that some case annotates.
    modalities
        Of the cases.
    name, number
        Of the dataset, where a format has these.
    folds
        ``(training ids, validation ids)`` of each fold; none where nothing is to validate on.
    """

    anatomy: Anatomy
    listed: tuple[int, ...]
    modalities: tuple[Modality, ...]
    name: str = "abdoseg"
    number: int = 501
    folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


def _nothing(plan: CasePlan) -> None:
    """Take any plan."""


def _same_folder(out: Path, plan: CasePlan) -> Path:  # noqa: ARG001
    return out


@dataclass(frozen=True)
class CaseFormat:
    """How cases are written.

    Parameters
    ----------
    title
        Its name for people.
    write
        ``(case, plan, folder) -> (files below the folder, facts)``: writes one case, each file whole or not at all.
    finish
        ``(plan, records, folder) -> what to tell``: writes what describes the whole; ``records`` is id -> facts.
    check
        Raises ConfigError where the format cannot hold what is planned.
    folder
        ``(out, plan) -> folder`` that the files go into.
    labelled_only
        Whether cases without any annotation are left out.
    """

    title: str
    write: Callable[[SharedCase, CasePlan, Path], tuple[tuple[Path, ...], Record]]
    finish: Callable[[CasePlan, Mapping[str, Record], Path], Sequence[str]]
    check: Callable[[CasePlan], None] = _nothing
    folder: Callable[[Path, CasePlan], Path] = _same_folder
    labelled_only: bool = False


@dataclass(frozen=True)
class SharedRun:
    """A trained run, as it is to be written.

    Parameters
    ----------
    model
        Network with all that is needed to use it, on the CPU.
    card
        Facts of its model card.
    page
        The model card as Markdown.
    """

    model: "SegmentationModel"
    card: dict[str, Any]
    page: str


@dataclass(frozen=True)
class RunReport:
    """What came of an export of a run.

    Parameters
    ----------
    files
        What was written.
    difference
        Largest difference between what was written and the run's own network, part of its largest score, on random
        images.
    notes
        What to tell.
    """

    files: tuple[Path, ...]
    difference: float
    notes: tuple[str, ...] = field(default=())


class RunWriter(Protocol):
    """What writes a run to ``out``, whole or not at all."""

    def __call__(self, run: SharedRun, out: Path) -> RunReport: ...  # noqa: D102


def _needs_nothing() -> None:
    """Need no other package."""


@dataclass(frozen=True)
class RunFormat:
    """How runs are written.

    Parameters
    ----------
    title
        Its name for people.
    write
        Writes one.
    files
        ``out -> the files or folders that it would replace``.
    require
        Raises ConfigError if a package is missing.
    """

    title: str
    write: RunWriter
    files: Callable[[Path], tuple[Path, ...]]
    require: Callable[[], None] = _needs_nothing


def native_intensity(case: Case) -> NDArray[Any]:
    """Return the image in the scan's own intensities: int16 HU for CT, float32 for MR; what the window cut is gone."""
    low, high = case.facts.window
    values = low + case.intensity() * np.float32(high - low)
    return np.rint(values).astype(np.int16) if case.facts.modality == "CT" else values.astype(np.float32)


def nifti(array: NDArray[Any], affine: Affine) -> nib.Nifti1Image:
    """Return a NIfTI-1 image in millimetres of the scanner's space."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image
