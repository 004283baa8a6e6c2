"""Tables that users and sources write: CSV with a header."""

import csv
from collections.abc import Iterable
from pathlib import Path

from abdoseg.errors import CardError


def read_csv(path: Path, columns: Iterable[str], separator: str = ",") -> list[dict[str, str]]:
    """Return the rows of a table, each a column -> text; a missing cell is empty text.

    Parameters
    ----------
    path
        UTF-8, with or without a byte-order mark.
    columns
        Columns that must be there.
    separator
        Between cells.

    Raises
    ------
    CardError
        If it cannot be read, is empty or lacks a column.
    """
    needed = sorted(columns)
    if not path.is_file():  # a pipe would be waited for
        raise CardError(f"{path}: cannot be read as a table (not a regular file); expected a CSV")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=separator)
            rows, header = list(reader), [str(name) for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CardError(f"{path}: cannot be read as a table ({error})") from error
    if not header or any("\0" in name for name in header):
        raise CardError(f"{path}: empty or no text, expected columns {', '.join(needed)}")
    missing = [name for name in needed if name not in header]
    if missing:
        raise CardError(f"{path}: columns {', '.join(header)}, expected {' and '.join(missing)} too")
    return [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in rows]
