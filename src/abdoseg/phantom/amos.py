"""AMOS22: CT with thick slices (ids up to 410) and MR (ids from 507) in one tree; no portal vein; junk from a Mac."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from abdoseg.anatomy import ABDOMEN
from abdoseg.phantom.damage import as_written, cut_off, filled_with, garbled, nudged
from abdoseg.phantom.layouts import Fault, Layout, Made, Plan, hounsfield, native_label, save_nifti, write_json
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
    _write_junk(folder, [plan for plan, _ in made])


def _write_junk(folder: Path, plans: Sequence[Plan]) -> None:
    """Write what a Mac adds to an archive: a small file of the same name for every image."""
    names = ["._amos_0001.nii.gz", *(f"{_TOP}/images{_SUFFIX[p.split]}/._{p.case_id}.nii.gz" for p in plans)]
    for name in names:
        filled_with(_APPLE_DOUBLE)(folder / "__MACOSX" / name)


def _entry(plan: Plan) -> dict[str, str]:
    suffix, name = _SUFFIX[plan.split], f"{plan.case_id}.nii.gz"
    entry = {"image": f"./images{suffix}/{name}"}
    return entry | ({"label": f"./labels{suffix}/{name}"} if plan.labelled else {})


FAULTS = (
    Fault(
        "amos_0401",
        "image and label headers differ by rounding",
        "repaired",
        "public converters compare rounded spacing and copy the image's header to the label",
        ((f"{_TOP}/labelsTr/amos_0401.nii.gz", nudged(0.0005)),),
        _case(401, CT, "train"),
    ),
    Fault(
        "amos_0600",
        "a coronal MR scan: the last array axis is front to back",
        "taken",
        "some MR scans of AMOS are coronal; a reader that takes the last axis for z turns them",
        ((f"{_TOP}/imagesTr/amos_0600.nii.gz", as_written), (f"{_TOP}/labelsTr/amos_0600.nii.gz", as_written)),
        _case(600, replace(MR, coronal=1.0), "train"),
    ),
    Fault(
        "amos_0402",
        "the image file is cut off",
        "quarantined",
        "amos_5437 and amos_5514 are damaged in the archive; broken downloads are common",
        ((f"{_TOP}/imagesTr/amos_0402.nii.gz", cut_off(0.6)),),
        _case(402, CT, "train"),
    ),
    Fault(
        "amos_0404",
        "the image's checksum fails, though its gzip stream unpacks",
        "quarantined",
        "as s0864 of TotalSegmentator v1; a reader that stops at the last voxel does not notice",
        ((f"{_TOP}/imagesTr/amos_0404.nii.gz", garbled),),
        _case(404, CT, "train"),
    ),
    Fault(
        "._amos_0403",
        "a Mac's junk file among the images",
        "passed over",
        "the archive holds __MACOSX/ and ._amos_*.nii.gz",
        ((f"{_TOP}/imagesTr/._amos_0403.nii.gz", filled_with(_APPLE_DOUBLE)),),
    ),
)

LAYOUT = Layout(_plan, _write, _finish, FAULTS)
