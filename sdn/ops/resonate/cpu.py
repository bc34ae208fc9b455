"""The operator of linear complex neurons on the CPU: from tensors to the compiled loops.

A work item is one row of the batch and one tile of channels: 128 of them, or as many rotation blocks as fit.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.ops.common.cpu import TINY, TINY_DOUBLE, spread
from sdn.ops.common.generated_cpu import assembled, scalars, slope_text
from sdn.ops.resonate import loops
from sdn.ops.resonate.layout import STRIDE
from sdn.ops.resonate.loops import LANES

__all__ = ["backward", "forward"]

_TINY = {torch.float32: np.float32(TINY), torch.float64: np.float64(TINY_DOUBLE)}


def forward(
    drive: Tensor, state: Tensor, fixed: Tensor, rotation: Tensor, magnitude: bool, refractory: float, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last state and kept states, as the operator returns them."""
    (batch, length, double), (_, fields, channels) = drive.shape, state.shape
    spikes = drive.new_empty(batch, length, double // 2)
    final = state.new_empty(state.shape)
    saved = state.new_empty(batch if save else 0, -(-length // STRIDE), fields, channels)
    wide, tile = _tile(rotation, channels)
    arrays = [*_arrays(drive, _parameters(fixed, refractory), _planes(rotation), state)]
    written = [t.numpy() for t in (spikes, final, saved)]
    items = batch * -(-channels // tile)
    spread(loops.forward, items, wide, *arrays, magnitude, _TINY[drive.dtype], tile, *written)
    return spikes, final, saved


def backward(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    drive: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    saved: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    grad_drive: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of state and ``fixed``, sums over time in float64; that of the drive into ``grad_drive``.

    That may be the drive itself: a step is read for the last time before it is written.
    """
    (batch, length, _), (_, _, fields, channels) = drive.shape, saved.shape
    gs = drive.new_zeros(batch, length, channels) if grad_spikes is None else grad_spikes
    gf = drive.new_zeros(batch, fields, channels) if grad_final is None else grad_final
    grad_first = drive.new_empty(batch, fields, channels)
    sums = torch.zeros(batch, len(fixed), channels, dtype=torch.float64)
    wide, tile = _tile(rotation, channels)
    arrays = [*_arrays(drive, _parameters(fixed, refractory), _planes(rotation), saved, gs, gf)]
    written = [t.numpy() for t in (grad_drive, grad_first, sums)]
    options = magnitude, through_reset, _TINY[drive.dtype], tile
    kernel = _backward(gradient, drive.dtype).backward
    items = batch * -(-channels // tile)
    spread(kernel, items, wide, scalars(shape, drive.dtype), *arrays, *options, *written)
    return grad_first, sums.sum(0).to(fixed.dtype)


@functools.cache
def _backward(gradient: str, dtype: torch.dtype) -> Any:
    name = gradient.partition("-")[0]
    return assembled("resonate-backward", name, dtype, [slope_text(gradient)], [loops._recall, loops.backward])


def _arrays(*tensors: Tensor) -> list[Any]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _parameters(fixed: Tensor, refractory: float) -> Tensor:
    """(5, P) -> (6, P)."""
    return torch.cat([fixed.detach(), fixed.new_full((1, fixed.shape[1]), refractory)])


def _planes(rotation: Tensor) -> Tensor:
    """(2, n, n) -> (4, n, n): transposed for the way forward, as it is for the way back."""
    return torch.cat([rotation.mT, rotation])


def _tile(rotation: Tensor, channels: int) -> tuple[tuple[int, ...], int]:
    """A tuple whose length is the width of a block in units of LANES, and the channels of a tile."""
    n = max(1, rotation.shape[1])
    units = -(-n // LANES)
    return (0,) * units, min(channels, max(1, LANES // n) * n)
