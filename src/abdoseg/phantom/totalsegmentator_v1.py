"""TotalSegmentator v1: as v2, below a folder of its own, with 104 other masks: no prostate, kidneys with cysts."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from abdoseg.phantom.arrays import UInt8Array
from abdoseg.phantom.damage import garbled
from abdoseg.phantom.layouts import Fault, Layout, Made, Plan, shares
from abdoseg.phantom.mask_files import both_sides, rib_names, tables_of, write_meta, write_subject
from abdoseg.phantom.scanner import Scan
from abdoseg.phantom.tissues import Tissue
from abdoseg.phantom.totalsegmentator import FILES, PROTOCOL

V2_TO_V1 = {
    "heart": "heart_myocardium",  # v1 draws the chambers, which the phantoms have not
    "kidney_cyst_right": "kidney_right",
    "kidney_cyst_left": "kidney_left",
    "spinal_cord": "",
    "sternum": "",
    "prostate": "",
}
"""v1 file of what v2 draws elsewhere; empty where v1 does not draw it."""

_SINGLES = (
    *("face", "brain", "trachea", "pulmonary_artery", "lung_middle_lobe_right"),
    *("heart_atrium_left", "heart_atrium_right", "heart_ventricle_left", "heart_ventricle_right"),
    *(f"vertebrae_C{i}" for i in range(1, 8)),
    *(f"vertebrae_T{i}" for i in range(1, 6)),
)
_PAIRS = ("lung_upper_lobe", "humerus", "scapula", "clavicula", "gluteus_medius", "gluteus_minimus")
_TOP = "Totalsegmentator_dataset"
_FIRST = 300
"""Number of the first subject: none that v2's phantoms use, as both are cases of one card."""


def _file_of(tissue: Tissue) -> str:
    name = tissue.total or FILES.get(tissue.structure, "")
    return V2_TO_V1.get(name, name)


@cache
def tables() -> dict[str, UInt8Array]:
    """Return a look-up table ``(256,)`` from tissue to 0 or 1 for each of the 104 files."""
    return tables_of(_file_of, (*_SINGLES, *both_sides(_PAIRS), *rib_names()))


def _plan(cases: int) -> list[Plan]:
    splits = shares(cases, 57 / 1204, 65 / 1204)
    return [Plan(f"s{i:04d}", i, PROTOCOL, split) for i, split in enumerate(splits, start=_FIRST)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    return write_subject(folder / _TOP / plan.case_id, scan, tables())


def _finish(folder: Path, made: Sequence[Made]) -> None:
    write_meta(folder / _TOP / "meta.csv", made)


FAULTS = (
    Fault(
        "s0864",
        "the image's gzip stream is damaged: its checksum fails",
        "quarantined",
        "s0864/ct.nii.gz of v1 (wasserth/TotalSegmentator#24, #92)",
        ((f"{_TOP}/s0864/ct.nii.gz", garbled),),
        Plan("s0864", 864, PROTOCOL, "train"),
    ),
)

LAYOUT = Layout(_plan, _write, _finish, FAULTS, card="totalsegmentator")
