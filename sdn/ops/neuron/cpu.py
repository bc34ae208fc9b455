"""The neuron operators on the CPU: from tensors to the generated loops."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.compiler.programs import program
from sdn.ops.common.cpu import spread
from sdn.ops.common.generated_cpu import assembled, pull_text, scalars, slope_text, step_text
from sdn.ops.common.lost_cpu import lost
from sdn.ops.neuron import loops
from sdn.ops.neuron.layout import STRIDE, from_rows, lay_out, spikes_like, to_rows

__all__ = ["backward", "backward_module", "forward", "forward_module"]


def forward(
    key: str, current: Tensor, state: Tensor, fixed: Tensor, numbers: Sequence[float], save: bool, record: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, last state, kept states and mem, as the operator returns them."""
    rows, lanes = lay_out(current)
    length, fields = current.shape[1], state.shape[1]
    spikes = spikes_like(current)
    mems = spikes_like(current) if record else current.new_empty(0)
    final = state.new_empty(rows, fields, lanes)
    saved = state.new_empty(rows if save else 0, -(-length // STRIDE), fields, lanes)
    parts, wide = _split(rows, lanes)
    given = [t.numpy() for t in (_rows(current, rows), _parameters(fixed, lanes), _rows(state, rows))]
    written = [t.numpy() for t in (_rows(spikes, rows), saved, final)]
    mem = _rows(mems, rows).numpy() if record else None
    kernel = forward_module(key, record, current.dtype).forward
    options = scalars(numbers, current.dtype), wide
    if not spread(kernel, rows * parts, *options, *given, parts, *written, mem):
        _mark(functools.partial(kernel, *options), given, written[0], mem)
    return spikes, from_rows(final, len(current)), saved, mems


def _mark(kernel: Any, given: list[Any], spikes: Any, mem: Any) -> None:
    """NaN for the spikes of the lanes that are `lost`; arrays as of the kernel."""
    x, fixed, first = given
    rows, _, lanes = x.shape
    good = np.broadcast_to(np.isfinite(fixed).all(1), (rows, lanes))

    def run(state: Any, start: int, stop: int) -> Any:
        after, piece = np.empty_like(state), np.ascontiguousarray(x[:, start:stop])
        unsaved, spare = np.empty((0, 1, *state.shape[1:]), x.dtype), None if mem is None else np.empty_like(piece)
        kernel(piece, fixed, state, 1, np.empty_like(piece), unsaved, after, spare, 0, rows)
        return after

    for steps, bad in lost(x.shape[1], first, good, run, lambda state: np.isfinite(state).all(1)):
        spikes[:, steps].swapaxes(0, 1)[:, bad] = np.nan


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
    rows, lanes = lay_out(current)
    fields, dtype = saved.shape[2], current.dtype
    batch, channels = current.shape[0], current.shape[2]
    grad_current = spikes_like(current)
    grad_first = saved.new_empty(rows, fields, lanes)
    sums = torch.zeros(rows, len(fixed), lanes, dtype=torch.float64) if learn else None
    gs = torch.zeros_like(current) if grad_spikes is None else grad_spikes
    gf = saved.new_zeros(batch, fields, channels) if grad_final is None else grad_final
    parts, wide = _split(rows, lanes)
    spread(
        backward_module(key, gradient, through_reset, grad_mem is not None, learn, dtype).backward,
        rows * parts,
        scalars(numbers, dtype),
        scalars(shape, dtype),
        wide,
        *(t.numpy() for t in (_rows(current, rows), _parameters(fixed, lanes), saved.detach())),
        *(t.numpy() for t in (_rows(gs, rows), _rows(gf, rows))),
        None if grad_mem is None else _rows(grad_mem, rows).numpy(),
        parts,
        _rows(grad_current, rows).numpy(),
        grad_first.numpy(),
        None if sums is None else sums.numpy(),
    )
    if sums is None:
        total = fixed.new_empty(0)
    else:
        total = sums.sum(0).reshape(len(fixed), lanes // channels, channels).sum(1).to(fixed.dtype)
    return grad_current, from_rows(grad_first, batch), total


@functools.cache
def forward_module(key: str, record: bool, dtype: torch.dtype) -> Any:
    """The generated module with the forward loop of a neuron; ``record`` where it writes mem."""
    found = program(key)
    return assembled("forward", found.step.name, dtype, [step_text(found, record)], [loops.forward])


@functools.cache
def backward_module(key: str, gradient: str, through_reset: bool, record: bool, learn: bool, dtype: torch.dtype) -> Any:
    """The generated module with the backward loop of a neuron: ``record`` where mem has a gradient too, ``learn``
    where parameters are asked for theirs."""
    found = program(key)
    texts = [step_text(found), slope_text(gradient), pull_text(found, through_reset, record, learn)]
    return assembled("backward", found.step.name, dtype, texts, [loops.backward])


def _rows(x: Tensor, rows: int) -> Tensor:
    """(B, L, H) or (B, S, H) -> contiguous (rows, L or S, lanes)."""
    return to_rows(x, rows).contiguous()


def _parameters(fixed: Tensor, lanes: int) -> Tensor:
    """(P, H) -> contiguous (1, P, lanes), the channels of one row after those of another."""
    times = lanes // fixed.shape[1]
    plain = fixed.detach()
    return (plain if times == 1 else plain.repeat(1, times)).contiguous().unsqueeze(0)


def _split(rows: int, lanes: int) -> tuple[int, tuple[int, ...]]:
    """Parts of a row that threads take, and a tuple whose length is the width of a tile in units of 64 channels."""
    threads = torch.get_num_threads()
    wanted = 1 if rows >= threads else -(-threads // rows)
    share = -(-lanes // wanted)
    units = next((u for u in (1, 2, 4) if share <= u * loops.LANES), 8)
    tiles = -(-lanes // (units * loops.LANES))
    return min(wanted, tiles), (0,) * units
