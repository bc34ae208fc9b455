"""Slopes of the built-in spike gradients on the GPU: names and numbers as in `sdn.ops.common.slopes_cpu`."""

import triton
import triton.language as tl

__all__ = ["slope"]


@triton.jit
def slope(  # type: ignore[no-untyped-def]
    GRADIENT: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, N4: tl.constexpr, v
):  # fmt: skip
    """The slope at the distance v to the threshold; N0 .. N4 are the numbers of the spike gradient, in order."""
    if GRADIENT == "triangle":
        height = N0 - (tl.abs(v) * N0) * N0
        result = tl.where(height > 0, height, 0.0)
    elif GRADIENT == "gaussians":
        w = -(v * v)
        result = N0 * tl.exp(w * N1) - N2 * tl.exp(w * N3)
    elif GRADIENT == "multi_gaussians":
        left, right = v - N4, v + N4
        sides = tl.exp(-(left * left) * N3) + tl.exp(-(right * right) * N3)
        result = N0 * tl.exp(-(v * v) * N1) - N2 * sides
    elif GRADIENT == "arctan":
        w = N1 * v
        result = N0 / (w * w + 1.0)
    else:
        tl.static_assert(GRADIENT == "sigmoid")
        e = tl.exp(-tl.abs(N0 * v))
        result = N0 * e / ((e + 1.0) * (e + 1.0))
    return result
