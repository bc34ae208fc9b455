"""Linear complex neurons on CUDA devices: one forward and one backward kernel for all their forms.

A program is one warp. It owns 32 lanes of a row, one to a thread, and takes T steps at a time, a (T, lanes) tile in
registers, the next tile asked for before the present one is used. Only the recurrences go step by step. The state knows
nothing of the spikes, so that a rotation turns a whole tile at once: a lane adds up its row of V term by term, and
reads the numbers of the other lanes of its block from their threads. With blocks of more than 32 lanes a program has 64
lanes, two to a thread, and half as many steps. Every 32nd state is kept; the backward kernel goes from there to the
state before every T-th step, and from these to all others.

Products and sums are rounded one by one in the order of the CPU (``enable_fp_fusion``), but for those of a rotation.

Checked in Triton's interpreter and in the code compiled for sm_90, in float32: nothing goes through shared memory,
there is no barrier, without a rotation nothing is contracted, and at most 8 bytes of a thread are spilled. In float64
with blocks of more than 32 channels a thread of the backward kernel spills 0.4 to 0.8 kB. No GPU was at hand. Not
measured: any speed, that against the traffic of memory above all; the numbers of steps and registers; few lanes (one
dependent step after another); a rotation read anew for every tile; and the copies that are made of a drive or a
gradient that is not contiguous.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.generated_gpu import assembled, slope, slope_text, slope_words
from sdn.ops.common.launch_gpu import launch
from sdn.ops.common.tiles_gpu import (
    join_four,
    load_rows,
    normal,
    part_six,
    part_three,
    pick_row,
    put_row,
    spike_of,
    store_rows,
)
from sdn.ops.resonate.layout import STRIDE

__all__ = ["backward", "backward_kernel", "forward"]

LANES, WIDEST = 32, 64
"""Lanes of a program, and of one whose blocks of a rotation are wider than that."""
AHEAD, BEHIND = 16, 8
"""Steps per tile forward and backward, of LANES lanes of float32; divisors of STRIDE."""
REGISTERS = 128
"""Of a thread of the plain backward kernel, so that 16 programs fit a multiprocessor; it would use 168."""
RUNTIME = ["length", "width", "step"]
"""Sizes that are not compiled in: of a known alignment, Triton would give a thread several lanes and fewer steps."""


def forward(
    drive: Tensor, state: Tensor, fixed: Tensor, rotation: Tensor, magnitude: bool, refractory: float, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last state and kept states, as the operator returns them."""
    (batch, length, step), (_, fields, width) = drive.shape, state.shape
    spikes, final = (
        drive.new_empty(batch, length, width),
        torch.empty_like(state, memory_format=torch.contiguous_format),
    )
    saved = drive.new_empty(batch if save else 0, -(-length // STRIDE), fields, width)
    per, block, planes, options = _blocks(rotation)
    steps = _steps(AHEAD, block, drive)
    given = drive.detach().contiguous(), state.detach().contiguous(), _parameters(fixed, refractory), planes
    launch(
        _forward, (batch * triton.cdiv(width, per),), drive, *given, spikes, final, saved, length, width, step,
        fields, magnitude, rotation.shape[1], save, STRIDE, steps, per, block, **options,
    )  # fmt: skip
    return spikes, final, saved


def backward(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    drive: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    saved: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    grad_drive: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of state and ``fixed``, sums over time in float64; that of the drive into ``grad_drive``.

    That may be the drive itself: a step is read for the last time before it is written.
    """
    (batch, length, step), (_, _, fields, width) = drive.shape, saved.shape
    gs = drive.new_zeros(1).expand(batch, length, width) if grad_spikes is None else grad_spikes
    gf = drive.new_zeros(batch, fields, width) if grad_final is None else grad_final
    grad_first = drive.new_empty(batch, fields, width)
    sums = torch.empty(batch, 5, width, dtype=torch.float64, device=drive.device)
    per, block, planes, options = _blocks(rotation)
    steps = _steps(BEHIND, block, drive)
    if drive.dtype == torch.float32 and fields == 2 and not magnitude and not len(planes):
        options["maxnreg"] = REGISTERS
    given = drive.detach().contiguous(), _parameters(fixed, refractory), planes, saved, gs.contiguous(), gf.contiguous()
    kernel = backward_kernel(gradient)
    launch(
        kernel, (batch * triton.cdiv(width, per),), drive, *given, grad_drive, grad_first, sums, length, width, step,
        *map(float, shape), fields, magnitude, rotation.shape[1], through_reset,
        STRIDE, steps, per, block, **options,
    )  # fmt: skip
    return grad_first, sums.sum(0).to(fixed.dtype)


@functools.cache
def backward_kernel(gradient: str) -> Any:
    """The backward kernel with a spike gradient."""
    name = gradient.partition("-")[0]
    return assembled("resonate-backward", name, [slope_text(gradient)], [_backward], slope_words(gradient))._backward


def _steps(most: int, lanes: int, like: Tensor) -> int:
    """Steps of a tile: half as many of more lanes or of float64. Of both too, as there are then more tiles to keep."""
    return max(1, most // 2) if lanes > LANES or like.element_size() == 8 else most


def _parameters(fixed: Tensor, refractory: float) -> Tensor:
    """(5, P) -> (6, P)."""
    return torch.cat([fixed.detach(), fixed.new_full((1, fixed.shape[1]), refractory)])


def _blocks(rotation: Tensor) -> tuple[int, int, Tensor, dict[str, Any]]:
    """Channels of a program, its lanes, the planes (4, n, n) of its rotation (or none), and its launch.

    Planes are the real and the imaginary part for the way forward, and then those of conj(V) transposed for the way
    back, each from its source.
    """
    n = rotation.shape[1]
    if n > WIDEST:
        raise NotImplementedError(
            f"resonate: a rotation of {n} channels, on a GPU {WIDEST} is the most; use solver='parallel'."
        )
    if n and not hasattr(tl, "gather"):
        raise NotImplementedError(
            f"resonate: a rotation on a GPU needs Triton 3.3, this is {triton.__version__}; use solver='parallel'."
        )
    options = {"num_warps": 1, "num_stages": 1, "maxnreg": 255, "enable_fp_fusion": False}
    if n == 0:
        return LANES, LANES, rotation.new_empty(0), options
    real, imaginary = rotation.detach()
    lanes = LANES if n <= LANES else WIDEST
    return lanes // n * n, lanes, torch.stack([real.T, imaginary.T, real, -imaginary]), options


# ---- Tiles of T steps. ``count`` is how many of them are there; past the end of the sequence nothing changes.
@triton.jit
def _place(width, PER: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The row of this program, its channels, and which of these exist."""
    blocks = tl.cdiv(width, PER)
    program = tl.program_id(0)
    lane = tl.arange(0, BLOCK)[None, :]
    channel = program % blocks * PER + lane
    return (program // blocks).to(tl.int64), channel, (lane < PER) & (channel < width)


@triton.jit
def _turned(re, im, rotation, k: tl.constexpr, N: tl.constexpr, IM: tl.constexpr, BOTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """``(re + i im) V`` in blocks of N lanes, V planes k and k + 1 of the rotation; the imaginary part where BOTH.

    Term by term: a lane reads its row of V anew each time, since registers could not hold it, and the numbers of the
    others in its block from their threads. Where not IM there is no imaginary part to read.
    """
    BLOCK: tl.constexpr = re.shape[1]
    lane = tl.arange(0, BLOCK)[None, :]
    start = tl.broadcast_to(lane // N * N, re.shape)
    column = rotation + k * N * N + lane % N
    out_r, out_i = tl.zeros_like(re), tl.zeros_like(re)
    for j in range(N):
        at = tl.minimum(start + j, BLOCK - 1)
        a = tl.broadcast_to(tl.load(column + j * N), re.shape)
        b = tl.broadcast_to(tl.load(column + (j + N) * N), re.shape)
        x = tl.gather(re, at, 1)
        out_r = tl.fma(a, x, out_r)
        if BOTH:
            out_i = tl.fma(b, x, out_i)
        if IM:
            y = tl.gather(im, at, 1)
            out_r = tl.fma(-b, y, out_r)
            if BOTH:
                out_i = tl.fma(a, y, out_i)
    return out_r, out_i


@triton.jit
def _advance(xr, xi, ur, ui, fr, fi, gr, gi, count):  # type: ignore[no-untyped-def]
    """``x = factor x + gain u``: the states before each step, those after it, and the last of them."""
    dr, di = gr * ur - gi * ui, gr * ui + gi * ur
    zero = tl.zeros_like(ur)
    before_r, before_i, after_r, after_i = zero, zero, zero, zero
    for k in tl.static_range(ur.shape[0]):
        before_r, before_i = put_row(before_r, k, xr), put_row(before_i, k, xi)
        re = (fr * xr - fi * xi) + pick_row(dr, k)
        im = (fr * xi + fi * xr) + pick_row(di, k)
        xr, xi = tl.where(k < count, normal(re), xr), tl.where(k < count, normal(im), xi)
        after_r, after_i = put_row(after_r, k, xr), put_row(after_i, k, xi)
    return before_r, before_i, after_r, after_i, xr, xi


@triton.jit
def _potential(re, im, rotation, MAGNITUDE: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """``V x``, real and imaginary, and the potential that is read off it."""
    if N > 0:
        re, im = _turned(re, im, rotation, 0, N, True, MAGNITUDE)
    size = re
    if MAGNITUDE:
        size = re * re + im * im
        size = tl.sqrt(size) if re.dtype == tl.float64 else tl.sqrt_rn(size)
    return re, im, size


@triton.jit
def _distance(p, threshold, gamma, q, count, S: tl.constexpr):  # type: ignore[no-untyped-def]
    """Distances of the potentials to their thresholds, which the spikes raise where S is 3, and q after the last."""
    v = p - threshold
    if S == 3:
        for k in tl.static_range(p.shape[0]):
            now = pick_row(v, k) - q
            v = put_row(v, k, now)
            q = tl.where(k < count, gamma * q + (now > 0).to(p.dtype), q)
    return v, q


# ---- The kernels. All tensors are contiguous: drive and gdrive (B, L, 2P), spikes and gs (B, L, P), first, final,
# gfinal, gfirst (B, S, P), fixed (6, P), rotation (4, N, N), saved (B, ceil(L / STRIDE), S, P), sums (B, 5, P).
@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    drive, first, fixed, rotation, spikes, final, saved, length, width, step,
    S: tl.constexpr, MAGNITUDE: tl.constexpr, N: tl.constexpr, SAVE: tl.constexpr,
    STRIDE: tl.constexpr, T: tl.constexpr, PER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes and last state of BLOCK lanes; every STRIDE-th state where SAVE."""
    row, channel, inside = _place(width, PER, BLOCK)
    drive += row * length * step + channel
    spikes += row * length * width + channel
    saved += row * tl.cdiv(length, STRIDE) * S * width + channel
    fr, fi, gr, gi, threshold, gamma = part_six(load_rows(fixed + channel, 0, 6, width, inside, 8))
    xr, xi, q = part_three(load_rows(first + row * S * width + channel, 0, S, width, inside, 4))
    next_r = load_rows(drive, 0, length, step, inside, T)
    next_i = load_rows(drive + width, 0, length, step, inside, T)
    for start in range(0, length, T):
        ur, ui = next_r, next_i
        next_r = load_rows(drive, start + T, length, step, inside, T)
        next_i = load_rows(drive + width, start + T, length, step, inside, T)
        if SAVE and start % STRIDE == 0:
            store_rows(saved + start // STRIDE * S * width, 0, S, width, inside, join_four(xr, xi, q, q))
        _, _, re, im, xr, xi = _advance(xr, xi, ur, ui, fr, fi, gr, gi, length - start)
        _, _, p = _potential(re, im, rotation, MAGNITUDE, N)
        v, q = _distance(p, threshold, gamma, q, length - start, S)
        store_rows(spikes, start, length, width, inside, spike_of(v > 0, v))
    store_rows(final + row * S * width + channel, 0, S, width, inside, join_four(xr, xi, q, q))


@triton.jit
def _errors(gs, slopes, gamma, aq, count, S: tl.constexpr, THROUGH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradients of the potentials of a tile, and that of q before it."""
    e = gs * slopes
    if S == 3:
        for back in tl.static_range(gs.shape[0]):
            k = gs.shape[0] - 1 - back
            error = pick_row(e, k)
            if THROUGH:
                error += aq * pick_row(slopes, k)
            e = put_row(e, k, error)
            aq = tl.where(k < count, gamma * aq - error, aq)
    return tl.where(tl.arange(0, gs.shape[0])[:, None] < count, e, 0.0), aq


@triton.jit
def _retreat(ar, ai, er, ei, fr, fi, count):  # type: ignore[no-untyped-def]
    """Gradients of the states of a tile, 0 for steps that are not there, and that of the state before it."""
    out_r, out_i = tl.zeros_like(er), tl.zeros_like(er)
    for back in tl.static_range(er.shape[0]):
        k = er.shape[0] - 1 - back
        ar, ai = ar + pick_row(er, k), ai + pick_row(ei, k)
        out_r, out_i = put_row(out_r, k, tl.where(k < count, ar, 0.0)), put_row(out_i, k, tl.where(k < count, ai, 0.0))
        re, im = normal(fr * ar + fi * ai), normal(fr * ai - fi * ar)
        ar, ai = tl.where(k < count, re, ar), tl.where(k < count, im, ai)
    return out_r, out_i, ar, ai


@triton.jit
def _total(tile):  # type: ignore[no-untyped-def]
    """The sum over the steps, as float64."""
    return tl.sum(tile, 0, keep_dims=True).to(tl.float64)


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    drive, fixed, rotation, saved, gs, gfinal, gdrive, gfirst, sums, length, width, step,
    N_SHAPE: tl.constexpr,
    S: tl.constexpr, MAGNITUDE: tl.constexpr, N: tl.constexpr, THROUGH: tl.constexpr,
    STRIDE: tl.constexpr, T: tl.constexpr, PER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK lanes; those of the parameters are summed over time, per lane.

    A chunk of STRIDE steps has STRIDE // T parts. ``next_r``, ``next_i`` and ``next_g`` hold what is needed next:
    forward through the parts of a chunk but its last, then back from the last to the first, then in the chunk before.
    """
    PARTS: tl.constexpr = STRIDE // T
    row, channel, inside = _place(width, PER, BLOCK)
    n_SHAPE = tl.full((1, BLOCK), N_SHAPE, drive.dtype.element_ty)
    chunks = tl.cdiv(length, STRIDE)
    drive += row * length * step + channel
    gdrive += row * length * step + channel
    gs += row * length * width + channel
    saved += row * chunks * S * width + channel
    fr, fi, gr, gi, threshold, gamma = part_six(load_rows(fixed + channel, 0, 6, width, inside, 8))
    ar, ai, aq = part_three(load_rows(gfinal + row * S * width + channel, 0, S, width, inside, 4))
    last = (chunks - 1) * STRIDE
    next_r = load_rows(drive, last, length, step, inside, T)
    next_i = load_rows(drive + width, last, length, step, inside, T)
    next_g = load_rows(gs, last + STRIDE - T, length, width, inside, T)
    s0 = tl.zeros((1, BLOCK), tl.float64)
    s1, s2, s3, s4 = s0, s0, s0, s0
    for back in range(chunks):
        begin = last - back * STRIDE
        xr, xi, q = part_three(load_rows(saved + begin // STRIDE * S * width, 0, S, width, inside, 4))
        xrs = tl.zeros((PARTS, BLOCK), xr.dtype)
        xis, qs = xrs, xrs
        for part in range(PARTS - 1):
            ur, ui, count = next_r, next_i, length - begin - part * T
            next_r = load_rows(drive, begin + part * T + T, length, step, inside, T)
            next_i = load_rows(drive + width, begin + part * T + T, length, step, inside, T)
            xrs, xis, qs = put_row(xrs, part, xr), put_row(xis, part, xi), put_row(qs, part, q)
            _, _, re, im, xr, xi = _advance(xr, xi, ur, ui, fr, fi, gr, gi, count)
            if S == 3:
                _, _, p = _potential(re, im, rotation, MAGNITUDE, N)
                _, q = _distance(p, threshold, gamma, q, count, S)
        xrs, xis, qs = put_row(xrs, PARTS - 1, xr), put_row(xis, PARTS - 1, xi), put_row(qs, PARTS - 1, q)
        for done in range(PARTS):
            part = PARTS - 1 - done
            start = begin + part * T
            ur, ui, now, count = next_r, next_i, next_g, length - start
            ahead = max(begin - STRIDE if part == 0 else start - T, 0)
            next_r = load_rows(drive, ahead, length, step, inside, T)
            next_i = load_rows(drive + width, ahead, length, step, inside, T)
            next_g = load_rows(gs, max(start - T, 0), length, width, inside, T)
            old_r, old_i, re, im, _, _ = _advance(
                pick_row(xrs, part), pick_row(xis, part), ur, ui, fr, fi, gr, gi, count
            )
            re, im, p = _potential(re, im, rotation, MAGNITUDE, N)
            v, _ = _distance(p, threshold, gamma, pick_row(qs, part), count, S)
            slopes = slope(v, *n_SHAPE)
            er, aq = _errors(now, slopes, gamma, aq, count, S, THROUGH)
            s4 -= _total(er)
            ei = tl.zeros_like(er)
            if MAGNITUDE:
                scale = er * tl.where(p > 0, 1.0 / tl.where(p > 0, p, 1.0), 0.0)
                er, ei = scale * re, scale * im
            if N > 0:  # by conj(V) transposed
                er, ei = _turned(er, ei, rotation, 2, N, MAGNITUDE, True)
            er, ei, ar, ai = _retreat(ar, ai, er, ei, fr, fi, count)
            store_rows(gdrive, start, length, step, inside, gr * er + gi * ei)
            store_rows(gdrive + width, start, length, step, inside, gr * ei - gi * er)
            s0 += _total(er * old_r + ei * old_i)
            s1 += _total(ei * old_r - er * old_i)
            s2 += _total(er * ur + ei * ui)
            s3 += _total(ei * ur - er * ui)
    store_rows(gfirst + row * S * width + channel, 0, S, width, inside, join_four(ar, ai, aq, aq))
    sums += row * 5 * width + channel
    store_rows(sums, 0, 4, width, inside, join_four(s0, s1, s2, s3))
    tl.store(sums + 4 * width, s4, mask=inside)
