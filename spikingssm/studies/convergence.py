"""How fast did it learn, and could it: the learning curve, and what one step does to the state of every neuron."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sdn import Dynamics, Neuron, SpikingLayer
from sdn.runs.best import best_of
from sdn.runs.folder import read_metrics
from spikingssm.layers.s5 import ResonateAndFire
from spikingssm.measures.spikes import neurons_of
from spikingssm.studies.common import Subject, by_label, facts, kind_of, markdown, open_run, save_figure, shown

__all__ = ["convergence", "csv_rows", "figure", "membrane_jacobian", "spectral_radius", "table"]

ROUNDING = 1e-6
"""A radius up to 1 + this much counts as 1: that of an undamped oscillator in float32."""


def convergence(
    run_dir: str | Path, *, part: float = 0.95, metric: str = "accuracy", root: str | Path | None = None
) -> dict[str, Any]:
    """The epoch by which a run had learned most of it, and the spectral radius of every neuron it ended with.

    Args:
        run_dir: the run folder.
        part: of the validation accuracy of the best epoch that has to be reached, in (0, 1].
        metric: which accuracy, such as accuracy_all.
        root: folder of the data, where it is not that of the training.

    Returns:
        plain values: name, seed and dataset of the run; ``curve``: validation accuracy after each epoch (the first is
        1), the ``best_epoch`` whose weights were kept, its ``accuracy``, and the first ``epoch`` that reaches ``part``
        of it (None without a ``metrics.csv`` or an accuracy in it); ``rows``: for each layer of neurons the quartiles
        of their ``radii``, see `spectral_radius`, and the part of them above 1.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: a part out of range, an unknown accuracy, or neurons of which one step is not known.
    """
    if not 0 < part <= 1:
        raise ValueError(f"convergence: --part must be in (0, 1], got {part}.")
    subject = open_run(run_dir, root=root)
    accuracies = [name for name in subject.metrics if name.startswith("accuracy")]
    if accuracies and metric not in accuracies:
        raise ValueError(f"convergence: --metric is one of {', '.join(accuracies)} for {run_dir}, got {metric!r}.")
    rows = []
    for name, layer in neurons_of(subject.model).items():
        radii = _radii(name, layer)
        quartiles = dict(zip(("min", "q1", "median", "q3", "max"), _quartiles(radii), strict=True))
        above = (radii > 1 + ROUNDING).double().mean().item()
        rows.append({"layer": name, "neuron": kind_of(layer), **quartiles, "above_1": above, "radii": radii.tolist()})
    curve = _curve(Path(run_dir), subject, metric, part)
    return facts(subject, "convergence", part=part, metric=metric, curve=curve, rows=rows)


def membrane_jacobian(dynamics: Dynamics, channels: int) -> Tensor:
    """What a step without spike makes of a small change of the membrane, at rest: (channels, M, M) in float64.

    The derivative of `Dynamics.advance` by the state, at the state 0 without current, by autograd. Of the fields of the
    state those are taken that the current drives and that feed back on each other: u and v of an oscillator, u alone of
    an integrator, but no refractory variable or adaptation, which only spikes move.

    Args:
        dynamics: the neuron; tensor fields are (channels,).
        channels: neurons.
    """
    dynamics = dynamics.to("cpu", torch.float64)
    state = dynamics.initial_state(1, channels, dtype=torch.float64)
    state = type(state)(*(value.requires_grad_() for value in state))
    current = torch.zeros(1, channels, dtype=torch.float64, requires_grad=True)
    after = dynamics.advance(state, current, torch.zeros_like(current))
    rows, driven = [], []
    for value in after:
        if not value.requires_grad:  # such as the last spike, which is kept as it came
            value = value + 0 * current
        *by_state, by_current = torch.autograd.grad(
            value.sum(), [*state, current], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.stack([slope[0].detach() for slope in by_state], -1))
        driven.append(bool((by_current != 0).any()))
    whole = torch.stack(rows, -2)  # (channels, S, S)
    reach = (whole != 0).any(0) | torch.eye(len(rows), dtype=torch.bool)
    for _ in rows:
        reach = (reach.int() @ reach.int()) > 0  # by any number of steps
    start = driven.index(True)
    membrane = [i for i in range(len(rows)) if reach[i, start] and reach[start, i]]
    return whole[:, membrane][:, :, membrane]


def spectral_radius(dynamics: Dynamics, channels: int) -> Tensor:
    """By how much the membrane of each neuron grows or fades in a step without input and spike, (channels,).

    The largest modulus of the eigenvalues of `membrane_jacobian`: ``sqrt((1 + dt b)^2 + (dt omega)^2)`` of RF and of
    BRF at q = 0, the leak factor of LIF and ALIF. Gradients through time grow or fade with its powers.

    Source: Higuchi, Bohte, Otte, "Understanding the Convergence in Balanced Resonate-and-Fire Neurons" (arXiv
        2406.00389).
    """
    radii: Tensor = torch.linalg.eigvals(membrane_jacobian(dynamics, channels)).abs().amax(-1)
    return radii


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: a line for each experiment, mean and sample standard deviation over its seeds."""
    lines = []
    for name, group in by_label(results).items():
        curves = [result["curve"] for result in group if result["curve"]]
        radii = [torch.tensor([r for row in result["rows"] for r in row["radii"]]) for result in group]
        quartiles = [" / ".join(f"{v:.4f}" for v in _quartiles(found)) for found in (torch.cat(radii),)]
        above = [100 * (found > 1 + ROUNDING).double().mean().item() for found in radii]
        reached = [shown([curve[key] for curve in curves], ".1f") for key in ("epoch", "best_epoch")]
        accuracy = shown([100 * curve["accuracy"] for curve in curves])
        told = [*reached, accuracy] if curves else ["no curve"] * 3
        lines.append([name, str(len(group)), *told, *quartiles, shown(above, ".1f")])
    part = " or ".join(f"{100 * p:g} %" for p in dict.fromkeys(result["part"] for result in results))
    head = ["experiment", "seeds", f"epochs to {part}", "best epoch", "validation accuracy there, %"]
    return markdown([*head, "spectral radius: min / quartiles / max", "above 1, %"], lines)


