"""From a dynamics to what the neuron operators take."""

from typing import Any

import torch
from torch import Tensor

from sdn.compiler.programs import PARAMETERS, call_of, program_of, slope_of
from sdn.dynamics.base import Dynamics, State
from sdn.dynamics.fields import channelwise
from sdn.gradients import SpikeGradient
from sdn.ops.common.place import check_place
from sdn.ops.neuron.layout import Kernel

__all__ = ["check_compiled", "check_kind", "operands", "state_of"]


def check_compiled(dynamics: Dynamics, gradient: SpikeGradient | None = None) -> None:
    """Refuse a neuron or a spike gradient that cannot be compiled: the error names the operation and its line."""
    program_of(dynamics)
    if gradient is not None:
        slope_of(gradient)


def operands(
    dynamics: Dynamics, current: Tensor, state: State, gradient: SpikeGradient
) -> tuple[Kernel, Tensor, tuple[str, list[float]]]:
    """What the operator takes: the neuron as its kernel sees it, the state (B, S, H), the spike gradient in numbers.

    The state has the program's own field behind the neuron's where it needs one; `state_of` takes it off.
    """
    call, constants = call_of(dynamics, current)
    rows, numbers = PARAMETERS[call.key](*[getattr(dynamics, name) for name in call.fields], *constants)
    channels = [channelwise(value, current) for value in rows]
    fixed = torch.stack(channels) if channels else current.new_empty(0, current.shape[-1])
    fields = [value.to(current) for value in state]
    if call.watched:
        fields.append(torch.zeros_like(fields[0]))
    kernel = Kernel(call.key, fixed, [float(number) for number in numbers])
    return kernel, torch.stack(fields, 1), slope_of(gradient)


def state_of(dynamics: Dynamics, final: Tensor) -> Any:
    """The state of the neuron from (B, S, H)."""
    fields = dynamics.State._fields
    return dynamics.State(*final.unbind(1)[: len(fields)])


def check_kind(current: Tensor) -> None:
    """Refuse a device or a dtype without kernels."""
    check_place(current, "the fused solver")
    if current.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(
            f"the fused kernels take float32 and float64, got {current.dtype}; a Neuron computes lower precision in "
            "float32; elsewhere use solver='loop'."
        )
