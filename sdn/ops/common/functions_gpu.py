"""What generated GPU code calls, on tiles of float32 or float64, and in Triton's interpreter as well.

Triton's own functions where there are some; libdevice is none of them, since the interpreter does not have it. What is
rounded in one way only, such as a quotient or a square root, is rounded so here. Products and sums must not be
contracted (``enable_fp_fusion=False``). Operands are tiles; the one or the other of a quotient may be a plain number.
"""

import triton
import triton.language as tl

__all__ = ["FUNCTIONS"]

FUNCTIONS = frozenset({
    "atan", "ceil", "cos", "cosh", "divide", "erf", "exp", "expm1", "floor", "log", "log1p", "maximum", "minimum",
    "not_", "power", "real", "reciprocal", "root", "round_even", "sigmoid", "sign", "sin", "sinh", "tan", "tanh",
    "trunc",
})  # fmt: skip
"""Names that a generated file may import from here."""


@triton.jit
def real(condition, like):  # type: ignore[no-untyped-def]
    """1 where the condition holds and 0 where not, in the type of ``like``."""
    return condition.to(like.dtype)


@triton.jit
def not_(condition):  # type: ignore[no-untyped-def]
    """The opposite of a condition."""
    return condition ^ (condition == condition)


@triton.jit
def divide(a, b):  # type: ignore[no-untyped-def]
    """``a / b``, rounded to nearest: a plain quotient of float32 is an approximation on a GPU."""
    quotient = a / b
    if quotient.dtype == tl.float32:
        quotient = tl.div_rn(a, b)
    return quotient


@triton.jit
def reciprocal(x):  # type: ignore[no-untyped-def]
    """``1 / x``, rounded to nearest."""
    return divide(tl.full(x.shape, 1.0, x.dtype), x)


@triton.jit
def root(x):  # type: ignore[no-untyped-def]
    """Square root, rounded to nearest."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    return tl.sqrt(x)


@triton.jit
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The smaller one; NaN where one is."""
    return tl.where((a > b) | (b != b), b, a)


@triton.jit
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The larger one; NaN where one is."""
    return tl.where((a < b) | (b != b), b, a)


@triton.jit
def sign(x):  # type: ignore[no-untyped-def]
    """1, 0 or -1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x - x))


@triton.jit
def floor(x):  # type: ignore[no-untyped-def]
    """The next integer below."""
    return tl.floor(x)


@triton.jit
def ceil(x):  # type: ignore[no-untyped-def]
    """The next integer above."""
    return tl.ceil(x)


@triton.jit
def trunc(x):  # type: ignore[no-untyped-def]
    """The next integer towards 0."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def round_even(x):  # type: ignore[no-untyped-def]
    """The nearest integer, the even one of two: a sum with 2^23 (2^52 of float64) has no digits behind the point."""
    whole: tl.constexpr = 4503599627370496.0 if x.dtype == tl.float64 else 8388608.0
    size = tl.abs(x)
    rounded = (size + whole) - whole
    return tl.where(size < whole, tl.where(x < 0, -rounded, rounded), x)


@triton.jit
def exp(x):  # type: ignore[no-untyped-def]
    """Exponential."""
    return tl.exp(x)


@triton.jit
def expm1(x):  # type: ignore[no-untyped-def]
    """``exp(x) - 1`` without cancellation: its series up to 1/2 (to x^9 in float32, to x^15 in float64)."""
    series = tl.full(x.shape, 1.0, x.dtype)
    for n in tl.static_range(15 if x.dtype == tl.float64 else 9, 1, -1):
        series = series * (x * (1.0 / n)) + 1.0
    return tl.where(tl.abs(x) < 0.5, x * series, tl.exp(x) - 1.0)


@triton.jit
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm."""
    return tl.log(x)


@triton.jit
def log1p(x):  # type: ignore[no-untyped-def]
    """``log(1 + x)`` without cancellation: the rounding error of 1 + x is divided out again."""
    y = 1.0 + x
    rest = y - 1.0
    exact = (rest == 0) | (y == float("inf"))
    return tl.where(exact, x, tl.log(y) * divide(x, tl.where(exact, 1.0, rest)))


@triton.jit
def sin(x):  # type: ignore[no-untyped-def]
    """Sine."""
    return tl.sin(x)


@triton.jit
def cos(x):  # type: ignore[no-untyped-def]
    """Cosine."""
    return tl.cos(x)


@triton.jit
def tan(x):  # type: ignore[no-untyped-def]
    """Tangent."""
    return divide(tl.sin(x), tl.cos(x))


@triton.jit
def sinh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic sine, infinite from the number on whose exponential is."""
    e = expm1(tl.abs(x))
    size = tl.where(e == float("inf"), e, e * 0.5 + divide(e, e + 1.0) * 0.5)
    return tl.where(x < 0, -size, size)


@triton.jit
def cosh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic cosine, infinite from the number on whose exponential is."""
    e = tl.exp(tl.abs(x))
    return e * 0.5 + divide(0.5, e)


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic tangent, from the exponential of a number that is not positive."""
    e = expm1(-2.0 * tl.abs(x))
    size = divide(-e, e + 2.0)
    return tl.where(x < 0, -size, size)


@triton.jit
def sigmoid(x):  # type: ignore[no-untyped-def]
    """``1 / (1 + exp(-x))``, from the exponential of a number that is not positive."""
    e = tl.exp(-tl.abs(x))
    return divide(tl.where(x < 0, e, 1.0), e + 1.0)


@triton.jit
def erf(x):  # type: ignore[no-untyped-def]
    """Error function."""
    return tl.erf(x)


@triton.jit
def atan(x):  # type: ignore[no-untyped-def]
    """Arctangent: a rational function up to 0.66, and the angle to pi/4 or pi/2 beyond; coefficients of Cephes."""
    size = tl.abs(x)
    far, near = size > 2.414213562373095, size <= 0.66
    w = tl.where(far, divide(-1.0, tl.where(far, size, 1.0)), tl.where(near, size, divide(size - 1.0, size + 1.0)))
    z = w * w
    p = z * -0.8750608600031904 - 16.157537187333652
    p = (p * z - 75.00855792314705) * z - 122.88666844901361
    p = p * z - 64.85021904942025
    q = (z + 24.858464901423062) * z + 165.02700983169885
    q = (q * z + 432.88106049129027) * z + 485.3903996359137
    q = q * z + 194.5506571482614
    quarter = tl.full(x.shape, 0.7853981633974483, x.dtype)
    angle = tl.where(far, quarter * 2.0, tl.where(near, 0.0, quarter)) + (w + w * (z * divide(p, q)))
    return tl.where(x < 0, -angle, angle)


@triton.jit
def power(x, y):  # type: ignore[no-untyped-def]
    """``x`` to the power ``y``; of a negative x where y is an integer, else NaN.

    It loses as many digits as the logarithm of the result has in front of its point.
    """
    is_odd = tl.floor(y * 0.5) != y * 0.5
    size = tl.exp(y * tl.log(tl.where(x == 0, 1.0, tl.abs(x))))
    at_zero = tl.where(y > 0, 0.0, tl.full(x.shape, float("inf"), x.dtype))
    size = tl.where(x == 0, at_zero, size)
    negative = tl.where(tl.floor(y) == y, tl.where(is_odd, -size, size), float("nan"))
    return tl.where(y == 0, 1.0, tl.where(x < 0, negative, size))
