"""What other people call the structures: from a name in somebody's file to ours.

Used to draft cards and to compare a ``dataset.json`` with a card; never to decide on its own what a label means.
"""

import re

from abdoseg.anatomy import ABDOMEN, Anatomy

Recognised = str | tuple[str, str]
"""A structure, or (right, left) where one name means both sides."""

_SYNONYMS: dict[str, str] = {
    "gall bladder": "gallbladder",
    "oesophagus": "esophagus",
    "arota": "aorta",  # so in AMOS's own dataset.json
    "abdominal aorta": "aorta",
    "inferior vena cava": "postcava",
    "ivc": "postcava",
    "post cava": "postcava",
    "vena cava inferior": "postcava",
    "urinary bladder": "bladder",
    "prostate": "prostate_uterus",
    "prostate or uterus": "prostate_uterus",
    "prostate uterus": "prostate_uterus",
    "uterus": "prostate_uterus",
    "portal vein splenic vein": "portal_splenic_vein",
    "portal splenic vein": "portal_splenic_vein",
    "hepatic": "liver",
}

_PAIRS: dict[str, str] = {"kidney": "kidney", "kidneys": "kidney", "adrenal": "adrenal_gland"}
_PAIRS |= dict.fromkeys(("adrenals", "adrenal gland", "adrenal glands", "suprarenal gland"), "adrenal_gland")

_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "lt": "left", "rt": "right"}


def recognise(name: str, anatomy: Anatomy = ABDOMEN) -> Recognised | None:
    """Return the structure that a name means, or (right, left) for a name of both; ``None`` if it is not known.

    Case, underscores, dots and the place of "left" and "right" do not matter: ``kidney_left``, ``Left Kidney``,
    ``L. kidney`` and ``LK`` are one. A name with further words ("liver tumour") is not recognised.
    """
    # One letter means nothing in somebody else's file.
    abbreviated = next((s.name for s in anatomy.structures if len(name) > 1 and s.abbreviation == name), None)
    if abbreviated:
        return abbreviated
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()).split()
    sides = {_SIDES[word] for word in words if word in _SIDES}
    rest = " ".join(word for word in words if word not in _SIDES and word != "and")
    if rest in _PAIRS:
        right, left = f"right_{_PAIRS[rest]}", f"left_{_PAIRS[rest]}"
        found: Recognised | None = {"right": right, "left": left}[sides.pop()] if len(sides) == 1 else (right, left)
    elif sides:
        found = None
    else:
        found = _plain(rest, anatomy)
    known = found is not None and {*([found] if isinstance(found, str) else found)} <= set(anatomy.names)
    return found if known else None


def _plain(rest: str, anatomy: Anatomy) -> str | None:
    if rest in _SYNONYMS:
        return _SYNONYMS[rest]
    for structure in anatomy.structures:
        if rest in (structure.name.replace("_", " "), structure.title.lower()):
            return structure.name
    return None
