"""The operator of a recurrent layer on the CPU: from tensors to the compiled loops."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.compiler.programs import program
from sdn.ops.common.cpu import huge, spread
from sdn.ops.common.generated_cpu import assembled, pull_text, scalars, slope_text, step_text
from sdn.ops.common.lanes_cpu import BYTES
from sdn.ops.common.lost_cpu import lost
from sdn.ops.neuron.loops import LANES
from sdn.ops.recurrent import loops
from sdn.ops.recurrent.layout import STRIDE
from sdn.ops.recurrent.loops import ROWS

__all__ = ["backward", "forward"]


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
    (batch, length, _), (_, fields, channels) = x.shape, first.shape
    spikes, final = huge(x.new_empty(batch, length, channels)), first.new_empty(first.shape)
    saved = huge(first.new_empty(batch if save else 0, -(-length // STRIDE), fields, channels))
    wide, size = _size(channels)
    given = _arrays(x, _padded(weight, size), _padded(bias, size), _parameters(fixed, size), first, spikes0)
    kernel = _forward(key, x.dtype).forward
    options = scalars(numbers, x.dtype), wide
    if not spread(kernel, batch, *options, *given, *(t.numpy() for t in (spikes, saved, final))):
        _mark(functools.partial(kernel, *options), given, spikes.numpy(), final.numpy())
    return spikes, final, saved


def _mark(kernel: Any, given: list[Any], spikes: Any, final: Any) -> None:
    """NaN for all spikes of the rows that are `lost`, and for their last state; arrays as of the kernel."""
    x, table, bias, fixed, first, spikes0 = given
    batch, unsaved = len(x), np.empty((0, 1, *first.shape[1:]), x.dtype)

    def run(before: Any, start: int, stop: int) -> Any:
        (state, fired), piece = before, np.ascontiguousarray(x[:, start:stop])
        after, made = np.empty_like(state), np.empty((batch, stop - start, spikes.shape[2]), x.dtype)
        kernel(piece, table, bias, fixed, state, fired, made, unsaved, after, 0, batch)
        return after, np.ascontiguousarray(made[:, -1])

    good = np.full(batch, np.isfinite(fixed).all())
    for steps, bad in lost(x.shape[1], (first, spikes0), good, run, lambda found: np.isfinite(found[0]).all((1, 2))):
        spikes[bad, steps] = np.nan
        final[bad] = np.nan


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
    (batch, length, inputs), (_, _, fields, channels) = x.shape, saved.shape
    wide, size = _size(channels)
    items = -(-batch // ROWS)
    gs = torch.zeros_like(spikes) if grad_spikes is None else grad_spikes
    gf = x.new_zeros(batch, fields, channels) if grad_final is None else grad_final
    tables = huge(x.new_empty(items, len(weight), size)).zero_(), x.new_zeros(items, size)
    grad_first, grad_spikes0 = x.new_empty(batch, fields, channels), x.new_empty(batch, channels)
    sums = torch.zeros(items, len(fixed), channels, dtype=torch.float64)
    grad_current = huge(x.new_empty(batch if need_x else 0, length, channels))
    table, recurrent = _padded(weight, size), weight.detach()[inputs:]
    given = _arrays(
        x,
        table,
        _panels(recurrent, size),
        _padded(bias, size),
        _parameters(fixed, size),
        spikes0,
        spikes,
        saved,
        gs,
        gf,
    )
    written = (*tables, grad_first, grad_spikes0, sums, grad_current)
    kernel = _backward(key, gradient, through_reset, x.dtype).backward
    scalar = scalars(numbers, x.dtype), scalars(shape, x.dtype)
    spread(kernel, items, *scalar, wide, *given, *(t.numpy() for t in written))
    grad_x = grad_current @ weight.detach()[:inputs].T if need_x else x.new_empty(0)
    weights, biases = (_total(table).to(x.dtype)[..., :channels] for table in tables)
    return grad_x, weights.contiguous(), biases.contiguous(), grad_first, grad_spikes0, sums.sum(0).to(fixed.dtype)


@functools.cache
def _forward(key: str, dtype: torch.dtype) -> Any:
    found = program(key)
    return assembled("recurrent-forward", found.step.name, dtype, [step_text(found)], [loops.forward])


@functools.cache
def _backward(key: str, gradient: str, through_reset: bool, dtype: torch.dtype) -> Any:
    found = program(key)
    texts = [step_text(found), slope_text(gradient), pull_text(found, through_reset)]
    return assembled("recurrent-backward", found.step.name, dtype, texts, [loops.backward])


def _total(tables: Tensor) -> Tensor:
    """The sum over the first axis in float64, one after the other: all at once would first copy them all."""
    total = torch.zeros(tables.shape[1:], dtype=torch.float64)
    for table in tables:
        total += table
    return total


def _arrays(*tensors: Tensor) -> list[Any]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _size(channels: int) -> tuple[tuple[int, ...], int]:
    """A tuple whose length is the width of a tile in units of LANES, and the channels with their padding."""
    units = next((u for u in (1, 2) if channels <= u * LANES), 4)
    return (0,) * units, -(-channels // (units * LANES)) * units * LANES


def _padded(rows: Tensor, size: int) -> Tensor:
    return pad(rows.detach(), (0, size - rows.shape[-1]))


def _parameters(fixed: Tensor, size: int) -> Tensor:
    """(P, H) -> (1, P, size)."""
    plain = fixed.detach()
    return torch.cat([plain, plain[:, -1:].expand(-1, size - plain.shape[1])], 1).unsqueeze(0)


def _panels(recurrent: Tensor, size: int) -> Tensor:
    """(H, H), by source -> (size / n, H, n): from target to source, in columns of n numbers, two registers."""
    n = 2 * BYTES // recurrent.element_size()
    padded = pad(recurrent.T, (0, size - len(recurrent)))
    return padded.reshape(len(padded), -1, n).transpose(0, 1)
