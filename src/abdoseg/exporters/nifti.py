"""Label maps as NIfTI-1, with a side file that says what the numbers mean."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from abdoseg.anatomy import Anatomy
from abdoseg.files import whole_files
from abdoseg.types import Affine, Label

SUFFIXES = (".nii.gz", ".nii")

_CODE = 1
"""NIfTI's "scanner anatomical": the coordinates are those of the scan."""


def write_label_map(
    label: Label,
    affine: Affine,
    path: Path,
    anatomy: Anatomy,
    structures: tuple[str, ...] | None = None,
    reference: Path | None = None,
) -> tuple[Path, ...]:
    """Write a label map and its ``<stem>.labels.json``, whole or not at all.

    Parameters
    ----------
    label
        uint8 ``(X, Y, Z)`` on the axes of the scan's own file; structure id, 0 background.
    affine
        ``(4, 4)`` of the same axes, voxel index to mm, RAS+.
    path
        File to write, ending in ``.nii.gz`` or ``.nii``; folders are created, an older file is replaced.
    anatomy
        What the ids mean.
    structures
        Names that the side file lists; all when None. Ids stay those of ``anatomy``.
    reference
        The scan's own file. If it is NIfTI of this very grid, its qform and sform are taken digit by digit, so
        that every viewer sees label and scan in the same place.

    Returns
    -------
    tuple
        The label map and the side file.

    Raises
    ------
    WorkspaceError
        If a file cannot be written.
    UnknownNameError
        If a name in ``structures`` is not in ``anatomy``.
    ValueError
        If ``label`` is not a uint8 volume.
    """
    if label.dtype != np.uint8 or label.ndim != 3:
        raise ValueError(f"label: found {label.dtype} {label.shape}, expected uint8 (X, Y, Z)")
    legend = json.dumps(_legend(path.name, anatomy, structures), indent=1, ensure_ascii=False)
    image = _image(label, affine, reference)
    paths = (path, legend_path(path))
    with whole_files(*paths) as (draft, legend_draft):
        legend_draft.write_text(legend + "\n", encoding="utf-8")
        nib.save(image, draft)
    return paths


def legend_path(path: Path) -> Path:
    """Return where the side file of a label map lies: ``organs.nii.gz`` has ``organs.labels.json``."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.with_name(path.name[: len(path.name) - len(suffix)] + ".labels.json")


def _legend(file: str, anatomy: Anatomy, structures: tuple[str, ...] | None) -> dict[str, Any]:
    ids = range(1, len(anatomy) + 1) if structures is None else sorted(anatomy.ids_of(structures))
    rows = [
        {"id": i, "name": s.name, "title": s.title, "colour": s.colour}
        for i, s in ((i, anatomy.structure(i)) for i in ids)
    ]
    return {"file": file, "background": 0, "structures": rows}


def _image(label: Label, affine: Affine, reference: Path | None) -> Any:
    image = nib.Nifti1Image(label, affine)
    image.header.set_xyzt_units("mm")
    qform, sform = _forms(affine, label.shape, reference)
    image.set_qform(qform, code=_CODE)
    image.set_sform(sform, code=_CODE)
    return image


def _forms(affine: Affine, shape: tuple[int, ...], reference: Path | None) -> tuple[Affine, Affine]:
    if reference is None or not reference.name.lower().endswith(SUFFIXES):
        return affine, affine
    scan: Any = nib.load(reference)
    if scan.shape[:3] != shape or not np.allclose(scan.affine, affine, rtol=0, atol=_tolerance_mm(affine)):
        return affine, affine
    if not isinstance(scan, nib.Nifti1Pair):
        return scan.affine, scan.affine
    qform, sform = scan.get_qform(coded=True)[0], scan.get_sform(coded=True)[0]
    return (scan.affine if qform is None else qform), (scan.affine if sform is None else sform)


def _tolerance_mm(affine: Affine) -> float:
    # As much as a repair of the directions may move a column; a shift of the origin by this is invisible.
    return 0.01 * float(np.abs(affine[:3, :3]).max())
