"""Loops along rows of float32 that LLVM vectorises: the arithmetic of a block of voxels, one class at a time.

Each takes few arrays: LLVM vectorises a loop only where it can check that no two of its arrays overlap, and it checks
no more than a handful. All arrays of a call have one length, that of the output.
"""

import numpy as np
from numba import njit

from abdoseg.kernels.vectorised import exp, log

FAINT = np.float32(1e-30)
"""Sums below this, relative to the largest class, have lost digits."""

_ONE, _ZERO = np.float32(1), np.float32(0)

_kernel = njit(cache=True, nogil=True, error_model="numpy")


@_kernel
def equal(a, b):  # type: ignore[no-untyped-def]
    """Return whether both have the same values."""
    if a.size != b.size:
        return False
    different = 0
    for i in range(a.size):
        different += a[i] != b[i]
    return different == 0


@_kernel
def raise_to(out, x):  # type: ignore[no-untyped-def]
    """``out = max(out, x)``."""
    for i in range(out.size):
        out[i] = max(out[i], x[i])


@_kernel
def exp_below(x, highest, e, total):  # type: ignore[no-untyped-def]
    """``e = exp(x - highest)``; add it to ``total``."""
    for i in range(x.size):
        e[i] = exp(x[i] - highest[i])
        total[i] += e[i]


@_kernel
def add_weighted(out, e, x, highest):  # type: ignore[no-untyped-def]
    """``out += e (x - highest)``."""
    for i in range(out.size):
        out[i] += e[i] * (x[i] - highest[i])


@_kernel
def add(out, x):  # type: ignore[no-untyped-def]
    """``out += x``."""
    for i in range(out.size):
        out[i] += x[i]


@_kernel
def add_where(out, x, word, bit):  # type: ignore[no-untyped-def]
    """``out += x`` where ``word`` has the bit."""
    for i in range(out.size):
        out[i] += x[i] if word[i] & bit else _ZERO


@_kernel
def add_scaled(out, x, factor):  # type: ignore[no-untyped-def]
    """``out += factor x``."""
    for i in range(out.size):
        out[i] += x[i] * factor


@_kernel
def plus_scaled(a, x, factor, out):  # type: ignore[no-untyped-def]
    """``out = a + factor x``."""
    for i in range(out.size):
        out[i] = a[i] + x[i] * factor


@_kernel
def plus_product(a, b, c, out):  # type: ignore[no-untyped-def]
    """``out = a + b c``."""
    for i in range(out.size):
        out[i] = a[i] + b[i] * c[i]


@_kernel
def look_up(table, index, out):  # type: ignore[no-untyped-def]
    """``out = table[index]``."""
    for i in range(out.size):
        out[i] = table[index[i]]


@_kernel
def log_of(x, out):  # type: ignore[no-untyped-def]
    """``out = log(x)``, x no less than the faintest."""
    for i in range(x.size):
        out[i] = log(max(x[i], FAINT))


@_kernel
def inverse_of(x, out):  # type: ignore[no-untyped-def]
    """``out = 1 / x``."""
    for i in range(x.size):
        out[i] = _ONE / x[i]


@_kernel
def dot(a, b, strands):  # type: ignore[no-untyped-def]
    """Return the sum of products, in 16 strands: vector instructions without leave to reorder the additions.

    With such leave the compiler's order, and the last bit, would depend on where it inlines this: a resumed training
    must come to the same weights though its code was compiled by another process. ``strands (16,)`` is scratch: to
    allocate it here would take longer than the sum.
    """
    strands[:] = _ZERO
    whole = a.size // 16 * 16
    for i in range(0, whole, 16):
        for lane in range(16):
            strands[lane] += a[i + lane] * b[i + lane]
    total = _ZERO
    for lane in range(16):
        total += strands[lane]
    for i in range(whole, a.size):
        total += a[i] * b[i]
    return total


@_kernel
def add_at(sums, slot, a):  # type: ignore[no-untyped-def]
    """``sums[slot] += a``."""
    for i in range(slot.size):
        sums[slot[i]] += a[i]


@_kernel
def add_product(out, a, b):  # type: ignore[no-untyped-def]
    """``out += a b``."""
    for i in range(out.size):
        out[i] += a[i] * b[i]
