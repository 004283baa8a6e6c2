"""TotalSegmentator v2.0.1: isotropic CT of all kinds of views, one mask file a structure, most of them empty."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from abdoseg.phantom.arrays import UInt8Array
from abdoseg.phantom.damage import as_written, grown, nudged, skewed
from abdoseg.phantom.layouts import Fault, Layout, Made, Plan, shares
from abdoseg.phantom.mask_files import both_sides, rib_names, tables_of, write_meta, write_subject
from abdoseg.phantom.scanner import Protocol, Scan, View

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
ABDOMEN_ONLY = replace(PROTOCOL, views=PROTOCOL.views[1:2])
LEGS_ONLY = replace(PROTOCOL, views=(View(1.0, (-318, -308), (-388, -372)),))
"""Below all 16 structures."""

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
    others = (*_SINGLES, *both_sides(_PAIRS), *rib_names())
    return tables_of(lambda tissue: tissue.total or FILES.get(tissue.structure, ""), others)


def _plan(cases: int) -> list[Plan]:
    splits = shares(cases, 57 / 1228, 89 / 1228)
    return [Plan(f"s{i:04d}", i, PROTOCOL, split) for i, split in enumerate(splits, start=1)]


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    return write_subject(folder / plan.case_id, scan, tables())


def _finish(folder: Path, made: Sequence[Made]) -> None:
    write_meta(folder / "meta.csv", made, no_gender=_NO_GENDER)


def _case(number: int, protocol: Protocol = ABDOMEN_ONLY) -> Plan:
    return Plan(f"s{number:04d}", number, protocol, "train")


_NO_GENDER = "s0904"
FAULTS = (
    Fault(
        "s0901",
        "masks whose sform differs slightly from the image's",
        "repaired",
        "many subjects; the maintainer says to overwrite one with the other (wasserth/TotalSegmentator#33)",
        tuple((f"s0901/segmentations/{name}.nii.gz", nudged(0.02)) for name in ("liver", "pancreas", "spleen")),
        _case(901),
    ),
    Fault(
        "s0902",
        "masks that overlap",
        "repaired",
        "all subjects; in the official merge a later file wins (wasserth/TotalSegmentator#121, #168, #440)",
        (("s0902/segmentations/liver.nii.gz", grown(2)),),
        _case(902),
    ),
    Fault(
        "s0903",
        "all masks of the 16 structures are empty: legs",
        "taken",
        "structures out of view have empty masks in most subjects (wasserth/TotalSegmentator#262)",
        tuple((f"s0903/segmentations/{name}.nii.gz", as_written) for name in ("liver", "urinary_bladder", "prostate")),
        _case(903, LEGS_ONLY),
    ),
    Fault(
        "s0904",
        "no gender in meta.csv",
        "taken",
        "whether the prostate was looked for hangs on the gender",
        (("meta.csv", as_written),),
        _case(904),
    ),
    Fault(
        "s0909",
        "directions of the image about 1e-4 off orthonormal",
        "repaired",
        "136 subjects of v2.0.1, s0909 among them; SimpleITK refuses them (wasserth/TotalSegmentator#461)",
        (("s0909/ct.nii.gz", skewed(1.2e-4)),),
        _case(909),
    ),
)

LAYOUT = Layout(_plan, _write, _finish, FAULTS)
