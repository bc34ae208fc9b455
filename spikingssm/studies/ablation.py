"""What does each part of a neuron do for a trained network: switch it off, train nothing again."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from matplotlib.figure import Figure
from torch import nn

from sdn import Neuron
from sdn.dynamics.base import Diverged
from spikingssm.measures.spikes import neurons_of
from spikingssm.studies.common import by_label, facts, kind_of, markdown, open_run, percent, save_figure, shown

__all__ = ["ablation", "csv_rows", "figure", "switches", "table", "without"]


def ablation(run_dir: str | Path, *, limit: int | None = None, root: str | Path | None = None) -> dict[str, Any]:
    """Test a trained network with each switch of its neurons off, and with all of them off.

    The switches of BRF are ``divergence_boundary``, ``smooth_reset`` and ``refractory_period``. Of neurons without any
    there is the network as it is, to compare with.

    Args:
        run_dir: the run folder.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the training.

    Returns:
        plain values: name, seed and dataset of the run, and ``rows``: what was left out (``without``, a list, empty in
        the first row), and loss, metrics and spikes of a sample; or why there are none (``diverged``).

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: a limit below 1.
    """
    subject = open_run(run_dir, limit=limit, root=root)
    off = switches(subject.model)
    if not off:
        kinds = {kind_of(layer) for layer in neurons_of(subject.model).values()}
        logger.warning(f"{run_dir}: its neurons, {', '.join(sorted(kinds))}, have no parts to switch off")
    rows: list[dict[str, Any]] = [{"without": [], **subject.score()}]
    for names in [*([name] for name in off), *([off] if len(off) > 1 else [])]:
        try:
            rows.append({"without": names, **subject.score(without(subject.model, names))})
        except Diverged as error:
            rows.append({"without": names, "diverged": " ".join(str(error).split())})
    return facts(subject, "ablation", rows_tested=len(subject.run.data.test_rows), rows=rows)


def switches(model: nn.Module) -> list[str]:
    """Names of the parts that the neurons of a model have switched on: the fields of their dynamics that are True."""
    dynamics = [layer.dynamics for layer in neurons_of(model).values() if isinstance(layer, Neuron)]
    fields = [name for each in dynamics for name, value in vars(each).items() if value is True]
    return list(dict.fromkeys(fields))


def without(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of the model in which these parts of every neuron that has them are switched off."""
    model = copy.deepcopy(model)
    for layer in neurons_of(model).values():
        if not isinstance(layer, Neuron):
            continue
        if own := [name for name in names if name in vars(layer.dynamics)]:
            layer.dynamics = layer.dynamics.replace(**dict.fromkeys(own, False))
    return model


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: a line for each experiment and part left out, mean and sample sd over its seeds."""
    metrics = list(dict.fromkeys(metric for result in results for metric in result["metrics"]))
    lines = []
    for name, group in by_label(results).items():
        for parts in _parts(group):
            rows = [row for result in group for row in result["rows"] if row["without"] == parts]
            whole = [row for row in rows if "diverged" not in row]
            lost = f"{len(rows) - len(whole)} diverged" if len(rows) > len(whole) else ""
            cells = [shown([percent(metric) * row[metric] for row in whole if metric in row]) for metric in metrics]
            numbers = [
                *cells,
                shown([row["loss"] for row in whole], ".3f"),
                shown([row["spikes"] for row in whole], ",.0f"),
            ]
            told = numbers if whole else ["diverged"] * len(numbers)
            lines.append([name, str(len(group)), _told(parts), *told, lost])
    units = [f"{metric}, %" if percent(metric) == 100 else metric for metric in metrics]
    return markdown(["experiment", "seeds", "without", *units, "loss", "spikes a sample", ""], lines)


def figure(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """The first metric and the spikes of a sample with each part off, a bar for each experiment, as a PNG."""
    canvas = Figure(figsize=(10, 4), layout="constrained")
    metric, groups = results[0]["metrics"][0], by_label(results)
    parts = list({_told(row["without"]): None for result in results for row in result["rows"]})
    for axis, key in zip(canvas.subplots(1, 2), (metric, "spikes"), strict=True):
        for i, (name, group) in enumerate(groups.items()):
            for at, told in enumerate(parts):
                rows = [row for result in group for row in result["rows"] if _told(row["without"]) == told]
                found = [percent(key) * row[key] for row in rows if key in row]
                if found:
                    place = at + (i - (len(groups) - 1) / 2) * 0.8 / len(groups)
                    axis.bar(
                        place,
                        sum(found) / len(found),
                        0.8 / len(groups),
                        color=f"C{i}",
                        label=name if at == 0 else None,
                    )
        axis.set_xticks(range(len(parts)), [told.replace(", ", "\n") for told in parts], fontsize=7)
        axis.set_title("spikes a sample" if key == "spikes" else f"{key}, %" if percent(key) == 100 else key)
    canvas.axes[0].legend()
    save_figure(canvas, path)


def csv_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each part left out."""
    return [{**row, "without": _told(row["without"])} for row in result["rows"]]


def _parts(group: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was left out in any of these results, in order."""
    return list({tuple(row["without"]): row["without"] for result in group for row in result["rows"]}.values())


def _told(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names) or "nothing"
