"""What all source layouts share: plans of cases, native label values, NIfTI files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from abdoseg.phantom.arrays import Float64Array, UInt8Array
from abdoseg.phantom.body import Sex
from abdoseg.phantom.scanner import Protocol, Scan
from abdoseg.phantom.tissues import TISSUES, tissue_id


@dataclass(frozen=True)
class Plan:
    """One case to make.

    Parameters
    ----------
    case_id
        The id ingest will use.
    index
        Number that the case's randomness hangs on; it is the number in the id, so it does not change with how
        many cases are made.
    protocol
        How it is scanned.
    split
        Part of the source it lies in: ``train``, ``val`` or ``test``.
    labelled
        Whether the source gives away its label.
    image
        Whether the source gives away its image; not where it was withdrawn.
    person_of
        Another source whose person and scan this is; empty for the source's own.
    """

    case_id: str
    index: int
    protocol: Protocol
    split: str
    labelled: bool = True
    image: bool = True
    person_of: str = ""


Made = tuple[Plan, Sex]
Damage = Callable[[Path], None]
Change = tuple[str, Damage]
Expected = Literal["taken", "repaired", "quarantined", "passed over"]


@dataclass(frozen=True)
class Fault:
    """A known fault of a source, planted in a case of its own.

    Parameters
    ----------
    case
        The id that ingest would give the case.
    fault
        What is wrong, in a few words.
    expected
        What ingest should do: ``taken`` (stored, perhaps with a warning), ``repaired`` (stored after something was
        mended), ``quarantined`` (not stored, with a reason) or ``passed over`` (not stored, and that is no fault).
    why
        What is known of it in the real source.
    changes
        The files that carry the fault, below the source's folder, and what is done to each when all are written.
    plan
        The case to write first; ``None`` when the changes make all there is.
    """

    case: str
    fault: str
    expected: Expected
    why: str
    changes: tuple[Change, ...]
    plan: Plan | None = None


@dataclass(frozen=True)
class Layout:
    """How one source lies on disk.

    Parameters
    ----------
    plan
        From the number of labelled cases to the plans of all cases.
    write
        Write one case below the source's folder, return the image's path.
    finish
        Write the side files below the source's folder.
    faults
        What can be planted in it.
    card
        Card that ingests it, where that has another name than the layout.
    """

    plan: Callable[[int], list[Plan]]
    write: Callable[[Path, Plan, Scan], Path]
    finish: Callable[[Path, Sequence[Made]], None]
    faults: tuple[Fault, ...] = ()
    card: str = ""


def no_side_files(folder: Path, made: Sequence[Made]) -> None:
    """Finish a source that has no side files."""


def native_label(scan: Scan, structures: Mapping[str, int], tissues: Mapping[str, int] | None = None) -> UInt8Array:
    """Return a source's own label volume.

    Parameters
    ----------
    scan
        The scan.
    structures
        Native value of each structure the source annotates.
    tissues
        Native value of tissues that are no structure (colon and the like).
    """
    table = np.zeros(256, dtype=np.uint8)
    for index, tissue in enumerate(TISSUES):
        table[index] = structures.get(tissue.structure, 0)
    for name, value in (tissues or {}).items():
        table[tissue_id(name)] = value
    return table[scan.tissue]


def nifti(voxels: np.ndarray, affine: Float64Array, *, sform_code: int = 1) -> nib.Nifti1Image:
    """Return a NIfTI image with its qform, and its sform unless ``sform_code`` is 0, set to ``affine``."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine if sform_code else None, code=sform_code)
    image.header.set_xyzt_units("mm")
    return image


def save_nifti(path: Path, voxels: np.ndarray, affine: Float64Array, *, sform_code: int = 1) -> None:
    """Write a NIfTI file (see :func:`nifti`), and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nifti(voxels, affine, sform_code=sform_code), path)


def hounsfield(scan: Scan) -> np.ndarray:
    """Return a CT image as the int16 that sources store."""
    return np.rint(scan.image).astype(np.int16)


def write_json(path: Path, content: object) -> None:
    """Write a side file."""
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def shares(count: int, val: float, test: float) -> list[str]:
    """Return the split of each of ``count`` cases, in order.

    However few there are, one is for testing (from two on) and one for validation (from five on).
    """
    tests = max(1, round(count * test)) if count >= 2 else 0
    vals = max(1, round(count * val)) if count >= 5 else 0
    return ["train"] * (count - vals - tests) + ["val"] * vals + ["test"] * tests
