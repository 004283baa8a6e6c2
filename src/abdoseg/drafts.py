"""Draft a card from a folder: what can be seen is filled in, what cannot is said.

Known forms: nnU-Net raw folders (v1 and v2) and the Medical Segmentation Decathlon by their ``dataset.json``, one mask
file a structure, a CSV of pairs, HDF5 volumes, and folders of images and labels. A name is trusted as far as
:func:`abdoseg.structure_names.recognise` knows it; what a bare number means is never guessed.
"""

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from abdoseg.cards import LabelTarget
from abdoseg.errors import CardError, CaseError
from abdoseg.readers import read_scan
from abdoseg.readers.layouts import list_files
from abdoseg.side_files import labels_of_dataset_json, read_json
from abdoseg.structure_names import recognise

LOOKED_AT = 3
"""Label files opened to see which values there are."""

_WITHIN = re.compile("tumou?r|cancer|lesion|cyst|mass|metasta", re.IGNORECASE)
"""Names of what lies in an organ."""

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_IMAGE_NAMES = ("ct", "mri", "mr", "image", "imaging", "img", "volume", "scan")
_LABEL_NAMES = ("label", "labels", "segmentation", "seg", "mask", "gt")
_IMAGE_FOLDERS = ("imagesTr", "images", "img", "image", "Images", "volumes")
_LABEL_FOLDERS = ("labelsTr", "labels", "label", "Labels", "masks", "Mask", "seg", "segmentations")


@dataclass
class Draft:
    """A proposed card.

    Parameters
    ----------
    facts
        What goes into the TOML.
    unsure
        What the user must look at; empty only when nothing was guessed.
    missing
        What has to be filled in before the card can be used.
    """

    facts: dict[str, Any]
    unsure: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def to_toml(self) -> str:
        """Return the card's text, doubts first."""
        lines = [f"# LOOK AT: {text}" for text in self.unsure] + [f"# FILL IN: {text}" for text in self.missing]
        return "\n".join([*lines, "", tomli_w.dumps(self.facts)]).lstrip("\n")


def draft_card(folder: Path, modality: str | None = None) -> Draft:
    """Propose a card for the source in ``folder``.

    Parameters
    ----------
    folder
        Where the source was unpacked.
    modality
        ``CT`` or ``MR`` where the user knows it.

    Raises
    ------
    ConfigError
        If the folder is missing or empty.
    CardError
        If its files have none of the known forms.
    """
    paths = list_files(folder)
    for form in _FORMS:
        draft = form(folder, paths)
        if draft is not None:
            _complete(draft, folder, modality)
            return draft
    raise CardError(
        f"{folder}: none of its {len(paths)} files has a form that can be drafted (nnU-Net dataset.json, masks beside "
        "an image, images and labels, a CSV with columns image and label, HDF5); write a card by hand: docs/cards.md"
    )


def _complete(draft: Draft, folder: Path, modality: str | None) -> None:
    """Put in what every card needs, in the order people read it."""
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "mine"
    found = modality or draft.facts.pop("modality", None)
    draft.facts.pop("modality", None)
    if found is None:
        found = "CT"
        draft.unsure.append('modality: nothing tells it; "CT" was put in, write "MR" if it is MR')
    head = {"id": slug, "title": f"{folder.resolve().name} (drafted)", "modality": found}
    draft.facts = {**head, **draft.facts}


def _from_dataset_json(folder: Path, paths: list[str]) -> Draft | None:
    """Draft from the dataset.json of an nnU-Net raw folder or a Decathlon task."""
    found = sorted((p for p in paths if p.rpartition("/")[2] == "dataset.json"), key=lambda p: p.count("/"))
    if not found:
        return None
    facts = read_json(folder / found[0])
    names = labels_of_dataset_json(facts)
    ending = str(facts.get("file_ending", ".nii.gz"))
    draft = Draft({})
    channels = facts.get("channel_names") or facts.get("modality") or {}
    draft.facts["modality"] = _modality_of(channels)
    if draft.facts["modality"] is None:
        draft.facts.pop("modality")
    if isinstance(channels, dict) and len(channels) > 1:
        draft.missing.append(f"the images have {len(channels)} channels, abdoseg reads one: choose _0000 or another")
    regions = [str(k) for k, v in facts.get("labels", {}).items() if isinstance(v, list)]
    if regions:
        draft.unsure.append(f"regions {', '.join(regions)} join several values; only single values are mapped")
    channel = "_0000" if any(re.search(rf"imagesTr/[^/]+_0000{re.escape(ending)}$", p) for p in paths) else ""
    draft.facts["annotated"] = []
    draft.facts["layouts"] = [
        {
            "name": "nnU-Net raw" if channel else "Decathlon",
            "image": f"imagesTr/{{case}}{channel}{ending}",
            "label": f"labelsTr/{{case}}{ending}",
            "case": "{case}",
            "groups": {"case": "[^/]+"},
        }
    ]
    draft.facts["unlabelled"] = [{"match": "imagesTs/", "reason": "test scans without labels"}]
    _map_values(draft, names)
    return draft


