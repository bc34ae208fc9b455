"""A small model of the inner ear: sound in, spikes of 700 auditory neurons out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np

from sdn.ops.common.cpu import spread
from spikingssm.datasets.audio import PEAK

__all__ = ["Cochlea", "HairCell", "greenwood"]


def _compiled(function: Any) -> Any:
    # Without fastmath: products and sums are rounded one by one, in this order.
    return numba.njit(nogil=True, error_model="numpy")(function)


class HairCell(NamedTuple):
    """Constants of Meddis' hair cell, those of a fibre with a medium spontaneous rate; rates in 1/s.

    Source: Meddis, Hewitt and Shackleton, "Implementation details of a computation model of the inner hair-cell
    auditory-nerve synapse", JASA 87, 1990, table II.
    """

    a: float = 10.0
    """Permeability at displacement s is g (s + a) / (s + a + b), 0 below -a."""
    b: float = 3000.0
    g: float = 1000.0
    y: float = 5.05
    """New transmitter, for each part that the pool (at most 1) lacks."""
    l: float = 2500.0
    """Lost from the cleft."""
    x: float = 66.31
    """From the reprocessing store back into the pool."""
    r: float = 6580.0
    """From the cleft into the reprocessing store."""

    def at_rest(self) -> tuple[float, float]:
        """Pool, and transmitter that enters the cleft in a second, after a long silence."""
        k = self.g * self.a / (self.a + self.b)
        pool = self.y / (self.y + k * self.l / (self.l + self.r))
        return pool, k * pool


MEDIUM = HairCell()


@dataclass(frozen=True)
class Cochlea:
    """Spikes of a clip, one neuron a channel; channel 0 has the lowest frequency.

    The first difference of the sound (hair cells follow the velocity) goes through 4th-order gammatone filters, unity
    at their centre. A displacement above ``knee`` is compressed to its 4th root and drives a `HairCell` by its positive
    half. What leaves the cleft drives a leaky integrate-and-fire neuron of threshold 1, reset to 0. Every step is
    causal and nothing is random; the gain is one number for all clips, so that a quiet clip has fewer spikes.

    Simpler than Cramer et al.: a gammatone bank for their hydrodynamic basilar membrane; the expected release of a hair
    cell for the random spikes of many into each neuron; steps of a sample; no normalisation of single clips.

    Args:
        channels: number of filters, and of neurons.
        low: lowest centre frequency in Hz; the others are spaced evenly along the membrane (`greenwood`).
        high: highest centre frequency in Hz, below half the rate.
        rate: of the samples, in Hz, at least 4,000.
        knee: displacement where the compression begins; a full-scale sine at a centre f gives 2 sin(pi f / rate).
        drive: displacement of the hair cell at the knee, in the units of `HairCell`.
        rest: membrane of a neuron in silence, in [0, 1); it sets the weight of the transmitter.
        tau: time constant of the membrane in seconds.
        refractory: seconds after a spike in which the neuron ignores its input.
        cell: constants of the hair cells.

    Raises:
        ValueError: a value out of range.

    Source: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg Spiking Data Sets for the Systematic Evaluation of
    Spiking Neural Networks", IEEE TNNLS 2020, arXiv:1910.07407, for the stages; compression: Lopez-Poveda and Meddis,
    "A human nonlinear cochlear filterbank", JASA 110, 2001, with the exponent 1/4; widths of the filters: Glasberg and
    Moore, Hearing Research 47, 1990.
    """

    channels: int = 700
    low: float = 80.0
    high: float = 3700.0
    rate: int = 8_000
    knee: float = 1e-4
    drive: float = 50.0
    rest: float = 0.38
    tau: float = 0.02
    refractory: float = 0.002
    cell: HairCell = MEDIUM

    def __post_init__(self) -> None:
        ranges = {
            "channels": (self.channels >= 1, "at least 1"),
            "rate": (self.rate >= 4_000, "at least 4000 Hz"),
            "low": (0 < self.low < self.high, f"above 0 and below high, {self.high} Hz"),
            "high": (self.high < self.rate / 2, f"below half the rate, {self.rate / 2} Hz"),
            "knee": (self.knee > 0, "above 0"),
            "drive": (self.drive > 0, "above 0"),
            "rest": (0 <= self.rest < 1, "in [0, 1)"),
            "tau": (self.tau > 0, "above 0"),
            "refractory": (self.refractory >= 0, "at least 0"),
        }
        for name, (good, wanted) in ranges.items():
            if not good:
                raise ValueError(f"Cochlea: {name} must be {wanted}, got {getattr(self, name)}.")

    def frequencies(self) -> np.ndarray:
        """Centre frequencies (channels,) in Hz, rising."""
        return greenwood(self.low, self.high, self.channels)

    def poles(self) -> np.ndarray:
        """The four-fold pole (channels,) complex of each filter; its bandwidth is 1.019 equivalent rectangular ones."""
        centre = self.frequencies()
        width = 1.019 * 24.7 * (1 + 4.37e-3 * centre)
        return np.exp(2 * np.pi / self.rate * (1j * centre - width))

    def __call__(self, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Times (E,) int64 in microseconds, not falling, and channels (E,) uint16 of the spikes of a clip (T,) int16.

        The channels are spread over torch's threads.
        """
        sound = np.diff(clip.astype(np.float64), prepend=clip[:1].astype(np.float64)) / PEAK
        poles = self.poles()
        decay = float(np.exp(-1 / (self.rate * self.tau)))
        weight = self.rest * (1 - decay) * self.rate / self.cell.at_rest()[1]
        neuron = decay, weight, round(self.refractory * self.rate)
        fired = np.zeros((len(clip), self.channels), np.bool_)
        scale = float(self.knee), float(self.drive)
        cell = HairCell(*map(float, self.cell))
        args = sound, poles.real.copy(), poles.imag.copy(), scale, cell, neuron, 1 / self.rate, fired
        spread(_fire, self.channels, *args)
        times, units = np.nonzero(fired)
        return times * 1_000_000 // self.rate, units.astype(np.uint16)


