"""RF and BRF neurons under a chirp, as an animation: phase plane, membrane, damping and spikes of both."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sdn import BRF, RF, simulate
from sdn.runs.files import writing

__all__ = ["Comparison", "Trace", "checked", "chirp", "compare", "explain", "save", "trace"]

COLOURS = {"RF": "#d95f02", "BRF": "#1f77b4"}
REACH = 2.5
"""How many thresholds the BRF would reach without its spikes, where no amplitude is given."""
WIDEST = 12.0
"""Thresholds that a picture shows at most: what grows further leaves it."""
LEGEND: dict[str, Any] = {
    "loc": "upper left", "fontsize": 8, "edgecolor": "none", "framealpha": 0.8, "borderaxespad": 0.2,
}  # fmt: skip
TRAIL = 60
"""Steps of the orbit drawn in full colour."""
ICONS = {
    "fa-minus": "&minus;", "fa-plus": "+", "fa-fast-backward": "|&lt;", "fa-fast-forward": "&gt;|", "fa-pause": "||",
    "fa-step-backward": "&lt;", "fa-step-forward": "&gt;", "fa-play": "&#9654;",
}  # fmt: skip


class Trace(NamedTuple):
    """One neuron step by step, (L,) each: state, spike, and the damping and the threshold in force at that step."""

    u: Tensor
    v: Tensor
    spike: Tensor
    damping: Tensor
    threshold: Tensor


class Comparison(NamedTuple):
    """What both neurons did under one current: ``current`` and its angular ``frequency``, (L,) each."""

    current: Tensor
    frequency: Tensor
    rf: Trace
    brf: Trace
    neuron: BRF


def chirp(length: int, dt: float, low: float, high: float, amplitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """A sine whose angular frequency rises linearly: ``amplitude sin(low t + (high - low) t^2 / 2T)``.

    Args:
        length: L, steps, >= 2.
        dt: length of a step in units of time, > 0.
        low, high: angular frequency from 0 to T = L dt in radians per unit of time, 0 <= low < high <= pi / dt.
        amplitude: of the current.

    Returns:
        The current and its angular frequency, (L,) each, float64.

    Raises:
        ValueError: a length or dt out of range, or a frequency that steps of dt cannot carry.
    """
    if length < 2 or not 0 < dt < math.inf:
        raise ValueError(f"chirp: needs length >= 2 and a finite dt > 0, got {length} and {dt}.")
    if not 0 <= low < high <= math.pi / dt:
        limit = f"0 <= low < high <= pi/dt = {math.pi / dt:g}"
        raise ValueError(f"chirp: frequencies must be {limit}, got {low:g} and {high:g}; lower them, or lower dt.")
    t = dt * torch.arange(length, dtype=torch.float64)
    rise = (high - low) / (length * dt)
    return amplitude * torch.sin(low * t + rise * t**2 / 2), low + rise * t


def trace(dynamics: RF | BRF, current: Tensor) -> Trace:
    """Run one neuron over a current (L,) from rest and keep what it was at every step."""
    out = simulate(dynamics, current.reshape(1, -1, 1))
    states = [dynamics.initial_state(1, 1, dtype=current.dtype)]
    for now, spike in zip(out.input.unbind(1), out.spike.unbind(1), strict=True):
        states.append(dynamics.advance(states[-1], now, spike))
    u, v = (torch.stack([getattr(s, part) for s in states[1:]]).flatten() for part in "uv")
    if isinstance(dynamics, RF):
        damping, threshold = (torch.full_like(u, float(x)) for x in (dynamics.damping, dynamics.threshold))
    else:
        q = torch.stack([s.q for s in states[:-1]]).flatten()
        damping = -float(dynamics.rest_damping) + (q if dynamics.smooth_reset else 0 * q)
        threshold = float(dynamics.threshold) + (q if dynamics.refractory_period else 0 * q)
    return Trace(u, v, out.spike.flatten(), damping, threshold)


def compare(
    omega: float = 15.0,
    b_offset: float = 1.0,
    dt: float = 0.01,
    length: int = 800,
    low: float | None = None,
    high: float | None = None,
    amplitude: float | None = None,
) -> Comparison:
    """An RF and a BRF of the same omega and offset under a chirp through their resonance.

    The RF has the damping ``b_offset``, the BRF adds the divergence boundary and its own spikes to it.

    Args:
        omega: angular frequency of both in radians per unit of time, in (0, 1/dt].
        b_offset: damping of the RF, distance of the BRF from the divergence boundary, >= 0.
        dt: length of a step in units of time, > 0.
        length: steps.
        low, high: of the chirp; None is ``omega / 4`` and ``7 omega / 4``.
        amplitude: of the chirp; None lets the BRF, had it no spikes, just reach 2.5 thresholds.

    Raises:
        ValueError: a number out of range, or an RF that overflowed.
    """
    neuron = BRF(omega, b_offset, dt=dt)
    low, high = (given if given is not None else f * omega / 4 for given, f in ((low, 1), (high, 7)))
    unit, frequency = chirp(length, dt, low, high)
    if amplitude is None:
        silent = trace(_rf(neuron, -float(neuron.rest_damping)), unit)
        amplitude = REACH * float(neuron.threshold) / silent.u.abs().max().item()
    current, unbalanced = amplitude * unit, _rf(neuron, b_offset)
    return Comparison(current, frequency, trace(unbalanced, current), trace(neuron, current), neuron)


def _rf(like: BRF, damping: float) -> RF:
    omega, own = (torch.tensor([float(value)]) for value in (like.omega, damping))
    return RF(omega, own, like.dt, like.threshold)  # tensors: plain numbers that diverge are refused


def explain(comparison: Comparison | None = None, *, frames: int = 100) -> FuncAnimation:
    """Animate a comparison: phase planes of RF and BRF, chirp, membranes with thresholds, damping, and spikes.

    Args:
        comparison: from `compare`; None is ``compare()``.
        frames: how many pictures, from 1 to L.

    Returns:
        The animation, on a figure of its own; `save` it, or show ``to_jshtml()`` in a notebook.

    Raises:
        ValueError: a number of frames out of range.
    """
    found = compare() if comparison is None else comparison
    length = len(found.current)
    if not 1 <= frames <= length:
        raise ValueError(f"explain: frames must be from 1 to the {length} steps, got {frames}.")
    stage = _Stage(found)
    steps = torch.linspace(length / frames, length, frames).round().int().tolist()
    return FuncAnimation(stage.figure, stage.show, steps, init_func=list, blit=False, cache_frame_data=False)


def checked(path: str | Path, fps: int) -> Path:
    """The path, if `save` can write there; to be asked before an animation is made.

    Raises:
        ValueError: another ending, or fps below 1.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".html"):
        raise ValueError(f"explain: cannot write {path.name!r}; end the name in .gif or .html.")
    if fps < 1:
        raise ValueError(f"explain: fps must be at least 1, got {fps}.")
    return path


