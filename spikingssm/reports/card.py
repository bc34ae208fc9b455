"""The efficiency card of a network as files: ``card.json`` for programs and ``card.md`` for people."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdn.runs.files import write_json, writing
from spikingssm.experiments.shipped import FOLDER, folder_of
from spikingssm.measures.latency import NOT_MEASURED
from spikingssm.measures.shown import is_share, plain_number
from spikingssm.reports.printed import joules
from spikingssm.reports.tables import short

__all__ = ["CardWriter", "markdown", "write_card"]

UNITS = {
    "ParameterCount": "", "Footprint": " bytes", "ConnectionSparsity": "", "ActivationSparsity": "",
    "MembraneUpdates": " a sample",
}  # fmt: skip
FORMS = {"recurrence": "step by step", "fft": "whole sequences, by FFT"}
NOTE = """MAC and AC are told apart as NeuroBench does it: a map whose inputs are all -1, 0 or 1 takes ACs, any other
MACs. Effective operations are pairs of an input and a weight that are both not 0. Padding is in no count. A sample
here is one test sequence, a pair where the data are pairs, or one chunk of a stream."""


class CardWriter:
    """Makes the card of a network while it is tested, and writes it.

    Args:
        run: run folder, name of a network that ships, or a published checkpoint.
        folder: to write to; "" is the run folder.

    Attributes:
        reader: a callback for the test.

    Raises:
        FileNotFoundError: no such run.
        ValueError: no folder was given, and the run has none of its own that one writes to.
    """

    def __init__(self, run: str | Path, folder: str | Path = "") -> None:
        from spikingssm.experiments.card import MapReader  # which brings Lightning in

        file = Path(run).is_file()
        self.run = None if file else folder_of(run)
        if not str(folder) and (self.run is None or self.run.parent == FOLDER):
            kind = "a file" if file else "a network that ships"
            raise ValueError(f"--card writes into the run folder, and {run} is {kind}; give one with --card FOLDER.")
        self.folder = Path(folder) if str(folder) or self.run is None else self.run
        self.reader = MapReader()

    def write(self, found: dict[str, Any]) -> None:
        """Write the card of a test that ``reader`` has watched; ``found`` is what it gave."""
        from spikingssm.experiments.card import card_of

        command = shlex.join(["spikingssm", *sys.argv[1:]])
        for path in write_card(card_of(self.reader, found, self.run, command), self.folder):
            print(path)


def write_card(found: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write ``card.json`` and ``card.md``, each whole or not at all.

    Args:
        found: what `spikingssm.card` gives.
        folder: is made.

    Returns:
        the two files.
    """
    files = [Path(folder) / "card.json", Path(folder) / "card.md"]
    write_json(files[0], found)
    with writing(files[1]) as partial:
        partial.write_text(markdown(found) + "\n")
    return files


def markdown(found: Mapping[str, Any]) -> str:
    """A card as a page of Markdown.

    Args:
        found: what `spikingssm.card` gives.
    """
    network, data = found["network"], found["data"]
    size = f"{data['length']} steps x {data['d_input']} -> {data['d_output']}"
    parts = [
        f"# Efficiency card: {found['name']}",
        f"{network['class']}, neurons by {network['solver']}. Tested on {found['samples']} samples of {data['name']} "
        f"({data['size']}, {size}; {data['split']}).",
        "## What it answers\n\n" + _table(("metric", "value"), _quality(found["quality"])),
        f"Weights: {_selection(found['quality']['selection'])}",
        "## NeuroBench's metrics\n\n" + _table(("metric", "value"), _metrics(found["neurobench"])),
        NOTE,
        "## Operations of a sample in the linear maps\n\n" + _maps(found["maps"]),
        "## Operations of a sample outside of the maps\n\nNeuroBench counts none of these. They do not depend on "
        "spikes. Step by step they are those of the exact neuron, whatever neuron was tested.\n\n"
        + _outside(found["outside_maps"]),
        *([f"Not counted at all: {', '.join(found['not_counted'])}."] if found["not_counted"] else []),
        "## Spikes of a sample\n\n" + _spikes(found["spikes"]),
        "## Energy of a sample\n\n" + _energy(found["energy"]),
        "## Memory\n\n" + _table(("what", "bytes"), _memory(found["memory"])),
        "## Time of one step, batch 1\n\n" + _latency(found["latency"]),
        "## How this was made\n\n" + _table(("what", "value"), _made(found["made"])),
    ]
    return "\n\n".join(parts)


