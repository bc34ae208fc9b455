"""From a dynamics to what the neuron operators take."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdn.dynamics import ALIF, BRF, LIF, RF
from sdn.dynamics.base import Dynamics, State, Value
from sdn.gradients import SpikeGradient
from sdn.ops.common.gradients import channelwise, compiled
from sdn.ops.common.place import check_place
from sdn.ops.neuron.layout import Kernel

__all__ = ["KERNELS", "check_compiled", "check_kind", "operands"]

KERNELS: dict[type[Dynamics], tuple[str, Callable[[Any], list[Value]], Callable[[Any], list[float]]]] = {
    LIF: ("lif", lambda d: [d.decay, d.threshold], lambda d: [float(d.reset == word) for word in ("hard", "soft")]),
    ALIF: ("alif", lambda d: [d.alpha, d.gain, d.rho, 1 - d.rho, d.beta, d.threshold], lambda d: [0.0]),
    RF: ("rf", lambda d: [d.omega, d.damping, d.threshold], lambda d: [d.dt]),
    BRF: (
        "brf",
        lambda d: [d.turn, d.rest_damping, d.gamma, d.threshold],
        lambda d: [d.dt, float(d.smooth_reset), float(d.refractory_period)],
    ),
}
"""The operator of each neuron, its parameters per channel in the order of the kernel, and its constants."""


def check_compiled(dynamics: Dynamics, gradient: SpikeGradient | None = None) -> None:
    """Refuse a neuron or a spike gradient that has no compiled form."""
    if type(dynamics) not in KERNELS:
        have = ", ".join(kind.__name__ for kind in KERNELS)
        raise NotImplementedError(f"{type(dynamics).__name__} has no fused kernel ({have} have); use solver='loop'.")
    if gradient is not None:
        compiled(gradient)


def operands(
    dynamics: Dynamics, current: Tensor, state: State, gradient: SpikeGradient
) -> tuple[Kernel, Tensor, tuple[str, list[float]]]:
    """What the operator takes: the neuron as its kernel sees it, the state (B, S, H), the spike gradient in numbers."""
    name, fields, constants = KERNELS[type(dynamics)]
    fixed = torch.stack([channelwise(value, current) for value in fields(dynamics)])
    first = torch.stack([value.to(current) for value in state], 1)
    return Kernel(name, fixed, constants(dynamics)), first, compiled(gradient)


def check_kind(current: Tensor) -> None:
    """Refuse a device or a dtype without kernels."""
    check_place(current, "the fused solver")
    if current.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(
            f"the fused kernels take float32 and float64, got {current.dtype}; a Neuron computes lower precision in "
            "float32; elsewhere use solver='loop'."
        )
