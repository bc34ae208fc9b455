"""A reduced SDN of one layer over flat rows, in Triton: a program keeps all channels of its lanes in registers.

Rows and lanes are those of `predict_cpu`. One warp to a program, so that the sums over taps and channels stay within a
thread. Checked in Triton's interpreter; its speed on a GPU has not been measured.
"""

import triton
import triton.language as tl
from torch import Tensor

from sdn.ops.common.launch_gpu import launch

__all__ = ["predict_triton"]

REGISTERS = 1024  # numbers of one (channels or taps, lanes) tile


def predict_triton(rows: Tensor, out: Tensor, weights: list[Tensor], dilation: int, skip: int) -> None:
    """Fill ``out``, (N, (L - skip) * D), with the prediction for ``rows``, (N, L * D); both contiguous.

    Args:
        rows: currents, float32 or float64, on any device that Triton reaches (its interpreter: the CPU).
        out: gets `mem` of the steps skip .. L-1.
        weights: as `ReducedSDN.state_dict` lists them.
        dilation: D.
        skip: steps at the beginning that are only looked back at.

    Raises:
        NotImplementedError: more than one layer.
    """
    if len(weights) != 6:
        raise NotImplementedError(f"predict_triton: one layer, got {(len(weights) - 2) // 4}; use plain_predict.")
    channels, _, taps = weights[0].shape
    tall, deep = triton.next_power_of_2(channels), triton.next_power_of_2(taps)
    lanes = max(32, REGISTERS // max(tall, deep))
    blocks = triton.cdiv(out.shape[1], lanes)
    sizes = (rows.shape[1], out.shape[1], blocks, dilation, skip)
    given = rows, out, *(w.contiguous() for w in weights), *sizes, channels, taps, tall, deep, lanes
    launch(_predict, (len(rows) * blocks,), rows, *given, num_warps=1, enable_fp_fusion=False)


@triton.jit(do_not_specialize=["row", "kept", "blocks", "dilation", "skip"])
def _predict(  # type: ignore[no-untyped-def]
    x, out, first, first_bias, mix, mix_bias, last, last_bias, row, kept, blocks, dilation, skip,
    CHANNELS: tl.constexpr, TAPS: tl.constexpr, TALL: tl.constexpr, DEEP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``mem`` of LANES neighbouring numbers of one row; channels and taps are filled up to powers of 2."""
    program = tl.program_id(0).to(tl.int64)
    at = (program % blocks) * LANES + tl.arange(0, LANES)
    channel, tap = tl.arange(0, TALL), tl.arange(0, DEEP)
    inside = at < kept
    seen = (at + skip * dilation)[None, :] - ((TAPS - tap) * dilation)[:, None]
    there = (seen >= 0) & (tap < TAPS)[:, None] & inside[None, :]
    current = tl.load(x + (program // blocks) * row + seen, mask=there, other=0.0)
    bias = tl.load(mix_bias + channel, mask=channel < CHANNELS, other=0.0)
    hidden = tl.zeros((TALL, LANES), current.dtype) + bias[:, None]
    for i in range(CHANNELS):
        weight = tl.load(first + i * TAPS + tap, mask=tap < TAPS, other=0.0)
        a = tl.sum(weight[:, None] * current, 0) + tl.load(first_bias + i)
        a = tl.where(a < 0, 0.0, a)
        weight = tl.load(mix + channel * CHANNELS + i, mask=channel < CHANNELS, other=0.0)
        hidden += tl.where(channel == i, weight + 1, weight)[:, None] * a[None, :]
    weight = tl.load(last + channel, mask=channel < CHANNELS, other=0.0)
    mem = tl.sum(weight[:, None] * tl.where(hidden < 0, 0.0, hidden), 0) + tl.load(last_bias)
    tl.store(out + (program // blocks) * kept + at, mem, mask=inside)
