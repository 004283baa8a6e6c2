"""One mask file a structure, as TotalSegmentator has it: which tissues go to which file, subjects, ``meta.csv``."""

import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from abdoseg.phantom.arrays import UInt8Array
from abdoseg.phantom.layouts import Made, hounsfield, nifti, save_nifti
from abdoseg.phantom.scanner import Scan
from abdoseg.phantom.tissues import TISSUES, Tissue

Tables = Mapping[str, UInt8Array]


def both_sides(names: Iterable[str]) -> tuple[str, ...]:
    """Return the left and the right file of each name."""
    return tuple(f"{name}_{side}" for name in names for side in ("left", "right"))


def rib_names() -> tuple[str, ...]:
    """Return the files of all ribs, drawn or not."""
    return tuple(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13))


def tables_of(file_of: Callable[[Tissue], str], others: Iterable[str]) -> dict[str, UInt8Array]:
    """Return a look-up table ``(256,)`` from tissue to 0 or 1 for each file.

    Parameters
    ----------
    file_of
        File of a tissue, or empty.
    others
        Files of what the phantoms never draw; their masks stay empty.
    """
    result: dict[str, UInt8Array] = {}
    for index, tissue in enumerate(TISSUES):
        name = file_of(tissue)
        if name:
            result.setdefault(name, np.zeros(256, dtype=np.uint8))[index] = 1
    for name in others:
        result.setdefault(name, np.zeros(256, dtype=np.uint8))
    return dict(sorted(result.items()))


def write_subject(subject: Path, scan: Scan, tables: Tables) -> Path:
    """Write ``ct.nii.gz`` and ``segmentations/`` of one subject; return the image's path."""
    save_nifti(subject / "ct.nii.gz", hounsfield(scan), scan.affine)
    (subject / "segmentations").mkdir()
    present = np.bincount(scan.tissue.ravel(), minlength=256) > 0
    header, voxels = _header(scan), scan.tissue.tobytes(order="F")
    empty = _packed(header + bytes(len(voxels)))
    for name, table in tables.items():
        # Most masks are empty; packing the same zeros once, and mapping bytes, saves seconds a case.
        filled = (present & (table > 0)).any()
        content = _packed(header + voxels.translate(table.tobytes())) if filled else empty
        (subject / "segmentations" / f"{name}.nii.gz").write_bytes(content)
    return subject / "ct.nii.gz"


def write_meta(path: Path, made: Sequence[Made], *, no_gender: str = "") -> None:
    """Write ``meta.csv``; the gender of the case called ``no_gender`` is left out."""
    rows = ["image_id;age;gender;institute;study_type;split"]
    for plan, sex in made:
        age = 35 + (plan.index * 17) % 50
        gender = "" if plan.case_id == no_gender else sex
        rows.append(f"{plan.case_id};{age};{gender};{'ABCDEFGH'[plan.index % 8]};ct abdomen-pelvis;{plan.split}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _header(scan: Scan) -> bytes:
    """Return what stands before the voxels in an uncompressed NIfTI mask."""
    return bytes(nifti(scan.tissue, scan.affine).to_bytes()[: -scan.tissue.size])


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)
