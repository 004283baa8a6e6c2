"""What lies beside the scans of a source: a table of cases, a table of annotated slices, a ``dataset.json``."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from abdoseg.cards import Card, structures_of
from abdoseg.csv_files import read_csv
from abdoseg.errors import CardError
from abdoseg.slice_rows import ListedSlice
from abdoseg.structure_names import recognise

_LISTED_COLUMNS = ("case", "axis", "slice")


def require_labels(card: Card) -> None:
    """Raise CardError if the card leaves its label map to the user, who has not stated one."""
    if card.labels_by_user and not card.annotated:
        msg = (
            f"card {card.id}: no public label map exists; state yours with "
            "--labels '1=liver,2=right_kidney+left_kidney' (VALUE=STRUCTURE, RIGHT+LEFT where both share a value)"
        )
        raise CardError(msg)


def read_table(card: Card, folder: Path) -> dict[str, dict[str, str]] | None:
    """Return case -> row of the source's table; ``None`` where the card has none or it is not there.

    Raises
    ------
    CardError
        If the table cannot be read or lacks its key column.
    """
    if card.table is None:
        return None
    found = _find(folder, card.table.path)
    if found is None:
        return None
    rows = read_csv(found, (card.table.key,), card.table.separator)
    return {row[card.table.key]: row for row in rows}


def read_listed_slices(card: Card, folder: Path) -> dict[str, tuple[ListedSlice, ...]]:
    """Return case -> its annotated slices, by the card's side-car table; empty for a card without one.

    Raises
    ------
    CardError
        If the table is missing, cannot be read, or a slice is no whole number.
    """
    if card.sparse is None or card.sparse.table is None:
        return {}
    found = _find(folder, card.sparse.table)
    if found is None:
        raise CardError(f"{folder}: no {card.sparse.table} found, which lists the annotated slices; add it")
    listed: dict[str, list[ListedSlice]] = {}
    for number, row in enumerate(read_csv(found, _LISTED_COLUMNS, card.sparse.separator), start=2):
        text = row["slice"].strip()
        if not re.fullmatch("[0-9]+", text):
            raise CardError(f"{found}, line {number}: slice '{text[:20]}', expected a whole number")
        names = row.get("structures", "").replace("+", " ").split()
        listed.setdefault(row["case"], []).append(ListedSlice(row["axis"].strip(), int(text[:9]), tuple(names) or None))
    return {case: tuple(slices) for case, slices in listed.items()}


def refuse_other_labels(card: Card, images: Iterable[Path], folder: Path) -> None:
    """Raise CardError if the ``dataset.json`` of some images gives a value another meaning than the card.

    Images of one source are passed on with the labels of another, in another order: AMOS scans in FLARE order are
    public.

    Parameters
    ----------
    card
        The source.
    images
        Its images as found; each one's ``dataset.json`` is the nearest one in the folders above it.
    folder
        Where the search for it ends.
    """
    if not card.dataset_json:
        return
    folders = {image.parent for image in images}
    for found in sorted({path for path in (_nearest(f, folder, "dataset.json") for f in folders) if path}):
        for value, name in labels_of_dataset_json(read_json(found)).items():
            _refuse_other_meaning(card, found, value, name)


def _refuse_other_meaning(card: Card, found: Path, value: int, name: str) -> None:
    stated, meant = recognise(name), card.label_targets().get(value)
    if stated is None or meant is None:
        return
    meant_names = structures_of([meant])
    if {*([stated] if isinstance(stated, str) else stated)} != meant_names:
        msg = (
            f"{found}: says that {value} is {name}, card {card.id} says {' and '.join(sorted(meant_names))}; "
            "these are other labels: try `abdoseg ingest nnunet`, or draft a card for this copy"
        )
        raise CardError(msg)


def _nearest(start: Path, end: Path, name: str) -> Path | None:
    """Return the file called ``name`` in ``start`` or the folders above it, up to ``end``."""
    for place in (start, *start.parents):
        if (place / name).is_file():
            return place / name
        if place == end:
            break
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    CardError
        If it cannot be read or is no object.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CardError(f"{path}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(facts, dict):
        raise CardError(f"{path}: holds a {type(facts).__name__}, expected an object")
    return facts


def labels_of_dataset_json(facts: dict[str, Any]) -> dict[int, str]:
    """Return value -> name of a ``dataset.json``, whichever way round it has them; background is left out.

    nnU-Net v1 and the Medical Segmentation Decathlon write ``{"1": "liver"}``, nnU-Net v2 ``{"liver": 1}``. A region
    (a list of values) is no label of its own and is left out too.
    """
    labels = facts.get("labels", {})
    pairs: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, int):
            pairs[value] = str(key)
        elif re.fullmatch("[0-9]{1,9}", str(key)) and isinstance(value, str):
            pairs[int(key)] = value
    return {value: name for value, name in sorted(pairs.items()) if value != 0}


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of this name that lies least deep below ``folder``."""
    found = sorted(folder.rglob(name), key=lambda path: (len(path.parts), path))
    return next((path for path in found if "__MACOSX" not in path.parts), None)
