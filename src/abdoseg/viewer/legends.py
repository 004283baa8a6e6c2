"""What the values of a label map on file mean: abdoseg's ids, or what ``<stem>.labels.json`` beside it says."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from abdoseg.anatomy import Anatomy, Structure
from abdoseg.annotation import Annotation
from abdoseg.errors import CaseError
from abdoseg.readers import stem_of
from abdoseg.types import UNKNOWN_LABEL

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")

_GREY = "#a0a0a0"


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the values of a label map mean.

    Parameters
    ----------
    anatomy
        Names of the ids.
    values
        Raw value -> id; None: values are ids already, and those beyond the anatomy are shown by number.
    annotation
        Which structures were looked for; None where nobody said.
    notes
        What the user should know.
    """

    anatomy: Anatomy
    values: dict[int, int] | None = None
    annotation: Annotation | None = None
    notes: tuple[str, ...] = ()


def meaning_beside(path: Path, anatomy: Anatomy) -> Meaning:
    """Return what the side file of a label map says of its values; without one they are taken as ids, which is noted.

    Parameters
    ----------
    path
        The label map.
    anatomy
        The known structures; those that the side file has beyond them are added behind, so that ids stay.

    Raises
    ------
    CaseError
        If the side file cannot be read or used; the message begins with its path.
    """
    beside = path.with_name(f"{stem_of(path)}.labels.json")
    if not beside.is_file():
        ids = ", ".join(f"{i} {name}" for i, name in enumerate(anatomy.names[:2], start=1))
        return Meaning(anatomy, notes=(f"{path.name}: values are taken as abdoseg's structure ids ({ids}, ...)",))
    legend = _read(beside)
    known = set(anatomy.names)
    whole = Anatomy((*anatomy.structures, *(s for s in legend.values() if s.name not in known)))
    if len(whole) >= UNKNOWN_LABEL:
        raise CaseError(f"{beside}: names {len(legend)} structures; a page shows up to {UNKNOWN_LABEL - 1} in all")
    values = {value: whole.id_of(structure.name) for value, structure in legend.items()}
    if all(value == i for value, i in values.items()):
        return Meaning(whole)
    return Meaning(whole, {0: 0, UNKNOWN_LABEL: UNKNOWN_LABEL, **values})


def _read(beside: Path) -> dict[int, Structure]:
    """Return value -> structure of a side file."""
    try:
        rows = json.loads(beside.read_text(encoding="utf-8"))["structures"]
        legend = {int(row["id"]): _structure(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(
            f"{beside}: does not name a label map's values ({type(error).__name__}: {error}); expected what abdoseg "
            "writes; remove it or write it again"
        ) from error
    if 0 in legend or len({structure.name for structure in legend.values()}) < len(rows):
        raise CaseError(f"{beside}: expected values above 0 and each name once; remove it or write it again")
    return legend


def _structure(row: dict[str, str]) -> Structure:
    name = str(row["name"])
    colour = str(row.get("colour", _GREY))
    # The page puts it into a style.
    return Structure(name, str(row.get("title", name)), name, colour if _COLOUR.fullmatch(colour) else _GREY)
