"""What a recording must be: each check returns what is wrong with the first bad sample, or None."""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["CURRENT_UNITS", "VOLTAGE_UNITS", "crossings", "wrong_content", "wrong_form"]

CURRENT_UNITS: dict[str, float | None] = {
    "A": 1.0, "mA": 1e-3, "uA": 1e-6, "nA": 1e-9, "pA": 1e-12, "uA/cm2": None, "1": None,
}  # fmt: skip
VOLTAGE_UNITS: dict[str, float | None] = {"V": 1.0, "mV": 1e-3, "1": None}
"""Units and their size in A and in V; None where there is no such size."""
PLAUSIBLE_CURRENT = 1e-13, 1e-7
PLAUSIBLE_VOLTAGE = 1e-3, 0.3
"""Where the largest absolute value of a current injected into a cell in A, and of a voltage in V, is to be found."""
JITTER = 2.0
"""How far a spike may be from the voltage's crossing, in ms."""
LONGEST_STEP = 100.0
SHORTEST_STEP = 1e-3
"""Of ms; beyond them dt was given in another unit."""


def wrong_form(recording: Any) -> str | None:
    """What is wrong with types, shapes, units, or with a number that is not finite."""
    dt = recording.dt
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not (0 < dt < math.inf):
        return f"dt must be > 0 ms and finite, got {dt!r}"
    if dt > LONGEST_STEP:
        return f"dt is {dt:g} ms; it is the length of a step in ms, not a rate (1000 / rate in Hz)"
    if dt < SHORTEST_STEP:
        return f"dt is {dt:g} ms; it is the length of a step in ms, not in seconds ({1000 * dt:g} ms)"
    shape = tuple(recording.current.shape) if isinstance(recording.current, Tensor) else None
    if shape is None or len(shape) != 2 or 0 in shape:
        return f"current must be a tensor (sweeps, steps) that is not empty, got {shape or type(recording.current)}"
    kinds = {"current": torch.float32, "spikes": torch.bool, "voltage": torch.float32}
    for name, dtype in kinds.items():
        value = getattr(recording, name)
        if name == "voltage" and value is None:
            continue
        if not isinstance(value, Tensor) or value.dtype != dtype:
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            return f"{name} must be {dtype}, got {found}; Recording.of converts arrays"
        if tuple(value.shape) != shape:
            return f"{name} has shape {tuple(value.shape)}, current has {shape}; they must be sampled together"
    return _wrong_words(recording) or _not_finite(recording)


def wrong_content(recording: Any, spike_at: float | None = None) -> str | None:
    """What is wrong with the scale, the number of spikes, or with spikes that the voltage does not have.

    Args:
        recording: of a form that `wrong_form` passes.
        spike_at: level of a spike in mV, see `Recording.of`.
    """
    return _wrong_scale(recording) or _wrong_rate(recording) or _contradiction(recording, spike_at)


def crossings(voltage: Tensor, level: float) -> Tensor:
    """Steps (N, T) at which a voltage comes from below a level to it or above; bool."""
    above = voltage >= level
    found = above.clone()
    found[:, 1:] &= ~above[:, :-1]
    found[:, 0] = False
    return found


def _wrong_words(recording: Any) -> str | None:
    for name, known in (("current", CURRENT_UNITS), ("voltage", VOLTAGE_UNITS)):
        if getattr(recording, name) is not None and recording.units.get(name) not in known:
            return f"the unit of the {name} must be one of {', '.join(known)}, got {recording.units.get(name)!r}"
    families = recording.families
    if not isinstance(families, tuple) or not all(isinstance(word, str) and word for word in families):
        return f"families must be a tuple of words, got {str(families)[:60]}"
    if len(families) != len(recording.current):
        return f"families has {len(families)} words, current has {len(recording.current)} sweeps; give one for each"
    if not isinstance(recording.split, str):
        return f"split must be a word, got {recording.split!r}"
    return None


def _not_finite(recording: Any) -> str | None:
    for name in ("current", "voltage"):
        values = getattr(recording, name)
        bad = torch.zeros(0) if values is None else ~torch.isfinite(values)
        if bool(bad.any()):
            row, step = bad.nonzero()[0].tolist()
            return (
                f"{name} is {values[row, step]:g} in sweep {row} at step {step} ({int(bad.sum())} of {bad.numel()} "
                "samples are not finite); cut the sweep there or leave it out"
            )
    return None


def _wrong_scale(recording: Any) -> str | None:
    known = ("current", CURRENT_UNITS, PLAUSIBLE_CURRENT), ("voltage", VOLTAGE_UNITS, PLAUSIBLE_VOLTAGE)
    for name, units, (low, high) in known:
        values, unit = getattr(recording, name), recording.units.get(name)
        size = None if values is None else units[unit]
        if values is None or size is None:
            continue
        row, step = divmod(int(values.abs().argmax()), values.shape[1])
        largest = float(values[row, step].abs()) * size
        if low <= largest <= high:
            continue
        fits = [u for u, s in units.items() if s and low <= largest / size * s <= high]
        base = "A" if name == "current" else "V"
        way = f"if it is in {' or '.join(fits)}, say so with units={{{name!r}: {fits[0]!r}}}" if fits else "scale it"
        return (
            f"the largest {name} is {values[row, step]:g} {unit}, in sweep {row} at step {step}; a cell has {low:g} to "
            f"{high:g} {base}; {way}"
        )
    return None


def _wrong_rate(recording: Any) -> str | None:
    rates = recording.spikes.float().mean(1)
    if float(rates.max()) == 0:
        return (
            f"no sweep of {len(rates)} has a spike, so there is nothing to learn; look at spike_at, at the units, or "
            "record with more current"
        )
    if float(rates.max()) > 0.5:
        row = int(rates.argmax())
        return (
            f"sweep {row} has a spike in {100 * float(rates[row]):.0f} % of its steps of {recording.dt:g} ms; a neuron "
            "that always fires says nothing: take a shorter step, or check which array holds the spikes"
        )
    return None


def _contradiction(recording: Any, spike_at: float | None) -> str | None:
    """The first spike without a crossing of the voltage within `JITTER`, or crossing without a spike."""
    size = None if recording.voltage is None else VOLTAGE_UNITS[recording.units["voltage"]]
    if size is None or spike_at is None:
        return None
    found = crossings(recording.voltage, spike_at * 1e-3 / size)
    reach = max(1, round(JITTER / recording.dt))
    for one, other, text in (
        (recording.spikes, found, "there is a spike, and the voltage does not cross"),
        (found, recording.spikes, "there is no spike, and the voltage crosses"),
    ):
        wide = torch.nn.functional.max_pool1d(other.float().unsqueeze(1), 2 * reach + 1, 1, reach).squeeze(1) > 0
        alone = one & ~wide
        if bool(alone.any()):
            row, step = alone.nonzero()[0].tolist()
            return (
                f"in sweep {row} at step {step} {text} {spike_at:g} mV within {reach} steps (it is "
                f"{recording.voltage[row, step]:g} {recording.units['voltage']}); shift or mend the spikes, give "
                "another spike_at, or spike_at=None for a voltage that was cut or averaged"
            )
    return None
