"""Slopes of the built-in spike gradients for the CPU kernels, and an exponential that the compiler can vectorise."""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

INLINE: Any = {"forceinline": True}
"""A loop with a call in it is not turned into vector code."""

__all__ = ["ArcTan", "Gaussians", "MultiGaussians", "Sigmoid", "Triangle", "exp", "slope"]


class Triangle(NamedTuple):
    """``max(0, 1 - |v| rate) rate`` with ``rate = 1 / width``."""

    rate: Any


class Gaussians(NamedTuple):
    """``narrow exp(-narrow_rate v^2) - broad exp(-broad_rate v^2)``."""

    narrow: Any
    narrow_rate: Any
    broad: Any
    broad_rate: Any


class MultiGaussians(NamedTuple):
    """``centre exp(-centre_rate v^2) - side (exp(-side_rate (v - offset)^2) + exp(-side_rate (v + offset)^2))``."""

    centre: Any
    centre_rate: Any
    side: Any
    side_rate: Any
    offset: Any


class ArcTan(NamedTuple):
    """``peak / (1 + (rate v)^2)``."""

    peak: Any
    rate: Any


class Sigmoid(NamedTuple):
    """``alpha e / (1 + e)^2`` with ``e = exp(-alpha |v|)``."""

    alpha: Any


def exp(z: Any) -> Any:
    """``exp(z)`` for z <= 0, within 2 units in the last place of a float32; results below 2^-126 are 0.

    ``exp(z) = 2^n exp(r)`` with n the integer nearest to z / ln 2 and |r| <= ln(2) / 2: a Taylor polynomial of degree 7
    has an error of 5e-9 there. Adding 1.5 * 2^23 leaves n in the last bits of the mantissa, from where it is shifted
    into the exponent. ln 2 is taken in two parts so that r is exact.
    """
    raise AssertionError("compiled only")


@register_jitable(forceinline=True)
def _exp_float32(z):  # type: ignore[no-untyped-def]
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


@overload(exp, jit_options=INLINE)
def _exp(z):  # type: ignore[no-untyped-def]
    return _exp_float32 if z == types.float32 else lambda z: math.exp(z)


def slope(gradient: Any, v: Any) -> Any:
    """The slope of a spike gradient at the distance v to the threshold."""
    raise AssertionError("compiled only")


def _triangle(gradient, v):  # type: ignore[no-untyped-def]
    height = gradient.rate - (abs(v) * gradient.rate) * gradient.rate
    return height if height > v - v else v - v


def _gaussians(gradient, v):  # type: ignore[no-untyped-def]
    w = -(v * v)
    return gradient.narrow * exp(w * gradient.narrow_rate) - gradient.broad * exp(w * gradient.broad_rate)


def _multi_gaussians(gradient, v):  # type: ignore[no-untyped-def]
    left, right = v - gradient.offset, v + gradient.offset
    sides = exp(-(left * left) * gradient.side_rate) + exp(-(right * right) * gradient.side_rate)
    return gradient.centre * exp(-(v * v) * gradient.centre_rate) - gradient.side * sides


def _arctan(gradient, v):  # type: ignore[no-untyped-def]
    w = gradient.rate * v
    return gradient.peak / (w * w + gradient.peak / gradient.peak)


def _sigmoid(gradient, v):  # type: ignore[no-untyped-def]
    e = exp(-abs(gradient.alpha * v))
    half = gradient.alpha * e
    return half / ((e + gradient.alpha / gradient.alpha) * (e + gradient.alpha / gradient.alpha))


_SLOPES = {
    Triangle: _triangle,
    Gaussians: _gaussians,
    MultiGaussians: _multi_gaussians,
    ArcTan: _arctan,
    Sigmoid: _sigmoid,
}


@overload(slope, jit_options=INLINE)
def _slope(gradient, v):  # type: ignore[no-untyped-def]
    return _SLOPES[gradient.instance_class]
