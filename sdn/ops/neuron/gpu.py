"""The neuron operators on CUDA devices: one forward and one backward kernel for all models and all spike gradients.

A program is one warp and owns BLOCK lanes of a row, whose state stays in registers from the first step to the last.
Currents come T steps at a time, and those of the next T steps are asked for before the present ones are used: only
loads in flight hide the latency of memory. Such a (T, BLOCK) tile lies in registers as well, one lane to a thread, so
that taking a row out of it costs nothing where its number is known to the compiler. Every 64th state is kept. The
backward kernel goes from there to the state before every T-th step, and from these to all others: no scratch memory.

Products and sums are rounded one by one, in the order of `sdn.dynamics`: contracted (``enable_fp_fusion``), spikes
would differ from those of `sdn.simulate`. Numbers of the neuron and of the spike gradient are compiled in, so that a
new dt or width costs a compilation; parameters per channel are data.

Checked in Triton's interpreter and in the code compiled for sm_80 and sm_90 (no contraction, no shared memory, nothing
spilled in float32). No GPU was at hand. Not measured: the speed of either kernel against the traffic of memory, AHEAD,
BEHIND and the single warp of a program, few lanes (one dependent step after another), float64, and the copy that is
made of inputs whose lanes are not side by side.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch
from sdn.ops.common.slopes_gpu import slope
from sdn.ops.common.tiles_gpu import (
    join_four,
    load_rows,
    normal,
    padded,
    part_six,
    part_three,
    pick_row,
    put_row,
    spike_of,
    store_rows,
)
from sdn.ops.neuron.layout import MODELS, STRIDE, from_rows, lay_out, spikes_like, to_rows

__all__ = ["backward", "forward"]

BLOCK = 32
AHEAD, BEHIND = 32, 16
"""Steps per tile forward and backward; divisors of STRIDE."""
LAUNCH: dict[str, Any] = {"num_warps": 1, "enable_fp_fusion": False}
RUNTIME = ["length", "width", "x_row", "x_step", "g_row", "g_step"]
"""Sizes that are not compiled in. A known alignment would make Triton give a thread several lanes and fewer steps."""


def forward(
    name: str, current: Tensor, state: Tensor, fixed: Tensor, constants: Sequence[float], save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last state and kept states, as the operator returns them."""
    rows, width = lay_out(current)
    length, model = current.shape[1], MODELS[name]
    spikes = spikes_like(current)
    final = state.new_empty(rows, model.states, width)
    saved = state.new_empty(rows if save else 0, -(-length // STRIDE), model.states, width)
    x, first = to_rows(current, rows), to_rows(state, rows).contiguous()
    parameters = fixed.detach().repeat(1, width // fixed.shape[1])
    launch(
        _forward, (rows * triton.cdiv(width, BLOCK),), current,
        x, first, parameters, spikes, final, saved, length, width, *x.stride()[:2],
        name, *_two(name, constants), *model, save, STRIDE, AHEAD, BLOCK, **LAUNCH,
    )  # fmt: skip
    return spikes, from_rows(final, len(current)), saved


def backward(
    name: str,
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    current: Tensor,
    fixed: Tensor,
    saved: Tensor,
    constants: Sequence[float],
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of current, state and parameters (empty unless ``learn``), as the operator returns them."""
    rows, width = lay_out(current)
    (batch, length, channels), model = current.shape, MODELS[name]
    grad_current = spikes_like(current)
    grad_first = current.new_empty(rows, model.states, width)
    sums = torch.empty(rows if learn else 0, model.parameters, width, dtype=torch.float64, device=current.device)
    x, parameters = to_rows(current, rows), fixed.detach().repeat(1, width // channels)
    gs = current.new_zeros(width).expand(rows, length, width) if grad_spikes is None else to_rows(grad_spikes, rows)
    gf = torch.zeros_like(grad_first) if grad_final is None else to_rows(grad_final, rows).contiguous()
    launch(
        _backward, (rows * triton.cdiv(width, BLOCK),), current,
        x, parameters, saved, gs, gf, grad_current, grad_first, sums, length, width,
        *x.stride()[:2], *gs.stride()[:2], name, *_two(name, constants), *model, gradient, *padded(shape, 5),
        through_reset, learn, STRIDE, BEHIND, BLOCK, **LAUNCH,
    )  # fmt: skip
    total = sums.sum(0).reshape(len(fixed), -1, channels).sum(1).to(fixed.dtype) if learn else fixed.new_empty(0)
    return grad_current, from_rows(grad_first, batch), total


# ---- One step of a neuron. Operations and their order are those of sdn.dynamics; parameters are named in `MODELS` of
# the CPU loops and of the solver. C0, C1: hard and soft reset of LIF, dt (and nothing) of RF, dt and the parts of BRF.
def _two(name: str, constants: Sequence[float]) -> list[float]:
    """C0 and C1 of a neuron; those of BRF are dt, and 1 where q damps plus 2 where it refracts."""
    if name == "brf":
        return [constants[0], constants[1] + 2 * constants[2]]
    return padded(constants, 2)


@triton.jit
def _step(MODEL: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, x, u, v, q, p0, p1, p2, p3, p4, p5):  # type: ignore[no-untyped-def]
    """The spike, NaN where the distance to the threshold is NaN or infinite, and the state after the step."""
    if MODEL == "lif":
        h = p0 * u + x
        distance = h - p1
        fires = distance >= 0
        if C0 != 0:
            u = tl.where(fires, h - h, h)
        elif C1 != 0:
            u = tl.where(fires, h - p1, h)
        else:
            u = h
        u = normal(u)
    elif MODEL == "alif":
        leak, a, gained = p0 * u, p2 * v + p3 * q, p1 * x
        rise = p4 * a
        distance = (leak - rise) + gained - p5
        fires = distance > 0
        h = leak + gained
        u = normal(tl.where(fires, h - (p5 + rise), h))
        v = normal(a)
        q = fires.to(x.dtype)
    elif MODEL == "rf":
        mem = u + C0 * (-p1 * u - p0 * v)
        v = normal(v + C0 * (p0 * u - p1 * v))
        u = mem + C0 * x
        distance = u - p2
        fires = distance > 0
        u = normal(u)
    else:
        tl.static_assert(MODEL == "brf")
        b, held = _brf_parts(C1, p1, q)
        free = u + C0 * (b * u - p0 * v)
        distance = (free - held) + C0 * x - p3
        fires = distance > 0
        v = normal(v + C0 * (p0 * u + b * v))
        u = normal(free + C0 * x)
        q = normal(p2 * q + fires.to(x.dtype))
    return spike_of(fires, distance), u, v, q


@triton.jit
def _brf_parts(C1: tl.constexpr, p1, q):  # type: ignore[no-untyped-def]
    """The damping in force, and what q adds to the threshold."""
    b, held = p1 + q * 0, q * 0
    if C1 == 1 or C1 == 3:
        b = p1 - q
    if C1 >= 2:
        held = q
    return b, held


@triton.jit
def _pull(  # type: ignore[no-untyped-def]
    MODEL: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, GRADIENT: tl.constexpr,
    N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, N4: tl.constexpr,
    THROUGH: tl.constexpr, x, u, v, q, gu, gv, gq, gs, p0, p1, p2, p3, p4, p5,
):  # fmt: skip
    """Gradients of the current, of the state before the step (u, v, q) and of the parameters.

    From ``gs``, the gradient of the spike, and gu, gv, gq, those of the state after the step. With THROUGH a gradient
    passes from the state through the spike.
    """
    zero = tl.zeros_like(x)
    d2, d3, d4, d5 = zero, zero, zero, zero
    if MODEL == "lif":
        h = p0 * u + x
        distance = h - p1
        fires = distance >= 0
        if THROUGH and C0 != 0:
            gs = gs - gu * h
        elif THROUGH and C1 != 0:
            gs = gs - gu * p1
        gd = gs * slope(GRADIENT, N0, N1, N2, N3, N4, distance)
        taken = tl.where(fires, gu, 0.0)
        d1 = -gd - taken if C1 != 0 else -gd
        gh = gd + (gu - taken if C0 != 0 else gu)
        gx, gu, d0 = gh, normal(gh * p0), gh * u
    elif MODEL == "alif":
        leak, a = p0 * u, p2 * v + p3 * q
        rise = p4 * a
        distance = (leak - rise) + p1 * x - p5
        if THROUGH:
            gs = gs + (gq - gu * (p5 + rise))
        gd = gs * slope(GRADIENT, N0, N1, N2, N3, N4, distance)
        gh, gtheta = gu + gd, -gd - tl.where(distance > 0, gu, 0.0)
        ga = gv + gtheta * p4
        d0, d1, d2, d3, d4, d5 = gh * u, gh * x, ga * v, ga * q, gtheta * a, gtheta
        gx, gu, gv, gq = gh * p1, normal(gh * p0), normal(p2 * ga), normal(p3 * ga)
    elif MODEL == "rf":
        distance = u + C0 * (-p1 * u - p0 * v) + C0 * x - p2
        gd = gs * slope(GRADIENT, N0, N1, N2, N3, N4, distance)
        gm = gd + gu
        keep, turn = 1.0 - C0 * p1, C0 * p0
        d0, d1, d2 = C0 * (gv * u - gm * v), -C0 * (gm * u + gv * v), -gd
        gx, gu, gv = C0 * gm, normal(gm * keep + gv * turn), normal(gv * keep - gm * turn)
    else:
        tl.static_assert(MODEL == "brf")
        b, held = _brf_parts(C1, p1, q)
        distance = (u + C0 * (b * u - p0 * v) - held) + C0 * x - p3
        if THROUGH:
            gs = gs + gq
        gd = gs * slope(GRADIENT, N0, N1, N2, N3, N4, distance)
        gm = gd + gu
        gb, keep, turn = C0 * (gm * u + gv * v), 1.0 + C0 * b, C0 * p0
        d0, d1, d2, d3 = C0 * (gv * u - gm * v), gb, gq * q, -gd
        gx, gu, gv = C0 * gm, normal(gm * keep + gv * turn), normal(gv * keep - gm * turn)
        gq = p2 * gq
        if C1 >= 2:
            gq = gq - gd
        if C1 == 1 or C1 == 3:
            gq = gq - gb
        gq = normal(gq)
    return gx, gu, gv, gq, d0, d1, d2, d3, d4, d5


# ---- The kernels. All tensors but x and gs are contiguous: spikes, gx (rows, L, width), first, final, gfinal, gfirst
# (rows, S, width), fixed (P, width), sums (rows, P, width), saved (rows, ceil(L / STRIDE), S, width).
@triton.jit
def _place(width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The row of this program, its lanes, and which of these exist."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    lane = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    return (program // blocks).to(tl.int64), lane, lane < width


@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    x, first, fixed, spikes, final, saved, length, width, x_row, x_step,
    MODEL: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, S: tl.constexpr, P: tl.constexpr, SAVE: tl.constexpr,
    STRIDE: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes and last state of BLOCK lanes; every STRIDE-th state where SAVE."""
    row, lane, inside = _place(width, BLOCK)
    x += row * x_row + lane
    spikes += row * length * width + lane
    saved += row * tl.cdiv(length, STRIDE) * S * width + lane
    p0, p1, p2, p3, p4, p5 = part_six(load_rows(fixed + lane, 0, P, width, inside, 8))
    u, v, q = part_three(load_rows(first + row * S * width + lane, 0, S, width, inside, 4))
    ahead = load_rows(x, 0, length, x_step, inside, T)
    for start in range(0, length, T):
        now = ahead
        ahead = load_rows(x, start + T, length, x_step, inside, T)
        if SAVE and start % STRIDE == 0:
            store_rows(saved + start // STRIDE * S * width, 0, S, width, inside, join_four(u, v, q, q))
        fired = tl.zeros_like(now)
        if start + T <= length:
            for k in tl.static_range(T):
                spike, u, v, q = _step(MODEL, C0, C1, pick_row(now, k), u, v, q, p0, p1, p2, p3, p4, p5)
                fired = put_row(fired, k, spike)
        else:
            for k in range(length - start):
                spike, u, v, q = _step(MODEL, C0, C1, pick_row(now, k), u, v, q, p0, p1, p2, p3, p4, p5)
                fired = put_row(fired, k, spike)
        store_rows(spikes, start, length, width, inside, fired)
    store_rows(final + row * S * width + lane, 0, S, width, inside, join_four(u, v, q, q))


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    x, fixed, saved, gs, gfinal, gx, gfirst, sums, length, width, x_row, x_step, g_row, g_step,
    MODEL: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, S: tl.constexpr, P: tl.constexpr,
    GRADIENT: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, N4: tl.constexpr,
    THROUGH: tl.constexpr, LEARN: tl.constexpr, STRIDE: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK lanes; those of the parameters are summed over time, per lane, where LEARN.

    A chunk of STRIDE steps has STRIDE // T parts. ``ahead`` and ``gs_ahead`` hold what is needed next: forward through
    the parts of a chunk but its last, then back from the last to the first, then forward in the chunk before.
    """
    PARTS: tl.constexpr = STRIDE // T
    row, lane, inside = _place(width, BLOCK)
    chunks = tl.cdiv(length, STRIDE)
    x += row * x_row + lane
    gs += row * g_row + lane
    gx += row * length * width + lane
    saved += row * chunks * S * width + lane
    p0, p1, p2, p3, p4, p5 = part_six(load_rows(fixed + lane, 0, P, width, inside, 8))
    gu, gv, gq = part_three(load_rows(gfinal + row * S * width + lane, 0, S, width, inside, 4))
    last = (chunks - 1) * STRIDE
    ahead = load_rows(x, last, length, x_step, inside, T)
    gs_ahead = load_rows(gs, last + STRIDE - T, length, g_step, inside, T)
    zero = tl.zeros_like(gu)
    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
    low, high = tl.zeros((4, BLOCK), tl.float64), tl.zeros((4, BLOCK), tl.float64)
    for back in range(chunks):
        begin = last - back * STRIDE
        u, v, q = part_three(load_rows(saved + begin // STRIDE * S * width, 0, S, width, inside, 4))
        us = tl.zeros((PARTS, BLOCK), u.dtype)
        vs, qs = us, us
        for part in range(PARTS - 1):
            now = ahead
            ahead = load_rows(x, begin + part * T + T, length, x_step, inside, T)
            us, vs, qs = put_row(us, part, u), put_row(vs, part, v), put_row(qs, part, q)
            for k in tl.static_range(T):
                _, u, v, q = _step(MODEL, C0, C1, pick_row(now, k), u, v, q, p0, p1, p2, p3, p4, p5)
        us, vs, qs = put_row(us, PARTS - 1, u), put_row(vs, PARTS - 1, v), put_row(qs, PARTS - 1, q)
        for done in range(PARTS):
            part = PARTS - 1 - done
            start = begin + part * T
            now, gs_now = ahead, gs_ahead
            ahead = load_rows(x, max(begin - STRIDE if part == 0 else start - T, 0), length, x_step, inside, T)
            gs_ahead = load_rows(gs, max(start - T, 0), length, g_step, inside, T)
            u, v, q = pick_row(us, part), pick_row(vs, part), pick_row(qs, part)
            tile_u, tile_v, tile_q = tl.zeros_like(now), tl.zeros_like(now), tl.zeros_like(now)
            for k in tl.static_range(T):
                tile_u, tile_v, tile_q = put_row(tile_u, k, u), put_row(tile_v, k, v), put_row(tile_q, k, q)
                if k < T - 1:
                    _, u, v, q = _step(MODEL, C0, C1, pick_row(now, k), u, v, q, p0, p1, p2, p3, p4, p5)
            out = tl.zeros_like(now)
            for k in tl.static_range(T - 1, -1, -1):
                there = start + k < length
                gi, nu, nv, nq, d0, d1, d2, d3, d4, d5 = _pull(
                    MODEL, C0, C1, GRADIENT, N0, N1, N2, N3, N4, THROUGH, pick_row(now, k),
                    pick_row(tile_u, k), pick_row(tile_v, k), pick_row(tile_q, k), gu, gv, gq, pick_row(gs_now, k),
                    p0, p1, p2, p3, p4, p5,
                )  # fmt: skip
                gu, gv, gq = tl.where(there, nu, gu), tl.where(there, nv, gv), tl.where(there, nq, gq)
                out = put_row(out, k, gi)
                if LEARN:
                    s0 += tl.where(there, d0, 0.0)
                    s1 += tl.where(there, d1, 0.0)
                    s2 += tl.where(there, d2, 0.0)
                    s3 += tl.where(there, d3, 0.0)
                    s4 += tl.where(there, d4, 0.0)
                    s5 += tl.where(there, d5, 0.0)
            store_rows(gx, start, length, width, inside, out)
        if LEARN:
            low += join_four(s0, s1, s2, s3)
            high += join_four(s4, s5, zero, zero)
            s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
    store_rows(gfirst + row * S * width + lane, 0, S, width, inside, join_four(gu, gv, gq, gq))
    if LEARN:
        sums += row * P * width + lane
        store_rows(sums, 0, P, width, inside, low)
        store_rows(sums, 4, P, width, inside, high)
