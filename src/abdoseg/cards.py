"""Cards: what a source holds, how its files are found, what its annotators looked for.

A card is one TOML file; adding a source is adding a card. Unknown keys are refused, so that a slip of the pen is
an error and never a setting that silently does nothing.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.errors import CardError, unknown_name
from abdoseg.types import Modality, SplitName

LabelTarget = str | list[str]
"""A structure, or ``[right, left]`` where the source draws both sides with one value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Layout(_Part):
    """One way in which the source's files lie on disk.

    Templates are paths below a root that is searched for (nested roots are found). ``{name}`` stands for the
    regular expression ``groups[name]``; the same name means the same text in image, label and case.
    """

    name: str = Field(description="for messages")
    image: str = Field(description="template of the image file")
    label: str | None = Field(default=None, description="template of the label map")
    masks: str | None = Field(default=None, description="template of one mask file, with {mask}")
    case: str = Field(description="template of the case id")
    patient: str | None = Field(default=None, description="template of the patient's pseudonym; default: the case id")
    groups: dict[str, str] = Field(description="regular expression for each {name}")
    ranges: dict[str, tuple[int, int]] = Field(default={}, description="numbers allowed for a group, inclusive")

    @model_validator(mode="after")
    def _templates_use_known_groups(self) -> "Layout":
        used = set(re.findall(r"{(\w+)}", self.image + self.case + (self.patient or "") + (self.label or "")))
        used |= set(re.findall(r"{(\w+)}", self.masks or ""))
        missing = used - set(self.groups)
        if missing:
            msg = f"layout {self.name}: no expression in groups for {', '.join(sorted(missing))}"
            raise ValueError(msg)
        for name, expression in self.groups.items():
            _require_expression(f"layout {self.name}, group {name}", expression)
        if (self.label is None) == (self.masks is None):
            msg = f"layout {self.name}: give either label (a label map) or masks (one file a structure)"
            raise ValueError(msg)
        self._check_references()
        return self

    def _check_references(self) -> None:
        if self.masks is not None and "{mask}" not in self.masks:
            msg = f"layout {self.name}: masks lacks {{mask}}, the part of the path that names the structure"
            raise ValueError(msg)
        in_case = set(re.findall(r"{(\w+)}", self.case + (self.patient or "")))
        for field in ("image", "label", "masks"):
            template = getattr(self, field)
            if template is not None and not in_case <= set(re.findall(r"{(\w+)}", template)):
                msg = f"layout {self.name}: {field} lacks a {{name}} that case or patient is made of"
                raise ValueError(msg)
        named = {n for e in self.groups.values() for n in re.findall(r"\(\?P<(\w+)>", e)} | set(self.groups)
        if set(self.ranges) - named:
            msg = (
                f"layout {self.name}: ranges of {', '.join(sorted(set(self.ranges) - named))}, which no group captures"
            )
            raise ValueError(msg)


