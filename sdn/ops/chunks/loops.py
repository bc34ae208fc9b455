"""Chunks of a sequence on the CPU: the loop that a generated file is made of, and the one over the seams.

As in `sdn.ops.neuron.loops`, the text of `chunks` stands in each generated file, behind the ``move`` of its neuron.
"""

from typing import Any

import numpy as np

from sdn.ops.common.cpu import jit
from sdn.ops.common.functions_cpu import gather, scatter

__all__ = ["LANES", "carry", "chunks", "move"]

F = np.float32
"""The type of all arrays, which a generated file says anew."""
LANES = 64


def move(numbers: Any, shape: Any, x: Any, now: Any, fixed: Any, block: Any, j: Any, W: Any) -> Any:
    """One step of channel j: ``now`` becomes the state after it, and ``block`` its derivative.

    ``block`` holds the derivative of the state by the one at the start of the chunk, row after row.

    Returns:
        whether the neuron fires.
    """
    raise AssertionError("generated")


@jit
def chunks(  # type: ignore[no-untyped-def]
    numbers, shape, wide, x, fixed, starts, chunk, spikes, ends, derivatives, begin, end
):
    """The items ``begin .. end-1``; item i is chunk ``i % n`` of row ``i // n``.

    Shapes: x, spikes (B, L, H); fixed (1, P, H); starts, ends (B, n, S, H); derivatives (B, n, D D, H), or None. The
    type of ``wide`` fixes the width of a tile, as in `sdn.ops.neuron.loops`.
    """
    W = LANES * len(wide)
    length, channels = x.shape[1:]
    count, fields = starts.shape[1:3]
    size = 0 if derivatives is None else derivatives.shape[2]
    side = int(size**0.5 + 0.5)
    parameters, state = np.zeros(fixed.shape[1] * W, x.dtype), np.zeros(fields * W, x.dtype)
    block = np.zeros(max(size, 1) * W, x.dtype)
    for k in range((channels + W - 1) // W):
        gather(parameters, 0, fixed, 0, k, W)
        for item in range(begin, end):
            b, c = item // count, item % count
            gather(state, 0, starts[b], c, k, W)
            if derivatives is not None:
                for place in range(size):
                    one = F(1) if place % (side + 1) == 0 else F(0)
                    for j in range(W):
                        block[place * W + j] = one
            for t in range(c * chunk, min(c * chunk + chunk, length)):
                row, out = x[b, t, k * W : k * W + W], spikes[b, t, k * W : k * W + W]
                for j in range(row.shape[0]):
                    out[j] = F(1) if move(numbers, shape, row[j], state, parameters, block, j, W) else F(0)
            scatter(ends[b], c, k, state, 0, W)
            if derivatives is not None:
                scatter(derivatives[b], c, k, block, 0, W)


@jit
def carry(derivatives, gaps, shifts, reverse, begin, end):  # type: ignore[no-untyped-def]
    """``shift[c+1] = derivative[c] shift[c] + gap[c]`` from a shift of 0, rows ``begin .. end-1``.

    Shapes: derivatives (B, n, D, D, H); gaps, shifts (B, n, D, H), where shifts[c] is what is added at the end of
    chunk c. ``reverse`` goes from the last chunk to the first, with the matrices turned over.
    """
    count, side, channels = gaps.shape[1:]
    for b in range(begin, end):
        for place in range(count):
            c = count - 1 - place if reverse else place
            before = c + 1 if reverse else c - 1
            for i in range(side):
                row = shifts[b, c, i]
                for j in range(channels):
                    row[j] = gaps[b, c, i, j]
                if place == 0:
                    continue
                for k in range(side):
                    factor = derivatives[b, before, k, i] if reverse else derivatives[b, c, i, k]
                    other = shifts[b, before, k]
                    for j in range(channels):
                        row[j] += factor[j] * other[j]
