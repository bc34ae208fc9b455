"""The tables of a page of results, as text and plain values: `spikingssm.reports.html` makes HTML of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from spikingssm.measures.classes import MOST
from spikingssm.measures.shown import COSTS, is_share, plain_number
from spikingssm.reports.html_runs import Shown, clean, grouped, published
from spikingssm.reports.tables import HEAD, of_seeds, run_row

__all__ = [
    "AGREEMENT", "MISSING", "Bar", "Matrix", "Table", "agreement", "beside", "card", "chosen", "differences", "matrix",
    "problems", "rates", "results", "shown_value", "swaps",
]  # fmt: skip

MISSING = "not measured"
LAST = 20
"""Epochs of the mean at the end, as papers on recurrent spiking networks report it."""
LONGEST = 500
"""Rows of a card."""


class Bar(NamedTuple):
    """A cell with a bar behind its text, ``part`` of the width from 0 to 1."""

    text: str
    part: float


class Table(NamedTuple):
    """A table: the first cell of each row is its heading, and rows whose number is in ``strong`` sum up others."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Bar]]
    strong: frozenset[int] = frozenset()


class Matrix(NamedTuple):
    """Who was taken for whom: ``counts[true][answer]``, and the largest of ``mistakes``."""

    names: list[str]
    counts: list[list[int]]
    mistakes: Table


def results(runs: Sequence[Shown]) -> Table:
    """A row for each run, seeds followed by their mean and range; why a run has no result stands in `problems`."""
    rows: list[list[str | Bar]] = []
    strong = set()
    for group in grouped(runs):
        found = [run.result for run in group if run.result is not None]
        rows += [[run.label, *map(clean, run_row([result]))] for run, result in zip(group, found, strict=True)]
        if len(distinct := of_seeds(found)) > 1:
            strong.add(len(rows))
            rows.append([f"{len(distinct)} seeds", *map(clean, run_row(distinct))])
    at = HEAD.index("test")
    for run in runs:
        if run.cells is not None:
            how = run.cells[at].partition(":")[0]
            rows.append([run.label, *run.cells[:at], f"no result: {how}", *run.cells[at + 1 :]])
        elif run.problem:
            rows.append([run.label, *[""] * at, "no result: cannot be read", *[""] * (len(HEAD) - at - 1)])
    return Table("Results of the tests", ["run", *HEAD], rows, frozenset(strong))


def beside(runs: Sequence[Shown]) -> Table | None:
    """What the configuration of each experiment says of published results; None where none of the runs has one."""
    said: dict[str, list[str]] = {}
    for run in runs:
        if words := published(run.command):
            said.setdefault(words, []).append(run.label)
    rows: list[list[str | Bar]] = [[", ".join(labels), words] for words, labels in said.items()]
    return Table("What is published, in the words of the configuration", ["runs", "published"], rows) if rows else None


def problems(runs: Sequence[Shown]) -> list[str]:
    """Why runs have no result, and what could not be read of others, a line each."""
    at, lines = HEAD.index("test"), []
    for run in runs:
        ended = [run.cells[at]] if run.cells is not None else []
        lines += [f"{run.label}: {text}" for text in [*ended, run.problem, *run.notes] if text]
    return lines


def chosen(runs: Sequence[Shown]) -> Table:
    """Each metric of each test, by the ways in which papers choose the epoch; only the first of them is chosen here."""
    rows: list[list[str | Bar]] = []
    for run in runs:
        if run.result is None:
            continue
        picked = run.result.get("val", {})
        for name in [name for name in run.test if name not in COSTS or name == "loss"]:
            val, test = (_by_epoch(run, f"{stage}/{name}") for stage in ("val", "test"))
            at = _at(run, f"val/{name}", picked.get("epoch"))
            rows.append([
                run.label, name, f"{shown_value(name, run.test[name])} ({_by(picked)})",
                _or_missing(name, at), _last(name, val), _mean_of_last(name, val), _last(name, test),
                _mean_of_last(name, test), _or_missing(name, _largest(name, test)),
            ])  # fmt: skip
    head = [
        "run", "metric", "test, chosen by validation", "validation at that epoch", "validation, last epoch",
        f"validation, mean of the last {LAST}", "test, last epoch", f"test, mean of the last {LAST}",
        "test, best epoch (never chosen)",
    ]  # fmt: skip
    return Table("How each number was chosen", head, rows)


