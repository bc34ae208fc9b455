"""One neuron over time: its membrane with threshold and spikes, and its input above."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdn.dynamics.base import Dynamics, State, Trajectory
from sdn.plot.chosen import of, potential, single, state_of
from sdn.plot.parts import ABOVE, INPUT, LINE, SPIKE, axes_of, label_time, numbers, pyplot, time_of

__all__ = ["membrane", "traces"]


def traces(
    trajectory: Trajectory,
    dynamics: Dynamics | None = None,
    row: int = 0,
    neuron: int = 0,
    *,
    dt: float | None = None,
    state: State | None = None,
    axes: Sequence[Any] | None = None,
) -> Any:
    """Input, membrane and spikes of one neuron, one below the other.

    With ``dynamics`` the membrane is what the spike rule compares with the threshold, so each spike stands where the
    line reaches it: ``mem + gain * input``. An adaptive threshold, as of ALIF, BRF and HRF, is drawn as it was at each
    step, and what it has risen by is added to the membrane too. Without ``dynamics`` it is ``mem``, before the input.

    Args:
        trajectory: of `sdn.simulate` or ``neuron(x, record="mem")``, tensors (B, L, H), or of `sdn.generate`, (B, L).
        dynamics: the neuron, or the `sdn.Neuron` that ran it; None draws no threshold.
        row: which of the B rows.
        neuron: which of the H neurons.
        dt: length of a step in ms for the time axis; None counts steps.
        state: before the first step, (B, H) in each field; None is rest. Adaptive thresholds alone depend on it.
        axes: three axes to draw into; None makes a figure.

    Returns:
        the three axes, an array: input, membrane, spikes.

    Raises:
        ValueError: a row or neuron that is not there, tensors of other shapes, or a dynamics that did not do this.
        ImportError: matplotlib is missing.

    Example:
        >>> found = sdn.simulate(sdn.ALIF(), 0.3 * torch.rand(1, 200, 1))
        >>> axes = sdn.plot.traces(found, sdn.ALIF())
    """
    one = single("traces", trajectory, row, neuron)
    current, mem, spikes = (part[0, :, 0].double().numpy() for part in one[:3])  # (L,) each
    threshold = None
    if dynamics is not None:
        mem, threshold = potential(one, of(dynamics, trajectory, neuron), state_of(state, row, neuron))
    time = time_of(len(mem), dt)
    if axes is None:  # after all that may be refused, which leaves no figure behind
        figure = pyplot().figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2, 0.35])
    found = np.ravel(np.asarray(axes, dtype=object))
    if len(found) != 3:
        raise ValueError(f"traces: axes must be three axes, got {len(found)}; leave them out for a figure.")
    top, middle, bottom = (axes_of("traces", ax) for ax in found)
    top.plot(time, current, color=INPUT, linewidth=0.9)
    top.set_ylabel("input")
    membrane(mem, threshold=threshold, ax=middle, dt=dt)
    middle.set(xlabel="", ylabel="membrane" if dynamics is not None else "mem, before the input")
    bottom.vlines(time[spikes > 0], 0, 1, color=SPIKE, linewidth=1.2)
    bottom.set(yticks=[], ylim=(-0.1, 1.1), ylabel="spikes")
    label_time(bottom, len(mem), dt)
    top.set_xlim(bottom.get_xlim())
    top.get_figure().align_ylabels(list(found))
    return found


def membrane(
    mem: Any,
    spikes: Any = None,
    threshold: Any = None,
    ax: Any = None,
    *,
    dt: float | None = None,
    label: str = "membrane",
    color: Any = LINE,
) -> Any:
    """A membrane over time, with the threshold as a dashed line and spikes as ticks above it.

    Args:
        mem: (L,), of one neuron in one row.
        spikes: (L,) of 0 and 1; None draws no ticks.
        threshold: a number, or (L,) where it changes; None draws none.
        ax: where to draw; None makes a figure.
        dt: length of a step in ms for the time axis; None counts steps.
        label: of the membrane's line in the legend.
        color: of that line.

    Returns:
        the axes.

    Raises:
        ValueError: another shape, or lengths that differ.
        ImportError: matplotlib is missing.
    """
    one = "take one neuron of one row, such as mem[0, :, 0]"
    values = numbers("membrane", "mem", mem, 1, "(L,)", one)
    fired = None if spikes is None else numbers("membrane", "spikes", spikes, 1, "(L,)", one.replace("mem", "spikes"))
    level = None
    if threshold is not None:
        level = numbers("membrane", "threshold", threshold, None, "a number or (L,)", one)
        level = np.full(len(values), float(level.item())) if level.size == 1 else level
    for name, other in (("spikes", fired), ("threshold", level)):
        if other is not None and other.shape != values.shape:
            found = f"mem has {len(values)} steps and {name} has shape {other.shape}"
            raise ValueError(f"membrane: {found}; give both of the same steps.")
    time = time_of(len(values), dt)
    ax = axes_of("membrane", ax)
    ax.plot(time, values, color=color, linewidth=1.2, label=label)
    if level is not None:
        adaptive = bool((level != level[0]).any())
        word = "threshold in force" if adaptive else "threshold"
        ax.plot(time, level, color="black", linestyle="--", linewidth=1, label=word)
    if fired is not None:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.14 * (high - low))
        at, across = time[fired > 0], ax.get_xaxis_transform()
        ax.vlines(at, 0.9, 0.99, transform=across, color=SPIKE, linewidth=1.2, label="spikes")
    if level is not None or fired is not None:
        ax.legend(ncols=3, **ABOVE)
    ax.set_ylabel("membrane")
    label_time(ax, len(values), dt)
    return ax
