"""The state of a neuron as a path: two of its variables against each other."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.dynamics.base import Dynamics, State, Trajectory
from sdn.dynamics.replay import replay
from sdn.plot.chosen import compared, of, single, state_of
from sdn.plot.parts import ABOVE, LINE, SPIKE, Array, axes_of, check_place

__all__ = ["phase_plane"]

SAME = 1e-3
"""A variable up to this share of its largest value away from a potential counts as that potential."""


def phase_plane(
    trajectory_or_state: Any,
    row: int = 0,
    neuron: int = 0,
    ax: Any = None,
    *,
    dynamics: Dynamics | None = None,
    state: State | None = None,
    fields: tuple[str, str] | None = None,
) -> Any:
    """Two variables of a neuron's state against each other, with the spikes as dots.

    A neuron with one variable, such as LIF, is drawn as its value of a step against that of the step before.

    Args:
        trajectory_or_state: a `sdn.Trajectory` (B, L, H), whose states are found by ``dynamics``, or a state whose
            fields are (B, L, H).
        row: which of the B rows.
        neuron: which of the H neurons.
        ax: where to draw; None makes a figure.
        dynamics: the neuron of the trajectory, or the `sdn.Neuron` that ran it.
        state: before the first step of the trajectory, (B, H) in each field; None is rest.
        fields: names of the two variables; None is the first two.

    Returns:
        the axes.

    Raises:
        ValueError: a trajectory without its dynamics, a state without a time axis, or a field that is not there.
        ImportError: matplotlib is missing.

    Example:
        >>> found = sdn.simulate(sdn.BRF(), 60 * torch.randn(1, 400, 1))
        >>> ax = sdn.plot.phase_plane(found, dynamics=sdn.BRF())
    """
    one, levels = None, {}
    if isinstance(trajectory_or_state, Trajectory):
        if dynamics is None:
            way = "give dynamics=, by which they are found, such as phase_plane(found, dynamics=sdn.BRF())"
            raise ArgumentError(f"phase_plane: a Trajectory keeps no states but the last; {way}.")
        one = single("phase_plane", trajectory_or_state, row, neuron)
        own = of(dynamics, trajectory_or_state, neuron)
        states = replay(own, one, state_of(state, row, neuron))  # (1, L + 1, 1) each
        known, levels = _by_name(states), _levels(one, own, states)
    else:
        known = _by_name(_chosen_state(trajectory_or_state, row, neuron))
    first, second = _two(known, fields)
    ax = axes_of("phase_plane", ax, (4.4, 4))
    x, y = known[first], known[second]  # (L,) of a state, (L + 1,) of a trajectory
    if first == second:
        ax.plot(x[:-1], y[1:], ".", color=LINE, markersize=3)
    else:
        ax.plot(x, y, color=LINE, linewidth=0.9)
    if one is not None:
        at = 1 + np.flatnonzero(one.spike[0, :, 0].numpy())
        ax.plot(x[at - 1] if first == second else x[at], y[at], "o", color=SPIKE, markersize=3.5, label="spikes")
        lines = {second: ax.axhline} if first == second else {first: ax.axvline, second: ax.axhline}
        for name, draw in lines.items():
            if name in levels:
                draw(levels[name], color="black", linestyle="--", linewidth=1, label="threshold at rest")
        ax.legend(ncols=2, **ABOVE)
    ax.set(xlabel=first if first != second else f"{first}, step before", ylabel=second)
    return ax


def _chosen_state(state: Any, row: int, neuron: int) -> Any:
    """The fields of a state over time, (1, L, 1)."""
    if not hasattr(state, "_fields") or not all(isinstance(part, Tensor) for part in state):
        way = "a sdn.Trajectory, or a state whose fields are tensors (B, L, H)"
        raise ArgumentError(f"phase_plane: needs {way}, got {type(state).__name__}.")
    shape = tuple(state[0].shape)
    if len(shape) != 3:
        way = "stack those of all steps, torch.stack(states_of_u, 1), or give the Trajectory and dynamics="
        raise ValueError(f"phase_plane: the fields of the state must be (B, L, H), got {shape}; {way}.")
    check_place("phase_plane", "row", row, shape[0])
    check_place("phase_plane", "neuron", neuron, shape[2])
    return type(state)(*(part[row, :, neuron].detach().cpu().double().reshape(1, -1, 1) for part in state))


def _by_name(state: Any) -> dict[str, Array]:
    """The one neuron of a state (1, L, 1): (L,) by the names of its fields."""
    return {name: part[0, :, 0].numpy() for name, part in zip(state._fields, state, strict=True)}


def _two(known: dict[str, Array], fields: tuple[str, str] | None) -> tuple[str, str]:
    """The names of the variables to draw: one twice where there is one."""
    if fields is None:
        names = [*known, *known][:2]
    elif isinstance(fields, str) or len(fields) != 2 or any(name not in known for name in fields):
        raise ValueError(f"phase_plane: fields must be two of {', '.join(known)}, got {shown(fields)}.")
    else:
        names = [*fields]
    return names[0], names[1]


def _levels(one: Trajectory, dynamics: Dynamics, states: Any) -> dict[str, float]:
    """The threshold at rest by the variable that it is of, which between spikes equals what the spike rule compares."""
    before = type(states)(*(part[0, :-1] for part in states))  # (L, 1): before every step
    potential, _ = compared(one, dynamics, before)
    quiet = (one.spike[0, :, 0] == 0).numpy()
    near = SAME * float(np.abs(potential).max())
    threshold = float(torch.as_tensor(dynamics.threshold, dtype=torch.float64).detach().reshape(-1)[0])
    found = {}
    for name, values in _by_name(states).items():
        if quiet.any() and np.ptp(values) > 0 and np.abs(values[1:] - potential)[quiet].max() <= near:
            found[name] = threshold
    return found
