"""Neurons over (B, L, H) on the CPU: one forward and one backward loop for all models and all spike gradients.

The channels of a step lie side by side in memory and are the inner loop, which LLVM turns into vector code; time is
read in order. What belongs to one tile of W channels is one array, field after field (``block[W f + j]`` is field f of
channel j): the compiler then sees one pointer and constant distances, and needs few tests for overlap. A model is a
NamedTuple of scalars whose type picks the code of its step when a loop is compiled. Every 64th state is kept; the
backward loop computes the states between again.

A comparison with NaN is false, so that a neuron whose state is no number would be silent. NaN and infinity stay in a
state for good, as they do in every model here, so that one look at the last state, and one at the parameters, tells
whether there is a neuron to `mark`; the loop over time itself looks at nothing.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from sdn.ops.common.cpu import TINY, TINY_DOUBLE, jit, prefetch
from sdn.ops.common.slopes_cpu import INLINE, slope
from sdn.ops.neuron.layout import STRIDE

__all__ = ["ALIF", "BRF", "LANES", "LIF", "RF", "backward", "forward"]

LANES = 64
LINE = 16  # float32 numbers in a cache line


class LIF(NamedTuple):
    """State u; parameters decay, threshold. A spike takes ``hard u + soft threshold`` from the membrane."""

    hard: Any
    soft: Any


class ALIF(NamedTuple):
    """State u, a, s; parameters alpha, 1 - alpha, rho, 1 - rho, beta, threshold."""

    unused: int


class RF(NamedTuple):
    """State u, v; parameters omega, damping, threshold."""

    dt: Any


class BRF(NamedTuple):
    """State u, v, q; parameters omega, damping at rest, gamma, threshold; whether q damps and refracts, 1 or 0."""

    dt: Any
    smooth: Any
    refractory: Any


# ---- Steps forward: read the state `now`, write the state `after` (they may be one array). Operations and their order
# are those of sdn.dynamics, so that spikes agree bit for bit. All arrays are read before the first branch: a use inside
# one leaves reference counting in the loop, which then stays scalar (70x slower).
def step(model: Any, x: Any, now: Any, after: Any, fixed: Any, j: Any, W: Any) -> Any:
    """One step of channel j: writes the state after it, returns whether the neuron fires."""
    raise AssertionError("compiled only")


def _lif_step(model, x, now, after, fixed, j, W):  # type: ignore[no-untyped-def]
    u, decay, threshold = now[j], fixed[j], fixed[W + j]
    h = decay * u + x
    fires = h - threshold >= 0
    after[j] = normal(h - (model.hard * h + model.soft * threshold) if fires else h)
    return fires


def _alif_step(model, x, now, after, fixed, j, W):  # type: ignore[no-untyped-def]
    leak, a = fixed[j] * now[j], fixed[2 * W + j] * now[W + j] + fixed[3 * W + j] * now[2 * W + j]
    current, rise, threshold = fixed[W + j] * x, fixed[4 * W + j] * a, fixed[5 * W + j]
    fires = (leak - rise) + current - threshold > 0
    h = leak + current
    after[j] = normal(h - (threshold + rise) if fires else h)
    after[W + j] = normal(a)
    after[2 * W + j] = one(x) if fires else zero(x)
    return fires


def _rf_step(model, x, now, after, fixed, j, W):  # type: ignore[no-untyped-def]
    u, v, dt = now[j], now[W + j], model.dt
    omega, damping, threshold = fixed[j], fixed[W + j], fixed[2 * W + j]
    mem = u + dt * (-damping * u - omega * v)
    after[j] = normal(mem + dt * x)
    after[W + j] = normal(v + dt * (omega * u - damping * v))
    return mem + dt * x - threshold > 0


def _brf_step(model, x, now, after, fixed, j, W):  # type: ignore[no-untyped-def]
    u, v, q, omega, dt = now[j], now[W + j], now[2 * W + j], fixed[j], model.dt
    b = fixed[W + j] - model.smooth * q
    free = u + dt * (b * u - omega * v)
    fires = (free - model.refractory * q) + dt * x - fixed[3 * W + j] > 0
    after[j] = normal(free + dt * x)
    after[W + j] = normal(v + dt * (omega * u + b * v))
    after[2 * W + j] = normal(fixed[2 * W + j] * q + (one(x) if fires else zero(x)))
    return fires


# ---- Steps backward: `block` holds the gradient of the state after the step and receives that of the state before it,
# then the parameters; `sums` (None where no parameter is learned) is the same array, with the gradients of the
# parameters behind them. `through` is 1 where the gradient passes through the reset, else 0.
def pull(
    model: Any, gradient: Any, through: Any, x: Any, now: Any, block: Any, sums: Any, gs: Any, j: Any, W: Any
) -> Any:
    """Gradient of the current of channel j, from the gradient gs of its spike and that of the state in the block."""
    raise AssertionError("compiled only")


def _lif_pull(model, gradient, through, x, now, block, sums, gs, j, W):  # type: ignore[no-untyped-def]
    u, gu, decay, threshold = now[j], block[j], block[W + j], block[2 * W + j]
    h = decay * u + x
    v = h - threshold
    fires = v >= 0
    gv = (gs - through * gu * (model.hard * h + model.soft * threshold)) * slope(gradient, v)
    gh = gv + (gu - model.hard * gu if fires else gu)
    block[j] = normal(gh * decay)
    add(sums, 3 * W + j, gh * u)
    add(sums, 4 * W + j, -gv - (model.soft * gu if fires else zero(x)))
    return gh


def _alif_pull(model, gradient, through, x, now, block, sums, gs, j, W):  # type: ignore[no-untyped-def]
    u, a_before, s, gu = now[j], now[W + j], now[2 * W + j], block[j]
    alpha, gain, rho, fresh = block[3 * W + j], block[4 * W + j], block[5 * W + j], block[6 * W + j]
    beta, threshold = block[7 * W + j], block[8 * W + j]
    leak, a = alpha * u, rho * a_before + fresh * s
    rise = beta * a
    v = (leak - rise) + gain * x - threshold
    gv = (gs + through * (block[2 * W + j] - gu * (threshold + rise))) * slope(gradient, v)
    gh, gtheta = gu + gv, -gv - (gu if v > 0 else zero(x))
    ga = block[W + j] + gtheta * beta
    block[j], block[W + j], block[2 * W + j] = normal(gh * alpha), normal(rho * ga), normal(fresh * ga)
    add(sums, 9 * W + j, gh * u)
    add(sums, 10 * W + j, gh * x)
    add(sums, 11 * W + j, ga * a_before)
    add(sums, 12 * W + j, ga * s)
    add(sums, 13 * W + j, gtheta * a)
    add(sums, 14 * W + j, gtheta)
    return gh * gain


def _rf_pull(model, gradient, through, x, now, block, sums, gs, j, W):  # type: ignore[no-untyped-def]
    u, v, gu, gv, dt = now[j], now[W + j], block[j], block[W + j], model.dt
    omega, damping = block[2 * W + j], block[3 * W + j]
    gd = gs * slope(gradient, u + dt * (-damping * u - omega * v) + dt * x - block[4 * W + j])
    gm = gd + gu
    keep, turn = one(x) - dt * damping, dt * omega
    block[j], block[W + j] = normal(gm * keep + gv * turn), normal(gv * keep - gm * turn)
    add(sums, 5 * W + j, dt * (gv * u - gm * v))
    add(sums, 6 * W + j, -dt * (gm * u + gv * v))
    add(sums, 7 * W + j, -gd)
    return dt * gm


def _brf_pull(model, gradient, through, x, now, block, sums, gs, j, W):  # type: ignore[no-untyped-def]
    u, v, q, gu, gv, gq = now[j], now[W + j], now[2 * W + j], block[j], block[W + j], block[2 * W + j]
    omega, gamma, dt = block[3 * W + j], block[5 * W + j], model.dt
    b = block[4 * W + j] - model.smooth * q
    distance = (u + dt * (b * u - omega * v) - model.refractory * q) + dt * x - block[6 * W + j]
    gd = (gs + through * gq) * slope(gradient, distance)
    gm = gd + gu
    gb, keep, turn = dt * (gm * u + gv * v), one(x) + dt * b, dt * omega
    block[j], block[W + j] = normal(gm * keep + gv * turn), normal(gv * keep - gm * turn)
    block[2 * W + j] = normal(gamma * gq - model.refractory * gd - model.smooth * gb)
    add(sums, 7 * W + j, dt * (gv * u - gm * v))
    add(sums, 8 * W + j, gb)
    add(sums, 9 * W + j, gq * q)
    add(sums, 10 * W + j, -gd)
    return dt * gm


_STEPS = {
    LIF: (_lif_step, _lif_pull),
    ALIF: (_alif_step, _alif_pull),
    RF: (_rf_step, _rf_pull),
    BRF: (_brf_step, _brf_pull),
}


@overload(step, jit_options=INLINE)
def _step(model, x, now, after, fixed, j, W):  # type: ignore[no-untyped-def]
    return _STEPS[model.instance_class][0]


@overload(pull, jit_options=INLINE)
def _pull(model, gradient, through, x, now, block, sums, gs, j, W):  # type: ignore[no-untyped-def]
    return _STEPS[model.instance_class][1]


# ---- Small helpers, in the type of what they are given.
def zero(like: Any) -> Any:
    """0 in the type of ``like``."""
    raise AssertionError("compiled only")


def one(like: Any) -> Any:
    """1 in the type of ``like``."""
    raise AssertionError("compiled only")


def normal(u: Any) -> Any:
    """``u``, or 0 where it is smaller than any normal number."""
    raise AssertionError("compiled only")


def add(sums: Any, index: Any, value: Any) -> None:
    """``sums[index] += value``, nothing where sums is None."""
    raise AssertionError("compiled only")


@overload(zero, jit_options=INLINE)
def _zero(like):  # type: ignore[no-untyped-def]
    kind = np.float32 if like == types.float32 else np.float64
    return lambda like: kind(0)


@overload(one, jit_options=INLINE)
def _one(like):  # type: ignore[no-untyped-def]
    kind = np.float32 if like == types.float32 else np.float64
    return lambda like: kind(1)


@overload(normal, jit_options=INLINE)
def _normal(u):  # type: ignore[no-untyped-def]
    kind, tiny = (np.float32, TINY) if u == types.float32 else (np.float64, TINY_DOUBLE)
    return lambda u: kind(0) if abs(u) < kind(tiny) else u


@jit
def finite(block):  # type: ignore[no-untyped-def]
    """Whether all numbers of a contiguous array are; a sum of integers, which the compiler turns into vector code."""
    bad = 0
    for j in range(block.size):
        bad += 0 if block[j] - block[j] == 0 else 1
    return bad == 0


@overload(add, jit_options=INLINE)
def _add(sums, index, value):  # type: ignore[no-untyped-def]
    if isinstance(sums, types.NoneType):
        return lambda sums, index, value: None

    def accumulate(sums, index, value):  # type: ignore[no-untyped-def]
        sums[index] += value

    return accumulate


# ---- The loops. `wide` is a tuple whose length says how many times 64 channels a tile has: its type fixes W.
@jit
def gather(block, offset, rows, b, k, W):  # type: ignore[no-untyped-def]
    """Fields of tile k of row b into a block, from field ``offset`` on."""
    n = min(W, rows.shape[2] - k * W)
    for f in range(rows.shape[1]):
        block[(offset + f) * W : (offset + f) * W + n] = rows[b, f, k * W : k * W + n]


@jit
def scatter(rows, b, k, block, offset, W):  # type: ignore[no-untyped-def]
    """The way back of `gather`."""
    n = min(W, rows.shape[2] - k * W)
    for f in range(rows.shape[1]):
        rows[b, f, k * W : k * W + n] = block[(offset + f) * W : (offset + f) * W + n]


@jit
def mark(model, x, fixed, first, spikes, b, begin, end):  # type: ignore[no-untyped-def]
    """NaN for the spikes of the channels ``begin .. end-1`` of row b, from where a state of theirs is no number.

    From the first step on where a parameter is none. The channels are run once more, one by one.
    """
    now, constant = np.empty(first.shape[1], x.dtype), np.empty(fixed.shape[1], x.dtype)
    for c in range(begin, end):
        for f in range(first.shape[1]):
            now[f] = first[b, f, c]
        for f in range(fixed.shape[1]):
            constant[f] = fixed[0, f, c]
        good = finite(constant)
        for t in range(x.shape[1]):
            if good:
                step(model, x[b, t, c], now, now, constant, 0, 1)
                good = finite(now)
            if not good:
                spikes[b, t, c] = np.nan


@jit
def forward(model, wide, x, fixed, first, parts, spikes, saved, final, begin, end):  # type: ignore[no-untyped-def]
    """Spikes and last state of the items ``begin .. end-1``; item i is part ``i % parts`` of the row ``i // parts``.

    Shapes: x, spikes (B, L, H); fixed (1, P, H); first, final (B, S, H); saved (B, ceil(L / 64), S, H), or B = 0 where
    no backward pass follows.
    """
    W = LANES * len(wide)
    length, channels = x.shape[1:]
    tiles = (channels + W - 1) // W
    parameters = np.zeros((tiles, fixed.shape[1] * W), x.dtype)
    state = np.zeros((tiles, first.shape[1] * W), x.dtype)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
    good = finite(parameters.reshape(-1))
    for item in range(begin, end):
        b, part = item // parts, item % parts
        low, high = part * tiles // parts, (part + 1) * tiles // parts
        for k in range(low, high):
            gather(state[k], 0, first, b, k, W)
        for t in range(length):
            if t % STRIDE == 0 and saved.shape[0]:
                for k in range(low, high):
                    scatter(saved[b], t // STRIDE, k, state[k], 0, W)
            for k in range(low, high):
                row, out = x[b, t, k * W : k * W + W], spikes[b, t, k * W : k * W + W]
                now, constant = state[k], parameters[k]
                for j in range(row.shape[0]):
                    out[j] = one(row[j]) if step(model, row[j], now, now, constant, j, W) else zero(row[j])
        for k in range(low, high):
            scatter(final, b, k, state[k], 0, W)
            if not (good and finite(state[k])):
                mark(model, x, fixed, first, spikes, b, k * W, min(k * W + W, channels))


@jit
def backward(model, gradient, through, wide, x, fixed, saved, gspikes, gfinal, parts, gx, gfirst, gfixed, begin, end):  # type: ignore[no-untyped-def]
    """Gradients of the items ``begin .. end-1``; gfixed is (B, P, H) float64, or None where no parameter is learned."""
    W = LANES * len(wide)
    length, channels = x.shape[1:]
    states, fields = gfinal.shape[1], fixed.shape[1]
    tiles, chunks = (channels + W - 1) // W, (length + STRIDE - 1) // STRIDE
    parameters = np.zeros((tiles, fields * W), x.dtype)
    blocks = np.zeros((tiles, (states + 2 * fields) * W), x.dtype)
    past = np.zeros((STRIDE, tiles, states * W), x.dtype)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
        gather(blocks[k], states, fixed, 0, k, W)
    for item in range(begin, end):
        b, part = item // parts, item % parts
        low, high = part * tiles // parts, (part + 1) * tiles // parts
        for k in range(low, high):
            gather(blocks[k], 0, gfinal, b, k, W)
        for chunk in range(chunks - 1, -1, -1):
            start, stop = chunk * STRIDE, min(chunk * STRIDE + STRIDE, length)
            for k in range(low, high):
                gather(past[0, k], 0, saved[b], chunk, k, W)
            for t in range(start, stop - 1):
                for k in range(low, high):
                    row, constant = x[b, t, k * W : k * W + W], parameters[k]
                    now, after = past[t - start, k], past[t - start + 1, k]
                    gs, out = gspikes[b, t, k * W : k * W + W], gx[b, t, k * W : k * W + W]
                    for j in range(0, row.shape[0], LINE):  # needed when the chunk is walked back
                        prefetch(gs, j)
                        prefetch(out, j)
                    for j in range(row.shape[0]):
                        step(model, row[j], now, after, constant, j, W)
            for t in range(stop - 1, start - 1, -1):
                for k in range(low, high):
                    row, gs, out = (
                        x[b, t, k * W : k * W + W],
                        gspikes[b, t, k * W : k * W + W],
                        gx[b, t, k * W : k * W + W],
                    )
                    now, block = past[t - start, k], blocks[k]
                    sums = None if gfixed is None else block
                    for j in range(row.shape[0]):
                        out[j] = pull(model, gradient, through, row[j], now, block, sums, gs[j], j, W)
            if gfixed is not None:
                for k in range(low, high):
                    collect(gfixed[b], k, blocks[k], states + fields, W)
        for k in range(low, high):
            scatter(gfirst, b, k, blocks[k], 0, W)


@jit
def collect(totals, k, block, offset, W):  # type: ignore[no-untyped-def]
    """Move the sums of one chunk into the totals, which are float64, and start them anew."""
    n = min(W, totals.shape[1] - k * W)
    for f in range(totals.shape[0]):
        for j in range(n):
            totals[f, k * W + j] += block[(offset + f) * W + j]
            block[(offset + f) * W + j] = 0
