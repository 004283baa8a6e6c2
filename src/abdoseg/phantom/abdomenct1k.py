"""AbdomenCT-1K: CT of several collections in three image parts, masks apart, one value for both kidneys."""

from dataclasses import replace
from pathlib import Path

from abdoseg.phantom import nih_pancreas
from abdoseg.phantom.damage import as_written, moved_from, respaced, skewed, tipped
from abdoseg.phantom.layouts import Change, Fault, Layout, Plan, hounsfield, native_label, no_side_files, save_nifti
from abdoseg.phantom.scanner import Protocol, Scan, View

PROTOCOLS = (
    Protocol("CT", (1.4, 1.4, 2.5), "RAS", (View(1.0, (150, 195), (-185, -125)),), ("portal",), (8.0, 14.0)),
    Protocol("CT", (1.5, 1.5, 5.0), "LPS", (View(1.0, (150, 195), (-302, -120)),), ("none", "portal"), (8.0, 16.0)),
    Protocol("CT", (1.5, 1.5, 2.0), "LAS", (View(1.0, (130, 170), (-240, -150)),), ("arterial",), (9.0, 18.0)),
)
"""Its scans come from collections that differ; a case's number tells which is imitated."""

STRUCTURES = {"liver": 1, "right_kidney": 2, "left_kidney": 2, "spleen": 3, "pancreas": 4}
UNLABELLED = (
    *(10, 13, 16, 27, 28, 32, 33, 38, 43, 58, 218, 224, 228, 236, 241, 246, 274, 404, 408, 415, 416, 422, 424, 429),
    *(439, 444, 447, 456, 528, 534, 552, 553, 565, 588, 669, 676, 688, 691, 694, 698, 701, 703, 705, 707, 711, 725),
    *(730, 731, 733, 737, 745, 748, 750, 754, 755, 758, 760, 763, 781, 782, 925, 955),
)
"""Scans without a public mask."""

_PARTS = (range(1, 401), range(401, 801), range(801, 1063))
_SET_ASIDE = {*UNLABELLED, 11, 278, 297, 399, 928, 964, 1062}


def _plan(cases: int) -> list[Plan]:
    """Return cases of the three parts in turn."""
    pools = [[n for n in part if n not in _SET_ASIDE] for part in _PARTS]
    return [_case(pools[i % 3][i // 3]) for i in range(cases)]


def _case(number: int, *, same_as: int = 0) -> Plan:
    index = same_as or number
    return Plan(f"Case_{number:05d}", index, PROTOCOLS[index % len(PROTOCOLS)], "train")


def image_file(number: int) -> str:
    """Return a case's image, below the source's folder."""
    part = 1 + next(i for i, numbers in enumerate(_PARTS) if number in numbers)
    return f"AbdomenCT-1K-ImagePart{part}/Case_{number:05d}_0000.nii.gz"


def mask_file(number: int) -> str:
    """Return a case's mask, below the source's folder."""
    return f"Mask/Case_{number:05d}.nii.gz"


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    number = int(plan.case_id[-5:])
    image = folder / image_file(number)
    save_nifti(image, hounsfield(scan), scan.affine)
    if plan.labelled:
        save_nifti(folder / mask_file(number), native_label(scan, STRUCTURES), scan.affine)
    return image


def _unchanged(*numbers: int) -> tuple[Change, ...]:
    return tuple((file, as_written) for n in numbers for file in (image_file(n), mask_file(n)))


FAULTS = (
    Fault(
        "Case_00399",
        "the mask lies beside the image parts",
        "taken",
        "Mask.7z has no top folder: unpacked where it lies, it drops its masks there",
        (("Case_00399.nii.gz", moved_from(mask_file(399))),),
        _case(399),
    ),
    Fault(
        "Case_00011",
        "directions of image and mask 5e-4 off orthonormal",
        "repaired",
        "00011 is one of 30 that SimpleITK refuses (JunMa11/AbdomenCT-1K#6)",
        ((image_file(11), skewed(5e-4)), (mask_file(11), skewed(5e-4))),
        _case(11),
    ),
    Fault(
        "Case_00278",
        "an invented spacing of 1 x 1 x 1 mm",
        "taken",
        "00278 is one of 20 (JunMa11/AbdomenCT-1K#27); the voxels are good, their size is not",
        ((image_file(278), respaced((1.0, 1.0, 1.0))), (mask_file(278), respaced((1.0, 1.0, 1.0)))),
        _case(278),
    ),
    Fault("Case_00297", "the same scan twice", "taken", "00297 = 00928 (#28)", _unchanged(297, 928), _case(297)),
    Fault(
        "Case_00928",
        "the same scan twice",
        "taken",
        "00297 = 00928 (JunMa11/AbdomenCT-1K#28); both must be on one side of a split",
        _unchanged(297, 928),
        _case(928, same_as=297),
    ),
    Fault(
        "Case_00964",
        "the header states the slices as front to back",
        "taken",
        "00964 is 512 x 79 x 512 in RAS, 3 mm apart from front to back; nobody says whether the header is right",
        ((image_file(964), tipped), (mask_file(964), tipped)),
        _case(964),
    ),
    Fault(
        "Case_00010",
        "an image without a mask",
        "passed over",
        "62 scans have no public mask, 00010 among them",
        ((image_file(10), as_written),),
        replace(_case(10), labelled=False),
    ),
    Fault(
        "Case_01062",
        "the scan is PANCREAS_0001 of NIH Pancreas-CT too",
        "taken",
        "AbdomenCT-1K contains the 80 scans of NIH; both must be on one side of a split",
        _unchanged(1062),
        Plan("Case_01062", 1, nih_pancreas.PROTOCOL, "train", person_of="nih-pancreas"),
    ),
)

LAYOUT = Layout(_plan, _write, no_side_files, FAULTS)
