"""Demo recordings of two neurons that this project does not have, by independent simulators in NumPy float64.

Nothing of `sdn` makes the numbers: it only wraps them as a `Recording`.
"""

import numpy as np
import torch

from sdn.recordings.data import Recording

FAMILIES = ("white", "pink", "steps", "sinusoid", "ramps")
FINE = {"adex": 0.05, "hh": 0.025}
"""Steps of the simulations in ms."""
UNITS = {"adex": {"current": "pA", "voltage": "mV"}, "hh": {"current": "uA/cm2", "voltage": "mV"}}
LEVELS = {"adex": (350.0, 1000.0, 350.0), "hh": (2.0, 12.0, 7.0)}
"""Least and largest mean of a current, and standard deviation of its noise, in the current's unit."""


def adex(current, dt):
    """Voltage (N, T) in mV and spikes (N, T) of the adaptive exponential neuron, by Euler's method.

    ``C V' = -gL (V - EL) + gL D exp((V - VT) / D) - w + I`` and ``tau w' = a (V - EL) - w``. At 20 mV it spikes, then
    ``V = EL`` and ``w += b``. The spiking sample keeps the 20 mV.

    Args:
        current: (N, T) in pA.
        dt: step in ms.

    Source: Brette and Gerstner, J. Neurophysiol. 94, 2005: C 281 pF, gL 30 nS, EL -70.6 mV, VT -50.4 mV, D 2 mV,
    tau 144 ms, a 4 nS, b 80.5 pA.
    """
    c, g, rest, start, sharp, tau, a, b = 281.0, 30.0, -70.6, -50.4, 2.0, 144.0, 4.0, 80.5
    rows, length = current.shape
    v, w = np.full(rows, rest), np.zeros(rows)
    voltage, spikes = np.empty((rows, length)), np.zeros((rows, length), bool)
    for t in range(length):
        rise = g * sharp * np.exp(np.minimum((v - start) / sharp, 20.0))
        v, w = (
            v + dt / c * (-g * (v - rest) + rise - w + current[:, t]),
            w + dt / tau * (a * (v - rest) - w),
        )
        fired = v >= 20.0
        voltage[:, t], spikes[:, t] = np.where(fired, 20.0, v), fired
        v, w = np.where(fired, rest, v), w + b * fired
    return voltage, spikes


def hodgkin_huxley(current, dt):
    """Voltage (N, T) in mV and spikes (N, T), upward crossings of 0 mV, of the squid's axon at 6.3 degrees.

    Euler for the voltage, exact relaxation for the gates in each step.

    Args:
        current: (N, T) in uA/cm2.
        dt: step in ms, at most 0.03.

    Source: Hodgkin and Huxley, J. Physiol. 117, 1952, with today's sign and rest at -65 mV, as in Gerstner et al.,
    Neuronal Dynamics, 2014, section 2.2: C 1 uF/cm2, g 120, 36 and 0.3 mS/cm2, E 50, -77 and -54.4 mV.
    """
    rows, length = current.shape
    v = np.full(rows, -65.0)
    m, h, n = np.full(rows, 0.0529), np.full(rows, 0.5961), np.full(rows, 0.3177)
    voltage, spikes = np.empty((rows, length)), np.zeros((rows, length), bool)
    for t in range(length):
        rates = (
            (0.1 * _ratio(v + 40.0, 10.0), 4.0 * np.exp(-(v + 65.0) / 18.0)),
            (0.07 * np.exp(-(v + 65.0) / 20.0), 1.0 / (1.0 + np.exp(-(v + 35.0) / 10.0))),
            (0.01 * _ratio(v + 55.0, 10.0), 0.125 * np.exp(-(v + 65.0) / 80.0)),
        )
        m, h, n = (
            up / (up + down) + (gate - up / (up + down)) * np.exp(-dt * (up + down))
            for gate, (up, down) in zip((m, h, n), rates, strict=True)
        )
        flow = 120.0 * m**3 * h * (v - 50.0) + 36.0 * n**4 * (v + 77.0) + 0.3 * (v + 54.4)
        after = v + dt * (current[:, t] - flow)
        spikes[:, t] = (v < 0.0) & (after >= 0.0)
        voltage[:, t] = v = after
    return voltage, spikes


