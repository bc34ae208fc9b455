"""Linear recurrences in Triton: a program is one warp, and owns one row and 32 channels, one to a thread.

It takes tiles of steps, the next tile asked for before the present one is used, and goes through a tile step by step in
the registers of a thread: no step waits for another thread, so that there is no barrier. Steps are counted in the order
of the recurrence, so that running backwards is a matter of addresses. The two parts of a complex64 come as one number
of 64 bits, those of a complex128 one after the other. Checked in Triton's interpreter and in the code compiled for
sm_90: nothing is spilled, contracted or sent through shared memory. No GPU was at hand. Not measured: any speed; the
numbers of steps; few rows and channels, which leave a card idle.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch
from sdn.ops.common.tiles_gpu import pick_row, put_row

__all__ = ["backward", "forward"]

AHEAD, BEHIND, BLOCK = 32, 16, 32
"""Steps of a tile forward and backward, half as many of float64 and where factors vary; channels of a program."""
RUNTIME = ["rows", "steps", "length", "channels"]
"""Sizes that are not compiled in, so that a new length is no new kernel."""
LAUNCH: dict[str, Any] = {"num_warps": 1, "num_stages": 1, "maxnreg": 255, "enable_fp_fusion": False}


def forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """As `sdn.ops.scan.cpu.forward`, on any device that Triton reaches; subnormal numbers are kept."""
    x = b.new_empty(b.shape)
    first = b.new_zeros(b.shape[0], b.shape[2]) if initial is None else initial
    _launch(_forward, AHEAD, a, (a, b, first, x), b.shape, REVERSE=reverse)
    return x


def backward(
    grad: Tensor, a: Tensor, x: Tensor | None, initial: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `sdn.ops.scan.cpu.backward`."""
    batch, length, channels = grad.shape
    varying, learn = a.shape[1] > 1, x is not None
    first = grad.new_zeros(batch, channels) if initial is None else initial
    grad_b, grad_initial = grad.new_empty(grad.shape), grad.new_empty(batch, channels)
    wide = torch.complex128 if grad.is_complex() else torch.float64
    shape = (batch, length if varying else 1, channels) if learn else (0, 1, channels)
    products = grad.new_empty(shape, dtype=grad.dtype if varying else wide)
    tensors = (grad, a, grad if x is None else x, first, grad_b, products, grad_initial)
    _launch(_backward, BEHIND, a, tensors, grad.shape, REVERSE=reverse, LEARN=learn)
    return grad_b, products.to(grad.dtype), grad_initial


def _launch(kernel: Any, steps: int, a: Tensor, tensors: tuple[Tensor, ...], shape: torch.Size, **flags: bool) -> None:
    """One program per row and block of channels."""
    batch, length, channels = shape
    varying = a.shape[1] > 1
    a_step = channels if varying else 0  # from one step's factors to the next
    a_row = channels * a.shape[1] if a.shape[0] > 1 else 0
    given = *map(_plain, tensors), a_row, a_step, length, channels
    parts = 2 if a.is_complex() else 1
    steps = steps * 4 * parts // (a.element_size() * (1 + varying))  # as many registers of float64
    sizes = {"PARTS": parts, "VARYING": varying, "STEPS": steps, "BLOCK": BLOCK}
    launch(kernel, (batch, triton.cdiv(channels, BLOCK)), a, *given, **flags, **sizes, **LAUNCH)


def _plain(tensor: Tensor) -> Tensor:
    """A tensor as a kernel reads it: contiguous, complex64 as int64, complex128 as pairs of float64."""
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.complex64:
        return tensor.view(torch.int64)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