def _modality_of(channels: Any) -> str | None:
    """Return the modality that channel names tell: nnU-Net normalises by the very word CT."""
    texts = " ".join(str(v) for v in (channels.values() if isinstance(channels, dict) else [channels])).lower()
    if re.search(r"\bct\b", texts):
        return "CT"
    return "MR" if re.search(r"\b(mri?|t1|t2|dwi|flair)", texts) else None


def _map_values(draft: Draft, names: dict[int, str]) -> None:
    """Fill labels, dropped, ignored and annotated from value -> name."""
    labels: dict[str, LabelTarget] = {}
    dropped, ignored = {}, {}
    for value, name in names.items():
        target = recognise(name)
        if name.strip().lower() == "ignore":
            ignored[str(value)] = "ignore label"
        elif target is None:
            dropped[str(value)] = name
        else:
            labels[str(value)] = target if isinstance(target, str) else list(target)
    within = [n for n in dropped.values() if _WITHIN.search(n)]
    if within:
        draft.missing.append(
            f"{', '.join(within)}: part of which organ? Other sources draw it as its organ; dropped, it is a hole in it"
        )
    if dropped:
        told = ", ".join(f"{v} {n}" for v, n in dropped.items())
        draft.unsure.append(f"values {told} are none of our structures by name; they become background")
    if not labels:
        draft.missing.append("labels: no name is one of our structures; map the values and list them in annotated")
    targets = [[t] if isinstance(t, str) else t for t in labels.values()]
    draft.facts["annotated"] = list(dict.fromkeys(name for names_ in targets for name in names_))
    draft.facts |= {k: v for k, v in (("labels", labels), ("dropped", dropped), ("ignored", ignored)) if v}


def _from_masks(folder: Path, paths: list[str]) -> Draft | None:  # noqa: ARG001 - all forms are called alike
    """Draft from case folders: an image, and below it a mask file a structure."""
    names = "|".join(_IMAGE_NAMES)
    for image in paths:
        match = re.fullmatch(rf"(?:.*/)?(?P<case>[^/]+)/(?P<image>{names})(?P<ending>\.nii\.gz|\.nii|\.nrrd)", image)
        if not match:
            continue
        base = image.rpartition("/")[0]
        below = rf"{re.escape(base)}/(?P<folder>[^/]+/)(?P<mask>[^/]+){re.escape(match['ending'])}"
        masks = [m for m in (re.fullmatch(below, path) for path in paths) if m]
        if len(masks) < 2:
            continue
        return _masks_draft(match, masks)
    return None


def _masks_draft(image: re.Match[str], masks: list[re.Match[str]]) -> Draft:
    subfolder, ending = masks[0]["folder"], image["ending"]
    mapped, unknown = {}, []
    for mask in masks:
        target = recognise(mask["mask"])
        if isinstance(target, str):
            mapped[mask["mask"]] = target
        else:
            unknown.append(mask["mask"])
    facts: dict[str, Any] = {
        "annotated": list(dict.fromkeys(mapped.values())),
        "layouts": [
            {
                "name": "a folder a case",
                "image": f"{{case}}/{image['image']}{ending}",
                "masks": f"{{case}}/{subfolder}{{mask}}{ending}",
                "case": "{case}",
                "groups": {"case": "[^/]+", "mask": "[^/]+"},
            }
        ],
        "masks": mapped,
    }
    if image["image"] in ("ct", "mr", "mri"):
        facts["modality"] = "CT" if image["image"] == "ct" else "MR"
    draft = Draft(facts)
    if unknown:
        draft.unsure.append(f"{len(unknown)} masks are none of our structures by name: {', '.join(unknown[:6])} ...")
    if not mapped:
        draft.missing.append("masks: no file name is one of our structures; map the files")
    return draft


def _from_pairs_table(folder: Path, paths: list[str]) -> Draft | None:
    """Draft from a CSV with columns image and label."""
    for path in (p for p in paths if p.lower().endswith(".csv")):
        try:
            with (folder / path).open(encoding="utf-8-sig", newline="") as file:
                columns = csv.DictReader(file).fieldnames or []
                first = file.readline().strip()
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        if not {"image", "label"} <= set(columns) or not first:
            continue
        name = path.rpartition("/")[2]
        layout = {"name": "pairs", "pairs": name, "image": "{image}", "label": "{label}", "case": "{case}"}
        draft = Draft({"annotated": [], "layouts": [layout]})
        if "case" not in columns:
            draft.missing.append(f"{name} has no column case; add one with a plain id a row")
        if "patient_id" in columns or "patient" in columns:
            layout["patient"] = "{patient_id}" if "patient_id" in columns else "{patient}"
        with (folder / path).open(encoding="utf-8-sig", newline="") as file:
            labels = [folder / Path(path).parent / row["label"] for row in csv.DictReader(file) if row.get("label")]
        _ask_for_values(draft, labels)
        return draft
    return None