def save(animation: FuncAnimation, path: str | Path, fps: int = 15, hold: float = 0.0) -> None:
    """Write an animation, whole or not at all: ``.gif``, or ``.html`` with a player that needs no other file.

    Args:
        animation: from `explain`.
        path: of the file.
        fps: pictures per second, >= 1.
        hold: seconds that a ``.gif`` shows its last picture longer.

    Raises:
        ValueError: another ending, or fps below 1.
    """
    path = checked(path, fps)
    with writing(path) as partial, rc_context({"animation.embed_limit": math.inf}):  # else pictures go missing
        if path.suffix == ".gif":
            animation.save(str(partial), _Gif(fps, hold))
            return
        page = animation.to_jshtml(fps, embed_frames=True, default_mode="loop")
        page = re.sub(r"<link\b[^>]*>", "", page)  # an icon font from the network
        page = re.sub(r'<i class="fa (fa-[a-z-]+)[^"]*"></i>', lambda found: ICONS[found[1]], page)
        partial.write_text(f'<!doctype html>\n<meta charset="utf-8">\n<title>spiking neurons</title>\n{page}')


class _Gif(PillowWriter):
    """All pictures in the colours of the last one, which has them all: small, and nothing flickers."""

    def __init__(self, fps: int, hold: float) -> None:
        super().__init__(fps)
        self.hold = hold

    def setup(self, fig: Figure, outfile: str | Path, dpi: float | None = None) -> None:
        super().setup(fig, outfile, dpi)
        self.pictures: list[Image.Image] = []

    def grab_frame(self, **options: Any) -> None:  # the animation has drawn it
        drawn = np.array(self.fig.canvas.buffer_rgba())  # type: ignore[attr-defined]  # `_Stage` gives it such a canvas
        self.pictures.append(Image.fromarray(drawn).convert("RGB"))

    def finish(self) -> None:
        colours = self.pictures[-1].quantize(128)
        first, *rest = (p.quantize(palette=colours, dither=Image.Dither.NONE) for p in self.pictures)
        each = [1 / self.fps] * len(rest) + [1 / self.fps + self.hold]
        times = [round(1000 * seconds) for seconds in each]
        first.save(self.outfile, "GIF", save_all=True, append_images=rest, duration=times, loop=0)


