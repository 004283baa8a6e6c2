"""Decode the blosc chunks of a box in one go, without the interpreter's lock.

One call of numcodecs a chunk takes and gives back the lock some hundred times a patch, so that two threads wait for
each other. The function it calls is exported by its extension on Linux and macOS; where it is not, this is not
:data:`AVAILABLE` and chunks are decoded one by one.
"""

import ctypes

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numcodecs import blosc

_SYMBOL = "abdoseg_blosc_decompress_ctx"
_HEADER = 16

MISSING = np.uint64(2**64 - 1)
"""Offset of a chunk that is not stored because it holds the fill value, 0, alone."""

WHOLE = -1
"""What :func:`decode_box` returns if nothing is wrong."""


def _find() -> bool:
    """Make blosc's function known to compiled code by our name for it; return whether it was found."""
    try:
        function = ctypes.CDLL(blosc.__file__).blosc_decompress_ctx
    except (OSError, AttributeError):
        return False
    llvmlite.binding.add_symbol(_SYMBOL, ctypes.cast(function, ctypes.c_void_p).value)
    return True


AVAILABLE = _find()

# int blosc_decompress_ctx(const void *src, void *dest, size_t destsize, int numinternalthreads)
_decompress = types.ExternalFunction(_SYMBOL, types.int32(types.uintp, types.uintp, types.uintp, types.int32))


@numba.njit(cache=True, nogil=True, inline="always")
def _uint32(data, at):  # type: ignore[no-untyped-def]
    """Return a little-endian number."""
    return data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24)


@numba.njit(cache=True, nogil=True)
def decode_box(shard, index, wanted, corner, chunks, start, shape, memory, chunk, out):  # type: ignore[no-untyped-def]
    """Fill a box from the chunks of a shard.

    Parameters
    ----------
    shard
        uint8 ``(bytes,)``.
    index
        uint64 ``(a, b, c, 2)``: offset and length, within the shard, of the chunks that the box touches.
    wanted
        bool ``(a, b, c)``: which of them are needed.
    corner, chunks
        Number of the first of them along each axis, and the shape of one.
    start, shape
        First element of the box, and its shape.
    memory, chunk
        One chunk of memory, as uint8 and as the array's dtype; both flat.
    out
        The box, flat.

    Returns
    -------
    int
        :data:`WHOLE`, or the number, in C order, of the chunk that cannot be decoded.
    """
    na, nb, nc = wanted.shape
    cx, cy, cz = chunks
    _, by, bz = shape
    for n in range(na * nb * nc):
        a, b, c = n // (nb * nc), n // nc % nb, n % nc
        if not wanted[a, b, c]:
            continue
        x0, y0, z0 = (corner[0] + a) * cx, (corner[1] + b) * cy, (corner[2] + c) * cz
        first_x, stop_x = max(start[0], x0), min(start[0] + shape[0], x0 + cx)
        first_y, stop_y = max(start[1], y0), min(start[1] + shape[1], y0 + cy)
        first_z, stop_z = max(start[2], z0), min(start[2] + shape[2], z0 + cz)
        offset, size = index[a, b, c, 0], index[a, b, c, 1]
        is_stored = offset != MISSING
        if is_stored:
            # blosc believes the header, so the header must tell what the index tells.
            at = np.int64(offset)
            if size < _HEADER or _uint32(shard, at + 4) != memory.size or _uint32(shard, at + 12) != np.int64(size):
                return n
            got = _decompress(np.uint64(shard.ctypes.data) + offset, memory.ctypes.data, memory.size, 1)
            if got != memory.size:
                return n
        length = stop_z - first_z
        for x in range(first_x, stop_x):
            for y in range(first_y, stop_y):
                to = ((x - start[0]) * by + (y - start[1])) * bz + first_z - start[2]
                of = ((x - x0) * cy + (y - y0)) * cz + first_z - z0
                if is_stored:
                    for k in range(length):
                        out[np.uint64(to + k)] = chunk[np.uint64(of + k)]
                else:
                    for k in range(length):
                        out[np.uint64(to + k)] = 0
    return WHOLE
