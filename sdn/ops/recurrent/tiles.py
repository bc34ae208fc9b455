"""Pieces of the recurrent Triton kernels: tiles of rows of the batch by neurons, and products with a weight table.

``row`` is (ROWS, 1), ``lane`` (1, BLOCK). What is beyond the batch or the neurons is loaded as 0 and never stored.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch

__all__ = ["INNER", "TERMS", "collect", "currents", "lanes", "mix", "product", "rows"]

INNER = 16
"""Terms of a sum that `tl.dot` reads at once: the fewest in older Tritons."""
TERMS = 32
"""Terms of a sum of one row that are read at once, one row of the table for each; of several rows their share."""
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
    """``total + left @ right``, term by term in order: left points to rows of ``inner`` numbers, right to a table.

    Of few rows it is one fused multiply-add for each term: a thread keeps its neurons, and reads a row's number as all
    others do. `tl.dot` would fill the rows up to 16 and pass the numbers on through shared memory.
    """
    if total.shape[0] < 16:
        for start in range(0, inner, INNER):
            for term in tl.static_range(INNER):
                k = start + term + lane * 0
                a = tl.load(left + k, mask=there & (k < inner), other=0.0)
                b = tl.load(right + (k * width + lane), mask=(k < inner) & (lane < width), other=0.0)
                total = tl.fma(a, tl.broadcast_to(b, total.shape), total)
    else:
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


@triton.jit
def collect(total, sums, there):  # type: ignore[no-untyped-def]
    """Add sums of one chunk to their totals, float64 in memory."""
    tl.store(total, tl.load(total, mask=there, other=0.0) + sums, mask=there)
