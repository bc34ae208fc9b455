"""The states that a neuron went through, from its input and its spikes."""

from typing import Any

import torch

from sdn.dynamics.base import Dynamics, State, Trajectory, at_start

__all__ = ["replay"]

TOLERANCE = 1e-3
"""How far a membrane may lie from that of the neuron, as a share of its largest: float32 stays far below."""


@torch.no_grad()
def replay(dynamics: Dynamics, trajectory: Trajectory, state: State | None = None) -> Any:
    """The state after every step of what a neuron did, in float64.

    Args:
        dynamics: the neuron.
        trajectory: input, mem and spike (B, L, H), as of `simulate` or of ``neuron(x, record="mem")``.
        state: before the first step; None is rest.

    Returns:
        the state with a time axis: its fields are (B, L + 1, H), the first one is before the first step.

    Raises:
        ValueError: the membrane is not that of this neuron from this state.
    """
    current, mem, spikes = (part.detach().double().cpu() for part in trajectory[:3])  # (B, L, H) each
    first = None if state is None else type(state)(*(part.detach().double().cpu() for part in state))
    dynamics, now = at_start(dynamics.to("cpu", torch.float64), current, first)
    states, off = [now], mem.abs().amax() * TOLERANCE + 1e-9
    for step, (x, recorded, spike) in enumerate(zip(current.unbind(1), mem.unbind(1), spikes.unbind(1), strict=True)):
        far = (dynamics.past(now) - recorded).abs().amax()
        if not far <= off:
            raise ValueError(
                f"{type(dynamics).__name__}: mem at step {step} is {far:.3g} away from that of this neuron, of "
                f"{off / TOLERANCE:.3g} at most; give the neuron that made it, and as state= what it had before the "
                "first step where that was not rest."
            )
        now = dynamics.advance(now, x, spike)
        states.append(now)
    return type(now)(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))
