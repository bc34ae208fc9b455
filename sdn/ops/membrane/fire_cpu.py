"""Spikes from a given membrane on the CPU: the step and its slope in one pass each."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.ops.common.cpu import jit, spread
from sdn.ops.common.generated_cpu import assembled, scalars, slope_text

__all__ = ["backward", "forward"]


@jit
def fire(x, mem, fixed, at_threshold, spikes, begin, end):  # type: ignore[no-untyped-def]
    """Rows ``begin .. end-1`` of spikes (B, L, H); fixed (2, H) holds gain and threshold."""
    one, nought = x.dtype.type(1), x.dtype.type(0)
    gain, threshold = fixed[0], fixed[1]
    for b in range(begin, end):
        for t in range(x.shape[1]):
            now, past, out = x[b, t], mem[b, t], spikes[b, t]
            for j in range(now.shape[0]):
                v = (past[j] + gain[j] * now[j]) - threshold[j]
                out[j] = (one if v > nought or (at_threshold and v == nought) else nought) + (v - v)


@jit
def pull(shape, x, mem, fixed, gspikes, gx, sums, begin, end):  # type: ignore[no-untyped-def]
    """Gradient of x, and of minus the threshold in sums (B, H) float64, by runs of 64 steps in x's own type."""
    channels = x.shape[2]
    run = np.zeros(channels, x.dtype)
    gain, threshold = fixed[0], fixed[1]
    for b in range(begin, end):
        for t in range(x.shape[1]):
            now, past, gs, out = x[b, t], mem[b, t], gspikes[b, t], gx[b, t]
            for j in range(channels):
                g = gs[j] * slope(shape, (past[j] + gain[j] * now[j]) - threshold[j])
                run[j] += g
                out[j] = g * gain[j]
            if t % 64 == 63 or t == x.shape[1] - 1:
                for j in range(channels):
                    sums[b, j] += run[j]
                    run[j] = 0


def forward(current: Tensor, mem: Tensor, fixed: Tensor, at_threshold: bool) -> Tensor:
    """Spikes (B, L, H), contiguous."""
    spikes = current.new_empty(current.shape)
    spread(fire, len(current), *_arrays(current, mem, fixed), at_threshold, spikes.numpy())
    return spikes


def backward(
    grad: Tensor, current: Tensor, mem: Tensor, fixed: Tensor, gradient: str, shape: list[float]
) -> tuple[Tensor, Tensor]:
    """Gradients of the currents (B, L, H) and of the thresholds (H,)."""
    grad_current = current.new_empty(current.shape)
    sums = torch.zeros(len(current), current.shape[2], dtype=torch.float64)
    arrays = *_arrays(current, mem, fixed, grad), grad_current.numpy(), sums.numpy()
    spread(_pull(gradient, current.dtype).pull, len(current), scalars(shape, current.dtype), *arrays)
    return grad_current, -sums.sum(0).to(fixed.dtype)


@functools.cache
def _pull(gradient: str, dtype: torch.dtype) -> Any:
    return assembled("fire-backward", gradient.partition("-")[0], dtype, [slope_text(gradient)], [pull])


def slope(shape: Any, v: Any) -> Any:
    """The slope of a spike gradient; written in front of `pull` in a generated file."""
    raise AssertionError("generated")


def _arrays(*tensors: Tensor) -> list[Any]:
    return [t.detach().contiguous().numpy() for t in tensors]
