"""Tables out of run folders."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from loguru import logger

from sdn.runs.files import read_json
from spikingssm.experiments.unfinished import is_begun, unfinished
from spikingssm.measures.shown import COSTS, is_share
from spikingssm.reports.results import wrong_value

__all__ = [
    "HEAD",
    "alike",
    "load_results",
    "metric_text",
    "report",
    "results_table",
    "run_row",
    "short",
    "swap_table",
    "table",
]

KINDS = {
    "run": {"name", "seed", "test", "dataset", "parameters", "epochs", "solver", "seconds", "device"},
    "study": {"study", "name", "seed", "dataset", "rows"},
    "SDN": {"dynamics", "metrics"},
}
"""What each kind of result holds at least."""


HEAD = (
    "experiment", "data (train / val / test)", "parameters", "seed", "epochs", "validation", "test", "spike rate",
    "SOPs a sample", "minutes", "device",
)  # fmt: skip
"""Columns of the table of runs."""


def table(values: Mapping[str, Any]) -> str:
    """Names and values in two aligned columns, a line each; a mapping inside is indented below its name."""
    lines = list(_lines(values))
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in lines)


def report(paths: Iterable[str | Path], best_first: bool = False) -> str:
    """Results as Markdown: a table of runs, and one of solver swaps.

    Args:
        paths: as in `load_results`, and folders of runs that diverged, were stopped or go on: a row says so. Results of
            SDNs are left out.
            A folder without a run is left out, unless there are no others.
        best_first: order the runs by the result of their test and not by name; see `results_table`.

    Raises:
        FileNotFoundError, ValueError: as in `load_results`, or nothing but results of SDNs.
    """
    places = [*map(Path, paths)]
    begun = [path for path in places if is_begun(path)]
    ended = [path for path in places if path not in begun]
    empty = [path for path in ended if path.is_dir() and not (path / "summary.json").is_file()]
    if len(empty) < len(places):
        for path in empty:
            logger.warning(f"{path}: no run, left out")
        ended = [path for path in ended if path not in empty]
    found = load_results(ended)
    runs, swaps = [r for r in found if "test" in r], [r for r in found if r.get("study") == "solver-swap"]
    rows = [row for path in begun if (row := unfinished(path)) is not None]
    if not runs and not swaps and not rows:
        raise ValueError("report: no result of a network among the files; give run folders or their summary.json.")
    tables = [results_table(runs, rows, best_first)] if runs or rows else []
    return "\n\n".join([*tables, *([swap_table(swaps)] if swaps else [])])


def load_results(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Results as they were written.

    Args:
        paths: run folders, and JSON files: a ``summary.json``, a copy of one, or the result of a study.

    Raises:
        FileNotFoundError: a folder without a finished run, or no such file.
        ValueError: a file that is no result, or one with other kinds of values.
    """
    found = []
    for path in map(Path, paths):
        file = path / "summary.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; give the folder of a finished run, or a JSON of results.")
        try:
            result = read_json(file)
        except ValueError as error:
            raise ValueError(f"{file}: not readable as JSON ({error}); give a summary.json.") from None
        kinds = [kind for kind, keys in KINDS.items() if isinstance(result, dict) and keys <= set(result)]
        if not kinds:
            raise ValueError(
                f"{file}: is no result of a run or a study (what `evaluate --json` writes is not); give a run folder, "
                "its summary.json, or the JSON of a study."
            )
        if (wrong := wrong_value(result, kinds[0])) is not None:
            raise ValueError(f"{file}: is no result of ours, its {wrong}; give the file as it was written.")
        found.append(result)
    return found


def results_table(
    results: Sequence[Mapping[str, Any]], unfinished: Sequence[Sequence[str]] = (), best_first: bool = False
) -> str:
    """A Markdown table of runs; several seeds of one experiment are followed by a line of their mean and range.

    Args:
        results: of finished runs.
        unfinished: rows as `spikingssm.experiments.unfinished.unfinished` gives them; they are the last ones.
        best_first: within each data set, order the experiments by the mean of the first metric of their test.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in sorted(results, key=lambda r: (_name(r), r["seed"])):
        groups.setdefault(alike(result), []).append(result)
    rows = []
    for runs in sorted(groups.values(), key=_place) if best_first else groups.values():
        rows += [run_row([run]) for run in runs]
        if len(distinct := of_seeds(runs)) > 1:
            rows.append(run_row(distinct))
    return _markdown(HEAD, [*rows, *unfinished])


def swap_table(studies: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of networks under several neurons: the test, and each layer's spikes beside the exact ones."""
    rows = []
    for study in studies:
        task = f"{study['name']}, seed {study['seed']}, {study['dataset']['size']}, {study['rows'][0]['rows']} tested"
        for row in study["rows"]:
            test = ", ".join(metric_text(name, [value]) for name, value in row["metrics"].items())
            layers = ["exact"] * 3
            if "agreement" in row:
                by = row["agreement"]
                pairs = (("network", "agreement"), ("network", "f1"), ("layer", "agreement"))
                layers = [" / ".join(_percent(s[score]) for s in by[kind].values()) for kind, score in pairs]
            rows.append([task, row["neuron"], test, f"{100 * row['spike_rate']:.2f} %", *layers])
    head = ["task", "neuron", "test", "spike rate", "agreement by layer, %", "F1 by layer, %"]
    return _markdown([*head, "agreement on the same currents, %"], rows)