def rates(runs: Sequence[Shown]) -> list[Table]:
    """Spikes per neuron and step by layer; runs with the same layers share a table."""
    groups: dict[tuple[str, ...], list[tuple[str, dict[str, float]]]] = {}
    for run in runs:
        found = run.test.get("spike_rates")
        if isinstance(found, dict) and found and all(isinstance(rate, int | float) for rate in found.values()):
            groups.setdefault(tuple(found), []).append((run.label, found))
    tables = []
    for layers, group in groups.items():
        rows: list[list[str | Bar]] = [[label, *(_bar(found[name]) for name in layers)] for label, found in group]
        tables.append(Table("Spikes per neuron and step, on the test rows", ["run", *map(clean, layers)], rows))
    return tables


def swaps(runs: Sequence[Shown]) -> Table | None:
    """What ``study solver-swap`` found: a row for each solver and layer."""
    rows: list[list[str | Bar]] = []
    for run in runs:
        for swap in run.swaps:
            for row in swap["rows"]:
                if "agreement" in row:
                    rows += agreement(run.label, clean(row["neuron"]), row["agreement"], row["rows"])
    return Table("From the study solver-swap", AGREEMENT, rows) if rows else None


AGREEMENT = ("run", "solver", "layer", "spikes as exact, whole network", "F1", "spikes as exact, same currents", "rows")


def agreement(label: str, solver: str, found: Mapping[str, Any], rows: int) -> list[list[str | Bar]]:
    """Rows of a table of fidelity: what `spikingssm.measures.agreement.Agreement.scores` gives, layer by layer."""
    lines: list[list[str | Bar]] = []
    for layer, scores in found["network"].items():
        alone = found.get("layer", {}).get(layer, {}).get("agreement")
        cells = [_floor(scores["agreement"]), _floor(scores["f1"]), MISSING if alone is None else _floor(alone)]
        lines.append([label, solver, clean(layer), *cells, str(rows)])
    return lines


def card(run: Shown) -> Table | None:
    """What ``card.json`` of a run holds, a row for each value; None where there is none."""
    if run.card is None:
        return None
    values = list(_leaves(run.card, ""))
    rows: list[list[str | Bar]] = [[name, value] for name, value in values[:LONGEST]]
    if len(values) > LONGEST:
        rows.append(["more", f"{len(values) - LONGEST} more values stand in card.json"])
    return Table(f"Card of {run.label}", ["name", "value"], rows)


def differences(runs: Sequence[Shown]) -> Table | None:
    """Command, environment and configuration, where they differ between runs; None where nothing does.

    A run that keeps nothing of a kind, such as a JSON file without a configuration, differs in nothing of it.
    """
    known = [run for run in runs if run.config or run.result is not None]
    facts = [_facts(run) for run in known]
    rows: list[list[str | Bar]] = []
    for kind in dict.fromkeys(kind for found in facts for kind in found):
        have = [found[kind] for found in facts if found.get(kind)]
        for key in dict.fromkeys(key for values in have for key in values):
            if len({values.get(key) for values in have}) > 1:
                rows.append([key, *(found.get(kind, {}).get(key, "-") for found in facts)])
    return Table("What differs between the runs", ["key", *(run.label for run in known)], rows) if rows else None


