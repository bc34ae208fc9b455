"""What one step of each layer does, on plain arrays: the parts that a compiled step of a network is put together of.

Each function is text as well as code: the step of a network is one file with the sources of those it calls, for numba
and, translated, for a compiler of C. So only this may stand in one: numbers and one-dimensional arrays, ``for`` over a
``range``, ``if``, arithmetic, comparisons, and the functions of `CALLED`.

An array comes with the place at which its part begins, such as ``x, X``. Places and sizes are numbers in the text of a
network, so that a compiler sees a few arrays and constant distances, and makes vector code. All arrays are float32 but
those named ``p``, which are float64: sums over a stream that has no end.
"""

from typing import Any

__all__ = ["CALLED", "LOOPS"]

Array = Any
F: Any = float
TINY = 1.1754943508222875e-38
CALLED = ("abs", "sqrt", "sigmoid", "int", "F")
"""What a loop may call besides other loops."""


def sigmoid(z: Any) -> Any:
    """Of numba or of C; here for the readers of this file."""
    raise AssertionError("compiled only")


def sqrt(z: Any) -> Any:
    """As `sigmoid`."""
    raise AssertionError("compiled only")


def copied(x: Array, X: int, y: Array, Y: int, count: int) -> None:
    """``y = x``."""
    for j in range(count):
        y[Y + j] = x[X + j]


def added(x: Array, X: int, y: Array, Y: int, count: int) -> None:
    """``y += x``."""
    for j in range(count):
        y[Y + j] += x[X + j]


def scaled(x: Array, X: int, factor: Array, A: int, offset: Array, B: int, y: Array, Y: int, count: int) -> None:
    """``y = factor x + offset``: a batch norm whose statistics are known."""
    for j in range(count):
        y[Y + j] = factor[A + j] * x[X + j] + offset[B + j]


def mapped(x: Array, X: int, weight: Array, W: int, y: Array, Y: int, inputs: int, outputs: int) -> None:
    """``y += W x``, W by inputs; those that are 0, such as neurons without a spike, cost nothing."""
    for k in range(inputs):
        value = x[X + k]
        if value != 0:
            for j in range(outputs):
                y[Y + j] += value * weight[W + k * outputs + j]


def mapped_int8(
    x: Array,
    X: int,
    q: Array,
    Q: int,
    scale: Array,
    A: int,
    t: Array,
    T: int,
    y: Array,
    Y: int,
    inputs: int,
    outputs: int,
) -> None:
    """``y += scale (q x)``: `mapped` with weights of 8 bits, q by inputs, and one float32 for each output."""
    for j in range(outputs):
        t[T + j] = 0
    for k in range(inputs):
        value = x[X + k]
        if value != 0:
            for j in range(outputs):
                t[T + j] += value * F(q[Q + k * outputs + j])
    for j in range(outputs):
        y[Y + j] += scale[A + j] * t[T + j]


def embedded(x: Array, X: int, table: Array, W: int, y: Array, Y: int, count: int) -> None:
    """The row of a table for the token ``x[X]``."""
    k = int(x[X])
    for j in range(count):
        y[Y + j] = table[W + k * count + j]


def modes(
    u: Array, U: int, w: Array, W: int, through: Array, D: int, s: Array, S: int, y: Array, Y: int, count: int, n: int
) -> None:
    """S4D: ``x = A x + B u`` of ``count`` complex modes of n channels, ``y = Re(C x) + D u`` with twice the layer's C.

    ``w`` holds, mode by mode, real and imaginary part of A, B and that C; ``s`` those of x.
    """
    for j in range(n):
        y[Y + j] = through[D + j] * u[U + j]
    for m in range(count):
        for j in range(n):
            i, k = W + 6 * m * n + j, S + 2 * m * n + j
            a = w[i] * s[k] - w[i + n] * s[k + n] + w[i + 2 * n] * u[U + j]
            b = w[i] * s[k + n] + w[i + n] * s[k] + w[i + 3 * n] * u[U + j]
            a = F(0.0) if abs(a) < TINY else a
            b = F(0.0) if abs(b) < TINY else b
            s[k] = a
            s[k + n] = b
            y[Y + j] += w[i + 4 * n] * a - w[i + 5 * n] * b


def gated(x: Array, X: int, y: Array, Y: int, count: int) -> None:
    """``y += x[:n] sigmoid(x[n:])``."""
    for j in range(count):
        y[Y + j] += x[X + j] * sigmoid(x[X + count + j])


