"""What does a trained network stand: fewer bits, a noisy input, lost spikes, noisy weights? Nothing is learned."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from matplotlib.figure import Figure

from sdn.dynamics.base import Diverged
from spikingssm.studies import perturbations as do
from spikingssm.studies.common import (
    Shown,
    Subject,
    by_label,
    facts,
    generator,
    markdown,
    mean_sd,
    open_run,
    percent,
    save_figure,
)

__all__ = ["TESTS", "csv_rows", "figure", "robustness", "table"]

TESTS: dict[str, tuple[float, ...]] = {
    "bits": (1, 2, 3, 4, 5, 8, 16, 32),
    "noise": tuple(i / 20 for i in range(8)),
    "deletion": tuple(i / 10 for i in range(10)),
    "synaptic": tuple(i / 10 for i in range(11)),
}
"""The levels of each test: bits behind the binary point, sigma of the input's noise, probability that a spike gets
lost, strength of the weights' noise. 0 is the network as trained."""
AXES = {
    "bits": "bits behind the point",
    "noise": "input noise, sigma",
    "deletion": "part of the spikes lost",
    "synaptic": "weight noise, part of w",
}


def robustness(
    run_dir: str | Path,
    *,
    tests: Sequence[str] = tuple(TESTS),
    repeats: int = 5,
    seed: int = 0,
    limit: int | None = None,
    root: str | Path | None = None,
) -> dict[str, Any]:
    """Test a trained network at every level of `TESTS`.

    Args:
        run_dir: the run folder.
        tests: which; noise is left out where the data are tokens.
        repeats: tests of each level that is random, each with numbers of its own, >= 1.
        seed: of the random numbers, >= 0; those of one level and repeat do not depend on what else is tested.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the training.

    Returns:
        plain values: name, seed and dataset of the run, ``plain`` (loss, metrics and spikes of a sample of the network
        as trained), ``repeats``, and ``rows``: of each ``test`` and ``level`` the ``mean`` and the sample standard
        deviation ``sd`` (None of a single one) of the same numbers over the repeats, and how many of them ``diverged``,
        which enter neither.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: an unknown test, or a number out of range.

    Source: the tests are those of the code of Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603).
    """
    if unknown := [name for name in tests if name not in TESTS]:
        raise ValueError(f"robustness: --tests are {', '.join(TESTS)}, got {unknown[0]!r}.")
    if repeats < 1 or seed < 0:
        raise ValueError(f"robustness: needs --repeats >= 1 and --seed >= 0, got {repeats} and {seed}.")
    subject = open_run(run_dir, limit=limit, root=root)
    if subject.run.data.vocab is not None and "noise" in tests:
        logger.warning(f"{run_dir}: its data are tokens, to which no noise can be added; the test noise is left out")
        tests = [name for name in tests if name != "noise"]
    subject.score()  # compiles
    began = time.perf_counter()
    plain = subject.score()
    seconds = time.perf_counter() - began
    rows, count = len(subject.run.data.test_rows), sum(_count(name, v, repeats) for name in tests for v in TESTS[name])
    logger.info(f"robustness of {run_dir}: {count} tests of {rows} rows, {seconds:.1f} s each, lost spikes longer")
    found = []
    for name in tests:
        for i, level in enumerate(TESTS[name]):
            draws = [(seed, list(TESTS).index(name), i, k) for k in range(_count(name, level, repeats))]
            found.append({"test": name, "level": level, **_several(subject, name, level, draws)})
    return facts(subject, "robustness", draws=seed, repeats=repeats, rows_tested=rows, plain=plain, rows=found)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table for each test: experiments down, levels across, mean and sd over the seeds of the first metric.

    Of one seed the sd is that over its repeats. A second line of each experiment has the spikes of a sample.
    """
    parts = []
    for test, levels in TESTS.items():
        lines = []
        for name, group in by_label(results).items():
            metrics = dict.fromkeys(metric for result in group for metric in result["metrics"])
            for metric in [*metrics, "spikes"]:
                cells = [_cell(group, test, level, metric) for level in levels]
                if any(cells):
                    unit = ", %" if percent(metric) == 100 else " a sample" if metric == "spikes" else ""
                    lines.append([name, str(len(group)), f"{metric}{unit}", *cells])
        if lines:
            head = ["experiment", "seeds", f"{AXES[test]}:", *(f"{level:g}" for level in levels)]
            parts.append(markdown(head, lines))
    return "\n\n".join(parts)


def figure(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """The first metric at every level, a panel for each test, a line with its deviation an experiment, as a PNG."""
    tests = [test for test in TESTS if any(row["test"] == test for result in results for row in result["rows"])]
    canvas = Figure(figsize=(3.6 * len(tests), 3.9), layout="constrained")
    metric = results[0]["metrics"][0]
    for axis, test in zip(canvas.subplots(1, len(tests), squeeze=False, sharey=True)[0], tests, strict=True):
        for i, (name, group) in enumerate(by_label(results).items()):
            known = [(level, found) for level in TESTS[test] if (found := _over_seeds(group, test, level, metric))]
            at = [level for level, _ in known]
            mean, sd = ([percent(metric) * (v or 0) for v in all] for all in zip(*(f for _, f in known), strict=True))
            seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
            axis.plot(at, mean, ".-", color=f"C{i}", label=f"{name}, {seeds}")
            low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
            axis.fill_between(at, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        if test == "bits":
            axis.set_xscale("log", base=2)
            axis.set_xticks(TESTS[test], [f"{level:g}" for level in TESTS[test]])
            axis.minorticks_off()
        axis.set(xlabel=AXES[test], title=test)
    canvas.axes[0].set_ylabel(f"{metric.replace('_', ' ')}{', %' if percent(metric) == 100 else ''}")
    names = canvas.axes[0].get_legend_handles_labels()
    canvas.legend(*names, loc="outside lower center", ncols=max(1, len(tests)), frameon=False)
    save_figure(canvas, path)


def csv_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each test and level."""
    rows = []
    for row in result["rows"]:
        means = {f"{name}_{key}": value for key in ("mean", "sd") for name, value in row[key].items()}
        rows.append({"test": row["test"], "level": row["level"], "diverged": row["diverged"], **means})
    return rows


