"""Read and decode the blosc chunks of a box in one go, without the interpreter's lock.

One call of numcodecs a chunk takes and gives back the lock some hundred times a patch, so that two threads wait for
each other. The function it calls is exported by its extension on Linux and macOS; where it is not, this is not
:data:`AVAILABLE` and chunks are decoded one by one.

Chunks are read by ``pread``, not out of a map of the file: what a disk cannot give, or a file that another process cut
off no longer has, is then a number to look at instead of a signal (SIGBUS) that ends the process.
"""

import ctypes

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numcodecs import blosc

_SYMBOL, _READ = "abdoseg_blosc_decompress_ctx", "abdoseg_pread"
_HEADER = 16

OVERHEAD = 16
"""Bytes that a stored chunk may have more than a decoded one: blosc's, of data it cannot make smaller."""

MISSING = np.uint64(2**64 - 1)
"""Offset of a chunk that is not stored because it holds the fill value, 0, alone."""

WHOLE = -1
"""What :func:`decode_box` returns if nothing is wrong."""


def _find() -> bool:
    """Make blosc's and the system's function known to compiled code by our names; return whether both were found."""
    try:
        functions = {_SYMBOL: ctypes.CDLL(blosc.__file__).blosc_decompress_ctx, _READ: ctypes.CDLL(None).pread}
    except (OSError, AttributeError, TypeError):  # the last one is Windows'
        return False
    for name, function in functions.items():
        llvmlite.binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return True


AVAILABLE = _find()

# int blosc_decompress_ctx(const void *src, void *dest, size_t destsize, int numinternalthreads)
_decompress = types.ExternalFunction(_SYMBOL, types.int32(types.uintp, types.uintp, types.uintp, types.int32))
# ssize_t pread(int fd, void *buf, size_t count, off_t offset)
_pread = types.ExternalFunction(_READ, types.intp(types.int32, types.uintp, types.uintp, types.int64))


@numba.njit(cache=True, nogil=True, inline="always")
def _uint32(data, at):  # type: ignore[no-untyped-def]
    """Return a little-endian number."""
    return data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24)


@numba.njit(cache=True, nogil=True)
def decode_box(file, index, wanted, corner, chunks, start, shape, stored, memory, chunk, out):  # type: ignore[no-untyped-def]
    """Fill a box from the chunks of a shard.

    Parameters
    ----------
    file
        Descriptor of the shard.
    index
        uint64 ``(a, b, c, 2)``: offset and length, within the shard, of the chunks that the box touches.
    wanted
        bool ``(a, b, c)``: which of them are needed.
    corner, chunks
        Number of the first of them along each axis, and the shape of one.
    start, shape
        First element of the box, and its shape.
    stored
        uint8 ``(bytes,)``: memory for one chunk as it is stored.
    memory, chunk
        One chunk of memory, as uint8 and as the array's dtype; both flat.
    out
        The box, flat.

    Returns
    -------
    int
        :data:`WHOLE`, or the number, in C order, of the chunk that cannot be read or decoded.
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
            length = np.int64(size)
            if size < _HEADER or size > stored.size:
                return n
            if _pread(file, stored.ctypes.data, length, np.int64(offset)) != length:
                return n
            # blosc believes the header, so the header must tell what the index tells.
            if _uint32(stored, 4) != memory.size or _uint32(stored, 12) != length:
                return n
            got = _decompress(stored.ctypes.data, memory.ctypes.data, memory.size, 1)
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