def normed(
    x: Array,
    X: int,
    factor: Array,
    A: int,
    offset: Array,
    B: int,
    eps: float,
    y: Array,
    Y: int,
    t: Array,
    T: int,
    n: int,
) -> None:
    """Layer norm over n channels; 16 sums side by side in ``t``, which a processor adds at once."""
    mean, spread = F(0.0), F(0.0)
    for k in range(16):
        t[T + k] = 0
    for i in range(n // 16):
        for k in range(16):
            t[T + k] += x[X + 16 * i + k]
    for j in range(n // 16 * 16, n):
        mean += x[X + j]
    for k in range(16):
        mean += t[T + k]
        t[T + k] = 0
    mean = mean / F(n)
    for i in range(n // 16):
        for k in range(16):
            t[T + k] += (x[X + 16 * i + k] - mean) * (x[X + 16 * i + k] - mean)
    for j in range(n // 16 * 16, n):
        spread += (x[X + j] - mean) * (x[X + j] - mean)
    for k in range(16):
        spread += t[T + k]
    scale = F(1.0) / sqrt(spread / F(n) + F(eps))
    for j in range(n):
        y[Y + j] = (x[X + j] - mean) * scale * factor[A + j] + offset[B + j]


def resonated(
    u: Array,
    U: int,
    w: Array,
    W: int,
    turn: Array,
    R: int,
    s: Array,
    S: int,
    y: Array,
    Y: int,
    n: int,
    size: int,
    kind: int,
) -> int:
    """Resonate-and-fire without a reset: ``x = factor x + gain u``, spikes where the potential is above a threshold.

    ``w`` holds real and imaginary part of factor and gain, the threshold, the decay of what spikes add to it, and how
    much one adds; ``s`` x and that. ``turn`` is one block (size, size) of V by columns, real and imaginary. ``kind`` is
    1 where the magnitude of V x counts and not its real part. ``u`` is written over.
    """
    for j in range(n):
        a = (w[W + j] * s[S + j] - w[W + n + j] * s[S + n + j]) + (
            w[W + 2 * n + j] * u[U + j] - w[W + 3 * n + j] * u[U + n + j]
        )
        b = (w[W + j] * s[S + n + j] + w[W + n + j] * s[S + j]) + (
            w[W + 2 * n + j] * u[U + n + j] + w[W + 3 * n + j] * u[U + j]
        )
        a = F(0.0) if abs(a) < TINY else a
        b = F(0.0) if abs(b) < TINY else b
        s[S + j] = a
        s[S + n + j] = b
        u[U + j] = a
        u[U + n + j] = b
    if size > 0:
        for j in range(2 * n):
            u[U + j] = 0
        for k in range(n):
            a, b, start, column = s[S + k], s[S + n + k], k // size * size, k % size
            for i in range(size):
                re, im = turn[R + column * size + i], turn[R + (size + column) * size + i]
                u[U + start + i] += re * a - im * b
                u[U + n + start + i] += re * b + im * a
    fired = 0
    for j in range(n):
        v = u[U + j]
        if kind == 1:
            v = sqrt(u[U + j] * u[U + j] + u[U + n + j] * u[U + n + j])
        v = v - w[W + 4 * n + j] - s[S + 2 * n + j]
        spike = F(1.0) if v > 0 else F(0.0)
        s[S + 2 * n + j] = w[W + 5 * n + j] * s[S + 2 * n + j] + w[W + 6 * n + j] * spike
        y[Y + j] = spike
        fired += 1 if v > 0 else 0
    return fired


def integrated(x: Array, X: int, keep: Array, A: int, gain: Array, B: int, s: Array, S: int, count: int) -> None:
    """Leaky integrators: ``s = keep s + gain x``."""
    for j in range(count):
        a = keep[A + j] * s[S + j] + gain[B + j] * x[X + j]
        s[S + j] = F(0.0) if abs(a) < TINY else a


def averaged(x: Array, X: int, p: Array, P: int, y: Array, Y: int, count: int) -> None:
    """The mean of all steps so far; ``p`` has their number, and their sum."""
    p[P] += 1
    for j in range(count):
        p[P + 1 + j] += x[X + j]
        y[Y + j] = p[P + 1 + j] / p[P]


LOOPS = {
    each.__name__: each
    for each in (
        copied,
        added,
        scaled,
        mapped,
        mapped_int8,
        embedded,
        modes,
        gated,
        normed,
        resonated,
        integrated,
        averaged,
    )
}
"""The loops by their names."""