def _count(test: str, level: float, repeats: int) -> int:
    """How often a level is tested: once where nothing is random."""
    return 1 if test == "bits" or level == 0 else repeats


def _several(subject: Subject, test: str, level: float, draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """One level, once for each sequence of numbers that seeds it."""
    scores = []
    for draw in draws:
        try:
            scores.append(_once(subject, test, level, draw))
        except Diverged as error:
            logger.warning(f"{test} {level:g}: {error}")
    names = ["loss", *subject.metrics, "spikes"]
    spread = {name: mean_sd([score[name] for score in scores]) for name in names}
    return {
        "repeats": len(draws),
        "diverged": len(draws) - len(scores),
        "mean": {name: found.mean for name, found in spread.items()},
        "sd": {name: found.sd for name, found in spread.items()},
    }


def _once(subject: Subject, test: str, level: float, draw: tuple[int, ...]) -> dict[str, float]:
    random = generator(*draw)
    if test == "bits":
        bits = int(level)
        return subject.score(do.quantised(subject.model, bits), lambda batch: do.quantised_input(batch, bits))
    if test == "noise":
        return subject.score(change=lambda batch: do.noisy_input(batch, level, random))
    if test == "synaptic":
        return subject.score(do.noisy_weights(subject.model, level, random))
    with do.losing_spikes(subject.model, level, random):
        return subject.score(together=True)


def _over_seeds(group: Sequence[Mapping[str, Any]], test: str, level: float, metric: str) -> Shown | None:
    """Mean and sd over seeds of the means over repeats; of one seed the sd over its repeats; None of nothing."""
    rows = [row for result in group for row in result["rows"] if (row["test"], row["level"]) == (test, level)]
    rows = [row for row in rows if metric in row["mean"] and not math.isnan(row["mean"][metric])]
    if not rows:
        return None
    if len(rows) == 1:
        return Shown(rows[0]["mean"][metric], rows[0]["sd"][metric])
    return mean_sd([row["mean"][metric] for row in rows])


def _cell(group: Sequence[Mapping[str, Any]], test: str, level: float, metric: str) -> str:
    found = _over_seeds(group, test, level, metric)
    rows = [row for result in group for row in result["rows"] if (row["test"], row["level"]) == (test, level)]
    if not found:
        return "diverged" if rows else ""
    form = ",.0f" if metric == "spikes" else ".2f"
    lost = sum(row["diverged"] for row in rows)
    told = " ± ".join(format(percent(metric) * value, form) for value in found if value is not None)
    return f"{told} ({lost} diverged)" if lost else told
