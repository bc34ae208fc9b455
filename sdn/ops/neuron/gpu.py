"""The neuron operators on CUDA devices: a forward and a backward kernel, written out for the states of each neuron.

A program is one warp and owns BLOCK lanes of a row, whose state stays in registers from the first step to the last.
Currents come T steps at a time, and those of the next T steps are asked for before the present ones are used: only
loads in flight hide the latency of memory. Such a (T, BLOCK) tile lies in registers as well, one lane to a thread, so
that taking a row out of it costs nothing where its number is known to the compiler. Every 64th state is kept. The
backward kernel goes from there to the state before every T-th step, and from these to all others: no scratch memory.

Products and sums are rounded one by one, in the order of the neuron's own code: contracted (``enable_fp_fusion``),
spikes would differ from those of `sdn.simulate`. Numbers of the neuron and of the spike gradient are compiled in, so
that a new dt or width costs a compilation; parameters per channel are data.

Checked in Triton's interpreter and in the code compiled for sm_80 and sm_90 (no contraction, no shared memory, nothing
spilled in float32 by the neurons of sdn). No GPU was at hand. Not measured: the speed of either kernel against the
traffic of memory, AHEAD, BEHIND and the single warp of a program, few lanes (one dependent step after another),
float64, and the copy that is made of inputs whose lanes are not side by side.
"""

import functools
from collections.abc import Sequence
from typing import Any

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
from sdn.ops.common.tiles_gpu import load_rows, pick_row, put_row, store_rows
from sdn.ops.neuron.layout import STRIDE, from_rows, lay_out, spikes_like, to_rows

__all__ = ["backward", "backward_kernel", "forward", "forward_kernel", "steps_ahead", "steps_behind"]

BLOCK = 32
AHEAD, BEHIND, MOST = 32, 16, 3
"""Steps per tile forward and backward, divisors of STRIDE; half with mem, and backward of more states than MOST."""
LAUNCH: dict[str, Any] = {"num_warps": 1, "maxnreg": 255, "enable_fp_fusion": False}
"""With a limit of its own the compiler does not save registers for one more program at the price of memory."""
RUNTIME = ["length", "width", "x_row", "x_step", "gs_row", "gs_step", "gm_row", "gm_step"]
"""Sizes that are not compiled in. A known alignment would make Triton give a thread several lanes and fewer steps."""