def greenwood(low: float, high: float, count: int) -> np.ndarray:
    """Frequencies (count,) in Hz from ``low`` to ``high`` at places spaced evenly along the human basilar membrane.

    Source: Greenwood, "A cochlear frequency-position function for several species", JASA 87, 1990.
    """
    first, last = (np.log10(f / 165.4 + 0.88) for f in (low, high))
    return 165.4 * (10 ** np.linspace(first, last, count) - 0.88)


@_compiled
def _displaced(x: float, knee: float, drive: float) -> float:
    """Hair-cell displacement of membrane displacement x: straight below the knee, then the 4th root, odd."""
    size = abs(x) / knee
    if size > 1:
        size = np.sqrt(np.sqrt(size))
    return drive * size if x > 0 else -drive * size


@_compiled
def _release(
    s: float, pool: float, cleft: float, store: float, cell: HairCell, dt: float
) -> tuple[float, float, float, float]:
    """One step of the hair cell at displacement s: pool, cleft and store after it, and what has left the cleft.

    Cleft and store decay exactly, so that any ``dt`` below 1 / g is stable; transmitter is only made by y, lost by l.
    """
    open_ = max(s + cell.a, 0.0)
    given = cell.g * dt * open_ / (open_ + cell.b) * pool
    left = (1 - np.exp(-(cell.l + cell.r) * dt)) * (cleft + given)
    back = (1 - np.exp(-cell.x * dt)) * store
    pool += cell.y * dt * (1 - pool) - given + back
    return pool, cleft + given - left, store + left * cell.r / (cell.l + cell.r) - back, left


@_compiled
def _rested(cell: HairCell, dt: float) -> tuple[float, float, float]:
    """Pool, cleft and store that `_release` leaves as they are in silence."""
    k = cell.g * cell.a / (cell.a + cell.b)
    back = cell.r / (cell.l + cell.r)
    pool = cell.y / (cell.y + k * (1 - back))
    keep = np.exp(-(cell.l + cell.r) * dt)
    return pool, k * pool * dt * keep / (1 - keep), back * k * pool * dt / (1 - np.exp(-cell.x * dt))


@_compiled
def _fire(
    sound: np.ndarray,
    real: np.ndarray,
    imag: np.ndarray,
    scale: tuple[float, float],
    cell: HairCell,
    neuron: tuple[float, float, int],
    dt: float,
    fired: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """Mark the spikes of the channels ``begin`` to ``end - 1`` in ``fired`` (T, channels)."""
    decay, weight, refractory = neuron
    for channel in range(begin, end):
        a, b = real[channel], imag[channel]
        gain = 1 - np.sqrt(a * a + b * b)
        r1 = i1 = r2 = i2 = r3 = i3 = r4 = i4 = 0.0
        pool, cleft, store = _rested(cell, dt)
        membrane, wait = 0.0, 0
        for t in range(len(sound)):
            r1, i1 = a * r1 - b * i1 + gain * sound[t], a * i1 + b * r1
            r2, i2 = a * r2 - b * i2 + gain * r1, a * i2 + b * r2 + gain * i1
            r3, i3 = a * r3 - b * i3 + gain * r2, a * i3 + b * r3 + gain * i2
            r4, i4 = a * r4 - b * i4 + gain * r3, a * i4 + b * r4 + gain * i3
            s = _displaced(2 * r4, scale[0], scale[1])
            pool, cleft, store, left = _release(s, pool, cleft, store, cell, dt)
            if wait > 0:
                wait -= 1
                continue
            membrane = decay * membrane + weight * left
            if membrane >= 1:
                fired[t, channel] = True
                membrane, wait = 0.0, refractory