class _Stage:
    """The figure, and what moves on it: ``show(n)`` draws the first n steps."""

    def __init__(self, found: Comparison) -> None:
        self.found, self.moves = found, list[Callable[[int], None]]()
        self.steps = np.arange(len(found.current))
        self.figure = FigureCanvasAgg(Figure(figsize=(8, 8.4), dpi=90, layout="constrained")).figure
        grid = self.figure.add_gridspec(6, 2, height_ratios=[3.6, 0.8, 1.2, 1.2, 0.9, 0.5])
        planes = [self.figure.add_subplot(grid[0, column]) for column in (0, 1)]
        rows = [self.figure.add_subplot(grid[1, :])]
        rows += [self.figure.add_subplot(grid[row, :], sharex=rows[0]) for row in range(2, 6)]
        self._chirp(rows[0])
        for name, run, plane, row in zip(COLOURS, found[2:4], planes, rows[1:3], strict=True):
            self._plane(plane, name, run)
            self._membrane(row, name, run)
        self._damping(rows[3])
        self._raster(rows[4])
        self._share_time(rows)
        self.show(1)
        self.figure.canvas.draw()
        self.figure.set_layout_engine("none")  # the places are found; finding them again is most of the time

    def show(self, n: int) -> None:
        for move in self.moves:
            move(n)

    def _line(self, axes: Axes, values: Tensor, **style: Any) -> None:
        """A line over the steps that is drawn as far as they have come."""
        (line,), y = axes.plot([], [], **style), values.numpy()
        self.moves.append(lambda n: line.set_data(self.steps[:n], y[:n]))

    def _chirp(self, axes: Axes) -> None:
        current, frequency = self.found[:2]
        self._line(axes, current, color="0.35", linewidth=0.9)
        largest = current.abs().max().item()
        axes.set(ylabel="input", xlim=(0, len(current)), ylim=(-1.15 * largest, 1.15 * largest))
        low, rise = frequency[0].item(), (frequency[1] - frequency[0]).item()
        there_and_back: Any = (lambda n: low + rise * n, lambda f: (f - low) / rise)
        top = axes.secondary_xaxis("top", functions=there_and_back)
        top.set_xlabel("frequency of the input (radians per unit of time)")

    def _plane(self, axes: Axes, name: str, run: Trace) -> None:
        u, v, spike = run.u.numpy(), run.v.numpy(), run.spike.numpy() > 0
        wide = min(1.12 * max(np.hypot(u, v).max(), 1.2), WIDEST)
        (past,) = axes.plot([], [], color=COLOURS[name], alpha=0.25, linewidth=0.7)
        (trail,) = axes.plot([], [], color=COLOURS[name], linewidth=1.8)
        (spikes,) = axes.plot([], [], "o", color="#c0142b", markersize=3.5)
        (head,) = axes.plot([], [], "o", color=COLOURS[name], markeredgecolor="black", markersize=7)
        bar = axes.axvline(1, color="black", linestyle="--", linewidth=1)
        turn = np.linspace(0, 2 * np.pi, 100)
        axes.plot(np.cos(turn), np.sin(turn), color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlim=(-wide, wide), ylim=(-wide, wide), aspect="equal")
        axes.set(xlabel="u (fires right of the dashed line)", ylabel="v")
        title = axes.set_title("", color=COLOURS[name], fontsize=11, family="monospace")

        def move(n: int) -> None:
            past.set_data(u[:n], v[:n])
            trail.set_data(u[max(0, n - TRAIL) : n], v[max(0, n - TRAIL) : n])
            spikes.set_data(u[:n][spike[:n]], v[:n][spike[:n]])
            head.set_data(u[n - 1 : n], v[n - 1 : n])
            bar.set_xdata([run.threshold[n - 1].item()] * 2)
            radius = math.hypot(u[n - 1], v[n - 1])
            title.set_text(f"{name}   |u + iv| = {radius:<8.3g} {int(spike[:n].sum()):4d} spikes")

        self.moves.append(move)

    def _membrane(self, axes: Axes, name: str, run: Trace) -> None:
        self._line(axes, run.u, color=COLOURS[name], linewidth=1.1)
        self._line(axes, run.threshold, color="black", linewidth=0.9, linestyle="--", label="threshold in force")
        wide = min(1.1 * run.u.abs().max().item(), WIDEST)
        axes.set(ylabel=f"u of {name}", ylim=(-wide, max(wide, 1.1 * run.threshold.max().item())))
        axes.legend(**LEGEND)

    def _damping(self, axes: Axes) -> None:
        for name, run in zip(COLOURS, self.found[2:4], strict=True):
            self._line(axes, run.damping, color=COLOURS[name], linewidth=1.4, label=name)
        edge = -float(self.found.neuron.boundary)
        axes.axhline(edge, color="0.5", linewidth=0.9, linestyle=":", label="divergence boundary")
        axes.set(ylabel="damping", ylim=(0, 1.3 * self.found.brf.damping.max().item()))
        axes.legend(ncols=3, **LEGEND)

    def _raster(self, axes: Axes) -> None:
        rows = []
        for row, name, run in ((1, "RF", self.found.rf), (0, "BRF", self.found.brf)):
            (marks,) = axes.plot([], [], "|", color=COLOURS[name], markersize=11, markeredgewidth=1.2)
            rows.append((row, marks, run.spike.nonzero().flatten().numpy()))

        def move(n: int) -> None:
            for row, marks, at in rows:
                marks.set_data(at[at < n], 0 * at[at < n] + row)

        self.moves.append(move)
        axes.set(yticks=[1, 0], yticklabels=["RF", "BRF"], ylim=(-0.6, 1.6), ylabel="spikes")

    def _share_time(self, rows: list[Axes]) -> None:
        neuron, frequency = self.found.neuron, self.found.frequency
        passed = (frequency >= neuron.omega).nonzero().flatten()
        for axes in rows:
            if len(passed):
                axes.axvline(passed[0].item(), color="0.5", linewidth=0.9)
            axes.tick_params(labelbottom=axes is rows[-1])
        heads = [axes.axvline(0, color="0.75", linewidth=0.8) for axes in rows]

        def move(n: int) -> None:
            for head in heads:
                head.set_xdata([n - 1, n - 1])

        self.moves.append(move)
        rows[-1].set_xlabel(f"step of {neuron.dt:g} units of time; grey: the input passes omega = {neuron.omega:g}")
        self.figure.align_ylabels(rows)
