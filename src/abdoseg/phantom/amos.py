"""AMOS22: CT with thick slices (ids up to 410) and MR (ids from 507) in one tree; no portal vein; junk from a Mac."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from abdoseg.anatomy import ABDOMEN
from abdoseg.phantom.layouts import Layout, Made, Plan, hounsfield, native_label, save_nifti, write_json
from abdoseg.phantom.scanner import Protocol, Scan, View

CT = Protocol(
    "CT",
    (1.5, 1.5, 5.0),
    "LPS",
    (
        View(0.6, (155, 195), (-302, -288)),
        View(0.4, (150, 185), (-190, -120)),
    ),
    phases=("none", "arterial", "portal"),
    sigma=(7.0, 16.0),
)
MR = Protocol(
    "MR",
    (1.6, 1.6, 2.0),
    "LPS",
    (
        View(0.75, (148, 170), (-150, -95)),
        View(0.25, (148, 165), (-300, -288)),
    ),
    sigma=(0.025, 0.05),
    coronal=0.35,
    oblique=2.5,
    table=False,
)
STRUCTURES = {name: ABDOMEN.id_of(name) for name in ABDOMEN.names if name != "portal_splenic_vein"}
NAMES = {
    "0": "background",
    "1": "spleen",
    "2": "right kidney",
    "3": "left kidney",
    "4": "gall bladder",
    "5": "esophagus",
    "6": "liver",
    "7": "stomach",
    "8": "arota",  # the typo is AMOS's own
    "9": "postcava",
    "10": "pancreas",
    "11": "right adrenal gland",
    "12": "left adrenal gland",
    "13": "duodenum",
    "14": "bladder",
    "15": "prostate/uterus",
}
_MR_TRAIN = (507, 508, 510, 514, 517, 518, 522, 530, 532, 538, 540, 541, 548, 551, 554, 555, 557, 558, 570, 571)
_MR_TRAIN += (578, 580, *range(582, 598), 599, 600)
_MR_VAL = (544, 545, 546, 547, 549, 550, 552, 553, 556, 559, 561, 562, 563, 568, 572, 573, 575, 576, 581, 598)
_UNLABELLED = 411
_TOP = "amos22"
_SUFFIX = {"train": "Tr", "val": "Va", "test": "Ts"}
_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96)


def _plan(cases: int) -> list[Plan]:
    """Return a third of the cases as MR, a third of either modality for validation, and one case without label."""
    mr = max(1, round(cases / 3)) if cases >= 2 else 0
    ct = cases - mr
    ct_vals, mr_vals = round(ct / 3), round(mr / 3)
    plans = [_case(i, CT, "train" if i <= ct - ct_vals else "val") for i in range(1, ct + 1)]
    plans += [_case(i, MR, "train") for i in _MR_TRAIN[: mr - mr_vals]]
    plans += [_case(i, MR, "val") for i in _MR_VAL[:mr_vals]]
    return [*plans, Plan(f"amos_{_UNLABELLED:04d}", _UNLABELLED, CT, "test", labelled=False)]


def _case(number: int, protocol: Protocol, split: str) -> Plan:
    return Plan(f"amos_{number:04d}", number, protocol, split)


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    suffix, name = _SUFFIX[plan.split], f"{plan.case_id}.nii.gz"
    image = folder / _TOP / f"images{suffix}" / name
    voxels = hounsfield(scan) if scan.modality == "CT" else _magnitude(scan)
    save_nifti(image, voxels, scan.affine)
    if plan.labelled:
        save_nifti(folder / _TOP / f"labels{suffix}" / name, native_label(scan, STRUCTURES), scan.affine)
    return image


def _magnitude(scan: Scan) -> np.ndarray:
    """Return MR voxels as int16 where they fit; some scanners' scales do not."""
    fits = float(scan.image.max()) < np.iinfo(np.int16).max
    return np.rint(scan.image).astype(np.int16) if fits else scan.image


def _finish(folder: Path, made: Sequence[Made]) -> None:
    top = folder / _TOP
    for part in ("imagesTr", "labelsTr", "imagesVa", "labelsVa", "imagesTs"):
        (top / part).mkdir(exist_ok=True)
    lists = {split: [_entry(plan) for plan, _ in made if plan.split == split] for split in _SUFFIX}
    content = {
        "name": "AMOS",
        "description": "Synthetic phantoms in the layout of AMOS22; no patient data",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": NAMES,
        "numTraining": len(lists["train"]),
        "numValidation": len(lists["val"]),
        "numTest": len(lists["test"]),
        "training": lists["train"],
        "validation": lists["val"],
        "test": lists["test"],
    }
    write_json(top / "dataset.json", content)
    junk = folder / "__MACOSX" / "._amos_0001.nii.gz"
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(_APPLE_DOUBLE)


def _entry(plan: Plan) -> dict[str, str]:
    suffix, name = _SUFFIX[plan.split], f"{plan.case_id}.nii.gz"
    entry = {"image": f"./images{suffix}/{name}"}
    return entry | ({"label": f"./labels{suffix}/{name}"} if plan.labelled else {})


LAYOUT = Layout(_plan, _write, _finish)
