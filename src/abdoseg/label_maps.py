"""Label-map files as structure ids on canonical axes."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.geometry import Grid, to_canonical
from abdoseg.readers import read_scan
from abdoseg.types import Label

_LARGEST_RAW_VALUE = 65535
_INTEGER_TOLERANCE = 1e-5


def read_label_map(path: Path, values: Mapping[int, int] | None) -> tuple[Label, Grid]:
    """Read a label map and bring it to its closest canonical axes.

    Parameters
    ----------
    path
        Any format of ``abdoseg.readers``; floats are taken where all of them are whole numbers.
    values
        Raw value -> structure id; ``None``: values are structure ids already (whether they are known to the
        anatomy is checked when they are counted).

    Returns
    -------
    tuple
        uint8 ``(X, Y, Z)``, RAS+ (a turned view of what was read), and its grid.

    Raises
    ------
    CaseError
        If the file is damaged, no label map, or holds other values; the message begins with the path.
    """
    try:
        scan = read_scan(path)
        ids = _structure_ids(_whole_numbers(scan.array), values)
    except CaseError as error:
        # Prediction and reference have the same file name, so the message needs the folder.
        reason = str(error).removeprefix(f"{path.name}: ")
        raise CaseError(f"{path}: {reason}") from error
    label, affine = to_canonical(ids, scan.affine)
    x, y, z = label.shape
    return label, Grid((x, y, z), affine)


def _whole_numbers(raw: NDArray[Any]) -> NDArray[Any]:
    """Return the values as integers; floats are taken where all of them are whole."""
    if raw.dtype.kind != "f":
        return raw
    with np.errstate(invalid="ignore"):  # infinity less infinity
        whole = np.isfinite(raw) & (np.abs(np.rint(raw) - raw) <= _INTEGER_TOLERANCE)
    if not whole.all():
        example = raw[~whole].flat[0]
        msg = f"found the value {example:g}; expected whole numbers (labels, not probabilities)"
        raise CaseError(f"{msg}; write labels as uint8")
    return np.asarray(np.clip(np.rint(raw), -1, _LARGEST_RAW_VALUE + 1).astype(np.int32))


def _structure_ids(raw: NDArray[Any], values: Mapping[int, int] | None) -> Label:
    """Return uint8 structure ids; without ``values`` they are checked when they are counted."""
    if values is None and raw.dtype == np.uint8:
        return raw
    known = {value: value for value in range(256)} if values is None else values
    low, high = int(raw.min()), int(raw.max())
    if low < 0 or high > _LARGEST_RAW_VALUE:
        raise _unknown_values(raw, known)
    table = np.full(high + 1, -1, dtype=np.int16)
    for value in known.keys() & set(range(high + 1)):
        table[value] = known[value]
    ids = table[raw]
    if ids.min() < 0:
        raise _unknown_values(raw, known)
    return np.asarray(ids.astype(np.uint8))


def _unknown_values(raw: NDArray[Any], known: Collection[int]) -> CaseError:
    wrong = [int(value) for value in np.unique(raw) if int(value) not in known]
    expected = "0 to 255" if len(known) == 256 else _some(sorted(known), 40)
    return CaseError(f"found label values {_some(wrong)}; expected {expected}; check which card the labels follow")


def _some(values: Sequence[int], at_most: int = 5) -> str:
    return ", ".join(map(str, values[:at_most])) + (", ..." if len(values) > at_most else "")
