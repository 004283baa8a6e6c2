"""Exponential and logarithm of float32 that LLVM turns into vector instructions; numba's own are scalar calls.

Both are the usual range reduction with a minimax polynomial (as in the Cephes library): relative error below 2e-7.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_LOG2_E = np.float32(1.442695040888963)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_ROUND_BITS = np.int32(0x4B400000)
_MANTISSA_BITS = np.int32(23)
_BIAS = np.int32(127)
_LOWEST = np.float32(-88.0)  # exp of less is 0: the scale 2^-127 has the bit pattern of 0
_HIGHEST = np.float32(88.0)
_HALF_BITS = np.int32(0x3F000000)
_MANTISSA = np.int32(0x007FFFFF)
_SQRT_HALF = np.float32(0.707106781186547524)


@intrinsic
def _bits_of(_context: Any, _value: Any) -> Any:
    """Return the bit pattern of a float32 as int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _float_of(_context: Any, _bits: Any) -> Any:
    """Return the float32 with the bit pattern of an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit("float32(float32)", cache=True, nogil=True, inline="always")
def exp(x):  # type: ignore[no-untyped-def]
    """Return e^x of a float32; 0 below -88, e^88 above 88."""
    x = min(max(x, _LOWEST), _HIGHEST)
    shifted = np.float32(x * _LOG2_E + _ROUND)
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    scale = _float_of(np.int32((_bits_of(shifted) - _ROUND_BITS + _BIAS) << _MANTISSA_BITS))
    return np.float32(p * scale)


@njit("float32(float32)", cache=True, nogil=True, inline="always")
def log(x):  # type: ignore[no-untyped-def]
    """Return ln x of a positive, normal float32."""
    bits = _bits_of(x)
    exponent = np.float32(np.int32((bits >> _MANTISSA_BITS) - np.int32(126)))
    m = _float_of(np.int32((bits & _MANTISSA) | _HALF_BITS))  # [0.5, 1)
    small = m < _SQRT_HALF
    exponent = exponent - np.float32(1.0) if small else exponent
    m = (m + m if small else m) - np.float32(1.0)
    z = m * m
    p = np.float32(7.0376836292e-2)
    p = p * m - np.float32(1.1514610310e-1)
    p = p * m + np.float32(1.1676998740e-1)
    p = p * m - np.float32(1.2420140846e-1)
    p = p * m + np.float32(1.4249322787e-1)
    p = p * m - np.float32(1.6668057665e-1)
    p = p * m + np.float32(2.0000714765e-1)
    p = p * m - np.float32(2.4999993993e-1)
    p = p * m + np.float32(3.3333331174e-1)
    p = p * m * z
    p = p + exponent * _LN2_LOW - np.float32(0.5) * z
    return np.float32(m + p + exponent * _LN2_HIGH)
