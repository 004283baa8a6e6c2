"""BTCV (Synapse): portal venous CT of the upper abdomen, axes L A S, value 10 is portal and splenic vein."""

from pathlib import Path

from abdoseg.phantom.damage import as_written
from abdoseg.phantom.layouts import Fault, Layout, Plan, hounsfield, native_label, no_side_files, save_nifti
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
_GIBSON, _GIBSON_STRUCTURES = "img0991", STRUCTURES | {"duodenum": 14}


def _plan(cases: int) -> list[Plan]:
    plans = [Plan(f"img{number:04d}", number, PROTOCOL, "train") for number in _NUMBERS[:cases]]
    return [*plans, Plan(f"img{_UNLABELLED:04d}", _UNLABELLED, PROTOCOL, "test", labelled=False)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    part = folder / "RawData" / ("Training" if plan.split == "train" else "Testing")
    image = part / "img" / f"{plan.case_id}.nii.gz"
    save_nifti(image, hounsfield(scan), scan.affine)
    if plan.labelled:
        name = plan.case_id.replace("img", "label")
        structures = _GIBSON_STRUCTURES if plan.case_id == _GIBSON else STRUCTURES
        save_nifti(part / "label" / f"{name}.nii.gz", native_label(scan, structures), scan.affine)
    return image


FAULTS = (
    Fault(
        _GIBSON,
        "value 14 in the label: the duodenum, of Gibson's re-annotation",
        "quarantined",
        "zenodo 1169361 has the same file names; its labels may be incomplete outside a box",
        (("RawData/Training/label/label0991.nii.gz", as_written),),
        Plan(_GIBSON, 991, PROTOCOL, "train"),
    ),
    Fault(
        "img0992",
        "a training image without its label",
        "quarantined",
        "an incomplete copy",
        (("RawData/Training/img/img0992.nii.gz", as_written),),
        Plan("img0992", 992, PROTOCOL, "train", labelled=False),
    ),
)

LAYOUT = Layout(_plan, _write, no_side_files, FAULTS)