def _from_hdf5(folder: Path, paths: list[str]) -> Draft | None:
    """Draft from files with an image and a label dataset each, as TransUNet's test volumes."""
    files = [path for path in paths if path.lower().endswith((".h5", ".hdf5"))]
    if not files:
        return None
    ending = files[0][files[0].rindex(".") :]
    layout = {
        "name": "HDF5",
        "image": f"{{case}}{ending}",
        "label": f"{{case}}{ending}",
        "image_key": "image",
        "label_key": "label",
        "case": "{case}",
        "groups": {"case": "[^/]+?(?:\\.npy)?"},
    }
    draft = Draft({"annotated": [], "layouts": [layout]})
    draft.unsure.append("HDF5 volumes state no orientation unless they have an attribute affine: check left and right")
    _ask_for_values(draft, [folder / path for path in files], key="label")
    return draft


def _from_folders(folder: Path, paths: list[str]) -> Draft | None:
    """Draft from images and labels in two folders, or side by side."""
    for images in _IMAGE_FOLDERS:
        for labels in _LABEL_FOLDERS:
            draft = _two_folders(folder, paths, images, labels)
            if draft:
                return draft
    return _side_by_side(folder, paths)


def _two_folders(folder: Path, paths: list[str], images: str, labels: str) -> Draft | None:
    endings = "|".join(re.escape(e) for e in _ENDINGS)
    found = [m for m in (re.fullmatch(rf"(?:.*/)?{images}/([^/]+?)((?:_0000)?)({endings})", p) for p in paths) if m]
    drawn = [p for p in paths if re.fullmatch(rf"(?:.*/)?{labels}/[^/]+?({endings})", p)]
    if not found or not drawn:
        return None
    _, channel, ending = found[0].groups()
    label_ending = next(e for e in _ENDINGS if drawn[0].endswith(e))
    names = {p.rpartition("/")[2].removesuffix(label_ending) for p in drawn}
    suffix = next((s for s in ("", "_label", "_seg", "_mask", "_gt") if any(m[1] + s in names for m in found)), None)
    layout = {
        "name": "images and labels",
        "image": f"{images}/{{case}}{channel}{ending}",
        "label": f"{labels}/{{case}}{suffix or ''}{label_ending}",
        "case": "{case}",
        "groups": {"case": "[^/]+?"},
    }
    draft = Draft({"annotated": [], "layouts": [layout]})
    if suffix is None:
        draft.missing.append(
            f"no image name is a label name ({found[0][1]} and {min(names)}): write groups that pair them"
        )
    _ask_for_values(draft, [folder / p for p in drawn])
    return draft


def _side_by_side(folder: Path, paths: list[str]) -> Draft | None:
    images, labels = "|".join(_IMAGE_NAMES), "|".join(_LABEL_NAMES)
    for path in paths:
        match = re.fullmatch(rf"(?P<base>(?:.*/)?[^/]+/)(?P<image>{images})(?P<ending>\.nii\.gz|\.nii|\.nrrd)", path)
        if not match:
            continue
        pattern = rf"{re.escape(match['base'])}({labels}){re.escape(match['ending'])}"
        label = next((m[1] for m in (re.fullmatch(pattern, p) for p in paths) if m), None)
        if label is None:
            continue
        layout = {
            "name": "a folder a case",
            "image": f"{{case}}/{match['image']}{match['ending']}",
            "label": f"{{case}}/{label}{match['ending']}",
            "case": "{case}",
            "groups": {"case": "[^/]+"},
        }
        draft = Draft({"annotated": [], "layouts": [layout]})
        _ask_for_values(draft, [folder / p for p in paths if p.endswith(f"/{label}{match['ending']}")])
        return draft
    return None


def _ask_for_values(draft: Draft, labels: list[Path], key: str | None = None) -> None:
    """Say which values some label files hold; what they mean only the user knows."""
    seen: dict[int, list[float]] = {}
    for path in labels[:LOOKED_AT]:
        try:
            scan = read_scan(path, key)
        except CaseError as error:
            draft.unsure.append(str(error))
            continue
        ml = float(np.prod(scan.grid.spacing_mm)) / 1000
        values, counts = np.unique(np.rint(scan.array), return_counts=True)
        for value, count in zip(values, counts, strict=True):
            if value != 0:
                seen.setdefault(int(value), []).append(float(count) * ml)
    told = [f"{v} (about {np.median(ml):.0f} ml)" for v, ml in sorted(seen.items())[:40]]
    example = min(seen, default=1)
    draft.missing.append(
        f'labels: say what the values mean, as in {example} = "liver" below [labels], and list the structures in '
        f"annotated; seen in {min(LOOKED_AT, len(labels))} files: {', '.join(told) or 'nothing but 0'}"
    )


Form = Callable[[Path, list[str]], Draft | None]

_FORMS: Iterable[Form] = (_from_dataset_json, _from_masks, _from_pairs_table, _from_hdf5, _from_folders)


def card_of(folder: Path, modality: str | None = None) -> Draft:
    """Return the draft of a folder that states all that a card needs, for ingest without writing a card.

    Raises
    ------
    CardError
        If something has to be filled in.
    """
    draft = draft_card(folder, modality)
    if draft.missing:
        msg = f"{folder}: {'; '.join(draft.missing)}; write it down with `abdoseg cards draft {folder} -o mine.toml`"
        raise CardError(msg)
    return draft
