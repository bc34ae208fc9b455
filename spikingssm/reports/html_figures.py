"""The pictures of a page of results: curves by epoch, a sequence inside a layer, a large confusion matrix."""

import colorsys
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sdn import plot
from spikingssm.experiments.figures import NO_METRICS
from spikingssm.reports.html_opened import Layer
from spikingssm.reports.html_runs import Shown, clean
from spikingssm.reports.html_svg import CURVE, OPTIONS, Drawing, drawing, new_figure
from spikingssm.reports.html_tables import Matrix, Table, shown_value

__all__ = ["colours", "confusion", "curves", "sequence"]

COLOURS = (
    "#3b82c4", "#d9772b", "#2f9e6b", "#c94f7c", "#8a63c9", "#a08a1d", "#2aa3b0", "#c4533b", "#7d8a99", "#b05fb0",
)  # fmt: skip
"""Of the first ten runs; each can be read on a light and on a dark ground."""
STAGES = (("train", "training", (0, (4, 2))), ("val", "validation", "solid"), ("test", "test", (0, (1, 1))))
LARGEST = 1e30
"""Values beyond are of a run that diverged and are left out."""
MOST = 8
"""Metrics of a task that are drawn."""


def colours(count: int) -> list[str]:
    """One colour a run."""
    if count <= len(COLOURS):
        return [*COLOURS[:count]]
    wheel = [
        colorsys.hls_to_rgb(0.618034 * i % 1, 0.42 + 0.1 * (i % 2), 0.6) for i in range(count)
    ]  # neighbours differ
    return ["#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in wheel]


def curves(runs: Sequence[Shown]) -> list[Drawing]:
    """Each logged metric by epoch; runs of other tasks, which have other metrics, have pictures of their own."""
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, run in enumerate(runs):
        if logged := _logged(run):
            kinds.setdefault(tuple(logged), []).append(number)
    palette = colours(len(runs))
    found: list[Drawing] = []
    for names, numbers in kinds.items():
        own = ", ".join(_words(name) for name in names if name not in ("loss", "spike_rate"))
        whose = f", runs with {own or 'loss'}" if len(kinds) > 1 else ""
        for name in names[:MOST]:
            title = f"{_words(name).capitalize()} by epoch{whose}"
            picture = _curve([(n, runs[n], palette[n]) for n in numbers], name, f"curve{len(found)}", title)
            found += [picture] if picture is not None else []
    return found


def _logged(run: Shown) -> list[str]:
    """What was logged by epoch, without layers and clocks; loss first, the spike rate last."""
    stages = tuple(f"{stage}/" for stage, _, _ in STAGES)
    logged = {name.partition("/")[2] for row in run.epochs for name in row if name.startswith(stages)}
    names = {name for name in logged if name and "/" not in name and name not in NO_METRICS}
    return sorted(names, key=lambda name: (name != "loss", name != "accuracy", name == "spike_rate", name))


def _words(metric: str) -> str:
    return clean(metric.replace("_", " "), 40)


def _curve(runs: Sequence[tuple[int, Shown, str]], metric: str, name: str, title: str) -> Drawing | None:
    """One metric of several runs."""
    series: list[tuple[str, str, list[float], list[float]]] = []
    rows: list[list[str]] = []
    with rc_context(OPTIONS):
        figure = new_figure(7.2, 3.1)
        ax = figure.subplots()
        for number, run, colour in runs:
            for stage, word, dashes in STAGES:
                x, y = _points(run, f"{stage}/{metric}")
                if not x:
                    continue
                gid = f"{CURVE}{number}-{stage}"
                ax.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, gid=gid)
                _dots(ax, x, y, colour, f"{gid}-dots")
                series.append((gid, f"{run.label}, {word}", x, y))
                rows.append(
                    [run.label, word, str(len(x)), *(shown_value(metric, v) for v in (y[0], min(y), max(y), y[-1]))]
                )
        if not series:
            return None
        ax.set(xlabel="epoch", ylabel=_words(metric))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.canvas.draw()
        words = f"{title}: {len(series)} curves of {len(runs)} runs. The table below has their numbers."
        found = drawing(figure, [ax], name, title, words, series)
    head = ["run", "part", "epochs", "first", "lowest", "highest", "last"]
    return found._replace(numbers=Table(f"{title}, in numbers", head, rows))


