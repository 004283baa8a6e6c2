"""TotalSegmentator v2.0.1: isotropic CT of all kinds of views, one mask file a structure, most of them empty."""

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from abdoseg.phantom.arrays import UInt8Array
from abdoseg.phantom.layouts import Layout, Made, Plan, hounsfield, nifti, save_nifti, shares
from abdoseg.phantom.scanner import Protocol, Scan, View
from abdoseg.phantom.tissues import TISSUES

PROTOCOL = Protocol(
    "CT",
    (1.5, 1.5, 1.5),
    "RAS",
    (
        View(0.40, (150, 185), (-300, -270), margin=(-22.0, 4.0)),
        View(0.30, (160, 220), (-150, -70), margin=(-24.0, 4.0)),
        View(0.15, (20, 90), (-300, -270), margin=(-22.0, 4.0)),
        View(0.15, (230, 300), (60, 110), margin=(-24.0, 4.0)),
    ),
    phases=("none", "arterial", "portal", "portal"),
    sigma=(9.0, 20.0),
)

FILES = {
    "spleen": "spleen",
    "right_kidney": "kidney_right",
    "left_kidney": "kidney_left",
    "gallbladder": "gallbladder",
    "esophagus": "esophagus",
    "liver": "liver",
    "stomach": "stomach",
    "aorta": "aorta",
    "postcava": "inferior_vena_cava",
    "pancreas": "pancreas",
    "right_adrenal_gland": "adrenal_gland_right",
    "left_adrenal_gland": "adrenal_gland_left",
    "duodenum": "duodenum",
    "bladder": "urinary_bladder",
    "portal_splenic_vein": "portal_vein_and_splenic_vein",
}
"""File of each structure; ``prostate`` and the kidney cysts are named in the tissue table, uterus has none."""

_SINGLES = (
    *("trachea", "thyroid_gland", "pulmonary_vein", "brachiocephalic_trunk", "atrial_appendage_left"),
    *("superior_vena_cava", "lung_middle_lobe_right", "brain", "skull", "costal_cartilages", "vertebrae_S1"),
    *(f"vertebrae_C{i}" for i in range(1, 8)),
    *(f"vertebrae_T{i}" for i in range(1, 6)),
)
_PAIRS = (
    *("lung_upper_lobe", "subclavian_artery", "common_carotid_artery", "brachiocephalic_vein", "humerus"),
    *("scapula", "clavicula", "gluteus_medius", "gluteus_minimus"),
)


@cache
def tables() -> dict[str, UInt8Array]:
    """Return a look-up table ``(256,)`` from tissue to 0 or 1 for each of the 117 files."""
    result: dict[str, UInt8Array] = {}
    for index, tissue in enumerate(TISSUES):
        name = tissue.total or FILES.get(tissue.structure, "")
        if name:
            result.setdefault(name, np.zeros(256, dtype=np.uint8))[index] = 1
    sides = [f"{name}_{side}" for name in _PAIRS for side in ("left", "right")]
    ribs = [f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)]
    for name in (*_SINGLES, *sides, *ribs):
        result.setdefault(name, np.zeros(256, dtype=np.uint8))
    return dict(sorted(result.items()))


def _plan(cases: int) -> list[Plan]:
    splits = shares(cases, 57 / 1228, 89 / 1228)
    return [Plan(f"s{i:04d}", i, PROTOCOL, split) for i, split in enumerate(splits, start=1)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    subject = folder / plan.case_id
    save_nifti(subject / "ct.nii.gz", hounsfield(scan), scan.affine)
    (subject / "segmentations").mkdir()
    present = np.bincount(scan.tissue.ravel(), minlength=256) > 0
    header, voxels = _header(scan), scan.tissue.tobytes(order="F")
    empty = _packed(header + bytes(len(voxels)))
    for name, table in tables().items():
        # Most masks are empty; packing the same zeros once, and mapping bytes, saves seconds a case.
        filled = (present & (table > 0)).any()
        content = _packed(header + voxels.translate(table.tobytes())) if filled else empty
        (subject / "segmentations" / f"{name}.nii.gz").write_bytes(content)
    return subject / "ct.nii.gz"


def _header(scan: Scan) -> bytes:
    """Return what stands before the voxels in an uncompressed NIfTI mask."""
    return bytes(nifti(scan.tissue, scan.affine).to_bytes()[: -scan.tissue.size])


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def _finish(folder: Path, made: Sequence[Made]) -> None:
    rows = ["image_id;age;gender;institute;study_type;split"]
    for plan, sex in made:
        age = 35 + (plan.index * 17) % 50
        rows.append(f"{plan.case_id};{age};{sex};{'ABCDEFGH'[plan.index % 8]};ct abdomen-pelvis;{plan.split}")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


LAYOUT = Layout(_plan, _write, _finish)
