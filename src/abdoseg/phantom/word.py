"""WORD v0.1.0: radiotherapy planning CT of the whole abdomen, 3 mm slices, axes L P S, adrenals merged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from abdoseg.phantom.damage import as_written, cast, fractions, not_a_number, one_cut_in_two, revalued, stacked
from abdoseg.phantom.layouts import (
    Change,
    Expected,
    Fault,
    Layout,
    Made,
    Plan,
    hounsfield,
    native_label,
    save_nifti,
    shares,
    write_json,
)
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
_LITS = "addition_validation_from_LiTS"


def _plan(cases: int) -> list[Plan]:
    splits = shares(cases, 20 / 150, 30 / 150)
    return [Plan(f"word_{i:04d}", i, PROTOCOL, split) for i, split in enumerate(splits, start=1)]


def _image_file(plan: Plan) -> str:
    """Return a case's image, below the source's folder."""
    if plan.split == _LITS:
        return f"{_TOP}/{_LITS}/imagesTs/{plan.case_id}_word_image.nii.gz"
    return f"{_TOP}/images{_SUFFIX[plan.split]}/{plan.case_id}.nii.gz"


def _label_file(plan: Plan) -> str:
    """Return a case's label, below the source's folder; the misspelt folder is WORD's own."""
    if plan.split == _LITS:
        return f"{_TOP}/{_LITS}/lablesTs/{plan.case_id}_word_label.nii.gz"
    return f"{_TOP}/labels{_SUFFIX[plan.split]}/{plan.case_id}.nii.gz"


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    image = folder / _image_file(plan)
    save_nifti(image, hounsfield(scan), scan.affine, sform_code=0)
    if plan.labelled:
        label = native_label(scan, STRUCTURES, TISSUES)
        save_nifti(folder / _label_file(plan), label, scan.affine, sform_code=0)
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
    image, label = (f".{file.removeprefix(_TOP)}" for file in (_image_file(plan), _label_file(plan)))
    return {"image": image, "label": label} if plan.labelled else {"image": image}


def _case(number: int) -> Plan:
    return Plan(f"word_{number:04d}", number, PROTOCOL, "train")


def _image(number: int) -> str:
    return _image_file(_case(number))


def _label(number: int) -> str:
    return _label_file(_case(number))


_ADRENAL, _LEFT_KIDNEY, _RIGHT_KIDNEY = 12, 3, 4
_ROWS: tuple[tuple[int, str, Expected, str, Change], ...] = (
    (
        901,
        "three pieces of adrenal: one gland is cut in two",
        "taken",
        "word_0052; the two largest pieces are not always the two glands",
        (_label(901), one_cut_in_two(_ADRENAL)),
    ),
    (
        902,
        "one value for both kidneys",
        "repaired",
        "the paper's copy; public WORD has 3 left and 4 right",
        (_label(902), revalued({_RIGHT_KIDNEY: _LEFT_KIDNEY})),
    ),
    (903, "a label of float32", "taken", "converted copies; all values are whole", (_label(903), cast(np.float32))),
    (904, "fractions in the label", "quarantined", "resampled with linear interpolation", (_label(904), fractions)),
    (905, "a label of int64", "taken", "NumPy's default type", (_label(905), cast(np.int64))),
    (906, "a label of uint16", "taken", "word_0074", (_label(906), cast(np.uint16))),
    (907, "NaN in the image", "quarantined", "padding after resampling", (_image(907), not_a_number)),
    (908, "a 4-D image, last axis 1", "repaired", "converted sets", (_image(908), stacked(1))),
    (
        909,
        "a 4-D image, last axis 2",
        "quarantined",
        "nobody says which of the two is meant",
        (_image(909), stacked(2)),
    ),
)
_UNLABELLED = Plan("word_0910", 910, PROTOCOL, "test", labelled=False)
_OF_LITS = Plan("liver_10", 911, PROTOCOL, _LITS)

FAULTS = (
    *(
        Fault(f"word_{number:04d}", fault, expected, why, (change,), _case(number))
        for number, fault, expected, why, change in _ROWS
    ),
    Fault(
        _UNLABELLED.case_id,
        "a test image without its label",
        "passed over",
        "the archive has no labelsTs; they are another download",
        ((_image_file(_UNLABELLED), as_written),),
        _UNLABELLED,
    ),
    Fault(
        _OF_LITS.case_id,
        "a LiTS scan beside WORD's own",
        "passed over",
        "addition_validation_from_LiTS: scans of AbdomenCT-1K under other names",
        ((_image_file(_OF_LITS), as_written), (_label_file(_OF_LITS), as_written)),
        _OF_LITS,
    ),
)

LAYOUT = Layout(_plan, _write, _finish, FAULTS)
