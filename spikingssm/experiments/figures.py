"""Figures of a run, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sdn import Dynamics, Trajectory, plot
from sdn.plot.parts import ABOVE
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
    filled = {key for row in rows for key, value in row.items() if value not in (None, "")}
    logged = {key.partition("/")[2] for key in filled if key.startswith(("train/", "val/"))}
    others = sorted(name for name in logged - {"accuracy", "loss", "spike_rate", *NO_METRICS} if "/" not in name)
    quality = quality or next(iter(others if others and "accuracy" not in logged else ["accuracy"]))
    for axis, metric in zip(figure.subplots(1, 3), ("loss", quality, "spike_rate"), strict=True):
        for stage, color in (("train", "C0"), ("val", "C1")):
            known = [row for row in rows if row.get(f"{stage}/{metric}") not in (None, "")]
            if known:
                epochs = [1 + float(row["epoch"]) for row in known]
                values = [float(row[f"{stage}/{metric}"]) for row in known]
                axis.plot(epochs, values, marker=".", color=color, label=stage)
        axis.set(xlabel="epoch", title=metric.replace("_", " "))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in [axis for axis in figure.axes if axis.lines][:1]:
        axis.legend()
    _save(figure, path)


def raster(spikes: Tensor, title: str, path: str | Path, length: int | None = None) -> None:
    """Which neuron spiked when, as a PNG.

    Args:
        spikes: (L, H), 0 and 1, of one sequence.
        title: above the picture.
        path: of the picture.
        length: steps that are real; the padding behind them is left out. None draws all.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    plot.raster(spikes, figure.subplots(), length).set_title(title)
    _save(figure, path)


def demo_figure(
    exact: Trajectory, predicted: Tensor, dynamics: Dynamics, spikes: Tensor, title: str, path: str | Path
) -> None:
    """Input, membrane (exact and predicted) and spikes of one neuron, and the raster of a trained layer, as a PNG.

    Args:
        exact: of one neuron, (1, L, 1).
        predicted: (L,) membrane by an SDN.
        dynamics: of that neuron.
        spikes: (L', H), 0 and 1, of one layer on one sequence.
        title: above the raster.
        path: of the picture.
    """
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    *rows, gap, bottom = figure.subplots(5, 1, height_ratios=[0.8, 2, 0.3, 0.01, 1.8])
    gap.set_axis_off()
    plot.traces(exact, dynamics, axes=rows)
    current = exact.input[0, :, 0].detach().cpu()
    line = dynamics.distance(predicted.detach().cpu(), current) + dynamics.threshold  # (L,), as `traces` draws it
    middle = rows[1]
    middle.lines[0].set(label="membrane, exact", linewidth=3.5, alpha=0.45)
    middle.plot(line, color="C1", linewidth=1.2, label="membrane, by the SDN")
    middle.legend(ncols=3, **ABOVE)
    for axis in rows[:2]:
        axis.tick_params(labelbottom=False)
    plot.raster(spikes, bottom).set_title(title)
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with writing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
