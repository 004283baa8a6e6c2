"""What Pydantic found wrong with a value, in the words of all our messages: what was found, what was expected."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list such as [1, 2]",
    "dict_type": "a table such as {{name=1}}",
    "dataclass_type": "a table such as {{name=1}}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_long": "{max_length} values",
}
"""Pydantic's name of a fault -> what was expected, with what the fault knows of it in braces."""

_UNKNOWN_KEYS = ("extra_forbidden", "unexpected_keyword_argument")

_SHOWN = 60


def faults_of(error: ValidationError, nowhere: str = "") -> str:
    """Return all faults as ``where: found this, expected that; where: ...``.

    Parameters
    ----------
    error
        What Pydantic raised.
    nowhere
        What stands for the place of a fault that is of the whole.
    """
    told = ((".".join(map(str, fault["loc"])) or nowhere, found_and_expected(fault)) for fault in error.errors())
    return "; ".join(": ".join(filter(None, one)) for one in told)


def why_unreadable(error: Exception) -> str:
    """Return on one line why a file could not be understood, whoever found out: the disk, a parser, or Pydantic."""
    return faults_of(error) if isinstance(error, ValidationError) else " ".join(str(error).split())


def found_and_expected(error: ErrorDetails) -> str:
    """Return one fault of a value as ``found 'abc', expected a number``.

    Parameters
    ----------
    error
        One of ``pydantic.ValidationError.errors()``. Where it was is its ``loc``, which is left to the caller. What our
        own validators say is kept as it is.
    """
    kind, told = error["type"], error["msg"].removeprefix("Value error, ")
    if kind in _UNKNOWN_KEYS:
        return "found an unknown name"
    if kind == "missing":
        return "found nothing, expected a value"
    if kind not in _EXPECTED:
        return told
    return f"found {_shown(error['input'])}, expected {_EXPECTED[kind].format(**error.get('ctx', {}))}"


def _shown(value: object) -> str:
    """Return a value as it is written, cut short; a text in quotes."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
