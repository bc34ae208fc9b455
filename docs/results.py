"""`python docs/results.py` writes the tables of results in the pages here, made of the JSON files of runs.

A table stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``. The words around it are written by hand. With
``--check`` nothing is written, and the exit code is 1 where a page differs from its files.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sdn.surrogate.artifact import SHIPPED, load_artifact
from spikingssm.reports.tables import report

__all__ = ["PAGES", "main", "written"]

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
SPEEDS = DOCS.parent / "benchmarks" / "results" / "neurons.json"
Result = dict[str, Any]

PUBLISHED_NETWORK = {
    "test": "99.975 / 99.916", "N(0.5,1)": "99.948 / 99.916", "N(0,2)": "99.968 / 99.945", "N(0,3)": "99.930 / 99.901",
    "N(1,1)": "99.933 / 99.933",
}  # fmt: skip
"""Agreement and F1 of the network released with the paper (Shen et al., arXiv 2408.14909), measured once, not a run."""
NETWORKS = [
    ("digits, 64 steps", "`digits`", "spikingssm-digits-?"),
    ("spoken digits, raw audio", "`fsdd`", "spikingssm-fsdd-?"),
    ("ECG-QTDB, a label a step", "`ecg`", "spikingssm-ecg-?"),
    ("sequential MNIST", "`mnist`", "spikingssm-mnist-*"),
    ("MNIST, random order", "`pmnist` + `data.permute=random`", "spikingssm-pmnist-random-*"),
    ("MNIST, bit-reversed", "`pmnist`", "spikingssm-pmnist-1*"),
    ("grey sequential CIFAR-10", "`cifar`", "spikingssm-cifar-*"),
    ("Speech Commands, 10 words, *subset*", "`sc10`", "spikingssm-sc10-*"),
    ("WikiText-2, *validation text*", "`wt103`", "spikingssm-wt103-*"),
    ("IMDB bytes, *subset*", "`imdb`", "spikingssm-imdb-*"),
]
S5RF = [
    ("sequential MNIST", "`s5rf/smnist`", "s5rf-smnist-*", "98.89 %"),
    ("MNIST, bit-reversed", "`s5rf/psmnist`", "s5rf-psmnist-*", "95.29 %"),
    ("spoken digits as spikes", "`s5rf/fsdd`", "s5rf-fsdd-?", "none"),
]
BRF = [
    ("ECG-QTDB: BRF", "brf-ecg-?", "85.37 +- 0.73 %, 6.9 k"),
    ("BRF, averaged weights (`optim.ema=0.99`)", "brf-ecg-ema-?", "85.37 +- 0.73 %, 6.9 k"),
    ("BRF, averaged and clipped (`optim.ema=0.99 trainer.gradient_clip_val=0.2`)", "brf-ecg-clip-?",
     "85.37 +- 0.73 %, 6.9 k"),
    ("RF", "rf-ecg-?", "85.45 +- 0.77 %, 11.9 k"),
    ("ALIF", "alif-ecg-?", "67.8 +- 3.2 %, 4.6 k"),
]  # fmt: skip
RECURRENT_MNIST = [
    ("BRF", "brf-smnist-?"),
    ("RF", "rf-smnist-?"),
    ("ALIF, back-propagation over 50 steps", "alif-smnist-?"),
]
FUSED = [
    ("digits", "spikingssm-digits-?", "equal-budget/digits-fused-?"),
    ("spoken digits, raw audio", "spikingssm-fsdd-?", "equal-budget/fsdd-fused-?"),
    ("ECG-QTDB", "spikingssm-ecg-?", "equal-budget/ecg-fused-?"),
    ("sequential MNIST, `trainer.max_epochs=2`", "equal-budget/mnist2-surrogate-?", "equal-budget/mnist2-fused-?"),
]
FAMILIES = [
    ("spoken digits as spikes, 250 steps", "`s5rf/fsdd`", "fsdd-s5rf-?"),
    ("", "`brf/fsdd`", "fsdd-brf-?"),
    ("", "`brf/fsdd model.d_model=196`", "fsdd-brf-wide-?"),
    ("sequential MNIST, 20,000 rows", "`s5rf/smnist +tier=small`", "smnist-s5rf-?"),
    ("", "`brf/smnist +tier=small`", "smnist-brf-?"),
]
SPEED = [
    ("`torch.relu`, which moves the same bytes", "relu", ""),
    ('`solver="fused"`', "fused", "exact"),
    ('`solver="surrogate"`', "surrogate", "an SDN"),
    ("norse, over `unbind`", "norse", "exact, gradient through the reset too"),
    ("eager loop over `unbind`", "unbind", "exact"),
    ("SpikingJelly 2.0, multi-step", "spikingjelly", "exact"),
]


def runs(pattern: str) -> list[Result]:
    """Results of one experiment, seed after seed."""
    paths = sorted(RESULTS.glob(f"{pattern}.json"))
    if not paths:
        raise FileNotFoundError(f"{RESULTS}: no {pattern}.json; copy summary.json of the run there.")
    return [json.loads(path.read_text()) for path in paths]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _seeds(found: Sequence[Result]) -> str:
    return ", ".join(str(result["seed"]) for result in found)


def _scores(tests: Sequence[Result]) -> str:
    """One number a seed."""
    if "perplexity" in tests[0]:
        return " / ".join(f"perplexity {test['perplexity']:.1f}" for test in tests)
    return " / ".join(f"{100 * test['accuracy']:.1f}" for test in tests) + " %"


def _rate(found: Sequence[Result]) -> str:
    return f"{100 * _mean(found, 'spike_rate'):.1f}"


def _mean(found: Sequence[Result], key: str) -> float:
    return fmean(result["test"][key] for result in found)


def _minutes(found: Sequence[Result]) -> str:
    return f"{fmean(result['cpu_minutes'] for result in found):.1f}"


def surrogates() -> str:
    """Agreement and F1 of three networks for LIF(decay 0.125), beside one that says 0."""
    ours, published = runs("sdn-lif-0.125-0")[0], runs("sdn-lif-0.125-published-recipe-0")[0]
    shipped = load_artifact(SHIPPED / "lif-decay-0.125.safetensors").facts["metrics"]
    rows = []
    for name, released in PUBLISHED_NETWORK.items():
        of = [{**result["fresh"], "test": result["metrics"]["test"]}[name] for result in (ours, published)]
        none = f"{100 * of[0]['trivial_agreement']:.2f} / {100 * of[0]['trivial_f1']:.1f}"
        cells = [f"{100 * m['agreement']:.3f} / {100 * m['f1']:.3f}" for m in (of[0], shipped[name], of[1])]
        rows.append(["N(0,1), test file" if name == "test" else name, none, *cells, released])
    return markdown(["currents", "mem = 0", "`train.py`", "shipped", "`--preset published`", "published network"], rows)


def networks() -> str:
    """Each recipe of SpikingSSM that was trained, under the surrogate and the exact neuron."""
    rows = []
    for data, recipe, pattern in NETWORKS:
        found = runs(pattern)
        rows.append([
            data, recipe, _seeds(found), str(found[0]["epochs"]), _scores([result["test"] for result in found]),
            _scores([result["exact_neuron"] for result in found]), f"{_rate(found)} %",
            f"{_mean(found, 'sops') / 1e6:.2f} M", _minutes(found),
        ])  # fmt: skip
    head = ["data", "recipe", "seeds", "epochs", "surrogate", "exact", "spikes", "SOPs", "CPU minutes"]
    return markdown(head, rows)


def s5rf() -> str:
    """Each recipe of S5-RF that was trained."""
    rows = []
    for data, recipe, pattern, published in S5RF:
        found = runs(pattern)
        rows.append([
            data, recipe, _seeds(found), str(found[0]["epochs"]), _scores([result["test"] for result in found]),
            f"{_rate(found)} %", f"{_mean(found, 'sops') / 1e6:.2f} M", _minutes(found), published,
        ])  # fmt: skip
    return markdown(["data", "recipe", "seeds", "epochs", "test", "spikes", "SOPs", "CPU minutes", "published"], rows)


def _spread(found: Sequence[Result], key: str) -> str:
    values = [100 * result["test"][key] for result in found]
    return f"{fmean(values):.2f} +- {stdev(values):.2f} %"


def brf() -> str:
    """The recurrent networks on ECG, mean and sample deviation."""
    rows = []
    for network, pattern, published in BRF:
        found = runs(pattern)
        spikes = f"{_mean(found, 'spikes') / 1000:.1f} k"
        spreads = [_spread(found, key) for key in ("accuracy_all", "accuracy")]
        rows.append([network, _seeds(found), *spreads, spikes, _minutes(found), published])
    head = ["network", "seeds", "all steps", "labelled steps", "spikes a sample", "CPU minutes a run"]
    return markdown([*head, "published: all steps, spikes"], rows)


def recurrent_mnist() -> str:
    """The recurrent networks on sequential MNIST, one seed each."""
    rows = []
    for network, pattern in RECURRENT_MNIST:
        found = runs(pattern)
        rows.append([
            network, str(found[0]["epochs"]), _scores([result["test"] for result in found]), f"{_rate(found)} %",
            f"{_mean(found, 'spikes'):,.0f}", f"{_mean(found, 'sops') / 1e6:.2f} M", _minutes(found),
        ])  # fmt: skip
    return markdown(
        ["network", "epochs", "test", "spike rate", "spikes a sample", "SOPs a sample", "CPU minutes"], rows
    )


def fused() -> str:
    """Training with the surrogate or with the exact neuron, at equal epochs and seeds."""
    rows = []
    for data, *patterns in FUSED:
        both = [runs(pattern) for pattern in patterns]
        scores = [_scores([result["test"] for result in found]) for found in both]
        rates = ", ".join(map(_rate, both)) + " %"
        minutes = ", ".join(map(_minutes, both))
        rows.append([data, _seeds(both[0]), str(both[0][0]["epochs"]), *scores, rates, minutes])
    head = ["data", "seeds", "epochs", "trained with surrogate", "trained with fused", "spikes", "CPU minutes"]
    return markdown(head, rows)


def families() -> str:
    """S5-RF and BRF at equal epochs and seeds."""
    rows = []
    for data, recipe, pattern in FAMILIES:
        found = runs(f"equal-budget/{pattern}")
        rows.append([
            data, recipe, f"{found[0]['parameters']:,}", _seeds(found), str(found[0]["epochs"]),
            _scores([result["test"] for result in found]), f"{_rate(found)} %", _minutes(found),
        ])  # fmt: skip
    return markdown(["data", "network", "parameters", "seeds", "epochs", "test", "spikes", "CPU minutes"], rows)


def speed() -> str:
    """Nanoseconds of one neuron and step, of 8 x 4,096 x 512."""
    rows = [row for row in json.loads(SPEEDS.read_text())["rows"] if row["table"] == "bars" and row["shape"][1] == 4096]
    times = {(row["variant"], row["pass"]): f"{row['ns']:.1f}" for row in rows}
    lines = [[words, times[name, "fwd"], times[name, "fwd+bwd"], note] for words, name, note in SPEED]
    return markdown(["", "fwd", "fwd+bwd", ""], lines)


def _reported(pattern: str) -> Callable[[], str]:
    return lambda: report(sorted(RESULTS.glob(f"{pattern}.json")))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "results.md": {"surrogates": surrogates, "networks": networks, "s5rf": s5rf, "brf": brf, "speed": speed},
    "experiments.md": {
        "results": _reported("spikingssm-*"), "fused": fused, "families": families, "swap": _reported("solver-swap-*"),
    },
    "s5rf.md": {"results": _reported("s5rf-*")},
    "brf.md": {"smnist": recurrent_mnist},
}  # fmt: skip
"""The tables of each page by their names."""


def written(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """The text of a page with its tables made anew.

    Raises:
        ValueError: the page has no place for a table.
    """
    for name, make in tables.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"no place for the table {name}; write <!-- {name} --> and <!-- end {name} -->.")
        table = make()
        text = place.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, count=1)
    return text


def main() -> None:
    """Write the tables, or compare them with their files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where something differs")
    check, old = parser.parse_args().check, []
    for name, tables in PAGES.items():
        page = DOCS / name
        text = page.read_text()
        new = written(text, tables)
        if new != text:
            old.append(name)
            if not check:
                page.write_text(new)
    if check and old:
        sys.exit(f"{', '.join(old)}: differs from docs/results/*.json; run python docs/results.py")


if __name__ == "__main__":
    main()
