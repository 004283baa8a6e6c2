"""NIH Pancreas-CT: DICOM series whose rows run back to front, head first, and label arrays in a folder of their own."""

from pathlib import Path

import numpy as np

from abdoseg.phantom.damage import as_written, flipped, shortened
from abdoseg.phantom.layouts import Fault, Layout, Plan, native_label, no_side_files, save_nifti
from abdoseg.phantom.scanner import Protocol, Scan, View
from abdoseg.phantom.series import second_series, without_slice, write_series

PROTOCOL = Protocol(
    "CT",
    (1.5, 1.5, 1.0),
    "LAI",
    (View(1.0, (140, 185), (-200, -120)),),
    phases=("portal",),
    sigma=(9.0, 16.0),
)
STRUCTURES = {"pancreas": 1}
WITHDRAWN = (25, 70)
"""Numbers whose labels stayed when the images were found to be cropped copies of number 2."""

_CROPPED = 6
_IMAGES = "manifest-1599750808610/Pancreas-CT"
_LABELS = "TCIA_pancreas_labels-02-05-2017"


def _plan(cases: int) -> list[Plan]:
    """Return the cases, and the withdrawn ones that lie between them."""
    numbers = [n for n in range(1, cases + len(WITHDRAWN) + 1) if n not in WITHDRAWN][:cases]
    return [_case(number) for number in range(1, numbers[-1] + 1)]


def _case(number: int) -> Plan:
    gone = number in WITHDRAWN
    return Plan(f"PANCREAS_{number:04d}", 2 if gone else number, PROTOCOL, "train", image=not gone)


def series_folder(number: int) -> str:
    """Return the folder of a case's series, below the source's folder."""
    study = f"11-24-2015-PANCREAS{number:04d}-Pancreas-{(18957 + 7919 * number) % 100000:05d}"
    return f"{_IMAGES}/PANCREAS_{number:04d}/{study}/Pancreas-{(99667 + 104729 * number) % 100000:05d}"


def label_file(number: int) -> str:
    """Return a case's label file, below the source's folder."""
    return f"{_LABELS}/label{number:04d}.nii.gz"


def _write(folder: Path, plan: Plan, scan: Scan) -> Path:
    number = int(plan.case_id[-4:])
    label = native_label(scan, STRUCTURES)
    if not plan.image:
        label = label[:, :, _CROPPED:]
    # Index [i, j, k] is column i, row j of instance k + 1. The header's axes are right; its origin is nobody's.
    header = scan.affine.copy()
    header[:3, 3] = 0.0
    save_nifti(folder / label_file(number), np.ascontiguousarray(label), header)
    image = folder / series_folder(number)
    if plan.image:
        write_series(image, scan, plan.case_id, signed=number % 2 == 0)
    return image


FAULTS = (
    *(
        Fault(
            f"PANCREAS_{number:04d}",
            "a label without an image",
            "passed over",
            "withdrawn in 2020 as the scan of 0002, cropped; the label files stayed",
            ((label_file(number), as_written),),
            _case(number),
        )
        for number in WITHDRAWN
    ),
    Fault(
        "PANCREAS_0901",
        "a slice of the series is missing",
        "quarantined",
        "a broken download; the label then has one slice more than the image",
        ((series_folder(901), without_slice),),
        _case(901),
    ),
    Fault(
        "PANCREAS_0902",
        "two series in one folder",
        "quarantined",
        "tools that sort by study put all series of it into one folder",
        ((series_folder(902), second_series),),
        _case(902),
    ),
    Fault(
        "PANCREAS_0903",
        "the label lies the other way round, front to back, and its header does not say so",
        "repaired",
        "copies with `c3d -flip y` are about (mattiaspaul/deedsBCV); only the voxels can tell",
        ((label_file(903), flipped(1)),),
        _case(903),
    ),
    Fault(
        "PANCREAS_0904",
        "the label has fewer slices than the image",
        "quarantined",
        "users report labels that do not fit (ycwu1997/MC-Net#12, ljwztc/CLIP-Driven-Universal-Model#23)",
        ((label_file(904), shortened(4)),),
        _case(904),
    ),
)

LAYOUT = Layout(_plan, _write, no_side_files, FAULTS)
