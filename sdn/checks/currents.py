"""What a current must be: (batch, length, channels), floating and finite."""

import torch
from torch import Tensor

from sdn.checks.arguments import check_tensor
from sdn.checks.axes import mend
from sdn.checks.finite import demand_finite
from sdn.checks.tracing import has_numbers

__all__ = ["check_current", "check_numbers", "refuse_current"]


def check_current(who: str, current: Tensor, channels: int | None = None, finite: bool = True) -> None:
    """Refuse a current that is not (B, L, H) and floating, with L >= 1 and the channels asked for, or not finite.

    Looking for NaN reads the whole current once; ``finite=False`` leaves it to a solver that can tell from its result.
    """
    check_tensor(who, "current", current)
    if current.ndim != 3 or current.shape[1] == 0:
        raise ValueError(
            f"{who}: current must be (batch, length, channels) with length >= 1, got shape "
            f"{tuple(current.shape)}{mend(current, channels, 'current')}."
        )
    if not current.is_floating_point():
        raise ValueError(
            f"{who}: current must be a floating-point tensor, got {current.dtype}; convert it with .float()."
        )
    if channels is not None and current.shape[-1] != channels:
        raise ValueError(
            f"{who}: current has {current.shape[-1]} channels on its last axis, this neuron has "
            f"{channels}{mend(current, channels, 'current')}."
        )
    if finite:
        check_numbers(who, current)


def check_numbers(who: str, current: Tensor) -> None:
    """Refuse currents (B, L, H) with NaN or infinity."""
    if has_numbers(current):
        demand_finite([current], f"{who}: a current", lambda: refuse_current(who, current.detach()))


def refuse_current(who: str, current: Tensor) -> None:
    """Name the first current that is not finite, if any is not."""
    wrong = ~torch.isfinite(current)
    if not wrong.any():
        return
    row, step, neuron = wrong.nonzero()[0].tolist()
    first = f"{current[row, step, neuron]:g} in row {row} at step {step} of neuron {neuron}"
    raise ValueError(
        f"{who}: {int(wrong.sum())} of {current.numel()} currents are NaN or infinite, the first {first}; look at what "
        "made them."
    )
