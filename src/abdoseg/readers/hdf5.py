"""HDF5 (``.h5``, ``.hdf5``): one dataset of a file as a volume, through h5py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from abdoseg.errors import CaseError
from abdoseg.readers.scan import Scan, checked_scan
from abdoseg.types import Affine

SUFFIXES = (".h5", ".hdf5")

_LISTED = 8
"""Datasets named in a message."""


def read_hdf5(path: Path, key: str | None) -> Scan:
    """Read one dataset of an HDF5 file, with the axes as they are stored: ``(X, Y, Z)``.

    The affine is the attribute ``affine`` (``(4, 4)``, voxel to RAS+ mm) of the dataset, else of the file; without
    one, the attribute ``spacing`` (``(3,)``, mm) of either; without any, 1 mm and a warning. Files for training
    slice by slice state none, and often store ``(Z, Y, X)``: nothing in them tells, so nothing is turned.

    Parameters
    ----------
    path
        The file.
    key
        Name of the dataset, with groups as ``group/name``.

    Raises
    ------
    CaseError
        If the file is not HDF5, cut off or damaged, or the dataset is missing, elsewhere, or no volume of real
        numbers.
    """
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return _read(file, key)
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        what = "cannot be read" if h5py.is_hdf5(path) else "not an HDF5 file"
        raise CaseError(f"{path.name}: {what} ({reason}); fetch the file again") from error


def _read(file: h5py.File, key: str | None) -> Scan:
    if key is None:
        msg = f"no dataset is named; found {_listing(file)}; name one by image_key or label_key in the card"
        raise CaseError(msg)
    dataset = _dataset(file, key)
    _refuse_unreadable(key, dataset)
    affine, warnings = _affine([dataset.attrs, file.attrs])
    return checked_scan(dataset[()], affine, warnings)


def _dataset(file: h5py.File, key: str) -> Any:
    """Return the dataset ``key`` without leaving the file.

    Raises
    ------
    CaseError
        If there is none, or it or its voxels lie in another file.
    """
    node: Any = file
    for part in key.strip("/").split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise CaseError(f"there is no dataset {key}; found {_listing(file)}")
        if not isinstance(link, h5py.HardLink):
            raise CaseError(f"{key} is a link, expected a dataset of the file itself; copy the data into the file")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise CaseError(f"{key} is a group, expected a dataset; found {_listing(file)}")
    if node.external or node.is_virtual:
        raise CaseError(f"the voxels of {key} lie in other files; copy the data into the file")
    return node


def _refuse_unreadable(key: str, dataset: Any) -> None:
    try:
        dtype = dataset.dtype
    except TypeError as error:  # a type that numpy has not
        raise CaseError(f"{key}: {error}; expected real numbers; name another dataset") from error
    if dtype.kind not in "iufb" or dataset.shape is None:
        found = "nothing" if dataset.shape is None else dtype
        raise CaseError(f"{key} holds {found}, expected real numbers; name another dataset")
    creation = dataset.id.get_create_plist()
    for code, _, _, name in map(creation.get_filter, range(creation.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            filter_name = name.decode(errors="replace") or code
            raise CaseError(f"{key} is compressed by filter {filter_name}, which is not installed; write it with gzip")


def _listing(file: h5py.File) -> str:
    """Return the datasets of a file as text; links are not followed."""
    found: list[str] = []

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found.append(f"{name} {node.shape}")

    file.visititems(note)
    more = ", ..." if len(found) > _LISTED else ""
    return (", ".join(found[:_LISTED]) + more) or "no dataset"


def _affine(places: Sequence[Any]) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine that the attributes state, those of the dataset before those of the file, and a warning."""
    affine = next((place["affine"] for place in places if "affine" in place), None)
    if affine is not None:
        return _floats("affine", affine, (4, 4)), ()
    spacing = next((place["spacing"] for place in places if "spacing" in place), None)
    if spacing is not None:
        lengths = _floats("spacing", spacing, (3,))
        if not (lengths > 0).all():
            raise CaseError("attribute spacing is not positive; write the geometry again")
        return np.diag([*lengths, 1.0]), ()
    warning = "the file states no geometry: axes were taken as (X, Y, Z) in RAS+ with 1 mm voxels (check all of them)"
    return np.eye(4), (warning,)


def _floats(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CaseError(f"attribute {name} is not numeric; write the geometry again") from error
    if numbers.shape != shape or not (np.abs(numbers) < 1e9).all():  # nor is anything beyond a place in a patient
        msg = f"attribute {name} has shape {numbers.shape}, expected {shape} finite numbers; write the geometry again"
        raise CaseError(msg)
    return numbers
