"""A LIF and a BRF neuron under one input, as an animation in which time fills in from the left."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from sdn import BRF, LIF, Dynamics, Trajectory, simulate
from sdn.plot import membrane
from sdn.plot.chosen import potential
from sdn.plot.parts import INPUT

__all__ = ["Row", "fill", "rhythm", "rows"]

COLOURS = ("#1f77b4", "#2ca02c")
PERIOD = 31
"""Steps of the sine: a turn of a BRF with omega 20 and dt 0.01."""


class Row(NamedTuple):
    """One neuron, the weight of the input into it, what it did, and the words above it."""

    dynamics: Dynamics
    weight: float
    run: Trajectory
    words: str


def rhythm() -> Tensor:
    """The input, (L,): a constant, and behind a pause a sine of `PERIOD`, both of size 1."""
    pause, steps = torch.zeros(40), torch.arange(6 * PERIOD)
    return torch.cat([pause[:20], torch.ones(120), pause, torch.sin(2 * torch.pi / PERIOD * steps), pause])


def rows() -> list[Row]:
    """Both neurons and what they did: the LIF fires under the constant only, the BRF in the rhythm only."""
    both: list[tuple[Dynamics, float, str]] = [
        (LIF(0.95), 0.08, "LIF fires when its input is strong for long enough"),
        (BRF(20.0), 12.0, "BRF fires when its input has its rhythm"),
    ]
    current = rhythm().double().reshape(1, -1, 1)
    return [Row(one, weight, simulate(one, weight * current), words) for one, weight, words in both]


def fill(frames: int = 90) -> FuncAnimation:
    """Animate the input, both membranes with the thresholds in force, and the spikes as ticks.

    Args:
        frames: how many pictures, from 1 to L.

    Returns:
        The animation, on a figure of its own; `spikingssm.reports.animation.save` writes it.

    Raises:
        ValueError: a number of frames out of range.
    """
    current = rhythm()
    length = len(current)
    if not 1 <= frames <= length:
        raise ValueError(f"fill: frames must be from 1 to the {length} steps, got {frames}.")
    figure = FigureCanvasAgg(Figure(figsize=(7.6, 4.6), dpi=100, layout="constrained")).figure
    top, *below = figure.subplots(3, 1, sharex=True, height_ratios=[0.6, 1, 1])
    top.plot(current, color=INPUT, linewidth=1.4)
    top.set_ylabel("input")
    for axes, row, colour in zip(below, rows(), COLOURS, strict=True):
        mem, threshold = potential(row.run, row.dynamics)
        membrane(mem, row.run.spike[0, :, 0], threshold, axes, color=colour)
        axes.lines[0].set_linewidth(1.6)
        axes.collections[0].set_linewidth(1.8)
        axes.set_title(row.words, fontsize="medium", loc="left", color=colour)
        axes.set(xlabel="time (steps)" if axes is below[-1] else "", ylabel=f"{type(row.dynamics).__name__} membrane")
    moves = [move for axes in (top, *below) for move in _hidden(axes)]
    figure.align_ylabels()
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the places are found; finding them again is most of the time

    def show(n: int) -> None:
        for move in moves:
            move(n)

    steps = torch.linspace(length / frames, length, frames).round().int().tolist()
    return FuncAnimation(figure, show, steps, init_func=list, blit=False, cache_frame_data=False)


def _hidden(axes: Axes) -> list[Callable[[int], None]]:
    """What draws the first n steps of everything in axes whose limits stay as they are."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    head = axes.axvline(0, color="0.8", linewidth=0.8)
    moves: list[Callable[[int], None]] = [lambda n: head.set_xdata([n - 1, n - 1])]
    for line in axes.lines[:-1]:
        x, y = (np.asarray(part) for part in line.get_data())
        moves.append(lambda n, line=line, x=x, y=y: line.set_data(x[:n], y[:n]))  # type: ignore[misc]
    for ticks in axes.collections:
        parts = [path.vertices for path in ticks.get_paths()]
        moves.append(lambda n, t=ticks, p=parts: t.set_segments([s for s in p if s[0, 0] < n]))  # type: ignore[misc]
    return moves
