"""What a voxel of a phantom can be made of: one row a tissue.

A row says all there is to know about the tissue: how it looks in CT and MR, which of the 16 structures it
belongs to, and which distractor it is in the sources that label more than those. Painting, contrast and the
native label maps all read this one table.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import unknown_name
from abdoseg.phantom.arrays import BoolArray, UInt8Array

Kind = Literal["outside", "wall", "bone", "fat", "organ", "bowel"]
Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Parameters
    ----------
    name
        Key used by the painting code.
    kind
        ``outside`` and ``wall`` keep their place, ``bone`` too and has a bright rim; ``fat`` is the cavity that
        organs are painted into; ``organ`` and ``bowel`` may displace each other as the painting code says.
    look
        CT numbers (HU) without contrast, in the arterial and in the portal venous phase; then the MR signal in
        units of subcutaneous fat.
    spread
        Standard deviation of the CT number between subjects, HU.
    structure
        Name in :data:`abdoseg.anatomy.ABDOMEN`, or empty.
    total
        TotalSegmentator v2 file that holds the tissue beside those of ``structure``, or empty.
    """

    name: str
    kind: Kind
    look: Row
    spread: float = 4.0
    structure: str = ""
    total: str = ""


def _paired(name: str, kind: Kind, look: Row, spread: float, total: str = "") -> tuple[Tissue, Tissue]:
    """Return the right and left row of a distractor tissue."""
    sides = ("right", "left")
    right, left = (Tissue(f"{name}_{s}", kind, look, spread, total=f"{total}_{s}" if total else "") for s in sides)
    return right, left


def _renal(part: str, look: Row, spread: float, total: str = "") -> tuple[Tissue, Tissue]:
    """Return the right and left row of a part of the kidney."""
    right, left = (
        Tissue(f"{part}_{s}", "organ", look, spread, f"{s}_kidney", f"{total}_{s}" if total else "")
        for s in ("right", "left")
    )
    return right, left


VERTEBRAE = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8", "T7", "T6")
"""Vertebrae drawn, from below; sources draw upwards too."""

RIBS = (7, 8, 9, 10, 11, 12)
"""Numbers of the ribs drawn on either side."""

_BONE = (210.0, 215.0, 225.0, 0.62)

