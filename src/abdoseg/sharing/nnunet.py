"""Cases as an nnU-Net v2 raw dataset: ``imagesTr``, ``labelsTr``, ``imagesTs``, ``labelsTs``, ``dataset.json``.

nnU-Net knows one label a voxel and one label for "ignore". A voxel that is "background or one of the structures that
nobody looked for" is neither: it is ignored, and that it is none of the annotated structures is lost.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import ConfigError
from abdoseg.files import whole_files, write_text
from abdoseg.sharing.groups import voxel_groups
from abdoseg.sharing.parts import CaseFormat, CasePlan, Record, SharedCase, native_intensity, nifti
from abdoseg.types import UNKNOWN_LABEL, Label

ENDING = ".nii.gz"

SPLITS_FILE = "splits_final.json"


def nnunet_label(
    label: Label, group: NDArray[np.int32], rows: NDArray[np.bool_], listed: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the label map as nnU-Net reads it.

    Parameters
    ----------
    label, group, rows
        uint8 and int32 ``(X, Y, Z)``, and bool ``(G, N)``: what is known in each group.
    listed
        Ids of the n structures of the dataset.

    Returns
    -------
    ndarray
        uint8 ``(X, Y, Z)``: 1..n the listed structures in order, 0 background, n + 1 ignore. A voxel in which no known
        structure is drawn is background only where all listed structures are known, else ignored.
    """
    ignore = len(listed) + 1
    columns = np.asarray(listed, dtype=int) - 1
    complete = rows[:, columns].all(axis=1)
    table = np.repeat(np.where(complete, 0, ignore).astype(np.uint8)[:, None], 256, axis=1)
    for number, structure in enumerate(listed, start=1):
        table[rows[:, structure - 1], structure] = number
    table[:, UNKNOWN_LABEL] = ignore
    found: NDArray[np.uint8] = table[group, label]
    return found


def check(plan: CasePlan) -> None:
    """Raise ConfigError where nnU-Net cannot hold the plan."""
    if len(plan.modalities) > 1:
        raise ConfigError(
            "nnunet: the cases are CT and MR; nnU-Net gives all cases of a dataset one channel and one normalisation: "
            "export them apart, with --modality ct and --modality mr"
        )
    if not plan.listed:
        raise ConfigError("nnunet: no case annotates a structure, there is nothing to learn; choose other cases")
    if not 1 <= plan.number <= 999:
        raise ConfigError(f"--number {plan.number}: expected 1 to 999, the number of an nnU-Net dataset")
    if len(plan.listed) > UNKNOWN_LABEL - 1:
        raise ConfigError(f"nnunet: {len(plan.listed)} structures, at most {UNKNOWN_LABEL - 1} fit a label map")


def folder(out: Path, plan: CasePlan) -> Path:
    """Return the dataset's folder below ``out``, which is nnU-Net's ``nnUNet_raw``."""
    return out / f"Dataset{plan.number:03d}_{plan.name}"


def write(shared: SharedCase, plan: CasePlan, into: Path) -> tuple[tuple[Path, ...], Record]:
    """Write image and label of a case."""
    part = "Ts" if shared.side == "test" else "Tr"
    group, rows = voxel_groups(shared.annotation, shared.case.label)
    label = nnunet_label(shared.case.label, group, rows, plan.listed)
    affine = shared.case.facts.affine_array
    paths = (into / f"images{part}" / f"{shared.id}_0000{ENDING}", into / f"labels{part}" / f"{shared.id}{ENDING}")
    with whole_files(*paths) as (image_draft, label_draft):
        nib.save(nifti(native_intensity(shared.case), affine), image_draft)
        nib.save(nifti(label, affine), label_draft)
    counts = np.bincount(label.reshape(-1), minlength=len(plan.listed) + 2)
    return paths, {"voxels": int(label.size), "ignored": int(counts[-1]), "background": int(counts[0])}


def finish(plan: CasePlan, records: Mapping[str, Record], into: Path) -> list[str]:
    """Write ``dataset.json``, ``splits_final.json`` and ``abdoseg.json``; return what to tell."""
    training = [record for record in records.values() if record["side"] != "test"]
    ignored, voxels = (sum(r[name] for r in records.values()) for name in ("ignored", "voxels"))
    names = [plan.anatomy.structure(i).name for i in plan.listed]
    labels = {"background": 0, **{name: i for i, name in enumerate(names, start=1)}}
    if ignored:
        labels["ignore"] = len(labels)
    dataset = {
        "channel_names": {"0": "CT" if plan.modalities == ("CT",) else "MRI"},
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ENDING,
        "name": plan.name,
        "description": f"Written by abdoseg {version('abdoseg')}; harmonised grid, RAS+.",
        "licence": "of the sources that the cases come from",
    }
    left_out = [name for i, name in enumerate(plan.anatomy.names, start=1) if i not in plan.listed]
    mapping = {
        "structures": [{"label": labels[name], "name": name, "id": plan.anatomy.id_of(name)} for name in names],
        "left_out": left_out,
        "ignored_voxels": ignored,
        "voxels": voxels,
        "cases": dict(records),
    }
    if plan.folds:
        write_text(into / SPLITS_FILE, _json([{"train": list(t), "val": list(v)} for t, v in plan.folds]))
    else:
        (into / SPLITS_FILE).unlink(missing_ok=True)  # of an earlier export
    write_text(into / "abdoseg.json", _json(mapping))
    # The description comes last: without it, nnU-Net takes the folder for no dataset.
    write_text(into / "dataset.json", _json(dataset))
    return _told(plan, left_out, ignored, voxels, sum(r["background"] for r in training))


def _told(plan: CasePlan, left_out: list[str], ignored: int, voxels: int, background: int) -> list[str]:
    notes = []
    if ignored:
        part = 100 * ignored / max(voxels, 1)
        notes.append(
            f"{ignored} of {voxels} voxels ({part:.1f} %) are ignored: nnU-Net cannot say "
            "'background or a structure that nobody looked for'"
        )
    if not background:
        notes.append(
            "no training voxel is background: no case annotates all listed structures, so nnU-Net cannot learn where "
            "none of them is; add a case that annotates them all"
        )
    if left_out:
        notes.append(f"annotated in no case, left out: {', '.join(left_out)}")
    if plan.folds:
        notes.append(f"copy {SPLITS_FILE} to nnUNet_preprocessed/Dataset{plan.number:03d}_{plan.name} for these folds")
    else:
        notes.append("no validation case in the split: nnU-Net will draw its own folds")
    return notes


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


FORMAT = CaseFormat("nnU-Net v2 raw dataset", write, finish, check, folder, labelled_only=True)
