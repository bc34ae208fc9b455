"""How does the loss look around a trained network: on a plane of two random directions of its hidden weights."""

import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from sdn.dynamics.base import Diverged
from spikingssm.layers.recurrent import Recurrent
from spikingssm.measures.spikes import neurons_of
from spikingssm.studies.common import by_label, facts, generator, label, markdown, open_run, save_figure, shown

__all__ = ["csv_rows", "direction", "figure", "hidden_weights", "landscape", "shape", "table"]

LEVELS = 25
"""Edges of the colours of a picture."""
WIDEST = 36
"""Letters of a line of a title."""
TICKS = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]


def landscape(
    run_dir: str | Path,
    *,
    points: int = 21,
    span: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    root: str | Path | None = None,
) -> dict[str, Any]:
    """The loss on the test rows with the hidden weights at ``W + alpha d1 + beta d2``, everything else as trained.

    d1 and d2 are two `direction` s, drawn by the seed; alpha and beta lie on a square grid around 0. A point at which a
    neuron diverges has the loss NaN.

    Args:
        run_dir: the run folder.
        points: of a side of the grid, >= 2; with an odd number the trained network is one of them.
        span: alpha and beta go from -span to span, > 0.
        seed: of the directions, >= 0.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the training.

    Returns:
        plain values: name, seed and dataset of the run, ``weights`` that were moved, ``points``, ``span``, ``centre``
        (the loss of the trained network), and ``rows`` of ``alpha``, ``beta`` and ``loss``.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: a number out of range, or a network without such weights.

    Source: Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018 (arXiv 1712.09913) normalise by filter; a filter is here
        what one neuron reads, as in Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603).
    """
    if points < 2 or not 0 < span < math.inf or seed < 0:
        raise ValueError(
            f"landscape: needs --points >= 2, --span > 0 and --seed >= 0, got {points}, {span:g} and {seed}."
        )
    subject = open_run(run_dir, limit=limit, root=root)
    weights = hidden_weights(subject.model)
    subject.score()  # compiles
    began = time.perf_counter()
    centre = subject.score()["loss"]
    minutes, rows = (time.perf_counter() - began) * points**2 / 60, len(subject.run.data.test_rows)
    logger.info(f"landscape of {run_dir}: {points**2} tests of {rows} rows, about {minutes:.1f} minutes")
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    cut = {name: _mask(subject.model, name) for name in weights}
    draws = [generator(seed, i) for i in range(2)]
    one, other = ({name: direction(w, draw, cut[name]) for name, w in start.items()} for draw in draws)
    axis = [span * (2 * i - (points - 1)) / (points - 1) for i in range(points)]  # the middle of an odd number is 0
    found = []
    for alpha in axis:
        for beta in axis:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(start[name] + alpha * one[name] + beta * other[name])
            try:
                loss = subject.score()["loss"]
            except Diverged:
                loss = math.nan
            found.append({"alpha": alpha, "beta": beta, "loss": loss})
    about = {"directions": seed, "points": points, "span": span, "rows_tested": rows, "weights": list(weights)}
    return facts(subject, "landscape", **about, centre=centre, rows=found)


def hidden_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """What the hidden neurons read, by name: input and recurrent weights of every recurrent layer.

    Of a network without recurrence, the 2-D weights beside its first layer of neurons.

    Raises:
        ValueError: a network without neurons, or without such weights.
    """
    neurons, known = neurons_of(model), dict(model.named_parameters())
    names = [f"{name}.{part}.weight" for name in neurons for part in ("input", "recurrent")]
    if not any(name in known for name in names):
        beside = next(iter(neurons)).rpartition(".")[0]
        names = [name for name in known if name.startswith(f"{beside}.") and name.endswith("weight")]
    found = {name: known[name] for name in names if name in known and known[name].ndim == 2}
    if not found:
        raise ValueError(f"landscape: {type(model).__name__} has no 2-D weight beside its first layer of neurons.")
    return found