def alike(result: Mapping[str, Any]) -> str:
    """What the seeds of one experiment have in common, as text: its name and changes, data, parameters and solver."""
    return json.dumps((_name(result), _data(result), result["parameters"], result["solver"]))


def of_seeds(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One run of each seed, the first: copies of a run are no further evidence. The log says that there are some."""
    found = list({run["seed"]: run for run in reversed(runs)}.values())[::-1]
    if len(found) < len(runs):
        logger.warning(
            f"{_name(runs[0])}: {len(runs)} results of {len(found)} seeds; a mean takes the first result of each seed"
        )
    return found


def run_row(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells below `HEAD` of one result, or of the mean of several."""
    run, tests = runs[0], [run["test"] for run in runs]
    data, epochs = run["dataset"], sorted({run["epochs"] for run in runs})
    names = [name for name in tests[0] if name not in COSTS and all(name in test for test in tests)]
    rate = fmean(test["spike_rate"] for test in tests)
    sops = fmean(test["sops"] for test in tests) if all("sops" in test for test in tests) else None
    return [
        _name(run),
        f"{data['name']}, {data['size']} ({data['train']} / {data['val']} / {data['test']})",
        short(run["parameters"]),
        str(run["seed"]) if len(runs) == 1 else f"mean of {len(runs)} (range)",
        " to ".join(str(number) for number in dict.fromkeys((epochs[0], epochs[-1]))),
        ", ".join(metric_text(name, [r["val"][name] for r in runs]) for name in _chosen_by(runs)),
        ", ".join(metric_text(name, [test[name] for test in tests]) for name in names),
        f"{100 * rate:.2f} %",
        "not counted" if sops is None else short(sops),
        _minutes(runs),
        ", ".join(dict.fromkeys(run["device"] for run in runs)),
    ]


def _chosen_by(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the best epochs were chosen by; nothing where a result does not say it."""
    return [name for name in runs[0].get("val", {}) if name != "epoch" and all(name in r.get("val", {}) for r in runs)]


def _place(runs: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """The data of some runs, and a number that is smaller for a better result."""
    name = next((name for name in runs[0]["test"] if name not in COSTS), "loss")
    found = fmean(run["test"].get(name, math.inf) for run in runs)
    return runs[0]["dataset"]["name"], -found if is_share(name) or name == "r2" else found


def _name(run: Mapping[str, Any]) -> str:
    """The experiment, and what was changed of it."""
    return f"{run['name']}, {run['variant']}" if run.get("variant") else str(run["name"])


def _data(run: Mapping[str, Any]) -> dict[str, Any]:
    """What seeds of one experiment have in common of their data; which rows are held out may follow from the seed."""
    data = run["dataset"]
    alike = [
        "name",
        "size",
        "test",
        "test_digest",
        "length",
        "d_input",
        "d_output",
        "vocab",
        *([] if "variant" in run else ["split"]),
    ]
    return {"fitted": data["train"] + data["val"], **{key: data[key] for key in alike if key in data}}


def _minutes(runs: Sequence[Mapping[str, Any]]) -> str:
    """Minutes of training on the wall, and on all cores together where that was kept."""
    wall = f"{fmean(run['seconds'] for run in runs) / 60:.1f}"
    if not all("cpu_minutes" in run for run in runs):
        return wall
    return f"{wall} ({fmean(run['cpu_minutes'] for run in runs):.1f} CPU)"


def metric_text(name: str, values: Sequence[float]) -> str:
    """A name and its value, such as accuracy 97.21 %; of several values the mean and the range."""
    factor, unit = (100, " %") if is_share(name) else (1, "")
    three = (fmean(values), min(values), max(values))
    small = not unit and 0 < abs(three[0]) < 1  # such as an error, which two digits behind the point would hide
    shown = [f"{value:.3g}" if small else f"{factor * value:.2f}" for value in three]
    return f"{name} {shown[0]}{unit}" + (f" ({shown[1]} to {shown[2]})" if len(values) > 1 else "")


def _percent(part: float) -> str:
    """In percent, rounded down: 100.00 is all of it."""
    return f"{math.floor(1e4 * part + 1e-6) / 100:.2f}"


def short(count: float) -> str:
    """A count in three digits, such as 16.3 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}", ""
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, float):
            small, large = 0 < abs(value) < 1e-3, abs(value) >= 1e4
            yield f"{indent}{name}", f"{value:.3e}" if small else f"{value:.0f}" if large else f"{value:.4f}"
        else:
            yield f"{indent}{name}", str(value)
