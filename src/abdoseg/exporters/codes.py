"""Codes of structures in DICOM objects and Slicer's segmentations: SNOMED CT where it has a term, else private.

The terms are those of DICOM PS3.16 (CID 7151, 4031 and the contexts they include). Two of the default structures
are two organs under one label, for which no term exists; a code for one of the two would be wrong half of the
time. They, and structures of the user's own, get a code of this package's private scheme, ``99ABDOSEG``, whose value
is the structure's name.
"""

from dataclasses import dataclass

from abdoseg.anatomy import Structure

PRIVATE_SCHEME = "99ABDOSEG"
"""Coding scheme designator of codes that this package makes; "99" marks a private one (PS3.16, 8.2)."""

_LONGEST_VALUE, _LONGEST_MEANING = 16, 64
"""Characters that DICOM gives a Code Value (SH) and a Code Meaning (LO)."""


@dataclass(frozen=True)
class Coded:
    """A concept as DICOM codes it.

    Parameters
    ----------
    scheme, value, meaning
        Coding scheme designator, code value and code meaning.
    side
        Right or left, the modifier of a paired organ.
    """

    scheme: str
    value: str
    meaning: str
    side: "Coded | None" = None

    @property
    def is_private(self) -> bool:
        """Whether only this package knows it."""
        return self.scheme == PRIVATE_SCHEME


RIGHT = Coded("SCT", "24028007", "Right")
LEFT = Coded("SCT", "7771000", "Left")

CODES: dict[str, Coded] = {
    "spleen": Coded("SCT", "78961009", "Spleen"),
    "right_kidney": Coded("SCT", "64033007", "Kidney", RIGHT),
    "left_kidney": Coded("SCT", "64033007", "Kidney", LEFT),
    "gallbladder": Coded("SCT", "28231008", "Gallbladder"),
    "esophagus": Coded("SCT", "32849002", "Esophagus"),
    "liver": Coded("SCT", "10200004", "Liver"),
    "stomach": Coded("SCT", "69695003", "Stomach"),
    "aorta": Coded("SCT", "15825003", "Aorta"),
    "postcava": Coded("SCT", "64131007", "Inferior vena cava"),
    "pancreas": Coded("SCT", "15776009", "Pancreas"),
    "right_adrenal_gland": Coded("SCT", "23451007", "Adrenal gland", RIGHT),
    "left_adrenal_gland": Coded("SCT", "23451007", "Adrenal gland", LEFT),
    "duodenum": Coded("SCT", "38848004", "Duodenum"),
    "bladder": Coded("SCT", "89837001", "Bladder"),
    "prostate_uterus": Coded(PRIVATE_SCHEME, "PROSTATE_UTERUS", "Prostate or uterus"),
    "portal_splenic_vein": Coded(PRIVATE_SCHEME, "PORTAL_SPLENIC", "Portal vein and splenic vein"),
}
"""Structure's name -> its code, for the default structures."""


def coded(structure: Structure) -> Coded:
    """Return the code of a structure, a private one where the table has none.

    A private value longer than DICOM allows is cut, with a mark of the whole name so that two stay two.
    """
    if structure.name in CODES:
        return CODES[structure.name]
    value = structure.name.upper()
    if len(value) > _LONGEST_VALUE:
        from hashlib import sha256

        mark = sha256(structure.name.encode()).hexdigest()[:6].upper()
        value = f"{value[: _LONGEST_VALUE - 7]}_{mark}"
    return Coded(PRIVATE_SCHEME, value, short(structure.title))


def short(text: str, most: int = _LONGEST_MEANING) -> str:
    """Return a text that fits an element of DICOM: ``most`` bytes of UTF-8, without the backslash between values."""
    return text.replace("\\", "/").encode()[:most].decode(errors="ignore")
