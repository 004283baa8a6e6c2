"""The registry: cards that ship with the package, and the user's own."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from abdoseg.anatomy import ABDOMEN, Anatomy
from abdoseg.cards.card import Card
from abdoseg.cards.parts import LabelTarget
from abdoseg.errors import CardError, unknown_name
from abdoseg.shipped import shipped_folder
from abdoseg.value_errors import faults_of


def registry_folder() -> Path:
    """Return the folder of the cards that ship with the package."""
    return shipped_folder("registry")


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
    card = _validated(_read_toml(path), str(path))
    if card.id != path.stem and path.parent == registry_folder():
        raise CardError(f"{path}: id is '{card.id}', expected the file's name '{path.stem}'")
    return card


def with_labels(card: Card, text: str) -> Card:
    """Return a card whose label map is what the user states.

    Parameters
    ----------
    card
        A card that leaves its labels to the user.
    text
        ``VALUE=STRUCTURE`` separated by commas; ``RIGHT+LEFT`` where both sides share a value, and an empty name
        for a value that is dropped.

    Raises
    ------
    CardError
        If the card has a label map of its own, or the text cannot be read.
    """
    if not card.labels_by_user:
        raise CardError(f"card {card.id}: states what its labels mean; for other labels write a card of your own")
    labels: dict[str, LabelTarget] = {}
    dropped: dict[str, str] = {}
    for item in text.split(","):
        value, separator, name = (part.strip() for part in item.partition("="))
        if not separator or not re.fullmatch("[0-9]{1,5}", value):
            raise CardError(f"--labels: '{item.strip()}', expected VALUE=STRUCTURE, as in 1=liver")
        names = [part.strip() for part in name.split("+")]
        if not name:
            dropped[value] = "left out by --labels"
        else:
            labels[value] = names if len(names) > 1 else name
    annotated = tuple(dict.fromkeys(n for t in labels.values() for n in ([t] if isinstance(t, str) else t)))
    facts = {**card.model_dump(exclude_unset=True), "labels": labels, "dropped": dropped, "annotated": annotated}
    return _validated(facts, "--labels")


def check_structures(card: Card, anatomy: Anatomy = ABDOMEN) -> None:
    """Raise CardError when the card names structures that ``anatomy`` does not have; all are told at once."""
    strange = [name for name in card.annotated if name not in anatomy.names]
    if strange:
        told = "; ".join(str(unknown_name("structure", name, list(anatomy.names))) for name in strange)
        raise CardError(f"card {card.id}: {told}")


def card_from(facts: dict[str, Any], where: str) -> Card:
    """Return the card with these facts; ``where`` begins the message of an error.

    Raises
    ------
    CardError
        If they are no card; all faults are told at once.
    """
    return _validated(facts, where)


def _validated(facts: dict[str, Any], where: str) -> Card:
    try:
        return Card.model_validate(facts)
    except ValidationError as error:
        raise CardError(f"{where}: {faults_of(error, 'card')}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError(f"{path}: no such card file; see `abdoseg cards list`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:  # numbers too long and lists too deep are no TOMLDecodeError
        raise CardError(f"{path}: not valid TOML ({error})") from error
