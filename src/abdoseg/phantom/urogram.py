"""Urogram: a private source; nothing of it is public but that it exists. A plain layout with values of its own."""

from collections.abc import Sequence
from pathlib import Path

from abdoseg.phantom.damage import revalued, shortened, states_nothing, turned_to
from abdoseg.phantom.layouts import Fault, Layout, Made, Plan, hounsfield, native_label, save_nifti
from abdoseg.phantom.scanner import Protocol, Scan, View

PROTOCOL = Protocol(
    "CT",
    (1.5, 1.5, 3.0),
    "LPS",
    (View(1.0, (95, 150), (-304, -290)),),
    phases=("none", "arterial", "portal"),
    sigma=(9.0, 16.0),
)
STRUCTURES = {"right_kidney": 1, "left_kidney": 2, "bladder": 3}
_README = """Synthetic phantoms in a plain layout; no patient data
======================================================

images/<case>.nii.gz, labels/<case>.nii.gz (uint8). Only kidneys and bladder were drawn; whatever else is in the
images is not annotated, and background says nothing of it.

| value | structure    |
|-------|--------------|
| 0     | background   |
"""
_OTHER_VALUE = 9


def _plan(cases: int) -> list[Plan]:
    return [_case(number) for number in range(1, cases + 1)]


def _case(number: int) -> Plan:
    return Plan(f"urogram_{number:03d}", number, PROTOCOL, "train")


def _file(part: str, number: int) -> str:
    return f"{part}/urogram_{number:03d}.nii.gz"


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    image = folder / "images" / f"{plan.case_id}.nii.gz"
    save_nifti(image, hounsfield(scan), scan.affine)
    save_nifti(folder / "labels" / image.name, native_label(scan, STRUCTURES), scan.affine)
    return image


def _finish(folder: Path, made: Sequence[Made]) -> None:
    rows = "".join(f"| {value:<5} | {name:<12} |\n" for name, value in STRUCTURES.items())
    option = ",".join(f"{value}={name}" for name, value in STRUCTURES.items())
    text = f"{_README}{rows}\nIn one line: {option}\n\n{len(made)} images.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


FAULTS = (
    Fault(
        "urogram_901",
        f"value {_OTHER_VALUE} in the label, which the map has not",
        "quarantined",
        "a label file of another source or another annotator",
        ((_file("labels", 901), revalued({3: _OTHER_VALUE})),),
        _case(901),
    ),
    Fault(
        "urogram_902",
        "image and label lie along different array axes",
        "repaired",
        "the same space stored by another program: voxels match by their headers, not by their indices",
        ((_file("labels", 902), turned_to("SRA")),),
        _case(902),
    ),
    Fault(
        "urogram_903",
        "the label has fewer slices than the image",
        "quarantined",
        "the label of another reconstruction",
        ((_file("labels", 903), shortened(3)),),
        _case(903),
    ),
    Fault(
        "urogram_904",
        "the headers of image and label state no orientation",
        "taken",
        "both codes 0: left and right cannot be told from the file",
        ((_file("images", 904), states_nothing), (_file("labels", 904), states_nothing)),
        _case(904),
    ),
)

LAYOUT = Layout(_plan, _write, _finish, FAULTS)
