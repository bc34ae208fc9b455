"""A neuron over a whole sequence by its compiled operator: spikes, last state, and the membrane if asked for."""

import torch
from torch import Tensor

from sdn.checks.currents import check_current
from sdn.checks.neurons import check_finite
from sdn.dynamics.base import Dynamics, State, Trajectory, at_start
from sdn.gradients import SpikeGradient
from sdn.ops.neuron import operator
from sdn.ops.neuron.operands import check_kind, operands, state_of

__all__ = ["run_sequence"]


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
