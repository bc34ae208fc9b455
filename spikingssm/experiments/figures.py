"""Figures of a run, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from sdn import Trajectory
from sdn.runs.files import writing

__all__ = ["demo_figure", "learning_curve", "raster"]

NO_METRICS = ("epoch", "step", "seconds", "cpu_seconds")
"""Columns of a ``metrics.csv`` that say when."""


def learning_curve(rows: Sequence[Mapping[str, Any]], path: str | Path, quality: str | None = None) -> None:
    """Loss, a metric of the task and spike rate by epoch, as a PNG.

    Args:
        rows: of a ``metrics.csv``, with epoch and any of train/ and val/ loss, spike_rate and metrics of a task.
        path: of the picture.
        quality: the metric; None is accuracy where it was logged, else the first other one.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    logged = {key.split("/", 1)[-1] for row in rows for key, value in row.items() if value not in (None, "")}
    others = sorted(name for name in logged - {"accuracy", "loss", "spike_rate", *NO_METRICS} if "/" not in name)
    quality = quality or next(iter(others if others and "accuracy" not in logged else ["accuracy"]))
    for axis, metric in zip(figure.subplots(1, 3), ("loss", quality, "spike_rate"), strict=True):
        for stage in ("train", "val"):
            known = [row for row in rows if row.get(f"{stage}/{metric}") not in (None, "")]
            if known:
                epochs = [1 + float(row["epoch"]) for row in known]
                axis.plot(epochs, [float(row[f"{stage}/{metric}"]) for row in known], marker=".", label=stage)
        axis.set_xlabel("epoch")
        axis.set_title(metric.replace("_", " "))
    for axis in [axis for axis in figure.axes if axis.lines][:1]:
        axis.legend()
    _save(figure, path)


def raster(spikes: Tensor, title: str, path: str | Path) -> None:
    """Which neuron spiked when, as a PNG.

    Args:
        spikes: (L, H), 0 and 1, of one sequence.
        title: above the picture.
        path: of the picture.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    _draw_raster(figure.subplots(), spikes, title)
    _save(figure, path)


def demo_figure(exact: Trajectory, predicted: Tensor, spikes: Tensor, title: str, path: str | Path) -> None:
    """Input, membrane (exact and predicted) and spikes of one neuron, and the raster of a trained layer, as a PNG.

    Args:
        exact: of one neuron, (1, L, 1).
        predicted: (L,) membrane by an SDN.
        spikes: (L', H), 0 and 1, of one layer on one sequence.
        title: above the raster.
        path: of the picture.
    """
    input, mem, fired = (t[0, :, 0].cpu() for t in exact[:3])
    figure = Figure(figsize=(9, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[1, 2, 2])
    top.plot(input, color="grey")
    top.set(ylabel="input", xlim=(0, len(input)))
    middle.plot(mem, label="exact")
    middle.plot(predicted.cpu(), "--", label="SDN")
    for step in fired.nonzero().flatten().tolist():
        middle.axvline(step, color="black", alpha=0.15)
    middle.set(ylabel="mem (spikes as bars)", xlabel="step", xlim=(0, len(input)))
    middle.legend(loc="lower right")
    _draw_raster(bottom, spikes, title)
    _save(figure, path)


def _draw_raster(axis: Axes, spikes: Tensor, title: str) -> None:
    steps, neurons = np.nonzero(spikes.detach().cpu().numpy())
    axis.scatter(steps, neurons, s=6, marker="|", color="black", linewidths=0.8)
    axis.set(xlim=(0, spikes.shape[0]), ylim=(-0.5, spikes.shape[1] - 0.5), xlabel="step", ylabel="neuron", title=title)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with writing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
