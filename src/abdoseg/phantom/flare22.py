"""FLARE22: 50 labelled scans, many without label; aorta, IVC and esophagus are drawn in part of their length."""

from pathlib import Path

import numpy as np

from abdoseg.phantom.arrays import UInt8Array
from abdoseg.phantom.damage import as_written, half_revalued
from abdoseg.phantom.layouts import Fault, Layout, Plan, hounsfield, native_label, no_side_files, save_nifti
from abdoseg.phantom.scanner import Protocol, Scan, View

PROTOCOL = Protocol(
    "CT",
    (1.5, 1.5, 2.5),
    "RAS",
    (View(1.0, (150, 195), (-185, -125)),),
    phases=("portal",),
    sigma=(8.0, 15.0),
)
STRUCTURES = {
    "liver": 1,
    "right_kidney": 2,
    "spleen": 3,
    "pancreas": 4,
    "aorta": 5,
    "postcava": 6,
    "right_adrenal_gland": 7,
    "left_adrenal_gland": 8,
    "gallbladder": 9,
    "esophagus": 10,
    "stomach": 11,
    "duodenum": 12,
    "left_kidney": 13,
}
TRUNCATED: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "aorta": ((0.12, 0.30), (0.08, 0.25)),
    "postcava": ((0.12, 0.30), (0.08, 0.25)),
    "esophagus": ((0.0, 0.0), (0.30, 0.50)),
}
"""Which part of a structure's slices is not drawn: ranges to draw from, at the lower and at the upper end."""

_TRAINING = "FLARE2022/Training"
_UNLABELLED = 1001
_DRAWN = 22


def _plan(cases: int) -> list[Plan]:
    plans = [_case(f"FLARE22_Tr_{number:04d}", number) for number in range(1, cases + 1)]
    return [*plans, Plan(f"Case_{_UNLABELLED:05d}", _UNLABELLED, PROTOCOL, "train", labelled=False)]


def _case(case_id: str, number: int) -> Plan:
    return Plan(case_id, number, PROTOCOL, "train")


def image_file(case_id: str) -> str:
    """Return a labelled case's image, below the source's folder."""
    return f"{_TRAINING}/FLARE22_LabeledCase50/images/{case_id}_0000.nii.gz"


def label_file(case_id: str) -> str:
    """Return a case's label, below the source's folder."""
    return f"{_TRAINING}/FLARE22_LabeledCase50/labels/{case_id}.nii.gz"


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    if not plan.labelled:
        image = folder / _TRAINING / "FLARE22_UnlabeledCase1001-2000" / f"{plan.case_id}_0000.nii.gz"
        save_nifti(image, hounsfield(scan), scan.affine)
        return image
    image = folder / image_file(plan.case_id)
    save_nifti(image, hounsfield(scan), scan.affine)
    label = native_label(scan, STRUCTURES)
    _truncate(label, np.random.default_rng([_DRAWN, plan.index]))
    save_nifti(folder / label_file(plan.case_id), label, scan.affine)
    return image


def _truncate(label: UInt8Array, rng: np.random.Generator) -> None:
    """Clear the ends of the long structures, in place; the third axis runs from feet to head."""
    for name, ends in TRUNCATED.items():
        lower, upper = (float(rng.uniform(*end)) for end in ends)
        drawn = label == STRUCTURES[name]
        slices = np.flatnonzero(drawn.any(axis=(0, 1)))
        outside = np.ones(label.shape[2], dtype=np.bool_)
        outside[slices[round(lower * len(slices)) : round((1.0 - upper) * len(slices))]] = False
        label[drawn & outside] = 0


FAULTS = (
    Fault(
        "FLARE22_Tr_0901",
        "value 14 in the label: a tumour, of FLARE23",
        "quarantined",
        "FLARE21, FLARE23 and FLARE24 have other maps; FLARE23 adds 14 = tumour",
        ((label_file("FLARE22_Tr_0901"), half_revalued(STRUCTURES["pancreas"], 14)),),
        _case("FLARE22_Tr_0901", 901),
    ),
    Fault(
        "Organ12_0001",
        "a case of the older set of 12 organs among the others",
        "passed over",
        "another label map under other file names (ljwztc/CLIP-Driven-Universal-Model#17, #76)",
        ((image_file("Organ12_0001"), as_written), (label_file("Organ12_0001"), as_written)),
        _case("Organ12_0001", 902),
    ),
)

LAYOUT = Layout(_plan, _write, no_side_files, FAULTS)
