"""A user's own structures: read from a small file, checked, and completed where only a name is given."""

import colorsys
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from abdoseg.anatomy import ABDOMEN, Structure
from abdoseg.errors import ConfigError
from abdoseg.value_errors import faults_of, why_unreadable

MOST_STRUCTURES = 254
"""Labels are one byte; 0 is background and 255 unknown."""

_RESERVED = ("background", "unknown", "all")
_FORMS = {
    "name": (r"[a-z][a-z0-9_]{0,59}", "lower case letters, digits and underscores, such as right_lung"),
    "colour": (r"#[0-9a-fA-F]{6}", "#rrggbb"),
    "abbreviation": (r"\S{1,8}", "1 to 8 characters without spaces"),
    "title": (r"\S[^\r\n]{0,59}", "1 to 60 characters"),
}
"""Field -> its form, and that in words."""


class OwnStructure(BaseModel):
    """One structure of a file, or of a workspace's settings; of a name the paper has, the rest is the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str | None = None
    abbreviation: str | None = None
    colour: str | None = None
    partner: str | None = None

    @field_validator("name", "title", "abbreviation", "colour")
    @classmethod
    def _form(cls, value: str | None, info: Any) -> str | None:
        form, words = _FORMS[info.field_name]
        if value is not None and not re.fullmatch(form, value):
            msg = f"found {value!r}, expected {words}"
            raise ValueError(msg)
        if info.field_name == "name" and value in _RESERVED:
            msg = f"found {value!r}, which stands for something else; choose another name"
            raise ValueError(msg)
        return value

    def completed(self, index: int) -> Structure:
        """Return the structure; what is not given is the paper's, else made from the name and ``index`` 0..N-1."""
        words = self.name.split("_")
        made = Structure(self.name, " ".join(words), "".join(w[0] for w in words if w).upper()[:8], _colour(index))
        usual = {structure.name: structure for structure in ABDOMEN.structures}.get(self.name, made)
        return Structure(
            self.name,
            self.title or usual.title,
            self.abbreviation or usual.abbreviation,
            self.colour or usual.colour,
            self.partner or usual.partner,
        )


class StructuresFile(BaseModel):
    """What a file of structures holds, in channel order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: tuple[OwnStructure, ...]


def _colour(index: int) -> str:
    """Return a colour far from those of neighbouring indices: hues a golden section apart, two lightnesses in turn."""
    rgb = colorsys.hls_to_rgb(0.618034 * index % 1, (0.4, 0.65)[index % 2], 0.7)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def read_structures(file: Path) -> tuple[Structure, ...]:
    """Return the structures of a ``.toml`` or ``.json`` file, in channel order; all faults are told at once.

    Raises
    ------
    ConfigError
        If the file cannot be read, a value is not allowed, or the structures do not fit together.
    """
    where = f"--structures {file}"
    if file.suffix.lower() not in (".toml", ".json"):
        raise ConfigError(f"{where}: expected a .toml or .json file; see docs/workspace.md for an example")
    try:
        text = file.read_text(encoding="utf-8")
        facts = tomllib.loads(text) if file.suffix.lower() == ".toml" else json.loads(text)
        listed = StructuresFile.model_validate(facts).structures
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: no such file; see docs/workspace.md for an example") from error
    except ValidationError as error:
        raise ConfigError(f"{where}: {faults_of(error, 'file')}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: cannot be read ({why_unreadable(error)}); expected TOML or JSON") from error
    structures = tuple(one.completed(index) for index, one in enumerate(listed))
    faults = [*faults_of_structures(structures)]
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    return structures


def faults_of_structures(structures: Sequence[Structure]) -> Iterator[str]:
    """Give what is wrong with a list of structures as a whole."""
    if not 1 <= len(structures) <= MOST_STRUCTURES:
        yield f"found {len(structures)} structures, expected 1 to {MOST_STRUCTURES}"
    for field in ("name", "abbreviation"):
        counts = Counter(getattr(structure, field) for structure in structures)
        twice = [text for text, n in counts.items() if n > 1]
        if twice:
            yield f"{field} {', '.join(twice)}: found more than once, expected a {field} for each structure"
    by_name = {structure.name: structure for structure in structures}
    usual = {structure.name: structure.partner for structure in ABDOMEN.structures}
    for structure in structures:
        # A workspace may hold one side alone of the paper's pairs.
        if structure.partner is not None and structure.partner != usual.get(structure.name):
            yield from _partner_faults(structure, by_name.get(structure.partner))


def _partner_faults(structure: Structure, partner: Structure | None) -> Iterator[str]:
    where = f"{structure.name}: partner '{structure.partner}'"
    if partner is None:
        yield f"{where} is not among the structures; add it, or leave the partner out"
    elif partner is structure:
        yield f"{where} is itself; expected the structure on the other side of the body, or none"
    elif partner.partner != structure.name:
        yield f"{where} has {partner.partner or 'no partner'}; expected partner = '{structure.name}' there"
