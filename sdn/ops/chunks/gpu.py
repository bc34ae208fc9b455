"""Chunks on GPUs: by the operators of a whole sequence, with all chunks of all rows as lanes side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdn.compiler.programs import slope_of
from sdn.gradients import Triangle
from sdn.ops.chunks.layout import from_lanes, side, states_from_lanes, states_to_lanes, to_lanes
from sdn.ops.neuron import gpu as neuron
from sdn.ops.scan.matrices import scan_matrices

__all__ = ["carry", "chunks"]


def chunks(
    key: str,
    current: Tensor,
    starts: Tensor,
    fixed: Tensor,
    numbers: Sequence[float],
    chunk: int,
    derivative: bool,
    gradient: str,
    shape: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, ends and derivatives, as the operator returns them.

    The derivatives are backward passes, one for each field of a state. A last chunk that is shorter runs on without
    input, and once more by itself for the state it ends in.
    """
    batch, length, _ = current.shape
    count, rest = starts.shape[1], length % chunk
    x, first = to_lanes(current, chunk), states_to_lanes(starts)
    wide = fixed.repeat(1, count * batch)
    spikes, last, saved, _ = neuron.forward(key, x, first, wide, numbers, derivative, False)
    ends = states_from_lanes(last, batch, count).contiguous()
    if rest:
        tail = current[:, -rest:].contiguous(), starts[:, -1].contiguous()
        ends[:, -1] = neuron.forward(key, *tail, fixed, numbers, False, False)[1]
    whole = from_lanes(spikes, batch, length).contiguous()
    if not derivative:
        return whole, ends, starts.new_empty(0)
    follows = bool(gradient)
    slope = (gradient, shape) if follows else slope_of(Triangle())
    rows = []
    for field in range(side(key)):
        grad = torch.zeros_like(first)
        grad[:, field] = 1
        back = neuron.backward(key, None, grad, None, x, wide, saved, numbers, *slope, follows, False)[1]
        rows.append(states_from_lanes(back, batch, count)[:, :, : side(key)])
    return whole, ends, torch.cat(rows, 2).contiguous()


def carry(derivatives: Tensor, gaps: Tensor, reverse: bool) -> Tensor:
    """The changes at the seams, as the operator returns them: a tree of products."""
    batch, count, size, channels = gaps.shape
    square = derivatives.reshape(batch, -1, size, size, channels).permute(0, 1, 4, 2, 3)
    b = gaps.transpose(2, 3)
    if reverse:
        after = torch.cat([square[:, 1:count], torch.zeros_like(square[:, :1])], 1)
        square, b = after.flip(1).transpose(3, 4), b.flip(1)
    found = scan_matrices(square[:, :count].contiguous(), b, b.new_zeros(batch, channels, size))
    return (found.flip(1) if reverse else found).transpose(2, 3).contiguous()