def forward(
    key: str, current: Tensor, state: Tensor, fixed: Tensor, numbers: Sequence[float], save: bool, record: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, last state, kept states and mem, as the operator returns them."""
    rows, width = lay_out(current)
    length, fields = current.shape[1], state.shape[1]
    spikes = spikes_like(current)
    mems = spikes_like(current) if record else current.new_empty(0)
    final = state.new_empty(rows, fields, width)
    saved = state.new_empty(rows if save else 0, -(-length // STRIDE), fields, width)
    x, first = to_rows(current, rows), to_rows(state, rows).contiguous()
    launch(
        forward_kernel(key), (rows * triton.cdiv(width, BLOCK),), current,
        x, first, _parameters(fixed, width), spikes, final, saved, mems, length, width, *x.stride()[:2],
        *map(float, numbers), save, record, STRIDE, steps_ahead(record), BLOCK, **LAUNCH,
    )  # fmt: skip
    return spikes, from_rows(final, len(current)), saved, mems


def backward(
    key: str,
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    grad_mem: Tensor | None,
    current: Tensor,
    fixed: Tensor,
    saved: Tensor,
    numbers: Sequence[float],
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of current, state and parameters (empty unless ``learn``), as the operator returns them."""
    rows, width = lay_out(current)
    (batch, length, channels), fields = current.shape, saved.shape[2]
    grad_current, nothing = spikes_like(current), current.new_zeros(width).expand(rows, length, width)
    grad_state = current.new_zeros(rows, fields, width)
    sums = torch.empty(rows if learn else 0, len(fixed), width, dtype=torch.float64, device=current.device)
    x = to_rows(current, rows)
    gs, gm = (nothing if given is None else to_rows(given, rows) for given in (grad_spikes, grad_mem))
    if grad_final is not None:
        grad_state.copy_(to_rows(grad_final, rows))
    record = grad_mem is not None
    launch(
        backward_kernel(key, gradient, through_reset, record), (rows * triton.cdiv(width, BLOCK),), current,
        x, _parameters(fixed, width), saved, gs, gm, grad_current, grad_state, sums, length, width,
        *x.stride()[:2], *gs.stride()[:2], *gm.stride()[:2], *map(float, numbers), *map(float, shape),
        record, learn, STRIDE, steps_behind(key, record), BLOCK, **LAUNCH,
    )  # fmt: skip
    total = sums.sum(0).reshape(len(fixed), -1, channels).sum(1).to(fixed.dtype) if learn else fixed.new_empty(0)
    return grad_current, from_rows(grad_state, batch), total


@functools.cache
def forward_kernel(key: str) -> Any:
    """The forward kernel of a neuron."""
    found = program(key)
    return assembled("forward", found.step.name, [step_text(found, watch=True)], [_forward], words_of(found))._forward


@functools.cache
def backward_kernel(key: str, gradient: str, through_reset: bool, record: bool) -> Any:
    """The backward kernel of a neuron with a spike gradient."""
    found = program(key)
    texts = [
        step_text(found, watch=False), slope_text(gradient), pull_text(found, gradient, through_reset, record),
    ]  # fmt: skip
    return assembled("backward", found.step.name, texts, [_backward], words_of(found, gradient))._backward


def steps_ahead(record: bool) -> int:
    """Steps per tile forward."""
    return AHEAD // 2 if record else AHEAD


def steps_behind(key: str, record: bool) -> int:
    """Steps per tile backward."""
    return BEHIND // 2 if record or len(words_of(program(key))["OWN"]) > MOST else BEHIND


def _parameters(fixed: Tensor, width: int) -> Tensor:
    """(P, H) -> contiguous (P, width), the channels of one row after those of another."""
    return fixed.detach().repeat(1, width // fixed.shape[1])


# ---- The kernels. All tensors but x, gs and gm are contiguous: spikes, mems, gx (rows, L, width), first, final, gstate
# (rows, S, width), fixed (P, width), sums (rows, P, width), saved (rows, ceil(L / STRIDE), S, width).
@triton.jit
def place(width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The row of this program, its lanes, and which of these exist."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    lane = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    return (program // blocks).to(tl.int64), lane, lane < width


@triton.jit(do_not_specialize=RUNTIME)
def _forward(  # type: ignore[no-untyped-def]
    x, first, fixed, spikes, final, saved, mems, length, width, x_row, x_step,
    C_NUMBER: tl.constexpr,
    SAVE: tl.constexpr, RECORD: tl.constexpr, STRIDE: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes and last state of BLOCK lanes; every STRIDE-th state where SAVE, mem where RECORD."""
    row, lane, inside = place(width, BLOCK)
    c_NUMBER = tl.full((1, BLOCK), C_NUMBER, x.dtype.element_ty)
    x += row * x_row + lane
    first += row * STATES * width + lane
    spikes += row * length * width + lane
    mems += row * length * width + lane
    saved += row * tl.cdiv(length, STRIDE) * STATES * width + lane
    final += row * STATES * width + lane
    p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=inside, other=1.0)
    s_STATE = tl.load(first + STATE * width, mask=inside, other=0.0)
    ahead = load_rows(x, 0, length, x_step, inside, T)
    for start in range(0, length, T):
        now = ahead
        ahead = load_rows(x, start + T, length, x_step, inside, T)
        if SAVE and start % STRIDE == 0:
            kept = saved + start // STRIDE * STATES * width
            tl.store(kept + STATE * width, s_STATE, mask=inside)
        fired, mem_tile = tl.zeros_like(now), tl.zeros_like(now)
        if start + T <= length:
            for k in tl.static_range(T):
                spike, mem, *s_STATE = step(pick_row(now, k), *s_STATE, *p_PARAMETER, *c_NUMBER)
                fired = put_row(fired, k, spike)
                if RECORD:
                    mem_tile = put_row(mem_tile, k, mem)
        else:
            for k in range(length - start):
                spike, mem, *s_STATE = step(pick_row(now, k), *s_STATE, *p_PARAMETER, *c_NUMBER)
                fired = put_row(fired, k, spike)
                if RECORD:
                    mem_tile = put_row(mem_tile, k, mem)
        store_rows(spikes, start, length, width, inside, fired)
        if RECORD:
            store_rows(mems, start, length, width, inside, mem_tile)
    tl.store(final + STATE * width, s_STATE, mask=inside)


@triton.jit(do_not_specialize=RUNTIME)
def _backward(  # type: ignore[no-untyped-def]
    x, fixed, saved, gs, gm, gx, gstate, sums, length, width, x_row, x_step, gs_row, gs_step, gm_row, gm_step,
    C_NUMBER: tl.constexpr,
    N_SHAPE: tl.constexpr,
    RECORD: tl.constexpr, LEARN: tl.constexpr, STRIDE: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK lanes, those of the first state over those of the last.

    From those of mem too where RECORD; gradients of parameters are summed over time, per lane, where LEARN. A chunk
    of STRIDE steps has STRIDE // T parts. The tiles ``ahead`` hold what is needed next: forward through the parts of a
    chunk but its last, then back from the last to the first, then forward in the chunk before.
    """
    PARTS: tl.constexpr = STRIDE // T
    row, lane, inside = place(width, BLOCK)
    chunks = tl.cdiv(length, STRIDE)
    c_NUMBER = tl.full((1, BLOCK), C_NUMBER, x.dtype.element_ty)
    n_SHAPE = tl.full((1, BLOCK), N_SHAPE, x.dtype.element_ty)
    x += row * x_row + lane
    gs += row * gs_row + lane
    gm += row * gm_row + lane
    gx += row * length * width + lane
    saved += row * chunks * STATES * width + lane
    gstate += row * STATES * width + lane
    sums += row * PARAMETERS * width + lane
    p_PARAMETER = tl.load(fixed + PARAMETER * width + lane, mask=inside, other=1.0)
    g_OWN = tl.load(gstate + OWN * width, mask=inside, other=0.0)
    last = (chunks - 1) * STRIDE
    ahead = load_rows(x, last, length, x_step, inside, T)
    gs_ahead = load_rows(gs, last + STRIDE - T, length, gs_step, inside, T)
    gm_ahead = gs_ahead
    if RECORD:
        gm_ahead = load_rows(gm, last + STRIDE - T, length, gm_step, inside, T)
    zero = tl.zeros((1, BLOCK), ahead.dtype)
    sum_PARAMETER = zero
    total_PARAMETER = tl.zeros((1, BLOCK), tl.float64)
    for back in range(chunks):
        begin = last - back * STRIDE
        kept = saved + begin // STRIDE * STATES * width
        s_OWN = tl.load(kept + OWN * width, mask=inside, other=0.0)
        part_OWN = tl.zeros((PARTS, BLOCK), zero.dtype)
        for part in range(PARTS - 1):
            now = ahead
            ahead = load_rows(x, begin + part * T + T, length, x_step, inside, T)
            part_OWN = put_row(part_OWN, part, s_OWN)
            for k in tl.static_range(T):
                _, _, *s_OWN = step(pick_row(now, k), *s_OWN, *p_PARAMETER, *c_NUMBER)
        part_OWN = put_row(part_OWN, PARTS - 1, s_OWN)
        for done in range(PARTS):
            part = PARTS - 1 - done
            start = begin + part * T
            now, gs_now, gm_now = ahead, gs_ahead, gm_ahead
            ahead = load_rows(x, max(begin - STRIDE if part == 0 else start - T, 0), length, x_step, inside, T)
            gs_ahead = load_rows(gs, max(start - T, 0), length, gs_step, inside, T)
            if RECORD:
                gm_ahead = load_rows(gm, max(start - T, 0), length, gm_step, inside, T)
            s_OWN = pick_row(part_OWN, part)
            tile_OWN = tl.zeros_like(now)
            for k in tl.static_range(T):
                tile_OWN = put_row(tile_OWN, k, s_OWN)
                if k < T - 1:
                    _, _, *s_OWN = step(pick_row(now, k), *s_OWN, *p_PARAMETER, *c_NUMBER)
            out = tl.zeros_like(now)
            for k in tl.static_range(T - 1, -1, -1):
                there = start + k < length
                s_OWN = pick_row(tile_OWN, k)
                d_current, *d_INPUT = pull(  # noqa: RUF059
                    pick_row(now, k), pick_row(gs_now, k), pick_row(gm_now, k), *g_OWN, *s_OWN,
                    *p_PARAMETER, *c_NUMBER, *n_SHAPE,
                )  # fmt: skip
                g_OWN = tl.where(there, d_OWN, g_OWN)
                out = put_row(out, k, d_current)
                if LEARN:
                    sum_PARAMETER += tl.where(there, d_PARAMETER, 0.0)
            store_rows(gx, start, length, width, inside, out)
        if LEARN:
            total_PARAMETER += sum_PARAMETER
            sum_PARAMETER = zero
    tl.store(gstate + OWN * width, g_OWN, mask=inside)
    if LEARN:
        tl.store(sums + PARAMETER * width, total_PARAMETER, mask=inside)
