"""A recording: currents that went into a neuron and the spikes that came out, with units and kinds of stimulus."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.recordings.checks import VOLTAGE_UNITS, crossings, wrong_content, wrong_form
from sdn.runs.files import writing

__all__ = ["Recording"]

FORMAT = "sdn-recording-1"
Numbers = Tensor | np.ndarray[Any, Any] | Sequence[Any]
"""Numbers (N, T), or (T,) of one sweep."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Sweeps of one neuron on a common time step. `Recording.of` makes one from arrays and checks all of it.

    Args:
        current: (N, T) float32, in ``units["current"]``.
        spikes: (N, T) bool, True in the step of a spike.
        dt: length of a step in ms, > 0.
        voltage: (N, T) float32 in ``units["voltage"]``, or None.
        units: of "current" (A, mA, uA, nA, pA, uA/cm2, or 1 for a number without unit) and "voltage" (V, mV or 1).
        families: kind of stimulus of each sweep, N words.
        split: what the recording is for, such as "training".

    Raises:
        ValueError: another form, or a number that is not finite, with its sweep and step.
    """

    current: Tensor
    spikes: Tensor
    dt: float
    voltage: Tensor | None = None
    units: Mapping[str, str] = field(default_factory=lambda: {"current": "1"})
    families: tuple[str, ...] = ()
    split: str = "training"

    def __post_init__(self) -> None:
        if problem := wrong_form(self):
            raise ValueError(f"Recording: {problem}.")

    @classmethod
    def of(
        cls,
        current: Numbers,
        *,
        dt: float,
        spikes: Numbers | None = None,
        times: Sequence[Iterable[float]] | None = None,
        voltage: Numbers | None = None,
        units: Mapping[str, str] | None = None,
        families: str | Sequence[str] = "unnamed",
        split: str = "training",
        spike_at: float | None = 0.0,
    ) -> "Recording":
        """A recording from arrays, with all checks.

        Args:
            current: (N, T), or (T,) of one sweep.
            dt: length of a step in ms.
            spikes: (N, T) of 0 and 1.
            times: in place of ``spikes``, the times of the spikes of each sweep in ms; step t is [t dt, (t + 1) dt).
            voltage: (N, T). Without ``spikes`` and ``times`` its upward crossings of ``spike_at`` are the spikes.
            units: as of the class; what is left out is pA and mV.
            families: one word for all sweeps, or one each.
            split: what it is for.
            spike_at: level in mV that the voltage crosses in a spike. Where the voltage has a unit, spikes and
                crossings must go together within 2 ms. None: the voltage is not asked, as where it was cut or averaged.

        Raises:
            ValueError: what is wrong, with the first bad sweep and step.
        """
        if units is not None and not isinstance(units, Mapping):
            raise ArgumentError(f"Recording.of: units must be such as {{'current': 'nA'}}, got {shown(units)}.")
        units = {"current": "pA", **({} if voltage is None else {"voltage": "mV"}), **(units or {})}
        x = _numbers("current", current)
        v = None if voltage is None else _numbers("voltage", voltage)
        dt = float(dt)
        if spikes is not None and times is not None:
            raise ValueError("Recording.of: got spikes and times; give one of them.")
        if spikes is not None:
            s = _spikes(spikes)
        elif times is not None:
            s = _from_times(times, x, dt)
        elif v is not None and spike_at is not None:
            s = crossings(v, _level(spike_at, units))
        else:
            raise ValueError("Recording.of: no spikes; give spikes, times, or a voltage with spike_at.")
        names = (families,) * len(x) if isinstance(families, str) else tuple(families)
        found = cls(x, s, dt, v, units, names, split)
        if problem := wrong_content(found, spike_at):
            raise ValueError(f"Recording: {problem}.")
        return found

    @property
    def rate(self) -> float:
        """Share of the steps that have a spike."""
        return float(self.spikes.float().mean())

    def __len__(self) -> int:
        """Number of sweeps."""
        return len(self.current)

    def __repr__(self) -> str:
        """Sizes and kinds, without the numbers."""
        n, t = self.current.shape
        kinds = ", ".join(f"{kind} {self.families.count(kind)}" for kind in dict.fromkeys(self.families))
        voltage = "" if self.voltage is None else f", voltage in {self.units['voltage']}"
        return (
            f"Recording({n} sweeps of {t} steps of {self.dt:g} ms, current in {self.units['current']}{voltage}, "
            f"{int(self.spikes.sum())} spikes, {kinds}, {self.split!r})"
        )

    def sweeps(self, families: str | Iterable[str] | None = None, *, without: Iterable[str] = ()) -> "Recording":
        """The sweeps of some families.

        Args:
            families: one name or several; None is all.
            without: names to leave out.

        Raises:
            ValueError: a name that no sweep has, or no sweep left.
        """
        chosen = {families} if isinstance(families, str) else set(self.families if families is None else families)
        left_out = {without} if isinstance(without, str) else set(without)
        if unknown := sorted((chosen | left_out) - set(self.families)):
            there = ", ".join(dict.fromkeys(self.families))
            raise ValueError(f"Recording.sweeps: no sweep is of the family {unknown[0]!r}; there are {there}.")
        return self.rows([i for i, name in enumerate(self.families) if name in chosen - left_out])

    def rows(self, rows: Sequence[int]) -> "Recording":
        """The sweeps of these numbers, in this order."""
        if not rows:
            raise ValueError("Recording: no sweep is left; choose other families or rows.")
        places = list(rows)
        voltage = None if self.voltage is None else self.voltage[places]
        names = tuple(self.families[i] for i in places)
        return Recording(self.current[places], self.spikes[places], self.dt, voltage, self.units, names, self.split)

    def resampled(self, dt: float) -> "Recording":
        """The recording at a longer step: means of current and voltage in each bin, a spike where the bin has one.

        Steps at the end that do not fill a bin are left out. A voltage of means has lost its peaks.

        Args:
            dt: the new step in ms, a whole multiple of the old one to 1 part in 1,000.

        Raises:
            ValueError: another ratio, a bin longer than the sweeps, or the first bin that would merge two spikes.
        """
        ratio = float(dt) / self.dt
        step = round(ratio) if math.isfinite(ratio) else 0
        if step < 1 or abs(ratio - step) > 1e-3 * step:
            near = ", ".join(f"{n * self.dt:g}" for n in sorted({max(1, math.floor(ratio)), max(1, math.ceil(ratio))}))
            raise ValueError(
                f"Recording.resampled: {dt:g} ms is no whole number of steps of {self.dt:g} ms; take {near} ms."
            )
        bins = self.current.shape[1] // step
        if not bins:
            whole = self.current.shape[1] * self.dt
            raise ValueError(f"Recording.resampled: a bin of {dt:g} ms is longer than a sweep of {whole:g} ms.")

        def binned(values: Tensor) -> Tensor:
            return values[:, : bins * step].reshape(len(values), bins, step)

        count = binned(self.spikes).sum(-1)
        if bool((count > 1).any()):
            row, place = (count > 1).nonzero()[0].tolist()
            at = binned(self.spikes)[row, place].nonzero().flatten()[:2] + place * step
            raise ValueError(
                f"Recording.resampled: sweep {row} has spikes at steps {int(at[0])} and {int(at[1])}, which would be "
                f"one in a step of {dt:g} ms; take a step below {float(at[1] - at[0]) * self.dt:g} ms."
            )
        current = binned(self.current.double()).mean(-1).float()
        voltage = None if self.voltage is None else binned(self.voltage.double()).mean(-1).float()
        return Recording(current, count > 0, self.dt * step, voltage, self.units, self.families, self.split)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as ``.npz``, whole or not at all; `sdn.load_recording` reads it.

        Args:
            path: of the file, whose name must end in .npz.

        Raises:
            ValueError: another ending.
            OSError: it could not be written; an older file is untouched.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Recording.save: the name must end in .npz, got {path.name!r}.")
        facts = {"format": FORMAT, "dt": self.dt, "units": dict(self.units), "split": self.split}
        content: dict[str, Any] = {"current": self.current.numpy(), "spikes": self.spikes.numpy()}
        content |= {} if self.voltage is None else {"voltage": self.voltage.numpy()}
        content |= {"families": np.array(self.families, dtype=np.str_), "facts": np.array(json.dumps(facts))}
        with writing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **content)
        return path


def _level(spike_at: float, units: Mapping[str, str]) -> float:
    """A level in mV in the unit of the voltage; without a unit it is taken as it is."""
    factor = VOLTAGE_UNITS.get(units["voltage"])
    return float(spike_at) if factor is None else float(spike_at) * 1e-3 / factor


def _numbers(name: str, values: Any) -> Tensor:
    """Numbers as (N, T) float32."""
    try:
        found = torch.as_tensor(np.asarray(values, dtype=np.float64) if not isinstance(values, Tensor) else values)
    except (TypeError, ValueError):
        raise ValueError(f"Recording.of: {name} must be numbers (sweeps, steps), all sweeps of one length.") from None
    if found.is_complex():
        raise ValueError(f"Recording.of: {name} must be real numbers, got {found.dtype}.")
    found = found.detach().cpu().float()
    return (found.unsqueeze(0) if found.ndim == 1 else found).contiguous()


def _spikes(values: Any) -> Tensor:
    """Zeros and ones as bools."""
    found = _numbers("spikes", values)
    other = (found != 0) & (found != 1)
    if found.ndim == 2 and bool(other.any()):
        row, step = other.nonzero()[0].tolist()
        raise ValueError(
            f"Recording.of: spikes must be 0 or 1, got {found[row, step]:g} in sweep {row} at step {step}; for times "
            "of spikes in ms use times=."
        )
    return found > 0


def _from_times(times: Sequence[Iterable[float]], current: Tensor, dt: float) -> Tensor:
    """Spikes (N, T) from their times in ms."""
    if not dt > 0:
        raise ValueError(f"Recording: dt must be > 0 ms and finite, got {dt:g}.")
    if len(times) != len(current):
        raise ValueError(
            f"Recording.of: times has {len(times)} lists, current has {len(current)} sweeps; give a list for each."
        )
    spikes = torch.zeros(current.shape, dtype=torch.bool)
    length = current.shape[1]
    for row, each in enumerate(times):
        found = np.asarray(list(each), dtype=np.float64)
        steps = np.floor(found / dt + 1e-6)
        bad = ~((steps >= 0) & (steps < length))
        if bad.any():
            first = int(bad.argmax())
            raise ValueError(
                f"Recording.of: spike {first} of sweep {row} is at {found[first]:g} ms, the sweep lasts from 0 to "
                f"{length * dt:g} ms; times are in ms from the start of the sweep."
            )
        taken, counts = np.unique(steps, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"Recording.of: sweep {row} has {counts.max()} spikes in step {int(taken[counts.argmax()])} of {dt:g} "
                "ms; record at a shorter step."
            )
        spikes[row, torch.from_numpy(steps.astype(np.int64))] = True
    return spikes