def matrix(found: Any) -> Matrix | None:
    """The confusion matrix of a test's ``by_class``; None where it is none, or not one of at most 100 classes."""
    if not isinstance(found, dict) or not isinstance(found.get("recall"), dict):
        return None
    names, counts = [clean(name, 60) for name in found["recall"]], found.get("confusion")
    if not isinstance(counts, list) or not 0 < len(counts) == len(names) <= MOST:
        return None
    if not all(isinstance(row, list) and len(row) == len(names) and all(map(_is_count, row)) for row in counts):
        return None
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    rows = [
        [names[i], names[j], str(n), f"{100 * n / sum(counts[i]):.1f} %"] for n, i, j in sorted(pairs, reverse=True)
    ]
    head = ["true class", "answer", "test rows", "part of its class"]
    return Matrix(names, counts, Table("The most frequent mistakes", head, rows[:10]))


def shown_value(name: str, value: float) -> str:
    """A metric as text: a share in percent."""
    return f"{100 * value:.2f} %" if is_share(name) else plain_number(value)


def _by(picked: Mapping[str, Any]) -> str:
    """What chose the epoch of a test."""
    names = ", ".join(clean(name, 60) for name in picked if name != "epoch")
    epoch = f", epoch {picked['epoch']:.0f}" if "epoch" in picked else ""
    return f"by {names}{epoch}" if names else "how is not said"


def _or_missing(name: str, value: float | None) -> str:
    return MISSING if value is None else shown_value(name, value)


def _by_epoch(run: Shown, column: str) -> list[float]:
    return [row[column] for row in run.epochs if column in row]


def _at(run: Shown, column: str, epoch: Any) -> float | None:
    """The value of an epoch, which is counted from 1."""
    return next((row[column] for row in run.epochs if column in row and row["epoch"] + 1 == epoch), None)


def _last(name: str, values: Sequence[float]) -> str:
    return _or_missing(name, values[-1] if values else None)


def _mean_of_last(name: str, values: Sequence[float]) -> str:
    if not values:
        return MISSING
    some = "" if len(values) >= LAST else f" (all {len(values)} epochs)" if len(values) > 1 else " (1 epoch)"
    return shown_value(name, fmean(values[-LAST:])) + some


def _largest(name: str, values: Sequence[float]) -> float | None:
    """The best of a test by epoch: the largest share, else the smallest error."""
    finite = [value for value in values if not math.isnan(value)]
    return (max if is_share(name) or name == "r2" else min)(finite) if finite else None


def _bar(rate: float) -> Bar:
    return Bar(f"{100 * rate:.2f} %", min(1.0, max(0.0, rate)) if math.isfinite(rate) else 0.0)


def _floor(part: float) -> str:
    """In percent, rounded down: 100.000 is all of it."""
    return f"{math.floor(1e5 * part + 1e-6) / 1e3:.3f} %"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every value below another, with the names that lead to it."""
    if isinstance(value, Mapping) and depth < 8:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name} / {clean(key, 80)}" if name else clean(key, 80), depth + 1)
    elif isinstance(value, list) and depth < 8 and any(isinstance(inner, Mapping | list) for inner in value):
        for number, inner in enumerate(value, 1):
            yield from _leaves(inner, f"{name} / {number}" if name else str(number), depth + 1)
    elif isinstance(value, list):
        yield name or "value", clean(", ".join(clean(inner, 80) for inner in value[:50]), 1000)
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        yield name or "value", plain_number(value) if number and isinstance(value, float) else clean(value, 1000)


def _facts(run: Shown) -> dict[str, dict[str, str]]:
    """What stands in `differences` of one run, by kind."""
    result = run.result or {}
    versions: Any = result.get("versions")
    kinds: dict[str, dict[str, Any]] = {
        "command": {"command": run.command} if run.command else {},
        "result": {name: result[name] for name in ("device", "solver") if name in result},
        "versions": {f"version of {key}": value for key, value in versions.items()}
        if isinstance(versions, dict)
        else {},
        "config": {key: value for key, value in run.config.items() if key not in ("run_dir", "resume")},
    }
    return {kind: {clean(key, 120): clean(value, 600) for key, value in found.items()} for kind, found in kinds.items()}
