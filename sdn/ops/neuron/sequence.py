"""A neuron over a whole sequence by its compiled operator: spikes, last state, and the membrane if asked for."""

from typing import Any

import torch
from torch import Tensor

from sdn.checks.currents import check_current
from sdn.checks.neurons import check_finite
from sdn.compiler.programs import PARAMETERS, call_of, slope_of
from sdn.dynamics.base import Dynamics, State, Trajectory, at_start
from sdn.dynamics.fields import stacked
from sdn.gradients import SpikeGradient
from sdn.ops.common.place import check_kind
from sdn.ops.neuron import operator
from sdn.ops.neuron.layout import Kernel

__all__ = ["operands", "run_sequence", "state_of"]


def run_sequence(
    dynamics: Dynamics,
    current: Tensor,
    state: State | None = None,
    gradient: SpikeGradient | None = None,
    *,
    through_reset: bool = False,
    through_time: bool = True,
    record: bool = False,
) -> Trajectory:
    """What `sdn.simulate` returns, in one compiled loop; ``mem`` is empty unless ``record``.

    Args:
        dynamics: the neuron; tensor fields are (H,).
        current: (B, L, H) float32 or float64.
        state: before the first step, (B, H) per field; None is rest.
        gradient: spike gradient; None is the dynamics' own.
        through_reset: let the gradient pass through the spike into the state.
        through_time: keep a graph at all.
        record: keep the membrane, which carries gradients as well.

    Raises:
        Refused: a neuron or a spike gradient that cannot be compiled.
        ValueError: as `sdn.simulate`.
    """
    check_current(type(dynamics).__name__, current, finite=False)
    check_kind(current)
    dynamics, state = at_start(dynamics, current, state)
    chosen = dynamics.default_spike if gradient is None else gradient
    kernel, first, slope = operands(dynamics, current, state, chosen)
    with torch.set_grad_enabled(torch.is_grad_enabled() and through_time):
        spikes, final, mem = operator.run(kernel, current, first, slope, through_reset, record)
    check_finite(dynamics, final.unbind(1), current, state)  # with the program's own field, where there is one
    return Trajectory(current, mem, spikes, state_of(dynamics, final))


def operands(
    dynamics: Dynamics, current: Tensor, state: State, gradient: SpikeGradient
) -> tuple[Kernel, Tensor, tuple[str, list[float]]]:
    """What the operator takes: the neuron as its kernel sees it, the state (B, S, H), the spike gradient in numbers.

    The state has the program's own field behind the neuron's where it needs one; `state_of` takes it off.
    """
    call, constants = call_of(dynamics, current)
    slope = slope_of(gradient)
    rows, numbers = PARAMETERS[call.key](*[getattr(dynamics, name) for name in call.fields], *constants)
    fixed = stacked(rows, current)
    fields = [value.to(current) for value in state]
    if call.watched:
        fields.append(torch.zeros_like(fields[0]))
    kernel = Kernel(call.key, fixed, [float(number) for number in numbers])
    return kernel, torch.stack(fields, 1), slope


def state_of(dynamics: Dynamics, final: Tensor) -> Any:
    """The state of the neuron from (B, S, H)."""
    fields = dynamics.State._fields
    return dynamics.State(*final.unbind(1)[: len(fields)])
