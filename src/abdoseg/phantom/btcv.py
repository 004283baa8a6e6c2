"""BTCV (Synapse): portal venous CT of the upper abdomen, axes L A S, value 10 is portal and splenic vein."""

from collections.abc import Sequence
from pathlib import Path

from abdoseg.phantom.layouts import Layout, Made, Plan, hounsfield, native_label, save_nifti
from abdoseg.phantom.scanner import Protocol, Scan, View

PROTOCOL = Protocol(
    "CT",
    (1.4, 1.4, 3.0),
    "LAS",
    (View(1.0, (150, 195), (-185, -125), margin=(2.0, 18.0)),),
    phases=("portal",),
    sigma=(10.0, 18.0),
)
STRUCTURES = {
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "postcava": 9,
    "portal_splenic_vein": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}
# The published training ids, then numbers that BTCV does not use.
_NUMBERS = (*range(1, 11), *range(21, 41), *range(11, 21), *range(41, 61), *range(81, 1000))
_UNLABELLED = 61


def _plan(cases: int) -> list[Plan]:
    plans = [Plan(f"img{number:04d}", number, PROTOCOL, "train") for number in _NUMBERS[:cases]]
    return [*plans, Plan(f"img{_UNLABELLED:04d}", _UNLABELLED, PROTOCOL, "test", labelled=False)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    part = folder / "RawData" / ("Training" if plan.labelled else "Testing")
    image = part / "img" / f"{plan.case_id}.nii.gz"
    save_nifti(image, hounsfield(scan), scan.affine)
    if plan.labelled:
        name = plan.case_id.replace("img", "label")
        save_nifti(part / "label" / f"{name}.nii.gz", native_label(scan, STRUCTURES), scan.affine)
    return image


def _finish(folder: Path, made: Sequence[Made]) -> None:
    """BTCV has no side files."""


LAYOUT = Layout(_plan, _write, _finish)