def _points(run: Shown, column: str) -> tuple[list[float], list[float]]:
    """Epochs, counted from 1, and values; what is not a number is left out."""
    known = [(1 + row["epoch"], row[column]) for row in run.epochs if abs(row.get(column, math.nan)) < LARGEST]
    return [x for x, _ in known], [y for _, y in known]


def _dots(ax: Axes, x: Sequence[float], y: Sequence[float], colour: str, gid: str) -> None:
    """A dot a value, as lines without length, which zooming does not stretch; none where they would touch."""
    if len(x) <= 40:
        gaps = np.full(len(x), np.nan)
        ax.plot(
            np.column_stack([x, x, gaps]).ravel(), np.column_stack([y, y, gaps]).ravel(), color=colour, linewidth=3.6,
            solid_capstyle="round", gid=gid,
        )  # fmt: skip


def sequence(layer: Layer, name: str, of: str) -> Drawing:
    """What a layer did on one sequence: the spikes of its neurons, and input and membrane of one of them."""
    steps, neurons = layer.spikes.shape
    with rc_context(OPTIONS):
        figure = new_figure(7.2, 5.2 if layer.trace is not None else 2.6)
        rows = 4 if layer.trace is not None else 1
        heights = [3, 1, 2, 0.4] if rows == 4 else [1]
        axes = list(np.ravel(figure.subplots(rows, 1, sharex=True, height_ratios=heights)))
        if layer.trace is not None:
            plot.traces(layer.trace, layer.dynamics, axes=axes[1:])
        at, who = np.nonzero(layer.spikes)
        gaps = np.full(len(at), np.nan)
        axes[0].plot(
            np.column_stack([at, at, gaps]).ravel(), np.column_stack([who - 0.4, who + 0.4, gaps]).ravel(),
            color="black", linewidth=1.4, solid_capstyle="butt",
        )  # fmt: skip
        axes[0].set(ylim=(-0.6, neurons - 0.4), ylabel="neuron", xlim=(-0.5, steps - 0.5))
        axes[0].yaxis.get_major_locator().set_params(integer=True)
        axes[-1].set_xlabel("step")
        figure.canvas.draw()
        cut = (
            ""
            if (layer.steps, layer.neurons) == (steps, neurons)
            else f" of {layer.neurons} neurons x {layer.steps} steps"
        )
        caption = f"{of}: layer {layer.name}, {neurons} neurons x {steps} steps{cut}"
        words = (
            f"{len(at)} spike{'s' if len(at) != 1 else ''}, a rate of {100 * len(at) / max(1, steps * neurons):.2f} %."
        )
        if layer.trace is not None:
            words += f" Below: input, membrane with threshold, and spikes of neuron {layer.neuron}, the busiest."
        return drawing(figure, axes, name, f"{caption}. {words}", f"{caption}. {words}")


def confusion(matrix: Matrix, name: str, of: str) -> Drawing:
    """A matrix of many classes as a picture, each row in parts of its class."""
    counts = np.asarray(matrix.counts, dtype=float)
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with rc_context(OPTIONS):
        figure = new_figure(6.4, 5.4)
        ax = figure.subplots()
        shown: Any = ax.imshow(parts, cmap="viridis", vmin=0, vmax=1, interpolation="none", aspect="auto")
        figure.colorbar(shown, ax=ax, label="part of the class")
        ax.set(xlabel="answer (number of the class)", ylabel="true class")
        figure.canvas.draw()
        right = f"{100 * counts.trace() / max(1, counts.sum()):.2f} % on the diagonal"
        caption = f"{of}: {len(counts)} classes, {right}"
        return drawing(figure, [ax], name, caption, f"{caption}. The most frequent mistakes stand in the table below.")
