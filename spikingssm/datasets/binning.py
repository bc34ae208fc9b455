"""Spike trains as frames: counts in time bins and groups of channels."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from spikingssm.datasets.heidelberg import UNITS

__all__ = ["Binning"]

BINS = "published", "fixed", "brf"
STEPS, LONGEST_MS, BIN_MS = 250, 1400, 4.0
"""Bins as published; what fixed bins cover by default, every recording of the releases; their width."""


@dataclass(frozen=True)
class Binning:
    """Counts of events in time bins and groups of neighbouring channels.

    Bin j covers [t0 + j w, t0 + (j + 1) w) microseconds. "published" bins span each recording: t0 is its first event
    and w = floor((last - first) / steps), so the last event and up to ``steps`` - 1 microseconds before it are lost; a
    recording shorter than ``steps`` microseconds, for which that would be w = 0, gets w = 1 and loses nothing.
    "fixed" bins start at t0 = 0, the start of the recording; events behind the last bin are lost. A recording without
    events has empty bins. "brf" bins are those of the published balanced resonate-and-fire experiments: bin j holds
    4 (j - 1) < t <= 4 j milliseconds, so bin 0 only events at 0; unit u is channel 700 - u, and unit 0 is lost, as are
    events behind the last bin (996 ms).

    Args:
        channels: groups of channels, a divisor of 700; channel i is in group floor(i channels / 700).
        bins: "published", "fixed" or "brf".
        steps: number of bins; None: 250 as published, or fixed ones for 1.4 s.
        bin_ms: width of fixed bins in milliseconds, whole microseconds; left at its default for the others.
        binary: 1 for every bin with an event, else counts.

    Raises:
        ValueError: an option out of range.

    Source: Huber et al., arXiv:2504.00719, and its code; tonic, ``ToFrame(n_time_bins=250)``. "brf": Higuchi et al.,
        arXiv:2402.14603, and its code (after Yin, Corradi, Bohte, 2021), which compares times in half precision.
    """

    channels: int = 140
    bins: str = "published"
    steps: int | None = None
    bin_ms: float = BIN_MS
    binary: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1 or UNITS % self.channels:
            divisors = ", ".join(str(n) for n in range(1, UNITS + 1) if UNITS % n == 0)
            raise ValueError(f"data.channels must divide {UNITS}: one of {divisors}; got {self.channels}.")
        if self.bins not in BINS:
            raise ValueError(f"data.bins must be one of {', '.join(BINS)}, got {self.bins}.")
        if not (round(1000 * self.bin_ms) >= 1 and abs(1000 * self.bin_ms - round(1000 * self.bin_ms)) < 1e-6):
            raise ValueError(f"data.bin_ms must be whole microseconds, at least 0.001 ms, got {self.bin_ms}.")
        if self.bins != "fixed" and self.bin_ms != BIN_MS:
            own = "find their own width" if self.bins == "published" else f"are {BIN_MS:g} ms wide"
            raise ValueError(f"data.bin_ms={self.bin_ms:g} is for data.bins=fixed; {self.bins} bins {own}.")
        if self.steps is not None and (self.steps < 1 or self.steps != int(self.steps)):
            raise ValueError(f"data.steps must be a whole number >= 1, or null for the default, got {self.steps}.")

    @property
    def length(self) -> int:
        """Number of bins."""
        if self.steps is not None:
            return self.steps
        return STEPS if self.bins != "fixed" else -(-1000 * LONGEST_MS // round(1000 * self.bin_ms))

    @property
    def dtype(self) -> Any:
        """Of frames."""
        return np.uint8 if self.binary else np.uint16

    def frame(self, times: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Events in any order -> frame (length, channels).

        Args:
            times: (E,) microseconds, >= 0.
            units: (E,) channels, 0 <= unit < 700.

        Raises:
            ValueError: a count that does not fit.
        """
        size = self.length * self.channels
        if not len(times):
            return np.zeros((self.length, self.channels), self.dtype)
        start, width = self._grid(int(times.min()), int(times.max()))
        step = (times - start) // width
        kept = step < self.length
        if self.bins == "brf":
            kept &= units > 0
        cell = step[kept] * self.channels + _group(self.channels, self.bins == "brf")[units[kept]]
        if self.binary:
            frame = np.zeros(size, self.dtype)
            frame[cell] = 1
            return frame.reshape(self.length, self.channels)
        counts = np.bincount(cell, minlength=size)
        if counts.max() > np.iinfo(self.dtype).max:
            raise ValueError(f"a bin holds {counts.max()} events; set data.binary=true or lower data.bin_ms.")
        return counts.astype(self.dtype).reshape(self.length, self.channels)

    def lost(self, times: np.ndarray, units: np.ndarray | None = None) -> int:
        """How many of the events at times (E,), in order, lie in no bin; with units (E,) also by their unit."""
        if not len(times):
            return 0
        start, width = self._grid(int(times[0]), int(times[-1]))
        binned = bisect_left(times, start + self.length * width)
        if self.bins == "brf" and units is not None:
            binned = int(np.count_nonzero(units[:binned]))
        return len(times) - binned

    def valid(self, last: np.ndarray) -> np.ndarray | None:
        """Bins up to that of the last event, at least 1, from its time (N,); None: all, as published."""
        if self.bins != "fixed":
            return None
        found: np.ndarray = np.clip(last // round(1000 * self.bin_ms) + 1, 1, self.length)
        return found

    def _grid(self, first: int, last: int) -> tuple[int, int]:
        """Start of the first bin and width of a bin in microseconds."""
        if self.bins == "fixed":
            return 0, round(1000 * self.bin_ms)
        if self.bins == "brf":  # each bin with its end and without its start
            return 1 - round(1000 * BIN_MS), round(1000 * BIN_MS)
        return first, max(1, (last - first) // self.length)


@lru_cache
def _group(channels: int, turned: bool) -> np.ndarray:
    """(700,) the group of each unit, which is channel 700 - unit where they are turned."""
    unit = np.arange(UNITS)
    return (-unit % UNITS if turned else unit) * channels // UNITS