def figure(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """The learning curves with the epoch that was reached, and the distribution of the radii, as a PNG."""
    canvas = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    groups = by_label(results)
    part = " or ".join(f"{100 * p:g} %" for p in dict.fromkeys(result["part"] for result in results))
    every = [r for result in results for row in result["rows"] for r in row["radii"]]
    low, high = min(every), max(every)
    pad = max(0.02 * (high - low), 1e-4)
    for i, (name, group) in enumerate(groups.items()):
        color = f"C{i}"
        told: str | None = name
        for curve in (result["curve"] for result in group if result["curve"]):
            percent = [100 * value for value in curve["values"]]
            left.plot(curve["epochs"], percent, color=color, alpha=0.7, label=told)
            left.plot(curve["epoch"], percent[curve["epochs"].index(curve["epoch"])], "o", color=color)
            told = None
        radii = [r for result in group for row in result["rows"] for r in row["radii"]]
        weights = [100 / len(radii)] * len(radii)
        bins = [low - pad + (high - low + 2 * pad) * k / 60 for k in range(61)]
        right.hist(radii, bins, weights=weights, histtype="step", color=color, label=name)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"A line is a run, its dot the first epoch with\n{part} of the accuracy of its best epoch"
    left.set(xlabel="epoch", ylabel="validation accuracy, %", title=title)
    right.axvline(1, color="grey", linewidth=0.8)
    right.set(xlabel="spectral radius", ylabel="neurons, %", title="What a step without a spike\nkeeps of a membrane")
    canvas.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save_figure(canvas, path)


def csv_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each neuron."""
    return [
        {"layer": row["layer"], "index": i, "radius": radius}
        for row in result["rows"]
        for i, radius in enumerate(row["radii"])
    ]


def _radii(name: str, layer: SpikingLayer) -> Tensor:
    """(H,) of a layer of neurons; those of S5-RF are a diagonal system, whose factor is the eigenvalue."""
    if isinstance(layer, ResonateAndFire):
        with torch.no_grad():
            return layer.system(torch.float64)[0].abs().cpu()
    if not isinstance(layer, Neuron):
        raise ValueError(f"convergence: {name} is a {type(layer).__name__}, of which one step is not known.")
    dynamics = layer.current_dynamics()
    detached = {k: v.detach() for k, v in vars(dynamics).items() if isinstance(v, Tensor)}
    return spectral_radius(dynamics.replace(**detached), layer.channels)


def _quartiles(values: Tensor) -> list[float]:
    """Minimum, the three quartiles and maximum."""
    return values.double().quantile(torch.linspace(0, 1, 5, dtype=torch.float64)).tolist()


def _curve(folder: Path, subject: Subject, metric: str, part: float) -> dict[str, Any] | None:
    """The validation accuracy by epoch, and when it was ``part`` of that of the best epoch."""
    rows = read_metrics(folder / "metrics.csv")
    monitor, mode = subject.run.module.task.monitor
    rows = [row for row in rows if monitor in row and math.isfinite(row[monitor])]
    if not rows or f"val/{metric}" not in rows[0]:
        return None
    values = [row[f"val/{metric}"] for row in rows]
    chosen = best_of(rows, monitor, mode)
    first = next(i for i, value in enumerate(values) if value >= part * values[chosen])
    epochs = [1 + int(row["epoch"]) for row in rows]
    return {
        "epochs": epochs,
        "values": values,
        "monitor": monitor,
        "best_epoch": epochs[chosen],
        "accuracy": values[chosen],
        "epoch": epochs[first],
    }
