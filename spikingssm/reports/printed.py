"""The test of a network on one screen."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikingssm.measures.shown import COSTS, is_share, plain_number
from spikingssm.reports.tables import short

__all__ = ["brief", "joules"]

FACTS = {"run", "solver", "rows", "device", "agreement", *COSTS}
"""What of a test is no metric of its task."""
FORMS = {"recurrence": "all arithmetic, step by step", "fft": "all arithmetic, by FFT"}
PREFIXES = (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12))


def brief(found: Mapping[str, Any]) -> str:
    """The result of `spikingssm.evaluate` in a few lines with units; `spikingssm.reports.tables.table` shows all.

    Args:
        found: the result; ``run`` names the folder.
    """
    facts = dict(_facts(found))
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", *_layers(found), "", "every number: --all, or --json FILE"])


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "run", str(found["run"])
    yield "solver", str(found["solver"])
    yield "test", f"{found['rows']} rows on {found['device']}"
    for name in [name for name in found if name not in FACTS]:
        value = found[name]
        yield name, f"{100 * value:.2f} %" if is_share(name) else plain_number(value)
    if classes := found.get("by_class"):
        yield "balanced", f"{100 * classes['balanced_accuracy']:.2f} % mean recall of the classes"
        yield "F1", f"{100 * classes['f1']:.2f} % mean of the classes; each of them: --confusion"
    yield "loss", plain_number(found["loss"])
    steps = f", {found['spikes']:.1f} a sample of {found['steps']:.0f} steps" if found.get("steps") else ""
    spikes = f"{100 * found['spike_rate']:.2f} % of all neurons and steps"
    yield "spikes", spikes + steps
    if "sops" in found:
        yield "SOPs", f"{short(found['sops'])} a sample: each spike times the outputs of the maps that it reaches"
    yield from _energy(found.get("energy") or {})
    if found.get("not_counted"):
        yield "not counted", ", ".join(found["not_counted"])


def _energy(energy: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Joules a sample, and what is saved beside the real-valued network of the same shape."""
    if "ac_joule" in energy.get("published", {}):
        yield "energy", f"{_saved(energy['published'], 'ac_joule')} (published count: maps of spikes alone)"
    forms = {name: energy[name] for name in FORMS if name in energy}
    alike = len({form["joule"] for form in forms.values()}) == 1
    for name, form in list(forms.items())[: 1 if alike else None]:
        yield ("energy in full" if name == "recurrence" else "by FFT"), f"{_saved(form, 'joule')} ({FORMS[name]})"


def _saved(count: Mapping[str, Any], key: str) -> str:
    saving = 100 * count["saving"]
    return f"{joules(count[key])} a sample, {abs(saving):.1f} % {'less' if saving >= 0 else 'more'} than dense"


def joules(value: float) -> str:
    """An energy with the largest unit that gives at least 1, such as 28.2 uJ."""
    unit, size = next(((u, s) for u, s in PREFIXES if value >= s), PREFIXES[-1])
    return f"{value / size:.3g} {unit}"


def _layers(found: Mapping[str, Any]) -> list[str]:
    """A line a layer: its spike rate, and how far its spikes are those of the exact neuron."""
    agreement = found.get("agreement") or {}
    rows = [["layer", "spike rate", *(f"{head} as exact" for head in agreement)]]
    for name, rate in found["spike_rates"].items():
        scores = [f"{100 * layers[name]['agreement']:.2f} %" for layers in agreement.values()]
        rows.append([name, f"{100 * rate:.2f} %", *scores])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if agreement:
        lines.append("network: each network on its own spikes; layer: both neurons on the same currents; F1: --all")
    return lines
