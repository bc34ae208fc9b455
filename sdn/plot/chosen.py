"""One neuron of one row: of what a layer did, of its dynamics and of a state."""

from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError
from sdn.dynamics.base import Dynamics, State, Trajectory, check_dynamics
from sdn.dynamics.fields import channelwise
from sdn.plot.parts import Array, check_place

__all__ = ["compared", "of", "single", "state_of"]


def single(who: str, trajectory: Any, row: int, neuron: int) -> Trajectory:
    """Input, mem and spike of one neuron in one row, (1, L, 1) each."""
    if not isinstance(trajectory, Trajectory):
        way = 'sdn.simulate and neuron(x, record="mem") return one'
        raise ArgumentError(f"{who}: needs a sdn.Trajectory, got {type(trajectory).__name__}; {way}.")
    shape = tuple(trajectory.mem.shape)
    if len(shape) not in (2, 3) or any(tuple(part.shape) != shape for part in trajectory[:3]):
        found = ", ".join(str(tuple(part.shape)) for part in trajectory[:3])
        raise ValueError(f"{who}: input, mem and spike must all be (B, L, H) or (B, L), got {found}.")
    check_place(who, "row", row, shape[0])
    check_place(who, "neuron", neuron, shape[2] if len(shape) == 3 else 1)

    def one(part: Tensor) -> Tensor:
        return (part[row] if part.ndim == 2 else part[row, :, neuron]).detach().cpu().reshape(1, -1, 1)

    return Trajectory(one(trajectory.input), one(trajectory.mem), one(trajectory.spike))


def of(dynamics: Any, trajectory: Trajectory, neuron: int) -> Dynamics:
    """One neuron of a dynamics, or of the layer that ran it."""
    found = dynamics.current_dynamics() if hasattr(dynamics, "current_dynamics") else dynamics
    check_dynamics("sdn.plot", found)
    channels = trajectory.mem.shape[2] if trajectory.mem.ndim == 3 else 1
    fields = {name: value for name, value in vars(found).items() if isinstance(value, Tensor) and value.ndim}
    if wrong := [name for name, value in fields.items() if len(value) not in (1, channels)]:
        sizes = f"{wrong[0]} has {len(fields[wrong[0]])} numbers and the trajectory {channels} neurons"
        raise ValueError(f"sdn.plot: {sizes}; give the dynamics that made it.")
    like = torch.empty(channels, dtype=torch.float64)
    one: Dynamics = found.detached().replace(
        **{name: channelwise(value.detach().cpu(), like)[neuron].reshape(1) for name, value in fields.items()}
    )
    return one


def compared(one: Trajectory, dynamics: Dynamics, before: State | None) -> tuple[Array, Array]:
    """What the spike rule compares, (L,) each: the membrane with its input, and the threshold in force.

    Args:
        one: what one neuron did, (1, L, 1).
        dynamics: that neuron.
        before: the states before every step, (L, 1) in each field; None of a neuron whose threshold does not move.
    """
    current, mem = (part[0, :, 0].double() for part in one[:2])
    above = dynamics.distance(mem, current).detach()
    threshold = torch.as_tensor(dynamics.threshold, dtype=torch.float64).detach().reshape(-1)[:1].expand(len(mem))
    if before is not None:
        threshold = threshold + torch.as_tensor(dynamics.rise(before), dtype=torch.float64).reshape(-1)
    return (above + threshold).numpy(), threshold.numpy()


def state_of(state: State | None, row: int, neuron: int) -> Any:
    """The state (1, 1) of one neuron in one row."""
    if state is None:
        return None
    return type(state)(*(part[row, neuron].reshape(1, 1) for part in state))
