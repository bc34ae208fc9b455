"""The neuron operators on the CPU: from tensors to the compiled loops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.ops.common import slopes_cpu as slopes
from sdn.ops.common.cpu import spread
from sdn.ops.neuron import loops as neuron_loops
from sdn.ops.neuron.layout import STRIDE, from_rows, lay_out, spikes_like, to_rows

__all__ = ["GRADIENTS", "MODELS", "backward", "forward", "scalar", "scalars"]

MODELS: dict[str, Any] = {
    "lif": neuron_loops.LIF, "alif": neuron_loops.ALIF, "rf": neuron_loops.RF, "brf": neuron_loops.BRF
}  # fmt: skip
GRADIENTS: dict[str, Any] = {
    "triangle": slopes.Triangle,
    "gaussians": slopes.Gaussians,
    "multi_gaussians": slopes.MultiGaussians,
    "arctan": slopes.ArcTan,
    "sigmoid": slopes.Sigmoid,
}


def forward(
    name: str, current: Tensor, state: Tensor, fixed: Tensor, constants: Sequence[float], save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last state and kept states, as the operator returns them."""
    rows, lanes = lay_out(current)
    length, fields = current.shape[1], state.shape[1]
    spikes = spikes_like(current)
    final = state.new_empty(rows, fields, lanes)
    saved = state.new_empty(rows if save else 0, -(-length // STRIDE), fields, lanes)
    x, first, parameters = _rows(current, rows), _rows(state, rows), _parameters(fixed, lanes)
    parts, wide = _split(rows, lanes)
    arrays = [t.numpy() for t in (x, parameters, first)], [t.numpy() for t in (_rows(spikes, rows), saved, final)]
    model = scalars(MODELS[name], constants, x.dtype)
    spread(neuron_loops.forward, rows * parts, model, wide, *arrays[0], parts, *arrays[1])
    return spikes, from_rows(final, len(current)), saved


def backward(
    name: str,
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    current: Tensor,
    fixed: Tensor,
    saved: Tensor,
    constants: Sequence[float],
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of current, state and parameters (empty unless ``learn``), as the operator returns them."""
    rows, lanes = lay_out(current)
    fields = saved.shape[2]
    batch, channels = current.shape[0], current.shape[2]
    grad_current = spikes_like(current)
    grad_first = saved.new_empty(rows, fields, lanes)
    sums = torch.zeros(rows, len(fixed), lanes, dtype=torch.float64) if learn else None
    gs = torch.zeros_like(current) if grad_spikes is None else grad_spikes
    gf = saved.new_zeros(batch, fields, channels) if grad_final is None else grad_final
    parts, wide = _split(rows, lanes)
    spread(
        neuron_loops.backward,
        rows * parts,
        scalars(MODELS[name], constants, current.dtype),
        scalars(GRADIENTS[gradient], shape, current.dtype),
        scalar(float(through_reset), current.dtype),
        wide,
        *(t.numpy() for t in (_rows(current, rows), _parameters(fixed, lanes), saved.detach())),
        *(t.numpy() for t in (_rows(gs, rows), _rows(gf, rows))),
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
    units = next((u for u in (1, 2, 4) if share <= u * neuron_loops.LANES), 8)
    tiles = -(-lanes // (units * neuron_loops.LANES))
    return min(wanted, tiles), (0,) * units


def scalar(value: float, dtype: torch.dtype) -> Any:
    """A number in the type of the arrays."""
    return np.float64(value) if dtype == torch.float64 else np.float32(value)


def scalars(kind: Any, values: Sequence[float], dtype: torch.dtype) -> Any:
    """A model or a spike gradient with its numbers in the type of the arrays."""
    return kind(*(scalar(v, dtype) for v in values))