@triton.jit
def _read(tensor, at, mask, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Real and imaginary parts; of real numbers these twice."""
    if PARTS == 1:
        re = tl.load(tensor + at, mask=mask, other=0.0)
        im = re
    elif tensor.dtype.element_ty == tl.int64:
        both = tl.load(tensor + at, mask=mask, other=0)
        re = both.to(tl.int32).to(tl.float32, bitcast=True)
        im = (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        re = tl.load(tensor + 2 * at, mask=mask, other=0.0)
        im = tl.load(tensor + 2 * at + 1, mask=mask, other=0.0)
    return re, im


@triton.jit
def _write(tensor, at, re, im, mask, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The way back of `_read`."""
    if PARTS == 1:
        tl.store(tensor + at, re, mask=mask)
    elif tensor.dtype.element_ty == tl.int64:
        low = re.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        tl.store(tensor + at, low | (im.to(tl.int32, bitcast=True).to(tl.int64) << 32), mask=mask)
    else:
        tl.store(tensor + 2 * at, re, mask=mask)
        tl.store(tensor + 2 * at + 1, im, mask=mask)


@triton.jit
def _place(channels, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The row of this program, its channels, and which of these exist."""
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return tl.program_id(0).to(tl.int64), channel, channel < channels


@triton.jit
def _at(begin, length, REVERSE: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The steps of a tile, counted in the order of the recurrence, and where they lie in time."""
    step = begin + tl.arange(0, STEPS)[:, None]
    return step, (length - 1 - step if REVERSE else step).to(tl.int64)


@triton.jit
def _given(  # type: ignore[no-untyped-def]
    a, b, factor, here, begin, length, steps, channels, inside,
    REVERSE: tl.constexpr, PARTS: tl.constexpr, VARYING: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """A tile of what is added, and one of the factors where these vary."""
    step, t = _at(begin, length, REVERSE, STEPS)
    mask = (step < length) & inside
    br, bi = _read(b, here + t * channels, mask, PARTS)
    fr, fi = br, bi
    if VARYING:
        fr, fi = _read(a, factor + t * steps, mask, PARTS)
    return br, bi, fr, fi


@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    a, b, initial, x, rows, steps, length, channels,
    REVERSE: tl.constexpr, PARTS: tl.constexpr, VARYING: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, channel, inside = _place(channels, BLOCK)
    here, factor = row * length * channels + channel, row * rows + channel
    re, im = _read(initial, row * channels + channel, inside, PARTS)
    cr, ci = _read(a, factor, inside, PARTS)
    next_br, next_bi, next_fr, next_fi = _given(
        a, b, factor, here, 0, length, steps, channels, inside, REVERSE, PARTS, VARYING, STEPS
    )
    for done in range(0, length, STEPS):
        br, bi, fr, fi = next_br, next_bi, next_fr, next_fi
        next_br, next_bi, next_fr, next_fi = _given(
            a, b, factor, here, done + STEPS, length, steps, channels, inside, REVERSE, PARTS, VARYING, STEPS
        )
        for k in tl.static_range(STEPS):
            if VARYING:
                cr, ci = pick_row(fr, k), pick_row(fi, k)
            if PARTS == 1:
                re = cr * re + pick_row(br, k)
            else:
                new = (cr * re - ci * im) + pick_row(br, k)
                im = (cr * im + ci * re) + pick_row(bi, k)
                bi = put_row(bi, k, im)
                re = new
            br = put_row(br, k, re)
        step, t = _at(done, length, REVERSE, STEPS)
        _write(x, here + t * channels, br, bi, (step < length) & inside, PARTS)


@triton.jit
def _needed(  # type: ignore[no-untyped-def]
    grad, a, x, factor, here, begin, length, steps, channels, inside,
    REVERSE: tl.constexpr, LEARN: tl.constexpr, PARTS: tl.constexpr, VARYING: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Tiles of gradients, of the factors of the steps after where these vary, of the states before where LEARN."""
    step, t = _at(begin, length, not REVERSE, STEPS)
    after: tl.constexpr = -1 if REVERSE else 1  # in time, the step that the adjoint has just left
    mask = (step < length) & inside
    gr, gi = _read(grad, here + t * channels, mask, PARTS)
    fr, fi, xr, xi = gr, gi, gr, gi
    if VARYING:  # the first adjoint follows on nothing
        fr, fi = _read(a, factor + (t + after) * steps, mask & (step > 0), PARTS)
    if LEARN:
        xr, xi = _read(x, here + (t - after) * channels, mask & (step < length - 1), PARTS)
    return gr, gi, fr, fi, xr, xi


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    grad, a, x, initial, grad_b, products, grad_initial, rows, steps, length, channels,
    REVERSE: tl.constexpr, LEARN: tl.constexpr,
    PARTS: tl.constexpr, VARYING: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The adjoint of step t is grad[t] + conj(a[next]) adjoint[next]; steps are counted in its own order."""
    row, channel, inside = _place(channels, BLOCK)
    here, factor, first = row * length * channels + channel, row * rows + channel, row * channels + channel
    cr, ci = _read(a, factor, inside, PARTS)
    firsts_r, firsts_i = _read(initial, first, inside, PARTS)
    re, im = tl.zeros_like(cr), tl.zeros_like(cr)
    sum_re = tl.zeros((1, BLOCK), tl.float64)
    sum_im = sum_re
    next_gr, next_gi, next_fr, next_fi, next_xr, next_xi = _needed(
        grad, a, x, factor, here, 0, length, steps, channels, inside, REVERSE, LEARN, PARTS, VARYING, STEPS
    )
    for done in range(0, length, STEPS):
        gr, gi, fr, fi, xr, xi = next_gr, next_gi, next_fr, next_fi, next_xr, next_xi
        next_gr, next_gi, next_fr, next_fi, next_xr, next_xi = _needed(
            grad, a, x, factor, here, done + STEPS, length, steps, channels, inside, REVERSE, LEARN, PARTS, VARYING,
            STEPS,
        )  # fmt: skip
        for k in tl.static_range(STEPS):
            there = done + k < length
            kr, ki = (pick_row(fr, k), pick_row(fi, k)) if VARYING else (cr, ci)
            kr, ki = tl.where(done + k > 0, kr, 0.0), tl.where(done + k > 0, ki, 0.0)
            if PARTS == 1:
                re = tl.where(there, kr * re + pick_row(gr, k), re)
            else:
                new = (kr * re + ki * im) + pick_row(gr, k)
                im = tl.where(there, (kr * im - ki * re) + pick_row(gi, k), im)
                re = tl.where(there, new, re)
                gi = put_row(gi, k, tl.where(there, im, 0.0))
            gr = put_row(gr, k, tl.where(there, re, 0.0))
        step, t = _at(done, length, not REVERSE, STEPS)
        mask = (step < length) & inside
        _write(grad_b, here + t * channels, gr, gi, mask, PARTS)
        if LEARN:
            xr, xi = tl.where(step == length - 1, firsts_r, xr), tl.where(step == length - 1, firsts_i, xi)
            if PARTS == 1:
                pr = gr * xr
                pi = pr
            else:
                pr, pi = gr * xr + gi * xi, gi * xr - gr * xi
            if VARYING:
                _write(products, here + t * channels, pr, pi, mask, PARTS)
            else:
                sum_re += tl.sum(pr.to(tl.float64), 0, keep_dims=True)  # steps beyond the last are 0
                sum_im += tl.sum(pi.to(tl.float64), 0, keep_dims=True)
    if LEARN and not VARYING:
        _write(products, first, sum_re, sum_im, inside, PARTS)
    fr, fi = _read(a, factor + (length - 1 if REVERSE else 0) * steps, inside, PARTS)
    if PARTS == 1:
        re = fr * re
    else:
        new = fr * re + fi * im
        im = fr * im - fi * re
        re = new
    _write(grad_initial, first, re, im, inside, PARTS)