def _require_expression(where: str, expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        msg = f"{where}: '{expression}' is not a regular expression ({error})"
        raise ValueError(msg) from error


class Table(_Part):
    """A table beside the images with one row a case."""

    path: str = Field(description="file name, searched below the source's folder")
    separator: str = ","
    key: str = Field(description="column that holds the case id")


class Split(_Part):
    """Where the official split is written: a named group of the layout, or a column of the table."""

    group: str | None = None
    column: str | None = None
    sides: dict[str, SplitName] = Field(description="text -> train, val or test")

    @model_validator(mode="after")
    def _one_place(self) -> "Split":
        if (self.group is None) == (self.column is None):
            msg = "split: give either group (of the layout) or column (of the table)"
            raise ValueError(msg)
        return self


class AnnotationException(_Part):
    """Structures that are not annotated in some cases."""

    not_annotated: tuple[str, ...]
    unless: dict[str, tuple[str, ...]] = Field(description="table column -> values for which the rule does not apply")
    reason: str


class Unlabelled(_Part):
    """Images that have no label by the source's own design; they are passed over with this reason."""

    match: str = Field(description="regular expression searched in the image's path")
    reason: str


class Access(_Part):
    """How a user gets the data."""

    url: str
    how: str
    licence: str
    citation: str


class Expected(_Part):
    """What a complete copy looks like; a difference is a warning."""

    cases: int | None = None
    spacing_mm: tuple[float, float] | None = Field(default=None, description="smallest and largest voxel side")


class Card(_Part):
    """A source."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    version: str = ""
    alias: str | None = Field(default=None, description="name that ingests all cards that carry it")
    modality: Modality
    annotated: tuple[str, ...] = Field(description="structures the annotators looked for, present or not")
    layouts: tuple[Layout, ...] = Field(min_length=1)
    labels: dict[str, LabelTarget] = Field(default={}, description="raw value -> structure or [right, left]")
    dropped: dict[str, str] = Field(default={}, description="raw value -> what it is; becomes background")
    masks: dict[str, str] = Field(default={}, description="mask file -> structure, a later one wins")
    table: Table | None = None
    split: Split | None = None
    exceptions: tuple[AnnotationException, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    exclude: dict[str, str] = Field(default={}, description="case id -> why it must not be used")
    suspect: dict[str, str] = Field(default={}, description="case id -> what to look at")
    overlaps: dict[str, str] = Field(default={}, description="other source -> what they share")
    expected: Expected = Expected()
    access: Access | None = None
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _maps_and_annotated_agree(self) -> "Card":
        targets = self.label_targets()
        drawn = {name for target in targets.values() for name in ([target] if isinstance(target, str) else target)}
        drawn |= set(self.masks.values())
        if drawn - set(self.annotated):
            msg = f"labels name {', '.join(sorted(drawn - set(self.annotated)))}, which annotated does not list"
            raise ValueError(msg)
        if set(self.annotated) - drawn:
            msg = f"annotated lists {', '.join(sorted(set(self.annotated) - drawn))}, which no label or mask maps to"
            raise ValueError(msg)
        if any(isinstance(target, list) and len(target) != 2 for target in targets.values()):
            msg = "labels: a merged value maps to exactly [right, left]"
            raise ValueError(msg)
        self._check_split()
        both = set(self.labels) & set(self.dropped)
        if both:
            msg = f"values {', '.join(sorted(both))} are both mapped and dropped"
            raise ValueError(msg)
        return self

    def _check_split(self) -> None:
        group = self.split.group if self.split else None
        if group is not None and not any(group in layout.groups for layout in self.layouts):
            msg = f"split: no layout has a group called {group}"
            raise ValueError(msg)
        for rule in self.unlabelled:
            _require_expression("unlabelled", rule.match)

    def label_targets(self) -> dict[int, LabelTarget]:
        """Return raw value -> target; keys are numbers (text order would put 10 before 2)."""
        return {int(value): target for value, target in self.labels.items()}

    def dropped_values(self) -> set[int]:
        """Return the raw values that become background on purpose."""
        return {int(value) for value in self.dropped}

    @cached_property
    def merged(self) -> dict[int, tuple[str, str]]:
        """Raw value -> (right, left) for values that join both sides."""
        return {v: (t[0], t[1]) for v, t in self.label_targets().items() if isinstance(t, list)}

    def annotated_in(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """Return the structures annotated in the case whose table row is ``row`` (empty without a table)."""
        left_out: set[str] = set()
        for rule in self.exceptions:
            applies = not any(row.get(column, "").strip() in values for column, values in rule.unless.items())
            left_out |= set(rule.not_annotated) if applies else set()
        return tuple(name for name in self.annotated if name not in left_out)


def registry_folder() -> Path:
    """Return the folder of the cards that ship with the package."""
    installed = Path(__file__).parent / "_registry"
    checkout = Path(__file__).parents[2] / "registry"
    return checkout if checkout.is_dir() and (checkout.parent / "pyproject.toml").is_file() else installed


def list_cards() -> list[Card]:
    """Return all cards of the registry, by id."""
    return [load_card_file(path) for path in sorted(registry_folder().glob("*.toml"))]


def load_cards(name: str) -> list[Card]:
    """Return the card called ``name``, the cards of an alias, or the user's own card at a path.

    Raises
    ------
    UnknownNameError
        If nothing has this name; near names are proposed.
    CardError
        If a card is malformed.
    """
    if name.endswith(".toml") or "/" in name:
        return [load_card_file(Path(name))]
    path = registry_folder() / f"{name}.toml"
    if path.is_file():
        return [load_card_file(path)]
    cards = list_cards()
    by_alias = [card for card in cards if card.alias == name]
    if by_alias:
        return by_alias
    known = sorted({card.id for card in cards} | {card.alias for card in cards if card.alias})
    raise unknown_name("card", name, known, "Your own card is a path that ends in .toml.")


def expand_aliases(names: Iterable[str]) -> tuple[str, ...]:
    """Return source ids with each alias replaced by the ids of its cards; other names stay as they are."""
    by_alias: dict[str, list[str]] = {}
    for card in list_cards():
        if card.alias:
            by_alias.setdefault(card.alias, []).append(card.id)
    return tuple(id_ for name in names for id_ in by_alias.get(name, [name]))


def load_card(name: str) -> Card:
    """Return one card by id or path; an alias of several cards is refused."""
    cards = load_cards(name)
    if len(cards) > 1:
        msg = f"'{name}' stands for several cards: {', '.join(card.id for card in cards)}; name one"
        raise CardError(msg)
    return cards[0]


def load_card_file(path: Path) -> Card:
    """Read and check one card file; all faults are told at once."""
    facts = _read_toml(path)
    try:
        card = Card.model_validate(facts)
    except ValidationError as error:
        raise CardError(f"{path}: {'; '.join(_fault(e) for e in error.errors())}") from error
    if card.id != path.stem and path.parent == registry_folder():
        raise CardError(f"{path}: id is '{card.id}', expected the file's name '{path.stem}'")
    return card


def check_structures(card: Card, anatomy: Anatomy = ABDOMEN) -> None:
    """Raise CardError when the card names a structure that ``anatomy`` does not have."""
    for name in card.annotated:
        if name not in anatomy.names:
            raise CardError(f"card {card.id}: {unknown_name('structure', name, list(anatomy.names))}")


def _fault(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "card"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError(f"{path}: no such card file; see `abdoseg cards list`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{path}: not valid TOML ({error})") from error
