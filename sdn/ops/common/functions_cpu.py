"""What generated CPU code calls, in the type of what it is given, and short enough to be written into the loop.

A loop with a call in it is not turned into vector code. So the functions here are inlined, and exp, tanh and the
logistic curve of a float32 are polynomials: good to 2 units in the last place.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from sdn.ops.common.cpu import jit

__all__ = [
    "INLINE", "collect", "copy", "exp", "exp_of_negative", "fill", "finite", "gather", "inline", "maximum", "minimum",
    "scatter", "sigmoid", "sign", "tanh",
]  # fmt: skip

INLINE: Any = {"forceinline": True}
inline: Any = register_jitable(forceinline=True)
"""For a function that is part of the loop that calls it."""


def one(like: Any) -> Any:
    """1 in the type of ``like``."""
    raise AssertionError("compiled only")


@overload(one, jit_options=INLINE)
def _one(like):  # type: ignore[no-untyped-def]
    kind = np.float32 if like == types.float32 else np.float64
    return lambda like: kind(1)


# ---- Blocks: the fields of a tile of W channels, one after the other.
@jit
def finite(block):  # type: ignore[no-untyped-def]
    """Whether all numbers of a contiguous array are; a sum of integers, which the compiler turns into vector code."""
    bad = 0
    for j in range(block.size):
        bad += 0 if block[j] - block[j] == 0 else 1
    return bad == 0


@jit
def gather(block, offset, rows, b, k, W):  # type: ignore[no-untyped-def]
    """Fields of tile k of row b into a block, from field ``offset`` on."""
    n = min(W, rows.shape[2] - k * W)
    for f in range(rows.shape[1]):
        for j in range(n):
            block[(offset + f) * W + j] = rows[b, f, k * W + j]


@jit
def scatter(rows, b, k, block, offset, W):  # type: ignore[no-untyped-def]
    """The way back of `gather`."""
    n = min(W, rows.shape[2] - k * W)
    for f in range(rows.shape[1]):
        for j in range(n):
            rows[b, f, k * W + j] = block[(offset + f) * W + j]


@jit
def copy(target, source):  # type: ignore[no-untyped-def]
    """Numbers of one array into the first places of another; much sooner compiled than a slice that is assigned to."""
    for j in range(len(source)):
        target[j] = source[j]


@jit
def fill(target, begin, value):  # type: ignore[no-untyped-def]
    """A number into all places of an array from ``begin`` on."""
    for j in range(begin, len(target)):
        target[j] = value


@jit
def collect(totals, k, block, offset, W):  # type: ignore[no-untyped-def]
    """Move the sums of one chunk into the totals, which are float64, and start them anew."""
    n = min(W, totals.shape[1] - k * W)
    for f in range(totals.shape[0]):
        for j in range(n):
            totals[f, k * W + j] += block[(offset + f) * W + j]
            block[(offset + f) * W + j] = 0


# ---- Mathematical functions.
def exp(z: Any) -> Any:
    """``exp(z)``: in float32 within 2 units in the last place, 0 below -87 and infinity above 88.

    ``exp(z) = 2^n exp(r)`` with n the integer nearest to z / ln 2 and |r| <= ln(2) / 2: a Taylor polynomial of degree 7
    has an error of 5e-9 there. Adding 1.5 * 2^23 leaves n in the last bits of the mantissa, from where it is shifted
    into the exponent. ln 2 is taken in two parts so that r is exact.
    """
    raise AssertionError("compiled only")


def exp_of_negative(z: Any) -> Any:
    """`exp` of a number that is not positive."""
    raise AssertionError("compiled only")


@inline
def _exp_float32(z):  # type: ignore[no-untyped-def]
    f = np.float32
    value = _exp_of_negative_float32(f(88.0) if z > f(88.0) else z)
    return value * (z * f(1e38)) if z > f(88.0) else value


@inline
def _exp_of_negative_float32(z):  # type: ignore[no-untyped-def]
    f = np.float32
    shifted = z * f(1.4426950408889634) + f(12582912.0)
    n = shifted - f(12582912.0)
    r = (z - n * f(0.693359375)) + n * f(2.1219444005469058e-4)
    p = f(1 / 5040)
    p = p * r + f(1 / 720)
    p = p * r + f(1 / 120)
    p = p * r + f(1 / 24)
    p = p * r + f(1 / 6)
    p = p * r + f(0.5)
    p = (p * r) * r + r + f(1)
    exponent = np.int32((np.float32(shifted).view(np.int32) << 23) + 1065353216)
    return f(0) if z < f(-87) else p * exponent.view(np.float32)


@overload(exp_of_negative, jit_options=INLINE)
def _exp_of_negative(z):  # type: ignore[no-untyped-def]
    return _exp_of_negative_float32 if z == types.float32 else lambda z: math.exp(z)


@overload(exp, jit_options=INLINE)
def _exp(z):  # type: ignore[no-untyped-def]
    return _exp_float32 if z == types.float32 else lambda z: math.exp(z)


@inline
def sigmoid(x):  # type: ignore[no-untyped-def]
    """``1 / (1 + exp(-x))``, from the exponential of a number that is not positive."""
    e = exp_of_negative(-abs(x))
    return (e if x < 0 else one(x)) / (one(x) + e)


@inline
def tanh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic tangent: an odd polynomial near 0, where the exponential would cancel."""
    return _tanh(x)


def _tanh(x: Any) -> Any:
    raise AssertionError("compiled only")


@inline
def _tanh_float32(x):  # type: ignore[no-untyped-def]
    f = np.float32
    z = x * x
    p = f(-5.70498872745e-3)
    p = p * z + f(2.06390887954e-2)
    p = p * z + f(-5.37397155531e-2)
    p = p * z + f(1.33314422036e-1)
    p = p * z + f(-3.33332819422e-1)
    near = x + x * (z * p)
    e = exp(f(-2) * abs(x))
    far = (f(1) - e) / (f(1) + e)
    return near if abs(x) < f(0.625) else (-far if x < 0 else far)


@overload(_tanh, jit_options=INLINE)
def _tanh_of(x):  # type: ignore[no-untyped-def]
    return _tanh_float32 if x == types.float32 else lambda x: math.tanh(x)


@inline
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The smaller one; NaN where one is."""
    return b if a > b or b != b else a


@inline
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The larger one; NaN where one is."""
    return b if a < b or b != b else a


@inline
def sign(x):  # type: ignore[no-untyped-def]
    """1, 0 or -1; 0 for NaN, as torch has it."""
    return one(x) if x > 0 else (-one(x) if x < 0 else one(x) - one(x))