TISSUES: tuple[Tissue, ...] = (
    Tissue("air", "outside", (-1000, -1000, -1000, 0.0), 0.0),
    Tissue("table", "outside", (-500, -500, -500, 0.0), 40.0),
    Tissue("skin", "wall", (20, 25, 30, 0.45)),
    Tissue("subcutaneous_fat", "wall", (-105, -105, -103, 1.0)),
    Tissue("wall_fat", "wall", (-102, -102, -100, 0.97)),
    Tissue("muscle", "wall", (52, 58, 64, 0.40), 3.0),
    Tissue("diaphragm", "wall", (48, 55, 62, 0.40), 3.0),
    *_paired("lung", "wall", (-845, -840, -840, 0.05), 20.0, "lung_lower_lobe"),
    *_paired("psoas", "wall", (54, 60, 66, 0.40), 3.0, "iliopsoas"),
    *_paired("paraspinal", "wall", (50, 56, 62, 0.43), 3.0, "autochthon"),
    *_paired("gluteus", "wall", (50, 56, 62, 0.43), 3.0, "gluteus_maximus"),
    Tissue("heart", "wall", (44, 190, 130, 0.38), 12.0, total="heart"),
    Tissue("lung_vessel", "wall", (40, 160, 120, 0.15), 15.0),
    Tissue("disc", "bone", (85, 88, 92, 0.35), 8.0),
    Tissue("spinal_cord", "wall", (28, 30, 34, 0.30), 3.0, total="spinal_cord"),
    Tissue("sacrum", "bone", _BONE, 25.0, total="sacrum"),
    Tissue("sternum", "bone", _BONE, 25.0, total="sternum"),
    *_paired("hip", "bone", (260, 262, 270, 0.60), 25.0, "hip"),
    *_paired("femur", "bone", (300, 300, 305, 0.66), 25.0, "femur"),
    *_paired("femur_head", "bone", (310, 310, 315, 0.68), 25.0, "femur"),
    *(Tissue(f"vertebra_{name}", "bone", _BONE, 25.0, total=f"vertebrae_{name}") for name in VERTEBRAE),
    *(
        Tissue(f"rib_{side}_{number}", "bone", (300, 300, 300, 0.5), 25.0, total=f"rib_{side}_{number}")
        for side in ("right", "left")
        for number in RIBS
    ),
    Tissue("visceral_fat", "fat", (-100, -99, -97, 0.95)),
    Tissue("liver", "organ", (58, 74, 108, 0.62), 8.0, "liver"),
    Tissue("liver_vein", "organ", (42, 78, 148, 0.42), 10.0, "liver"),
    Tissue("spleen", "organ", (48, 118, 120, 0.38), 9.0, "spleen"),
    *_renal("cortex", (33, 178, 178, 0.46), 14.0),
    *_renal("medulla", (32, 88, 158, 0.33), 12.0),
    *_renal("kidney_cyst", (6, 8, 9, 0.16), 4.0, "kidney_cyst"),
    Tissue("renal_pelvis", "organ", (8, 12, 25, 0.20), 6.0),
    Tissue("gallbladder", "organ", (9, 10, 12, 0.20), 5.0, "gallbladder"),
    Tissue("gallbladder_wall", "organ", (36, 55, 70, 0.40), 6.0, "gallbladder"),
    Tissue("esophagus", "organ", (38, 58, 72, 0.41), 7.0, "esophagus"),
    Tissue("esophagus_gas", "organ", (-350, -350, -350, 0.05), 150.0, "esophagus"),
    Tissue("stomach_wall", "organ", (40, 75, 84, 0.45), 8.0, "stomach"),
    Tissue("stomach_content", "organ", (22, 24, 26, 0.27), 13.0, "stomach"),
    Tissue("stomach_gas", "organ", (-930, -930, -930, 0.02), 30.0, "stomach"),
    Tissue("aorta", "organ", (42, 300, 152, 0.22), 18.0, "aorta"),
    Tissue("postcava", "organ", (40, 78, 132, 0.26), 15.0, "postcava"),
    Tissue("portal_vein", "organ", (41, 95, 162, 0.25), 14.0, "portal_splenic_vein"),
    Tissue("pancreas", "organ", (42, 98, 92, 0.66), 9.0, "pancreas"),
    Tissue("adrenal_right", "organ", (28, 68, 72, 0.42), 7.0, "right_adrenal_gland"),
    Tissue("adrenal_left", "organ", (28, 68, 72, 0.42), 7.0, "left_adrenal_gland"),
    Tissue("duodenum_wall", "organ", (38, 82, 86, 0.46), 8.0, "duodenum"),
    Tissue("duodenum_content", "organ", (24, 28, 30, 0.30), 14.0, "duodenum"),
    Tissue("bladder_wall", "organ", (38, 55, 66, 0.38), 6.0, "bladder"),
    Tissue("bladder_urine", "organ", (7, 9, 12, 0.16), 5.0, "bladder"),
    Tissue("prostate", "organ", (40, 62, 78, 0.40), 8.0, "prostate_uterus", "prostate"),
    Tissue("uterus", "organ", (46, 92, 108, 0.40), 10.0, "prostate_uterus"),
    *_paired("iliac_artery", "organ", (42, 290, 148, 0.22), 15.0, "iliac_artery"),
    *_paired("iliac_vein", "organ", (40, 60, 110, 0.26), 15.0, "iliac_vena"),
    Tissue("artery", "organ", (42, 280, 145, 0.22), 15.0),
    Tissue("vein", "organ", (40, 95, 150, 0.26), 15.0),
    Tissue("colon_wall", "bowel", (36, 58, 70, 0.42), 8.0, total="colon"),
    Tissue("colon_stool", "bowel", (0, 0, 0, 0.40), 45.0, total="colon"),
    Tissue("colon_gas", "bowel", (-900, -900, -900, 0.02), 40.0, total="colon"),
    Tissue("bowel_wall", "bowel", (38, 90, 92, 0.45), 8.0, total="small_bowel"),
    Tissue("bowel_content", "bowel", (22, 26, 28, 0.30), 12.0, total="small_bowel"),
    Tissue("rectum", "bowel", (38, 52, 64, 0.42), 6.0, total="colon"),
    Tissue("rectum_content", "bowel", (5, 5, 5, 0.35), 30.0, total="colon"),
)

TISSUE_ID: dict[str, int] = {tissue.name: index for index, tissue in enumerate(TISSUES)}


def tissue_id(name: str) -> int:
    """Return the value that stands for a tissue in a tissue volume."""
    if name not in TISSUE_ID:
        raise unknown_name("tissue", name, list(TISSUE_ID))
    return TISSUE_ID[name]


def tissues_where(*, names: tuple[str, ...] = (), kinds: tuple[Kind, ...] = ()) -> BoolArray:
    """Return a look-up table ``(256,)``, true for tissues of the given names or kinds."""
    table = np.zeros(256, dtype=np.bool_)
    for name in names:
        table[tissue_id(name)] = True
    for index, tissue in enumerate(TISSUES):
        table[index] |= tissue.kind in kinds
    return table


def structure_table() -> UInt8Array:
    """Return a look-up table ``(256,)`` from tissue to structure id, 0 for tissues of no structure."""
    table = np.zeros(256, dtype=np.uint8)
    for index, tissue in enumerate(TISSUES):
        if tissue.structure:
            table[index] = ABDOMEN.id_of(tissue.structure)
    return table
