"""Cases as NIfTI: ``images/``, ``labels/``, ``groups/`` on the store's grid, and ``labels.json``."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from abdoseg.exporters.parts import legend_text
from abdoseg.files import whole_files, write_text
from abdoseg.sharing.groups import known_label, voxel_groups
from abdoseg.sharing.parts import CaseFormat, CasePlan, Record, SharedCase, native_intensity, nifti
from abdoseg.sharing.summary import summary_text


def write(shared: SharedCase, plan: CasePlan, into: Path) -> tuple[tuple[Path, ...], Record]:
    """Write image and label of a case, and its groups where there are several."""
    group, rows = voxel_groups(shared.annotation, shared.case.label)
    names = plan.anatomy.names
    arrays = {"images": native_intensity(shared.case), "labels": known_label(shared.case.label, group, rows)}
    if len(rows) > 1:
        arrays["groups"] = group.astype(np.int16)
    affine = shared.case.facts.affine_array
    paths = tuple(into / kind / f"{shared.id}.nii.gz" for kind in arrays)
    with whole_files(*paths) as drafts:
        for draft, array in zip(drafts, arrays.values(), strict=True):
            nib.save(nifti(array, affine), draft)
    return paths, {"annotated": [[names[i] for i in np.flatnonzero(row)] for row in rows]}


def finish(plan: CasePlan, records: Mapping[str, Record], into: Path) -> list[str]:
    """Write ``labels.json`` and ``abdoseg.json``."""
    ids = tuple(range(1, len(plan.anatomy) + 1))
    write_text(into / "labels.json", legend_text("labels/*.nii.gz", plan.anatomy, ids, None))
    write_text(into / "abdoseg.json", summary_text(plan, records))
    several = sum(len(record["annotated"]) > 1 for record in records.values())
    return [f"{several} cases have a map of their annotation in groups/"] if several else []


FORMAT = CaseFormat("NIfTI folder", write, finish)
