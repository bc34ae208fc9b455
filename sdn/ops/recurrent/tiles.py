"""Pieces of the recurrent Triton kernels: tiles of rows of the batch by neurons, and products with a weight table.

``row`` is (ROWS, 1), ``lane`` (1, BLOCK). What is beyond the batch or the neurons is loaded as 0 and never stored.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch

__all__ = [
    "INNER", "add_rows", "collect", "currents", "lanes", "load_fields", "mix", "parameters", "product", "rows",
    "store_fields",
]  # fmt: skip

INNER = 16
"""Terms of a sum that are read at once: the fewest of a product in older Tritons."""
PANEL = 64
"""Rows and columns of a program of the product over all steps."""
LAUNCH: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


def currents(x: Tensor, before: Tensor | None, table: Tensor, bias: Tensor) -> Tensor:
    """``bias + [x; before] table`` of all steps, (B, L, H), terms in order, in full precision.

    Args:
        x: (B, L, C) inputs.
        before: (B, L, H) spikes of the step before; None for the share of the inputs alone.
        table: (C + H, H) contiguous, weights by source.
        bias: (H,).
    """
    (batch, length, inputs), channels = x.shape, len(bias)
    out = x.new_empty(batch, length, channels)
    given = x.detach().contiguous(), table if before is None else before, table, bias.detach().contiguous()
    panels = triton.cdiv(batch * length, PANEL), triton.cdiv(channels, PANEL)
    launch(mix, panels, x, *given, out, batch * length, inputs, channels, before is not None, PANEL, INNER, **LAUNCH)
    return out


@triton.jit
def rows(ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The rows of this program, (ROWS, 1)."""
    return (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)


@triton.jit
def lanes(tile, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The neurons of a tile, (1, BLOCK)."""
    return tile * BLOCK + tl.arange(0, BLOCK)[None, :]


@triton.jit
def product(total, left, there, inner, right, lane, width, INNER: tl.constexpr):  # type: ignore[no-untyped-def]
    """``total + left @ right``, term by term in order: left points to rows of ``inner`` numbers, right to a table."""
    terms = tl.arange(0, INNER)
    for start in range(0, inner, INNER):
        k = start + terms
        a = tl.load(left + k[None, :], mask=there & (k[None, :] < inner), other=0.0)
        b = tl.load(right + k[:, None] * width + lane, mask=(k[:, None] < inner) & (lane < width), other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee", out_dtype=total.dtype)
    return total


@triton.jit
def mix(  # type: ignore[no-untyped-def]
    x, before, table, bias, out, count, inputs, width, RECURRENT: tl.constexpr, PANEL: tl.constexpr, INNER: tl.constexpr
):  # fmt: skip
    """A panel of `currents`: ``count`` rows in all, each a step of a row of the batch."""
    row, lane = rows(PANEL), lanes(tl.program_id(1), PANEL)
    there = row < count
    inside = there & (lane < width)
    total = tl.load(bias + lane + row * 0, mask=inside, other=0.0)
    total = product(total, x + row * inputs, there, inputs, table, lane, width, INNER)
    if RECURRENT:
        total = product(total, before + row * width, there, width, table + inputs * width, lane, width, INNER)
    tl.store(out + row * width + lane, total, mask=inside)


# ---- Fields of a state or parameters, up to three, ``width`` apart in memory.
@triton.jit
def load_fields(pointer, width, inside, S: tl.constexpr):  # type: ignore[no-untyped-def]
    """Three of them, of which S are loaded and the others 0."""
    u = tl.load(pointer, mask=inside, other=0.0)
    v, q = tl.zeros_like(u), tl.zeros_like(u)
    if S > 1:
        v = tl.load(pointer + width, mask=inside, other=0.0)
    if S > 2:
        q = tl.load(pointer + 2 * width, mask=inside, other=0.0)
    return u, v, q


@triton.jit
def store_fields(pointer, width, inside, u, v, q, S: tl.constexpr):  # type: ignore[no-untyped-def]
    """The way back of `load_fields`."""
    tl.store(pointer, u, mask=inside)
    if S > 1:
        tl.store(pointer + width, v, mask=inside)
    if S > 2:
        tl.store(pointer + 2 * width, q, mask=inside)


@triton.jit
def parameters(fixed, lane, width, P: tl.constexpr):  # type: ignore[no-untyped-def]
    """Six parameters of the neurons, (1, BLOCK) each, of which P are meant."""
    p0, p1, p2 = load_fields(fixed + lane, width, lane < width, P)
    p3, p4, p5 = p0, p0, p0
    if P > 3:
        p3, p4, p5 = load_fields(fixed + 3 * width + lane, width, lane < width, P - 3)
    return p0, p1, p2, p3, p4, p5


@triton.jit
def add_rows(s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5, P: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sums (1, BLOCK) of the first P, with the rows of these tiles added."""
    s0 += tl.sum(d0, 0, keep_dims=True)
    s1 += tl.sum(d1, 0, keep_dims=True)
    if P > 2:
        s2 += tl.sum(d2, 0, keep_dims=True)
    if P > 3:
        s3 += tl.sum(d3, 0, keep_dims=True)
    if P > 4:
        s4 += tl.sum(d4, 0, keep_dims=True)
        s5 += tl.sum(d5, 0, keep_dims=True)
    return s0, s1, s2, s3, s4, s5


@triton.jit
def collect(sums, lane, width, s0, s1, s2, s3, s4, s5, P: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add to the totals of the first P, (P, H) float64 in memory."""
    t0, t1, t2, t3, t4, t5 = parameters(sums, lane, width, P)
    store_fields(sums + lane, width, lane < width, t0 + s0, t1 + s1, t2 + s2, P)
    if P > 3:
        store_fields(sums + 3 * width + lane, width, lane < width, t3 + s3, t4 + s4, t5 + s5, P - 3)
