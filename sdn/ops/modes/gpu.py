"""A bank of complex modes per channel in Triton: a program owns one row and 16 channels, with all modes in registers.

As in `sdn.ops.modes.cpu`, backward calls the modes of a block back from the state before it. They go to a scratch
array of B x H x N x 128 numbers and are read back in reverse. Checked in Triton's interpreter and in the code compiled
for sm_90: up to 64 modes nothing is spilled in float32 (8 bytes of a thread at 16), with 128 the backward kernel spills
216 bytes. The speed on a GPU has not been measured.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch
from sdn.ops.modes.layout import BLOCK, CELL

__all__ = ["run", "run_backward"]

RUNTIME = ["length", "channels", "modes", "cells", "blocks"]
"""Sizes that are not compiled in, so that a new length is no new kernel."""


def launch_of(padded: int, backward: bool) -> dict[str, Any]:
    """How a program of so many modes, a power of 2, is launched: with the fewest warps that hold them in registers.

    A sum over modes that lie in several warps costs barriers in every step.
    """
    warps = min(8, padded // 8) if backward else padded // 32
    return {"num_warps": max(1, warps), "enable_fp_fusion": False}


def run(u: Tensor, factors: Tensor, skip: Tensor, reverse: bool, state: Tensor, saved: Tensor) -> Tensor:
    """As `sdn.ops.modes.cpu.run`, on any device that Triton reaches; subnormal numbers are kept."""
    y = torch.empty_like(u)
    batch, length, channels = u.shape
    modes, cells = len(factors), triton.cdiv(channels, CELL)
    padded = triton.next_power_of_2(modes)
    launch(
        _forward, (batch * cells,), u,
        u, factors, skip, state, y, saved, length, channels, modes, cells, saved.shape[2],
        reverse, BLOCK, CELL, padded, **launch_of(padded, backward=False),
    )  # fmt: skip
    return y


def run_backward(
    gradient: Tensor, u: Tensor, factors: Tensor, skip: Tensor, reverse: bool, saved: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `sdn.ops.modes.cpu.run_backward`."""
    batch, length, channels = u.shape
    modes, cells = len(factors), triton.cdiv(channels, CELL)
    padded, out = triton.next_power_of_2(modes), torch.empty_like(u)
    past = u.new_empty(batch * cells, BLOCK, 2, padded, CELL)
    sums = torch.empty(batch, modes, 6, channels, dtype=torch.float64, device=u.device)
    skip_sums = torch.empty(batch, channels, dtype=torch.float64, device=u.device)
    options = launch_of(padded, backward=True)
    launch(
        _backward, (batch * cells,), u, gradient, u, factors, skip, saved, state, past, out, sums, skip_sums,
        length, channels, modes, cells, saved.shape[2], reverse, BLOCK, CELL, padded, **options,
    )  # fmt: skip
    return out, sums.sum(0), skip_sums.sum(0)


@triton.jit
def _load(x, at, plane, mask):  # type: ignore[no-untyped-def]
    """Two planes, real and imaginary."""
    return tl.load(x + at, mask=mask, other=0.0), tl.load(x + at + plane, mask=mask, other=0.0)


@triton.jit
def _store(x, at, plane, re, im, mask):  # type: ignore[no-untyped-def]
    tl.store(x + at, re, mask=mask)
    tl.store(x + at + plane, im, mask=mask)


