"""The plots of docs/benchmarks.md, from the rows of the results."""

from pathlib import Path
from typing import Any

from sdn.runs.files import writing

__all__ = ["draw"]

Row = dict[str, Any]


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["variant"] for row in rows):
        points = sorted((row["at"], row["ns"]) for row in rows if row["variant"] == name)
        bold = name in ("fused", "relu")
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, linewidth=2.5 if bold else 1.2)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="CPU ns per element", title=title)
    ticks = sorted({row["at"] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8)
    return _saved(figure, path)


def _steps(rows: list[Row], path: Path) -> Path:
    from matplotlib.figure import Figure

    steps = [row for row in rows if row["table"] == "steps"]
    sizes = list(dict.fromkeys(row["size"] for row in steps))
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        chosen = [row for row in steps if row["size"] == size]
        bars = axes.barh([row["variant"] for row in chosen], [row["seconds"] for row in chosen])
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        axes.set(xscale="log", xlabel="CPU seconds per training step", title=size)
        axes.invert_yaxis()
        axes.margins(x=0.2)
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    with writing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return path
