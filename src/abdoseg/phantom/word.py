"""WORD v0.1.0: radiotherapy planning CT of the whole abdomen, 3 mm slices, axes L P S, adrenals merged."""

from collections.abc import Sequence
from pathlib import Path

from abdoseg.phantom.layouts import Layout, Made, Plan, hounsfield, native_label, save_nifti, shares, write_json
from abdoseg.phantom.scanner import Protocol, Scan, View

PROTOCOL = Protocol(
    "CT",
    (1.5, 1.5, 3.0),
    "LPS",
    (View(1.0, (158, 185), (-305, -288)),),
    phases=("none", "portal", "portal"),
    sigma=(8.0, 14.0),
)

NAMES = (
    "background",
    "liver",
    "spleen",
    "left_kidney",
    "right_kidney",
    "stomach",
    "gallbladder",
    "esophagus",
    "pancreas",
    "duodenum",
    "colon",
    "intestine",
    "adrenal",
    "rectum",
    "bladder",
    "Head_of_femur_L",
    "Head_of_femur_R",
)
STRUCTURES = {
    "liver": 1,
    "spleen": 2,
    "left_kidney": 3,
    "right_kidney": 4,
    "stomach": 5,
    "gallbladder": 6,
    "esophagus": 7,
    "pancreas": 8,
    "duodenum": 9,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 12,
    "bladder": 14,
}
TISSUES = {
    "colon_wall": 10,
    "colon_stool": 10,
    "colon_gas": 10,
    "bowel_wall": 11,
    "bowel_content": 11,
    "rectum": 13,
    "rectum_content": 13,
    "femur_head_left": 15,
    "femur_head_right": 16,
}
_TOP = "WORD-V0.1.0"
_SUFFIX = {"train": "Tr", "val": "Val", "test": "Ts"}


def _plan(cases: int) -> list[Plan]:
    splits = shares(cases, 20 / 150, 30 / 150)
    return [Plan(f"word_{i:04d}", i, PROTOCOL, split) for i, split in enumerate(splits, start=1)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    suffix, name = _SUFFIX[plan.split], f"{plan.case_id}.nii.gz"
    image = folder / _TOP / f"images{suffix}" / name
    save_nifti(image, hounsfield(scan), scan.affine, sform_code=0)
    label = native_label(scan, STRUCTURES, TISSUES)
    save_nifti(folder / _TOP / f"labels{suffix}" / name, label, scan.affine, sform_code=0)
    return image


def _finish(folder: Path, made: Sequence[Made]) -> None:
    top = folder / _TOP
    for suffix in _SUFFIX.values():
        (top / f"images{suffix}").mkdir(exist_ok=True)
        (top / f"labels{suffix}").mkdir(exist_ok=True)
    lists = {split: [_entry(plan) for plan, _ in made if plan.split == split] for split in _SUFFIX}
    content = {
        "name": "WORD",
        "description": "Synthetic phantoms in the layout of WORD; no patient data",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in enumerate(NAMES)},
        "numTraining": len(lists["train"]),
        "numValidation": len(lists["val"]),
        "numTest": len(lists["test"]),
        "training": lists["train"],
        "validation": lists["val"],
        "test": lists["test"],
    }
    write_json(top / "dataset.json", content)


def _entry(plan: Plan) -> dict[str, str]:
    suffix, name = _SUFFIX[plan.split], f"{plan.case_id}.nii.gz"
    return {"image": f"./images{suffix}/{name}", "label": f"./labels{suffix}/{name}"}


LAYOUT = Layout(_plan, _write, _finish)
