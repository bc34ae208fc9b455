"""Current-clamp sweeps in an NWB 2 file, read by h5py alone."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_nwb"]

LARGEST = 2**31
"""Bytes of one series."""
RESPONSES, STIMULI = "CurrentClampSeries", "CurrentClampStimulusSeries"
TABLE = "general/intracellular_ephys/intracellular_recordings"
UNITS = {
    **dict.fromkeys(("volts", "volt", "V"), ("voltage", 1e3)), **dict.fromkeys(("millivolts", "mV"), ("voltage", 1.0)),
    **dict.fromkeys(("amperes", "ampere", "A"), ("current", 1e12)), "nA": ("current", 1e3), "pA": ("current", 1.0),
}  # fmt: skip
"""Kind of a unit, and its size in mV and pA."""
Sweep = tuple[Any, Any, slice, str]
"""Response, stimulus, the steps of them, and how errors name it."""


def read_nwb(path: Path, sweeps: Any = None, length: int | None = None) -> dict[str, Any]:
    """Sweeps of an NWB 2 file as arguments of `Recording.of`: current in pA, voltage in mV.

    A value is ``data * conversion + offset``; the field ``gain`` of a series says how the amplifier was set and is not
    applied. Responses and stimuli are paired by the table of intracellular recordings where there is one, else by
    ``sweep_number``. The step comes from ``starting_time.rate`` or from regular ``timestamps``. The family is the
    ``stimulus_description``. Bridge balance and junction potential are not corrected.

    Args:
        path: of the file.
        sweeps: numbers of the sweeps, or rows of the table, to read; None is all.
        length: steps to keep of each sweep; None is all, which must then be equally long.

    Raises:
        ImportError: h5py is missing.
        ValueError: damaged, no NWB 2, nothing to pair, or sweeps that do not go together.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("reading .nwb needs the package h5py; install it: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            version = _text(file.attrs.get("nwb_version", ""))
            if not version.startswith("2"):
                raise ValueError(f"no NWB 2 file: its nwb_version is {version or 'missing'}; convert it to NWB 2.")
            pairs = _from_table(file, h5py) if TABLE in file else _by_number(file)
            wanted = set(pairs) if sweeps is None else {int(n) for n in sweeps}
            if absent := sorted(wanted - set(pairs)):
                raise ValueError(f"it has no sweep {absent[0]}; there are {', '.join(map(str, sorted(pairs)))[:80]}.")
            return _together([_sweep(*pairs[n], length) for n in sorted(wanted)])
    except (OSError, KeyError, RuntimeError, AttributeError, IndexError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"not a readable NWB file ({reason}), truncated or foreign.") from None


def _by_number(file: Any) -> dict[int, Sweep]:
    """Pairs by ``sweep_number``."""
    sides: list[dict[int, Any]] = []
    for group, kind in (("acquisition", RESPONSES), ("stimulus/presentation", STIMULI)):
        found: dict[int, Any] = {}
        for name in file.get(group, ()):
            series = _own(file[group], name)
            if _text(series.attrs.get("neurodata_type", "")) != kind or "sweep_number" not in series.attrs:
                continue
            number = int(series.attrs["sweep_number"])
            if number in found:
                raise ValueError(
                    f"{series.name} and {found[number].name} are both sweep {number}; several electrodes need the "
                    "table of intracellular recordings."
                )
            found[number] = series
        sides.append(found)
    both = sides[0].keys() & sides[1].keys()
    if not both:
        raise ValueError(
            f"no {RESPONSES} of its {len(sides[0])} has the sweep_number of one of its {len(sides[1])} {STIMULI}; "
            "there is nothing to pair."
        )
    return {n: (sides[0][n], sides[1][n], slice(None), f"sweep {n}") for n in both}


def _from_table(file: Any, h5py: Any) -> dict[int, Sweep]:
    """Pairs by the rows of the table of intracellular recordings that are current clamp on both sides."""
    responses, stimuli = file[f"{TABLE}/responses/response"], file[f"{TABLE}/stimuli/stimulus"]
    found: dict[int, Sweep] = {}
    for row in range(len(responses)):
        (first, count, one), (start, steps, other) = responses[row], stimuli[row]
        if first < 0 or start < 0 or not (one and other):  # a row without a response or a stimulus
            continue
        response, stimulus = file[one], file[other]
        kinds = [_text(series.attrs.get("neurodata_type", "")) for series in (response, stimulus)]
        if kinds != [RESPONSES, STIMULI]:
            continue
        if (first, count) != (start, steps):
            raise ValueError(
                f"row {row} of its table pairs steps {first}..{first + count} of the response with {start}.."
                f"{start + steps} of the stimulus; they must be the same."
            )
        found[row] = response, stimulus, slice(int(first), int(first + count)), f"row {row}"
    if not found:
        raise ValueError(f"no row of its table pairs a {RESPONSES} with a {STIMULI}.")
    return found


def _sweep(response: Any, stimulus: Any, part: slice, name: str, length: int | None) -> dict[str, Any]:
    """Numbers, step and family of one pair."""
    voltage, current = _values(response, "voltage", part), _values(stimulus, "current", part)
    if len(voltage) != len(current):
        raise ValueError(f"{name}: the voltage has {len(voltage)} samples, the current {len(current)}.")
    steps = _step(response), _step(stimulus)
    if abs(steps[0] - steps[1]) > 1e-5 * steps[0]:
        raise ValueError(f"{name}: the voltage has a step of {steps[0]:g} ms, the current of {steps[1]:g} ms.")
    if length is not None and len(voltage) < length:
        found = f"{name} has {len(voltage)} samples, fewer than length={length}"
        raise ValueError(f"{found}; leave it out by sweeps=[...].")
    family = _text(response.attrs.get("stimulus_description", "")) or "unnamed"
    return {"name": name, "voltage": voltage[:length], "current": current[:length], "dt": steps[0], "family": family}


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All sweeps as arrays (N, T)."""
    if not parts:
        raise ValueError("no sweep was asked for.")
    first = parts[0]
    for part in parts:
        if len(part["voltage"]) != len(first["voltage"]):
            raise ValueError(
                f"{first['name']} has {len(first['voltage'])} samples, {part['name']} has {len(part['voltage'])}; keep "
                "as many of each by length=, or choose by sweeps=[...]."
            )
        if abs(part["dt"] - first["dt"]) > 1e-5 * first["dt"]:
            raise ValueError(
                f"{first['name']} has a step of {first['dt']:g} ms, {part['name']} of {part['dt']:g} ms; read those of "
                "one step by sweeps=[...]."
            )
    return {
        "current": np.stack([part["current"] for part in parts]),
        "voltage": np.stack([part["voltage"] for part in parts]),
        "dt": first["dt"],
        "families": [part["family"] for part in parts],
        "units": {"current": "pA", "voltage": "mV"},
    }


def _values(series: Any, kind: str, part: slice) -> Any:
    """The numbers of a series in mV or pA, float64."""
    data = _own(series, "data")
    if data.ndim != 1 or data.dtype.kind not in "fiu":
        raise ValueError(f"{data.name} is {data.dtype} of shape {data.shape}; a sweep is one row of numbers.")
    if data.size * max(8, data.dtype.itemsize) > LARGEST:
        raise ValueError(f"{data.name} has {data.size} samples, at most {LARGEST // 8} are read.")
    unit = _text(data.attrs.get("unit", ""))
    found, size = UNITS.get(unit, ("", 0.0))
    if found != kind:
        known = [name for name, (what, _) in UNITS.items() if what == kind]
        raise ValueError(f"{data.name} is in {unit or 'no unit'!r}; a {kind} is in one of {', '.join(known)}.")
    factor, offset = float(data.attrs.get("conversion", 1.0)), float(data.attrs.get("offset", 0.0))
    return (data[part].astype(np.float64) * factor + offset) * size


def _step(series: Any) -> float:
    """The step in ms."""
    if "starting_time" in series:
        rate = float(series["starting_time"].attrs["rate"])
        if not 0 < rate < np.inf:
            raise ValueError(f"{series.name} has a rate of {rate:g} Hz.")
        return 1e3 / rate
    stored = _own(series, "timestamps")
    if stored.size < 2 or stored.size > LARGEST // 8:
        raise ValueError(f"{stored.name} has {stored.size} times; a sweep has from 2 to {LARGEST // 8}.")
    times = stored[:].astype(np.float64)
    gaps = np.diff(times) * 1e3
    step = float(np.median(gaps))
    bad = ~(np.abs(gaps - step) <= 1e-2 * abs(step))
    if not step > 0 or bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"{series.name}: timestamps go on by {gaps[at]:g} ms at sample {at + 1}, elsewhere by {step:g} ms; a "
            "recording has one regular step."
        )
    return step


def _own(group: Any, name: str) -> Any:
    """A member of a group that lies in this file."""
    link = group.get(name, getlink=True)
    if link is not None and type(link).__name__ == "ExternalLink":
        raise ValueError(f"{group.name}/{name} lies in another file, which is not followed; copy it into this one.")
    found = group[name]
    if getattr(found, "external", None) or getattr(found, "is_virtual", False):
        raise ValueError(f"{found.name} keeps its numbers in another file, which is not followed; copy them in.")
    return found


def _text(value: Any) -> str:
    """An attribute as text, which HDF5 has as bytes or as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
