"""In which fields two models differ, told with both values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

MOST_TOLD = 3
"""Differences told in one line; of others, how many."""

_LONGEST = 60
"""Characters of a value."""


class Difference(NamedTuple):
    """One field, what it is here, and what it is there."""

    name: str
    found: Any
    there: Any


def differences(found: BaseModel, there: BaseModel, leave_out: Collection[str] = ()) -> list[Difference]:
    """Return the fields in which two models of one class differ, with values as JSON has them, in the class's order."""
    mine, other = (model.model_dump(mode="json", exclude=set(leave_out)) for model in (found, there))
    return [Difference(name, value, other[name]) for name, value in mine.items() if value != other[name]]


def tell(
    found: Sequence[Difference],
    owner: str,
    names: Mapping[str, str],
    way_back: Callable[[Difference], str] | None = None,
) -> str:
    """Return ``frac: found 0.3, the view has 0.2; ... and 2 more``.

    Parameters
    ----------
    found
        What differs.
    owner
        Whose the other values are, as in "the view".
    names
        Field -> what it is called where the user gives it; other fields keep their names.
    way_back
        What gives the other's value, told in brackets.
    """
    told = []
    for one in found[:MOST_TOLD]:
        text = f"{names.get(one.name, one.name)}: found {_shown(one.found)}, {owner} has {_shown(one.there)}"
        told.append(text if way_back is None else f"{text} ({way_back(one)})")
    more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return "; ".join(told) + more


def _shown(value: Any) -> str:
    """Return a value in words, cut short."""
    if value == []:
        return "all"  # so says every empty list of names: sources, structures
    if value is None or value == {}:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else as_toml(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def as_toml(value: Any) -> str:
    """Return a value as TOML has it in one line; a text without quotes, as ``--set`` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return str(value)
