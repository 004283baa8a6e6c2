"""Label maps as NIfTI-1: one map with a side file that says what the numbers mean, or a folder of masks."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from abdoseg.anatomy import Anatomy
from abdoseg.exporters.parts import Algorithm, legend_text, requested_ids, require_label_map, stem_of
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
    *,
    algorithm: Algorithm | None = None,
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
    algorithm
        What made the label map, for the side file.

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
    require_label_map(label)
    legend = legend_text(path.name, anatomy, requested_ids(anatomy, structures), algorithm)
    image = _image(label, affine, reference)
    paths = (path, legend_path(path))
    with whole_files(*paths) as (draft, legend_draft):
        legend_draft.write_text(legend, encoding="utf-8")
        nib.save(image, draft)
    return paths


def legend_path(path: Path) -> Path:
    """Return where the side file of a label map lies: ``organs.nii.gz`` has ``organs.labels.json``."""
    return path.with_name(stem_of(path, SUFFIXES) + ".labels.json")


def write_structures(
    label: Label,
    affine: Affine,
    path: Path,
    anatomy: Anatomy,
    structures: tuple[str, ...] | None = None,
    reference: Path | None = None,
    *,
    algorithm: Algorithm | None = None,
) -> tuple[Path, ...]:
    """Write one mask a structure, ``<path>/<name>.nii.gz`` (1 inside), and ``<path>/labels.json``.

    A structure that was asked for and not found has an empty mask: its absence is a result, a missing file is not.

    Parameters
    ----------
    label, affine, anatomy, structures, reference, algorithm
        As for :func:`write_label_map`; only the masks of ``structures`` are written.
    path
        A folder; created if need be, other files in it stay.

    Returns
    -------
    tuple
        The masks in the order of their ids, then the side file; all of them are written, or none.

    Raises
    ------
    WorkspaceError
        If a file cannot be written.
    UnknownNameError
        If a name in ``structures`` is not in ``anatomy``.
    ValueError
        If ``label`` is not a uint8 volume.
    """
    require_label_map(label)
    ids = requested_ids(anatomy, structures)
    names = [f"{anatomy.structure(i).name}.nii.gz" for i in ids]
    paths = (*(path / name for name in names), path / "labels.json")
    with whole_files(*paths) as (*drafts, legend_draft):
        legend_draft.write_text(legend_text("{name}.nii.gz", anatomy, ids, algorithm), encoding="utf-8")
        for i, draft in zip(ids, drafts, strict=True):
            nib.save(_image((label == i).view(np.uint8), affine, reference), draft)
    return paths


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
