"""Pixels of DICOM slices: decoded, rescaled, stacked."""

import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from abdoseg.errors import CaseError
from abdoseg.readers.dicom_slices import Slice

_PLUGINS = ("pydicom", "pylibjpeg", "pyjpegls")
"""What decodes, the first of them that can, else any: others are slower, and some end the program on damaged data."""

PARSER_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, BytesLengthException, struct.error, zlib.error),
)
"""What pydicom raises on damaged bytes, by where it stumbles."""


def volume_of(slices: Sequence[Slice]) -> NDArray[Any]:
    """Return ``(columns, rows, slices)`` intensities, int16 where nothing is lost, else float32."""
    rows, columns = slices[0].shape
    volume: NDArray[Any] = np.empty((len(slices), rows, columns), dtype=np.int16)
    left = Counter(one.path for one in slices)
    # One file after another: decoders hold the interpreter's lock, and two threads were measured to be no faster.
    open_files: dict[Path, NDArray[Any]] = {}
    for index, one in enumerate(slices):
        if one.path not in open_files:
            open_files[one.path] = _stored(one)
        values = _rescaled(open_files[one.path][one.frame], one)
        if values.dtype != np.int16 and volume.dtype == np.int16:
            volume = volume.astype(np.float32)
        volume[index] = values
        left[one.path] -= 1
        if not left[one.path]:
            del open_files[one.path]
    return volume.transpose(2, 1, 0)


def _stored(one: Slice) -> NDArray[Any]:
    """Return the stored values of a slice's file, ``(frames, rows, columns)``.

    Raises
    ------
    CaseError
        If they cannot be decoded.
    """
    available = get_decoder(one.syntax).available_plugins
    plugin = next((name for name in _PLUGINS if name in available), "")
    try:
        pixels = pixel_array(one.path, raw=True, decoding_plugin=plugin)
    except PARSER_ERRORS as error:
        # The error's own text is not shown: it may quote the header.
        kind = f"{one.syntax.name} pixel data"
        msg = f"{one.path.name}: the {kind} are damaged, cut off or of a rare kind; fetch the file again, uncompressed"
        raise CaseError(msg) from error
    return pixels.reshape(-1, *pixels.shape[-2:])


def _rescaled(stored: NDArray[Any], one: Slice) -> NDArray[Any]:
    """Return ``(rows, columns)`` intensities, int16 if that loses nothing, else float32."""
    if one.slope == 1 and one.intercept.is_integer() and stored.dtype.kind in "iu":
        whole = stored.astype(np.int64) + int(one.intercept)
        limits = np.iinfo(np.int16)
        if whole.min() >= limits.min and whole.max() <= limits.max:
            return whole.astype(np.int16)
    return (stored * one.slope + one.intercept).astype(np.float32)


def same_pixels(one: Slice, other: Slice) -> bool:
    """Return whether two slices hold the same stored values."""
    return np.array_equal(_stored(one)[one.frame], _stored(other)[other.frame])