def _ratio(x, scale):
    """``x / (1 - exp(-x / scale))``, and its limit where x is 0."""
    small = np.abs(x) < 1e-7
    return np.where(small, scale, x / (1.0 - np.exp(-np.where(small, 1.0, x) / scale)))


def stimulus(family, rows, length, dt, level, seed):
    """Currents (rows, length) of a family.

    White: constant over 2 ms. Pink: an Ornstein-Uhlenbeck process of 20 ms. Steps: levels of 60 to 150 ms. Sinusoid: 2
    to 40 Hz. Ramps: up and down, in 80 to 250 ms each way. All with 20 % of the noise.

    Args:
        family: one of `FAMILIES`.
        rows, length: of the result.
        dt: step in ms.
        level: least and largest mean, and standard deviation.
        seed: the same seed gives the same currents.
    """
    rng = np.random.default_rng(seed)
    low, high, std = level
    mean = rng.uniform(low, high, (rows, 1))
    time = np.arange(length) * dt
    if family == "white":
        return mean + 1.5 * std * _held(rng.standard_normal, rows, length, 2.0, dt)
    if family == "pink":
        return mean + std * _slow(rng, rows, length, 20.0, dt)
    noise = 0.2 * std * _slow(rng, rows, length, 5.0, dt)
    if family == "steps":
        width = rng.uniform(60.0, 150.0)
        return _held(lambda size: rng.uniform(low - 0.5 * std, high + 0.5 * std, size), rows, length, width, dt) + noise
    if family == "sinusoid":
        herz = np.exp(rng.uniform(np.log(2.0), np.log(40.0), (rows, 1)))
        wave = np.sin(2 * np.pi * (herz * time / 1000.0 + rng.uniform(0, 1, (rows, 1))))
        return mean + 1.2 * std * wave + noise
    rate = rng.uniform(80.0, 250.0, (rows, 1))
    triangle = np.abs((time / rate) % 2.0 - 1.0)
    return low - 0.5 * std + (high - low + std) * triangle + noise


def _held(draw, rows, length, hold, dt):
    """Values that are drawn anew every ``hold`` ms."""
    steps = round(hold / dt)
    return np.repeat(draw((rows, -(-length // steps))), steps, axis=1)[:, :length]


def _slow(rng, rows, length, tau, dt):
    """An Ornstein-Uhlenbeck process of variance 1."""
    keep = np.exp(-dt / tau)
    noise = rng.standard_normal((rows, length)) * np.sqrt(1.0 - keep**2)
    noise[:, 0] /= np.sqrt(1.0 - keep**2)
    for t in range(1, length):
        noise[:, t] += keep * noise[:, t - 1]
    return noise


def demo(kind, milliseconds=1000, rows=4, seed=0, families=FAMILIES):
    """A recording of "adex" or "hh" with so many sweeps of each family, at the fine step of `FINE`.

    Args:
        kind: which neuron.
        milliseconds: length of a sweep.
        rows: sweeps of each family.
        seed: the same seed gives the same recording.
        families: which ones, in their order.
    """
    dt = FINE[kind]
    length = round(milliseconds / dt)
    currents = [stimulus(f, rows, length, dt, LEVELS[kind], [seed, FAMILIES.index(f)]) for f in families]
    current = np.concatenate(currents)
    voltage, spikes = (adex if kind == "adex" else hodgkin_huxley)(current, dt)
    return Recording.of(
        current, spikes=spikes, voltage=voltage, dt=dt, units=UNITS[kind],
        families=[f for f in families for _ in range(rows)],
    )  # fmt: skip


def at_one_ms(kind, milliseconds=1000, rows=4, seed=0, families=FAMILIES):
    """`demo` at steps of 1 ms, as a fit takes it."""
    return demo(kind, milliseconds, rows, seed, families).resampled(1.0)


def lif(decay, threshold, rows=8, length=2000, seed=0):
    """A recording of a leaky neuron with a hard reset, by a plain loop in float64; its current has no unit."""
    rng = np.random.default_rng(seed)
    current = rng.normal(0.12, 0.35, (rows, length))
    u, spikes = np.zeros(rows), np.zeros((rows, length), bool)
    for t in range(length):
        h = decay * u + current[:, t]
        spikes[:, t] = h >= threshold
        u = np.where(spikes[:, t], 0.0, h)
    return Recording.of(torch.from_numpy(current), spikes=spikes, dt=1.0, units={"current": "1"}, families="noise")
