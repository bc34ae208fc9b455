"""Neurons over (B, L, H) on the CPU: the loops over time that a generated file is made of.

The text of these functions stands in each generated file, behind the ``step`` and the ``pull`` of its neuron (see
`sdn.ops.neuron.cpu`); here they only have their names. The channels of a step lie side by side in memory and are the
inner loop, which LLVM turns into vector code; time is read in order. What belongs to one tile of W channels is one
array, field after field (``block[W f + j]`` is field f of channel j): the compiler then sees one pointer and constant
distances, and needs few tests for overlap. Every 64th state is kept; the backward loop computes the states between
again.

A comparison with NaN is false, so that a neuron whose state is no number would be silent. NaN and infinity stay in a
state for good, or in the watch that the compiler adds to one, so that one look at the last state, and one at the
parameters, tells whether there is such a neuron; the loop over time itself looks at nothing.
"""

from typing import Any

import numpy as np

from sdn.ops.common.cpu import jit, prefetch
from sdn.ops.common.functions_cpu import collect, finite, gather, scatter
from sdn.ops.neuron.layout import STRIDE

__all__ = ["LANES", "LINE", "backward", "forward", "pull", "step"]

F = np.float32
"""The type of all arrays, which a generated file says anew."""
LANES = 64
LINE = 16  # float32 numbers in a cache line


def step(numbers: Any, x: Any, now: Any, after: Any, fixed: Any, mems: Any, j: Any, W: Any) -> Any:
    """One step of channel j: reads the state ``now``, writes the state ``after`` it, which may be the same array.

    Writes mem as well where it is recorded. Operations and their order are those of the dynamics, so that spikes agree
    bit for bit. All arrays are read before the first branch: a use inside one leaves reference counting in the
    loop, which then stays scalar (70x slower).

    Returns:
        whether the neuron fires.
    """
    raise AssertionError("generated")


def pull(numbers: Any, shape: Any, x: Any, now: Any, block: Any, gs: Any, gmems: Any, j: Any, W: Any) -> Any:
    """One step of channel j backward.

    ``block`` holds the gradient of the state after the step and receives that of the state before it, then the
    parameters, and behind them their gradients. ``gs`` and ``gmems[j]`` are the gradients of spike and mem.

    Returns:
        the gradient of the current.
    """
    raise AssertionError("generated")


@jit
def forward(numbers, wide, x, fixed, first, parts, spikes, saved, final, mems, begin, end):  # type: ignore[no-untyped-def]
    """Spikes and last state of the items ``begin .. end-1``; item i is part ``i % parts`` of the row ``i // parts``.

    Shapes: x, spikes (B, L, H); fixed (1, P, H); first, final (B, S, H); saved (B, ceil(L / 64), S, H), or B = 0 where
    no backward pass follows; mems (B, L, H), or None. ``wide`` is a tuple whose length says how many times 64 channels
    a tile has: its type fixes W.

    Returns:
        whether all parameters and all last states are numbers.
    """
    W = LANES * len(wide)
    length, channels = x.shape[1:]
    tiles = (channels + W - 1) // W
    parameters, spare = np.zeros((tiles, fixed.shape[1] * W), x.dtype), np.empty(1, x.dtype)
    state = np.zeros((tiles, first.shape[1] * W), x.dtype)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
    good = finite(parameters.reshape(-1))
    for item in range(begin, end):
        b, part = item // parts, item % parts
        low, high = part * tiles // parts, (part + 1) * tiles // parts
        for k in range(low, high):
            gather(state[k], 0, first, b, k, W)
        for t in range(length):
            if t % STRIDE == 0 and saved.shape[0]:
                for k in range(low, high):
                    scatter(saved[b], t // STRIDE, k, state[k], 0, W)
            for k in range(low, high):
                row, out = x[b, t, k * W : k * W + W], spikes[b, t, k * W : k * W + W]
                mem = spare if mems is None else mems[b, t, k * W : k * W + W]
                now, constant = state[k], parameters[k]
                for j in range(row.shape[0]):
                    out[j] = F(1) if step(numbers, row[j], now, now, constant, mem, j, W) else F(0)
        for k in range(low, high):
            scatter(final, b, k, state[k], 0, W)
            good = good and finite(state[k])
    return good


@jit
def backward(  # type: ignore[no-untyped-def]
    numbers, shape, wide, x, fixed, saved, gspikes, gfinal, gmems, parts, gx, gfirst, gfixed, begin, end
):
    """Gradients of the items ``begin .. end-1``; gfixed is (B, P, H) float64, or None where no parameter is learned."""
    W = LANES * len(wide)
    length, channels = x.shape[1:]
    states, fields = gfinal.shape[1], fixed.shape[1]
    tiles, chunks = (channels + W - 1) // W, (length + STRIDE - 1) // STRIDE
    parameters, spare = np.zeros((tiles, fields * W), x.dtype), np.empty(1, x.dtype)
    blocks = np.zeros((tiles, (states + 2 * fields) * W), x.dtype)
    past = np.zeros((STRIDE, tiles, states * W), x.dtype)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
        gather(blocks[k], states, fixed, 0, k, W)
    for item in range(begin, end):
        b, part = item // parts, item % parts
        low, high = part * tiles // parts, (part + 1) * tiles // parts
        for k in range(low, high):
            gather(blocks[k], 0, gfinal, b, k, W)
        for chunk in range(chunks - 1, -1, -1):
            start, stop = chunk * STRIDE, min(chunk * STRIDE + STRIDE, length)
            for k in range(low, high):
                gather(past[0, k], 0, saved[b], chunk, k, W)
            for t in range(start, stop - 1):
                for k in range(low, high):
                    row, constant = x[b, t, k * W : k * W + W], parameters[k]
                    now, after = past[t - start, k], past[t - start + 1, k]
                    gs, out = gspikes[b, t, k * W : k * W + W], gx[b, t, k * W : k * W + W]
                    for j in range(0, row.shape[0], LINE):  # needed when the chunk is walked back
                        prefetch(gs, j)
                        prefetch(out, j)
                    for j in range(row.shape[0]):
                        step(numbers, row[j], now, after, constant, spare, j, W)
            for t in range(stop - 1, start - 1, -1):
                for k in range(low, high):
                    row, gs = x[b, t, k * W : k * W + W], gspikes[b, t, k * W : k * W + W]
                    out = gx[b, t, k * W : k * W + W]
                    gm = None if gmems is None else gmems[b, t, k * W : k * W + W]
                    now, block = past[t - start, k], blocks[k]
                    for j in range(row.shape[0]):
                        out[j] = pull(numbers, shape, row[j], now, block, gs[j], gm, j, W)
            if gfixed is not None:
                for k in range(low, high):
                    collect(gfixed[b], k, blocks[k], states + fields, W)
        for k in range(low, high):
            scatter(gfirst, b, k, blocks[k], 0, W)