def _quality(quality: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in quality.items():
        if name != "selection":
            yield name, f"{100 * value:.2f} %" if is_share(name) else plain_number(value)


def _selection(selection: Mapping[str, Any]) -> str:
    if "epoch" not in selection:
        return f"{selection['rule']}."
    values = [f"{n} {plain_number(v)}" for n, v in selection.items() if n not in ("rule", "epoch", "of_epochs")]
    return f"{selection['rule']}. Epoch {selection['epoch']} of {selection['of_epochs']}, {', '.join(values)}."


def _metrics(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if name == "ActivationSparsityByLayer":
            yield from ((f"{name}: {layer}", plain_number(sparsity)) for layer, sparsity in value.items())
        elif name == "SynapticOperations":
            yield from ((f"{name}: {kind}", f"{_number(count)} a sample") for kind, count in value.items())
        elif name == "ModelExecutionRate":
            rate = "not known" if value["hertz"] is None else f"{value['hertz']:g} Hz"
            yield name, f"{rate}: {value['why']}"
        else:
            shown = plain_number(value) if "Sparsity" in name else _number(value)
            yield name, shown + UNITS[name]


def _maps(maps: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, m["kind"], _number(m["effective"]), _number(m["dense"]), _percent(m["effective"], m["dense"]))
        for name, m in maps.items()
    ]
    text = _table(("map", "kind", "effective", "dense", "effective of dense"), rows)
    assumed = [name for name, m in maps.items() if m["source"] == "assumed"]
    return text + (f"\n\nTaken as dense, for all outputs: {', '.join(assumed)}." if assumed else "")


def _outside(forms: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    alike = forms["recurrence"] == forms["fft"]
    rows = []
    for form in ["recurrence"] if alike else FORMS:
        total: dict[str, float] = {}
        for part, count in forms[form].items():
            rows.append((FORMS[form], part, *map(_number, count.values())))
            total = {kind: total.get(kind, 0) + number for kind, number in count.items()}
        rows.append((FORMS[form], "all", *map(_number, total.values())))
    return _table(("run", "part", "multiplications", "additions", "functions"), rows)


def _spikes(found: Mapping[str, Any]) -> str:
    layers, sops = found["spikes_by_layer"], found.get("sops_by_layer", {})
    rows = [(name, _number(count), _number(sops[name]) if name in sops else "") for name, count in layers.items()]
    if "input_events" in found:
        rows.insert(0, ("input", _number(found["input_events"]), _number(sops["input"])))
    rows.append(("all", _number(found["spikes"]), _number(found["sops"])))
    rate = f"{100 * found['spike_rate']:.2f} % of all neurons and steps fire, over {found['steps']:.1f} steps a sample."
    return f"{_table(('layer', 'spikes', 'synaptic operations (SOPs)'), rows)}\n\n{rate}"


def _energy(energy: Mapping[str, Any]) -> str:
    rows = []
    if "published" in energy:
        count = energy["published"]
        rows.append(("published count: maps of spikes alone", joules(count["ac_joule"]), joules(count["mac_joule"])))
    for form, name in FORMS.items():
        rows.append((f"all arithmetic, {name}", joules(energy[form]["joule"]), joules(energy[form]["dense_joule"])))
    named = {"multiplication": "multiply_joule", "addition, AC": "add_joule", "MAC": "mac_joule"}
    named |= {"division, exp, square root": "function_joule"}
    constants = ", ".join(f"{name} {joules(energy['constants'][key])}" for name, key in named.items())
    table = _table(("count", "this network", "dense"), rows)
    return f"{table}\n\nConstants: {constants}. {energy['constants']['source']}"


def _memory(memory: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in memory.items():
        words = name.replace("_", " ")
        if not isinstance(value, Mapping):
            yield words, _number(value)
        elif NOT_MEASURED in value:
            yield words, f"{NOT_MEASURED}: {value[NOT_MEASURED]}"
        else:
            yield from ((f"{words}: {part}", _number(count)) for part, count in value.items())


def _latency(found: Mapping[str, Any]) -> str:
    rows = []
    for name in ("step", "compiled_step"):
        timed, words = found[name], f"`{'model.step' if name == 'step' else 'compile_step().step'}`"
        if NOT_MEASURED in timed:
            rows.append((words, f"{NOT_MEASURED}: {timed[NOT_MEASURED]}", "", "", ""))
            continue
        spread = f"{timed['p10_us']:.1f} to {timed['p90_us']:.1f}"
        place = (
            f"{timed['device']}, {timed['threads']} threads" if timed["threads"] > 1 else f"{timed['device']}, 1 thread"
        )
        rows.append((words, f"{timed['median_us']:.1f}", spread, str(timed["steps"]), place))
    table = _table(("call", "median, us", "10 to 90 % of calls, us", "calls", "device"), rows)
    return f"{table}\n\nProcessor: {found['processor']}. A call reads {found['reads']}."


def _made(made: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in made.items():
        if isinstance(value, Mapping):
            yield from _made(value, f"{before}{name}, ")
        elif value is not None and value != "":
            yield f"{before}{name}", str(value)


def _number(value: float) -> str:
    """A count: whole where it is, with thousands set off, and in three digits from ten million on."""
    if value >= 1e7:
        return short(value)
    return f"{value:,.0f}" if value == int(value) or value >= 1e4 else f"{value:,.1f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "0 %"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
