"""Chunks on the CPU: from tensors to the generated loop."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdn.compiler.programs import program
from sdn.ops.chunks import loops
from sdn.ops.chunks.layout import from_lanes, side, states_to_lanes, to_lanes
from sdn.ops.common.cpu import spread
from sdn.ops.common.generated_cpu import assembled, move_text, scalars, slope_text
from sdn.ops.neuron import cpu as neuron
from sdn.ops.neuron.layout import lay_out, spikes_like, to_rows

__all__ = ["carry", "chunks", "chunks_module"]


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
    """Spikes, ends and derivatives, as the operator returns them."""
    rows, lanes = lay_out(current)
    batch, _, channels = current.shape
    count, fields = starts.shape[1:3]
    spikes = spikes_like(current)
    ends = starts.new_empty(rows, count, fields, lanes)
    found = starts.new_zeros(rows, count, side(key) ** 2, lanes) if derivative else None
    plain = fixed.detach().repeat(1, lanes // channels).contiguous().unsqueeze(0)
    units = next((u for u in (1, 2, 4) if lanes <= u * loops.LANES), 8)
    spread(
        chunks_module(key, derivative, gradient, current.dtype).chunks,
        rows * count,
        scalars(numbers, current.dtype),
        scalars(shape, current.dtype),
        (0,) * units,
        *(t.numpy() for t in (to_rows(current, rows).contiguous(), plain, _wide(starts, rows))),
        chunk,
        *(t.numpy() for t in (to_rows(spikes, rows), ends)),
        None if found is None else found.numpy(),
    )
    if not (ends.isfinite().all() and fixed.isfinite().all()):
        spikes = _marked(key, current, starts, fixed, numbers, chunk)
    return spikes, _narrow(ends, batch), starts.new_empty(0) if found is None else _narrow(found, batch)


def _marked(key: str, current: Tensor, starts: Tensor, fixed: Tensor, numbers: Sequence[float], chunk: int) -> Tensor:
    """The spikes once more, by the loop of a whole sequence, which makes NaN of those that follow from no number."""
    batch, length, _ = current.shape
    wide = fixed.repeat(1, batch * starts.shape[1])
    lanes = to_lanes(current, chunk), states_to_lanes(starts)
    return from_lanes(neuron.forward(key, *lanes, wide, numbers, False, False)[0], batch, length).contiguous()


def carry(derivatives: Tensor, gaps: Tensor, reverse: bool) -> Tensor:
    """The changes at the seams, as the operator returns them."""
    batch, count, side, channels = gaps.shape
    shifts = torch.empty_like(gaps, memory_format=torch.contiguous_format)
    square = derivatives.reshape(batch, -1, side, side, channels)
    given = [t.detach().contiguous().numpy() for t in (square, gaps)]
    if count:
        spread(loops.carry, batch, *given, shifts.numpy(), reverse)
    return shifts


@functools.cache
def chunks_module(key: str, derivative: bool, gradient: str, dtype: torch.dtype) -> Any:
    """The generated module with the loop over the chunks of a neuron; the spike follows a slope that is named."""
    found = program(key)
    follows = bool(gradient)
    texts = [*([slope_text(gradient)] if follows else []), move_text(found, derivative, follows)]
    return assembled("chunks", found.step.name, dtype, texts, [loops.chunks])


def _wide(states: Tensor, rows: int) -> Tensor:
    """(B, n, S, H) as contiguous (rows, n, S, lanes)."""
    plain = states.detach()
    if rows != len(plain):
        plain = plain.permute(1, 2, 0, 3).reshape(rows, *plain.shape[1:3], -1)
    return plain.contiguous()


def _narrow(states: Tensor, batch: int) -> Tensor:
    """The way back of `_wide`."""
    if len(states) == batch:
        return states
    _, count, fields, lanes = states.shape
    return states.reshape(count, fields, batch, lanes // batch).permute(2, 0, 1, 3).contiguous()