def direction(weight: Tensor, draw: torch.Generator, mask: Tensor | None = None) -> Tensor:
    """A random direction of which every row is as long as that row of the weight, (outputs, inputs).

    Args:
        weight: (outputs, inputs).
        draw: gives the Gaussian numbers.
        mask: (outputs, inputs), 0 where a connection is cut; there the direction is 0, and the weight counts as 0.
    """
    drawn = torch.randn(weight.shape, generator=draw, dtype=torch.float64).to(weight)
    if mask is not None:
        drawn, weight = drawn * mask, weight * mask
    length = drawn.norm(dim=1, keepdim=True)
    return drawn * torch.where(length > 0, weight.norm(dim=1, keepdim=True) / length, 0.0)


def shape(result: Mapping[str, Any]) -> dict[str, float]:
    """What a landscape comes to.

    Returns:
        ``centre``, ``min`` and ``max`` of the loss; ``rise``: mean over all points of the loss less that of the centre;
        ``minima``: points that lie below all their neighbours, 1 for a bowl.
    """
    loss = _grid(result)
    padded = np.pad(np.nan_to_num(loss, nan=np.inf), 1, constant_values=np.inf)
    n = len(loss)
    around = [padded[i : i + n, j : j + n] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return {
        "centre": result["centre"],
        "min": float(np.nanmin(loss)),
        "max": float(np.nanmax(loss)),
        "rise": float(np.nanmean(loss) - result["centre"]),
        "minima": int((padded[1:-1, 1:-1] < np.min(around, 0)).sum()),
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: a line for each experiment, mean and sample standard deviation over its seeds."""
    lines = []
    for name, group in by_label(results).items():
        shapes, first = [shape(result) for result in group], group[0]
        grid = f"{first['points']} x {first['points']}, ±{first['span']:g}, {first['rows_tested']} rows"
        numbers = [shown([s[key] for s in shapes], ".3f") for key in ("centre", "min", "max", "rise")]
        lines.append([name, str(len(group)), grid, *numbers, shown([s["minima"] for s in shapes], ".1f")])
    head = ["experiment", "seeds", "grid", "loss of the trained network", "min", "max", "mean rise", "local minima"]
    return markdown(head, lines)


def figure(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Every landscape as contours in the same colours, as a PNG; a point at which a neuron diverged stays white."""
    canvas = Figure(figsize=(max(4.0 * len(results) + 0.8, 4.8), 4.6), layout="constrained")
    grids = [np.ma.masked_invalid(_grid(result)) for result in results]
    known = np.concatenate([grid.compressed() for grid in grids])
    least, most = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    most = most if most > least else least + max(1e-6, 1e-6 * abs(least))  # one colour
    logarithmic = least > 0 and most > 4 * least
    levels = np.geomspace(least, most, LEVELS) if logarithmic else np.linspace(least, most, LEVELS)
    norm = LogNorm(least, most) if logarithmic else Normalize(least, most)
    panels = canvas.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for axis, result, loss in zip(panels, results, grids, strict=True):
        at = np.array([row["beta"] for row in result["rows"][: result["points"]]])
        filled = axis.contourf(at, at, loss, levels=levels, norm=norm, cmap="viridis", extend="neither")
        axis.plot(0, 0, "+", color="red", markersize=10, markeredgewidth=2)
        name = textwrap.fill(f"{label(result)}, seed {result['seed']}", WIDEST)
        title = f"{name}\nloss of the trained network (+): {result['centre']:.3g}"
        axis.set(xlabel="beta, along the direction d2", title=title, aspect="equal")
        axis.title.set_fontsize("medium")
    panels[0].set_ylabel("alpha, along the direction d1")
    bar = canvas.colorbar(filled, ax=list(panels), label="loss at W + alpha d1 + beta d2", shrink=0.9)
    ticks = [tick for tick in TICKS if least <= tick <= most] if logarithmic else []
    if len(ticks) > 1:
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    save_figure(canvas, path)


def csv_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each point: alpha, beta, loss."""
    return [dict(row) for row in result["rows"]]


def _grid(result: Mapping[str, Any]) -> np.ndarray:
    """(points, points) of the loss, alpha along the first axis."""
    return np.array([row["loss"] for row in result["rows"]], dtype=float).reshape(result["points"], -1)


def _mask(model: nn.Module, name: str) -> Tensor | None:
    """Which recurrent connections of a layer there are, for its recurrent weight."""
    layer, _, part = name.removesuffix(".weight").rpartition(".")
    found = model.get_submodule(layer)
    return found.mask if part == "recurrent" and isinstance(found, Recurrent) else None