@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    u, factors, skip, state, y, saved, length, channels, modes, cells, blocks,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, CELL: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    row, cell = program // cells, program % cells
    n, lane = tl.arange(0, N)[:, None], tl.arange(0, CELL)
    h = cell * CELL + lane
    inside, mode = h < channels, n < modes
    mask = mode & inside[None, :]
    at = n * 5 * channels + h[None, :]
    ar, ai = _load(factors, at, channels, mask)
    cr, ci = _load(factors, at + 2 * channels, channels, mask)
    gain = tl.load(factors + at + 4 * channels, mask=mask, other=0.0)
    d = tl.load(skip + h, mask=inside, other=0.0)
    first = (row * modes + n) * 2 * channels + h[None, :]
    vr, vi = _load(state, first, channels, mask)
    for start in range(0, length, BLOCK):
        if blocks > 0:
            keep = ((program * blocks + start // BLOCK) * modes + n) * 2 * CELL + lane[None, :]
            _store(saved, keep, CELL, vr, vi, mode & (lane >= 0)[None, :])
        for t in range(start, tl.minimum(start + BLOCK, length)):
            r = length - 1 - t if REVERSE else t
            here = (row * length + r) * channels + h
            x = tl.load(u + here, mask=inside, other=0.0)
            nr = ar * vr - ai * vi + gain * x[None, :]
            vi = ar * vi + ai * vr
            vr = nr
            tl.store(y + here, tl.sum(cr * vr - ci * vi, 0) + d * x, mask=inside)
    _store(state, first, channels, vr, vi, mask)


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    gradient, u, factors, skip, saved, state, past, out, sums, skip_sums, length, channels, modes, cells, blocks,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, CELL: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    row, cell = program // cells, program % cells
    n, lane = tl.arange(0, N)[:, None], tl.arange(0, CELL)
    h = cell * CELL + lane
    inside, mode = h < channels, n < modes
    mask = mode & inside[None, :]
    at = n * 5 * channels + h[None, :]
    ar, ai = _load(factors, at, channels, mask)
    cr, ci = _load(factors, at + 2 * channels, channels, mask)
    gain = tl.load(factors + at + 4 * channels, mask=mask, other=0.0)
    d = tl.load(skip + h, mask=inside, other=0.0)
    first = (row * modes + n) * 2 * channels + h[None, :]
    mr, mi = _load(state, first, channels, mask)
    everywhere = (n >= 0) & (lane >= 0)[None, :]
    slot = program * BLOCK * 2 * N * CELL + n * CELL + lane[None, :]
    zero = tl.zeros((N, CELL), ar.dtype)
    total_ar, total_ai = zero.to(tl.float64), zero.to(tl.float64)
    total_cr, total_ci = zero.to(tl.float64), zero.to(tl.float64)
    total_br, total_bi = zero.to(tl.float64), zero.to(tl.float64)
    total_d = tl.zeros((CELL,), tl.float64)
    for back in range(blocks):
        block = blocks - 1 - back
        start = block * BLOCK
        stop = tl.minimum(start + BLOCK, length)
        keep = ((program * blocks + block) * modes + n) * 2 * CELL + lane[None, :]
        vr, vi = _load(saved, keep, CELL, mask)
        sum_ar, sum_ai, sum_cr, sum_ci, sum_br, sum_bi = zero, zero, zero, zero, zero, zero
        for t in range(start, stop):
            _store(past, slot + (t - start) * 2 * N * CELL, N * CELL, vr, vi, everywhere)
            r = length - 1 - t if REVERSE else t
            here = (row * length + r) * channels + h
            x = tl.load(u + here, mask=inside, other=0.0)
            e = tl.load(gradient + here, mask=inside, other=0.0)
            nr = ar * vr - ai * vi + gain * x[None, :]
            vi = ar * vi + ai * vr
            vr = nr
            sum_cr += e[None, :] * vr
            sum_ci -= e[None, :] * vi
            total_d += (e * x).to(tl.float64)
        tl.debug_barrier()  # another thread may read what this one has written
        for t in range(stop - start):
            s = stop - 1 - t
            r = length - 1 - s if REVERSE else s
            here = (row * length + r) * channels + h
            x = tl.load(u + here, mask=inside, other=0.0)
            e = tl.load(gradient + here, mask=inside, other=0.0)
            mr += cr * e[None, :]
            mi -= ci * e[None, :]
            tl.store(out + here, tl.sum(gain * mr, 0) + d * e, mask=inside)
            vr, vi = _load(past, slot + (s - start) * 2 * N * CELL, N * CELL, everywhere)
            sum_ar += mr * vr + mi * vi
            sum_ai += mi * vr - mr * vi
            sum_br += mr * x[None, :]
            sum_bi += mi * x[None, :]
            nr = ar * mr + ai * mi
            mi = ar * mi - ai * mr
            mr = nr
        tl.debug_barrier()
        total_ar += sum_ar.to(tl.float64)
        total_ai += sum_ai.to(tl.float64)
        total_cr += sum_cr.to(tl.float64)
        total_ci += sum_ci.to(tl.float64)
        total_br += sum_br.to(tl.float64)
        total_bi += sum_bi.to(tl.float64)
    _store(state, first, channels, mr, mi, mask)
    to = (row * modes + n) * 6 * channels + h[None, :]
    _store(sums, to, channels, total_ar, total_ai, mask)
    _store(sums, to + 2 * channels, channels, total_cr, total_ci, mask)
    _store(sums, to + 4 * channels, channels, total_br, total_bi, mask)
    tl.store(skip_sums + row * channels + h, total_d, mask=inside)
