"""Linear recurrences in Triton: a program owns one row and a block of channels, and takes tiles of steps one by one.

All steps of a tile are loaded at once and merged by an associative scan; the last state is carried to the next tile.
Steps are counted in the order of the recurrence, so that running backwards is a matter of addresses. Complex arrays
come as real ones with real and imaginary parts side by side on the last axis. Checked in Triton's interpreter; the
speed on a GPU has not been measured.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch

__all__ = ["backward", "forward"]

STEPS, BLOCK = 32, 32
"""Steps and channels of a tile."""
RUNTIME = ["rows", "steps", "length", "channels"]
"""Sizes that are not compiled in, so that a new length is no new kernel."""


def forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """As `sdn.ops.scan.cpu.forward`, on any device that Triton reaches; subnormal numbers are kept."""
    x = b.new_empty(b.shape)
    first = b.new_zeros(b.shape[0], b.shape[2]) if initial is None else initial
    _launch(_forward, a, (a, b, first, x), b.shape, REVERSE=reverse)
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
    _launch(_backward, a, tensors, grad.shape, REVERSE=reverse, LEARN=learn)
    return grad_b, products.to(grad.dtype), grad_initial


def _launch(kernel: Any, a: Tensor, tensors: tuple[Tensor, ...], shape: torch.Size, **flags: bool) -> None:
    """One program per row and block of channels."""
    batch, length, channels = shape
    parts = 2 if a.is_complex() else 1
    steps = parts * channels if a.shape[1] > 1 else 0  # from one step's factors to the next
    rows = parts * channels * a.shape[1] if a.shape[0] > 1 else 0
    grid = (batch, triton.cdiv(channels, BLOCK))
    given = *map(_real, tensors), rows, steps, length, channels
    launch(kernel, grid, a, *given, **flags, PARTS=parts, STEPS=STEPS, BLOCK=BLOCK, enable_fp_fusion=False)


def _real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


@triton.jit
def _merge_real(a, b, c, d):  # type: ignore[no-untyped-def]
    """The step (a, b) and then the step (c, d), as one step."""
    return c * a, c * b + d


@triton.jit
def _merge_complex(ar, ai, br, bi, cr, ci, dr, di):  # type: ignore[no-untyped-def]
    re, im = cr * ar - ci * ai, cr * ai + ci * ar
    return re, im, cr * br - ci * bi + dr, cr * bi + ci * br + di


@triton.jit
def _row(tile, k, n):  # type: ignore[no-untyped-def]
    """Row n of a tile whose rows are numbered k."""
    return tl.sum(tl.where(k[:, None] == n, tile, 0.0), 0)


@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    a, b, initial, x, rows, steps, length, channels,
    REVERSE: tl.constexpr, PARTS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, k = channel < channels, tl.arange(0, STEPS)
    at = PARTS * channel
    re = tl.load(initial + row * channels * PARTS + at, mask=inside, other=0.0)
    if PARTS == 2:
        im = tl.load(initial + row * channels * PARTS + at + 1, mask=inside, other=0.0)
    for done in range(0, length, STEPS):
        step = done + k
        mask = (step < length)[:, None] & inside[None, :]
        t = (length - 1 - step if REVERSE else step).to(tl.int64)[:, None]
        here = (row * length + t) * channels * PARTS + at[None, :]
        factor = row * rows + t * steps + at[None, :]
        fr = tl.load(a + factor, mask=mask, other=0.0)
        br = tl.load(b + here, mask=mask, other=0.0)
        if PARTS == 1:
            fr, br = tl.associative_scan((fr, br), 0, _merge_real)
            br += fr * re[None, :]
        else:
            fi = tl.load(a + factor + 1, mask=mask, other=0.0)
            bi = tl.load(b + here + 1, mask=mask, other=0.0)
            fr, fi, br, bi = tl.associative_scan((fr, fi, br, bi), 0, _merge_complex)
            br += fr * re[None, :] - fi * im[None, :]
            bi += fr * im[None, :] + fi * re[None, :]
            tl.store(x + here + 1, bi, mask=mask)
            im = _row(bi, k, STEPS - 1)
        tl.store(x + here, br, mask=mask)
        re = _row(br, k, STEPS - 1)


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    grad, a, x, initial, grad_b, products, grad_initial, rows, steps, length, channels,
    REVERSE: tl.constexpr, LEARN: tl.constexpr, PARTS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The adjoint of step t is grad[t] + conj(a[next]) adjoint[next]; steps are counted in its own order."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, k = channel < channels, tl.arange(0, STEPS)
    at = PARTS * channel
    first = row * channels * PARTS + at
    after = -1 if REVERSE else 1  # the adjoint's step before
    re = tl.zeros((BLOCK,), grad.dtype.element_ty)
    im = tl.zeros((BLOCK,), grad.dtype.element_ty)
    sum_re = tl.zeros((BLOCK,), tl.float64)
    sum_im = tl.zeros((BLOCK,), tl.float64)
    for done in range(0, length, STEPS):
        step = done + k
        mask = (step < length)[:, None] & inside[None, :]
        t = (step if REVERSE else length - 1 - step).to(tl.int64)[:, None]
        here = (row * length + t) * channels * PARTS + at[None, :]
        factor = row * rows + (t + after) * steps + at[None, :]
        known = mask & (step > 0)[:, None]  # the first adjoint follows on nothing
        fr = tl.load(a + factor, mask=known, other=0.0)
        gr = tl.load(grad + here, mask=mask, other=0.0)
        fi, gi = fr, gr
        if PARTS == 1:
            fr, gr = tl.associative_scan((fr, gr), 0, _merge_real)
            gr += fr * re[None, :]
        else:
            fi = -tl.load(a + factor + 1, mask=known, other=0.0)
            gi = tl.load(grad + here + 1, mask=mask, other=0.0)
            fr, fi, gr, gi = tl.associative_scan((fr, fi, gr, gi), 0, _merge_complex)
            gr += fr * re[None, :] - fi * im[None, :]
            gi += fr * im[None, :] + fi * re[None, :]
            tl.store(grad_b + here + 1, gi, mask=mask)
            im = _row(gi, k, tl.minimum(STEPS, length - done) - 1)
        tl.store(grad_b + here, gr, mask=mask)
        re = _row(gr, k, tl.minimum(STEPS, length - done) - 1)
        if LEARN:
            before = here - after * channels * PARTS
            last = mask & (step == length - 1)[:, None]
            within = mask & (step < length - 1)[:, None]
            xr = tl.load(x + before, mask=within, other=0.0) + tl.load(initial + first[None, :], mask=last, other=0.0)
            if PARTS == 1:
                pr = gr * xr
                pi = pr
            else:
                xi = tl.load(x + before + 1, mask=within, other=0.0)
                xi += tl.load(initial + first[None, :] + 1, mask=last, other=0.0)
                pr = gr * xr + gi * xi
                pi = gi * xr - gr * xi
            if steps > 0:
                tl.store(products + here, pr, mask=mask)
                if PARTS == 2:
                    tl.store(products + here + 1, pi, mask=mask)
            else:
                sum_re += tl.sum(pr.to(tl.float64), 0)  # steps beyond the last are 0
                sum_im += tl.sum(pi.to(tl.float64), 0)
    final = row * rows + (0 if not REVERSE else length - 1) * steps + at
    fr = tl.load(a + final, mask=inside, other=0.0)
    if LEARN and steps == 0:
        tl.store(products + first, sum_re, mask=inside)
    if PARTS == 1:
        tl.store(grad_initial + first, fr * re, mask=inside)
    else:
        fi = tl.load(a + final + 1, mask=inside, other=0.0)
        tl.store(grad_initial + first, fr * re + fi * im, mask=inside)
        tl.store(grad_initial + first + 1, fr * im - fi * re, mask=inside)
        if LEARN and steps == 0:
            tl.store(products + first + 1, sum_im, mask=inside)
