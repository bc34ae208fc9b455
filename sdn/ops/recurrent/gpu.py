"""The operator of a recurrent layer on CUDA devices.

What an input adds to the currents is known beforehand: one product over all steps and rows, with all programs of the
device. Then a program owns some rows of the batch and all H neurons and goes through the steps, since each neuron waits
for the spikes of all others. How many rows, `shape_of` says: one where the batch is small, so that many multiprocessors
have work, and 16 where it is large, so that the weights are read for 16 rows at once. The state of one tile of neurons
stays in registers; more are taken in tiles, with the state in memory. Spikes come back to the next product through the
array of spikes itself, behind a barrier of the program; they overwrite the currents in it. The backward pass knows the
spikes, so that all currents are again one product; it goes back chunk by chunk, from every 16th state to those between
and then from the last step to the first, and writes the gradients of the currents over these. The gradients of x,
weight and bias are products and sums of them outside, in the precision that torch is set to for float32.

Currents are sums in the order of the operator, in full precision whatever torch is set to. A product with a spike is
exact, and one with an input is rounded together with its sum, as on the CPU. The neuron is its own generated step.

Checked in Triton's interpreter and in the code compiled for sm_90: in float32 all products are chains of fused
multiply-adds in order and nothing else is contracted. With few rows nothing goes through shared memory. For BRF a
thread spills 8 bytes at most, in float64 up to 0.2 kB backward. In float64 products of 16 rows go through the tensor
cores, four terms at a time. No GPU was at hand. Not measured: any speed; every number in capitals below, and those of
warps; how much of the weights, read anew in each step, stays in the caches of a multiprocessor.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdn.compiler.programs import program
from sdn.ops.common.generated_gpu import (
    OWN,
    PARAMETER,
    PARAMETERS,
    STATE,
    STATES,
    assembled,
    d_OWN,
    d_PARAMETER,
    pull,
    pull_text,
    slope_text,
    step,
    step_text,
    words_of,
)
from sdn.ops.common.launch_gpu import launch
from sdn.ops.recurrent.layout import STRIDE
from sdn.ops.recurrent.tiles import INNER, TERMS, collect, currents, lanes, product, rows

__all__ = ["Shape", "backward", "backward_kernel", "forward", "forward_kernel", "shape_of"]

FEW, MANY = (1, 2, 4), 16
"""Rows of the batch of a program that takes few, and of one that takes many, as older Tritons want of a `tl.dot`."""
FULL = 128
"""Programs that keep a card busy. Not asked of the device: the order of sums, so every bit, goes by the shape alone."""
WIDEST = 64
"""Neurons of a tile of MANY rows, of float32, half as many of float64: the most that fits the registers."""
NUMBERS = 1024
"""Rows times neurons of a tile of FEW rows, of float32; half as many of float64."""
RUNTIME = ["batch", "length", "width"]
"""Sizes that are not compiled in, so that a new length is no new kernel."""


class Shape(NamedTuple):
    """How the work is cut: rows of a program, neurons of a tile, tiles, terms of a sum read at once, and the launch."""

    rows: int
    block: int
    tiles: int
    inner: int
    options: dict[str, Any]


def forward(
    key: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    first: Tensor,
    spikes0: Tensor,
    fixed: Tensor,
    numbers: Sequence[float],
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last state and kept states, as the operator returns them."""
    (batch, length, inputs), (_, fields, width) = x.shape, first.shape
    rows, block, tiles, inner, options = shape_of(batch, weight)
    table = weight.detach().contiguous()
    spikes = currents(x, None, table, bias)
    state = first.detach().clone(memory_format=torch.contiguous_format)
    saved = first.new_empty(batch if save else 0, -(-length // STRIDE), fields, width)
    given = table[inputs:], spikes0.detach().contiguous(), fixed.detach().contiguous()
    launch(
        forward_kernel(key), (triton.cdiv(batch, rows),), x, *given, spikes, state, saved, batch, length, width,
        *map(float, numbers), save, STRIDE, rows, block, tiles, inner, **options,
    )  # fmt: skip
    return spikes, state, saved


def backward(
    key: str,
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    spikes0: Tensor,
    fixed: Tensor,
    spikes: Tensor,
    saved: Tensor,
    numbers: Sequence[float],
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (empty unless ``need_x``), weight, bias, state, spikes0 and ``fixed``, summed in a fixed order."""
    (batch, length, inputs), (_, _, fields, width) = x.shape, saved.shape
    rows, block, tiles, inner, options = shape_of(batch, weight)
    table, programs = weight.detach().contiguous(), triton.cdiv(batch, rows)
    before = torch.cat([spikes0.detach().unsqueeze(1), spikes.detach()[:, :-1]], 1)
    grad = currents(x, before, table, bias)
    gs = torch.zeros_like(grad) if grad_spikes is None else grad_spikes.contiguous()
    grad_first, grad_spikes0 = x.new_zeros(batch, fields, width), x.new_empty(batch, width)
    if grad_final is not None:
        grad_first.copy_(grad_final)
    past = x.new_empty(batch, STRIDE, fields, width)
    sums = torch.zeros(programs, len(fixed), width, dtype=torch.float64, device=x.device)
    given = table[inputs:].T.contiguous(), fixed.detach().contiguous(), saved, gs
    kernel = backward_kernel(key, gradient, through_reset)
    launch(
        kernel, (programs,), x, *given, grad, grad_first, grad_spikes0, past, sums, batch, length, width,
        *map(float, numbers), *map(float, shape), STRIDE, rows, block, tiles, inner, **options,
    )  # fmt: skip
    steps = grad.flatten(0, 1)
    grad_weight = torch.cat([x.detach().flatten(0, 1).T @ steps, before.flatten(0, 1).T @ steps])
    grad_bias = steps.sum(0, dtype=torch.float64).to(x.dtype)
    grad_x = grad @ table[:inputs].T if need_x else x.new_empty(0)
    return grad_x, grad_weight, grad_bias, grad_first, grad_spikes0, sums.sum(0).to(fixed.dtype)


@functools.cache
def forward_kernel(key: str) -> Any:
    """The forward kernel of a neuron."""
    found = program(key)
    texts = [step_text(found, watch=True)]
    return assembled("recurrent-forward", found.step.name, texts, [_forward], words_of(found))._forward


@functools.cache
def backward_kernel(key: str, gradient: str, through_reset: bool) -> Any:
    """The backward kernel of a neuron with a spike gradient."""
    found = program(key)
    texts = [step_text(found, watch=False), slope_text(gradient), pull_text(found, gradient, through_reset, False)]
    words = words_of(found, gradient)
    return assembled("recurrent-backward", found.step.name, texts, [_recall, _backward], words)._backward


def shape_of(batch: int, weight: Tensor) -> Shape:
    """How a batch is cut for a layer with that weight, (C + H, H).

    A program with one row waits for the weights, not for its sums, so that more rows cost it little; but only as many
    multiprocessors work as there are programs. So rows are shared once there are more than FULL programs.
    """
    sources, channels = weight.shape
    if sources * channels >= 2**31:
        raise NotImplementedError(
            f"recurrent: {sources} x {channels} weights, on a GPU 2**31 is the most; use solver='loop'."
        )
    rows = next((few for few in FEW if triton.cdiv(batch, few) <= FULL), MANY)
    widest = (WIDEST if rows == MANY else NUMBERS // rows) * 4 // weight.element_size()
    block = max(16, min(triton.next_power_of_2(channels), widest))
    warps = (8 if block > 32 else 4) if rows == MANY else min(8, max(1, block // 32))
    inner = INNER if rows == MANY else TERMS // rows
    options = {"num_warps": warps, "enable_fp_fusion": False} | ({} if rows == MANY else {"maxnreg": 255})
    return Shape(rows, block, triton.cdiv(channels, block), inner, options)


# ---- The kernels. All tensors are contiguous, in the shapes of the operator.
@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    table, spikes0, fixed, spikes, state, saved, batch, length, width,
    C_NUMBER: tl.constexpr,
    SAVE: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """Spikes over the currents of the inputs, last state over the first; every STRIDE-th state where SAVE."""
    row, lane = rows(ROWS), lanes(0, BLOCK)
    there = row < batch
    inside = there & (lane < width)
    c_NUMBER = tl.full((1, BLOCK), C_NUMBER, fixed.dtype.element_ty)
    state += row * STATES * width
    saved += row * tl.cdiv(length, STRIDE) * STATES * width
    p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=lane < width, other=1.0)
    s_STATE = tl.load(state + lane + STATE * width, mask=inside, other=0.0)
    ahead = tl.load(spikes + row * length * width + lane, mask=inside, other=0.0)
    for t in range(length):
        here = spikes + (row * length + t) * width
        before = tl.where(t > 0, here - width, spikes0 + row * width)
        for tile in range(TILES):
            if TILES > 1:
                lane = lanes(tile, BLOCK)
                inside = there & (lane < width)
                p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=lane < width, other=1.0)
                s_STATE = tl.load(state + lane + STATE * width, mask=inside, other=0.0)
                now = tl.load(here + lane, mask=inside, other=0.0)
            else:
                now = ahead
                ahead = tl.load(here + tl.minimum(1, length - 1 - t) * width + lane, mask=inside, other=0.0)
            if SAVE and t % STRIDE == 0:
                kept = saved + t // STRIDE * STATES * width + lane
                tl.store(kept + STATE * width, s_STATE, mask=inside)
            now = product(now, before, there, width, table, lane, width, INNER)
            spike, _, *s_STATE = step(now, *s_STATE, *p_PARAMETER, *c_NUMBER)
            tl.store(here + lane, spike, mask=inside)
            if TILES > 1:
                tl.store(state + lane + STATE * width, s_STATE, mask=inside)
        tl.debug_barrier()  # the next product reads what all threads have written
    if TILES == 1:
        tl.store(state + lane + STATE * width, s_STATE, mask=inside)


@triton.jit
def _recall(  # type: ignore[no-untyped-def]
    fixed, saved, given, past, row, there, begin, length, width,
    C_NUMBER: tl.constexpr,
    STRIDE: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The states before each step of the chunk that starts at ``begin``, into ``past``."""
    c_NUMBER = tl.full((1, BLOCK), C_NUMBER, fixed.dtype.element_ty)
    saved += (row * tl.cdiv(length, STRIDE) + begin // STRIDE) * STATES * width
    past += row * STRIDE * STATES * width
    steps = tl.minimum(STRIDE, length - begin)
    for tile in range(TILES):
        lane = lanes(tile, BLOCK)
        inside = there & (lane < width)
        p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=lane < width, other=1.0)
        s_OWN = tl.load(saved + lane + OWN * width, mask=inside, other=0.0)
        here = given + (row * length + begin) * width + lane
        ahead = tl.load(here, mask=inside, other=0.0)
        for k in range(steps):
            now = ahead
            ahead = tl.load(here + tl.minimum(k + 1, steps - 1) * width, mask=inside, other=0.0)
            tl.store(past + k * STATES * width + lane + OWN * width, s_OWN, mask=inside)
            _, _, *s_OWN = step(now, *s_OWN, *p_PARAMETER, *c_NUMBER)
    tl.debug_barrier()


@triton.jit
def spikes_before(  # type: ignore[no-untyped-def]
    table, grad, gspikes0, row, there, length, width, BLOCK: tl.constexpr, TILES: tl.constexpr, INNER: tl.constexpr
):
    """The gradients of the spikes before the first step, from those of the first currents."""
    for tile in range(TILES):
        lane = lanes(tile, BLOCK)
        gz = tl.zeros((row.shape[0], BLOCK), grad.dtype.element_ty)
        gz = product(gz, grad + row * length * width, there, width, table, lane, width, INNER)
        tl.store(gspikes0 + row * width + lane, gz, mask=there & (lane < width))


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    table, fixed, saved, gs, grad, state, gspikes0, past, sums, batch, length, width,
    C_NUMBER: tl.constexpr,
    N_SHAPE: tl.constexpr,
    STRIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Gradients of the currents over these, of the first state over those of the last; ``table`` goes from its targets.

    Those of the parameters are summed over rows and steps, over one chunk at most before they become float64.
    """
    row, lane = rows(ROWS), lanes(0, BLOCK)
    there = row < batch
    inside = there & (lane < width)
    chunks = tl.cdiv(length, STRIDE)
    c_NUMBER = tl.full((1, BLOCK), C_NUMBER, fixed.dtype.element_ty)
    n_SHAPE = tl.full((1, BLOCK), N_SHAPE, fixed.dtype.element_ty)
    state += row * STATES * width
    sums += tl.program_id(0).to(tl.int64) * PARAMETERS * width
    p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=lane < width, other=1.0)
    g_OWN = tl.load(state + lane + OWN * width, mask=inside, other=0.0)
    zero = tl.zeros((1, BLOCK), fixed.dtype.element_ty)
    for back in range(chunks):
        begin = (chunks - 1 - back) * STRIDE
        steps = tl.minimum(STRIDE, length - begin)
        _recall(fixed, saved, grad, past, row, there, begin, length, width, *C_NUMBER, STRIDE, BLOCK, TILES)
        sum_PARAMETER = zero
        for done in range(steps):
            k = steps - 1 - done
            at = row * length + begin + k
            here, after = grad + at * width, there & (at + 1 < (row + 1) * length)
            for tile in range(TILES):
                if TILES > 1:
                    lane = lanes(tile, BLOCK)
                    inside = there & (lane < width)
                    p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=lane < width, other=1.0)
                    g_OWN = tl.load(state + lane + OWN * width, mask=inside, other=0.0)
                    sum_PARAMETER = zero
                before = past + (row * STRIDE + k) * STATES * width + lane
                s_OWN = tl.load(before + OWN * width, mask=inside, other=0.0)
                now = tl.load(here + lane, mask=inside, other=0.0)
                gz = tl.load(gs + at * width + lane, mask=inside, other=0.0)
                gz = product(gz, here + width, after, width, table, lane, width, INNER)
                d_current, *d_INPUT = pull(  # noqa: RUF059
                    now, gz, gz, *g_OWN, *s_OWN, *p_PARAMETER, *c_NUMBER, *n_SHAPE
                )
                g_OWN = d_OWN
                tl.store(here + lane, d_current, mask=inside)
                sum_PARAMETER += tl.sum(tl.where(there, d_PARAMETER, 0.0), 0, keep_dims=True)
                if TILES > 1:
                    tl.store(state + lane + OWN * width, g_OWN, mask=inside)
                    collect(sums + PARAMETER * width + lane, sum_PARAMETER, lane < width)
            tl.debug_barrier()  # the next product reads what all threads have written
        if TILES == 1:
            collect(sums + PARAMETER * width + lane, sum_PARAMETER, lane < width)
    if TILES == 1:
        tl.store(state + lane + OWN * width, g_OWN, mask=inside)
    spikes_before(table, grad, gspikes0, row, there, length, width, BLOCK, TILES, INNER)
