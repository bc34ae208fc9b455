"""The plots of docs/benchmarks.md, from the rows of the results."""

from pathlib import Path
from typing import Any

from sdn.runs.files import writing

__all__ = ["draw"]

Row = dict[str, Any]
BUNDLE = {
    "loop": "ours", "unbind": "over unbind", "spikingjelly": "SpikingJelly", "snntorch": "snnTorch",
    "norse": "norse",
}  # fmt: skip
"""Loops over the steps in eager PyTorch, of the same cost per step."""
NAMES = {
    "relu": "torch.relu on the same tensor, for scale",
    "fused": 'solver="fused", exact',
    "surrogate": 'solver="surrogate"',
    "parallel": 'solver="parallel", exact',
    "loop": 'solver="loop", exact',
    "unbind": "PyTorch loop over unbind",
    "select": "PyTorch loop over x[:, t]",
    "spikingjelly": "SpikingJelly",
    "snntorch": "snnTorch",
    "norse": "norse",
    "scripted SDN": "SDN by torch.jit.script",
    "unbind loop": "PyTorch loop over unbind",
    "select loop": "PyTorch loop over x[:, t]",
    "select loop, extrapolated": "PyTorch loop over x[:, t],\nextrapolated",
}
"""What the variants are called in a legend, in its order."""


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what there are results for, as ``benchmarks-*.png`` in the folder."""
    made = []
    if "neurons" in found:
        rows = [row for row in found["neurons"]["rows"] if row.get("pass") == "fwd+bwd"]
        by_length = [{**row, "at": row["shape"][1]} for row in rows if row["table"] == "lengths"]
        by_rows = [{**row, "at": row["rows"]} for row in rows if row["table"] == "rows"]
        title = "LIF with hard reset, forward and backward, one thread"
        made.append(_lines(by_length, folder / "benchmarks-lengths.png", f"{title}, 256 rows", "steps L"))
        made.append(_lines(by_rows, folder / "benchmarks-rows.png", f"{title}, L = 1024", "rows (batch x channels)"))
    if "model" in found:
        made.append(_steps(found["model"]["rows"], folder / "benchmarks-model.png"))
    return made


def _lines(rows: list[Row], path: Path, title: str, label: str) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    variants = dict.fromkeys(row["variant"] for row in rows)
    points = {name: sorted((r["at"], r["ns"]) for r in rows if r["variant"] == name) for name in variants}
    together = [name for name in BUNDLE if name in points]
    if len(together) == len(BUNDLE):  # they lie on one another: as one band from the fastest to the slowest of them
        at = sorted({x for name in together for x, _ in points[name]})
        costs = [[y for name in together for x, y in points[name] if x == place] for place in at]
        words = f"{len(together)} loops over steps: {', '.join(BUNDLE[name] for name in together)}"
        axes.fill_between(at, [*map(min, costs)], [*map(max, costs)], color="0.75", label=words)
    else:
        together = []
    for name in (name for name in NAMES if name in points and name not in together):
        word, style = NAMES[name], {"color": "black", "linestyle": "--"} if name == "relu" else {}
        wide = 2.5 if name == "fused" else 1.5
        axes.plot(*zip(*points[name], strict=True), marker="o", markersize=4, label=word, linewidth=wide, **style)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="CPU time per neuron and step (ns)", title=title)
    ticks = sorted({row["at"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8, ncols=1 if together else 2, frameon=False)
    return _saved(figure, path)


def _steps(rows: list[Row], path: Path) -> Path:
    from matplotlib.figure import Figure

    steps = [row for row in rows if row["table"] == "steps"]
    sizes = list(dict.fromkeys(row["size"] for row in steps))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        chosen = sorted((row for row in steps if row["size"] == size), key=lambda row: row["seconds"])
        names = [NAMES.get(row["variant"], row["variant"]) for row in chosen]
        seconds = [row["seconds"] for row in chosen]
        axes.scatter(seconds, names, color=["C1" if row["variant"] == "fused" else "C0" for row in chosen], zorder=2)
        for name, value in zip(names, seconds, strict=True):
            axes.annotate(f"{value:.3g} s", (value, name), (7, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set(xscale="log", xlabel="CPU time of a training step (s, log scale)", title=_size(chosen))
        axes.title.set_fontsize("medium")
        axes.grid(alpha=0.3)
        axes.invert_yaxis()
        axes.margins(x=0.25)
    return _saved(figure, path)


def _size(rows: list[Row]) -> str:
    """The network of some rows in words; what was extrapolated does not say it."""
    row = next(row for row in rows if "length" in row)
    name = {"smnist": "sequential MNIST", "long": "long sequences"}.get(row["size"], row["size"])
    return f"{name}:\n{row['n_layers']} blocks of {row['d_model']}, batch {row['batch']}, {row['length']:,} steps"


def _saved(figure: Any, path: Path) -> Path:
    with writing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return path
