"""Neurons that exist only in the tests: what a user may write, each with something that no built-in neuron has."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn import DoubleGaussian, Dynamics
from sdn.dynamics.base import Value


class One(NamedTuple):
    u: Tensor


class Two(NamedTuple):
    v: Tensor
    w: Tensor


class Three(NamedTuple):
    fast: Tensor
    slow: Tensor
    trace: Tensor


@dataclass(frozen=True, eq=False)
class Quadratic(Dynamics):
    """The quadratic neuron of docs/neurons.md: not affine in its state."""

    a: Value = 0.2
    threshold: Value = 1.0

    State = One
    transforms: ClassVar[dict[str, str]] = {"a": "abs", "threshold": "log"}

    def past(self, state):
        return state.u + self.a * state.u * (state.u - 0.6)

    def advance(self, state, current, spike):
        return One((self.past(state) + current) * (1 - spike))


@dataclass(frozen=True, eq=False)
class AdEx(Dynamics):
    """Adaptive exponential: a transcendental function in the loop, bounded so that it cannot overflow.

    Source: Brette and Gerstner 2005, with unit leak and rest 0.
    """

    tau: Value = 10.0
    sharpness: Value = 0.4
    threshold: Value = 1.5
    jump: Value = 0.3

    State = Two
    transforms: ClassVar[dict[str, str]] = {"tau": "abs", "sharpness": "abs", "threshold": "log", "jump": "none"}

    def past(self, state):
        rise = self.sharpness * torch.exp((state.v - 1.0) / self.sharpness).clamp(max=20.0)
        return state.v + (-state.v + rise - state.w) / self.tau

    def advance(self, state, current, spike):
        v = self.past(state) + current
        w = state.w + (0.5 * state.v - state.w) / (3 * self.tau) + self.jump * spike
        return Two(torch.where(spike > 0, torch.zeros_like(v), v), w)


@dataclass(frozen=True, eq=False)
class Izhikevich2003(Dynamics):
    """The model of cortical spiking, in units of 100 mV: two states, a quadratic one and a recovery.

    Cut at -40 mV, in the midst of the upstroke: what is rounded there grows up to the peak.

    Source: Izhikevich, Simple model of spiking neurons, 2003, Euler with a step of 0.5 ms.
    """

    a: Value = 0.02
    b: Value = 0.2
    c: Value = -0.65
    d: Value = 0.08
    threshold: Value = -0.4

    State = Two
    fires_at_threshold: ClassVar[bool] = True
    transforms: ClassVar[dict[str, str]] = {"a": "abs", "b": "abs", "c": "none", "d": "none", "threshold": "none"}

    def initial_state(self, batch, channels, device="cpu", dtype=torch.float32):
        v = torch.full((batch, channels), -0.65, device=device, dtype=dtype)
        return Two(v, 0.2 * v)

    def past(self, state):
        return state.v + 0.5 * (4 * state.v**2 + 5 * state.v + 1.4 - state.w)

    def advance(self, state, current, spike):
        v = self.past(state) + current
        w = state.w + 0.5 * self.a * (self.b * state.v - state.w)
        return Two(v + spike * (self.c - v), w + self.d * spike)


@dataclass(frozen=True, eq=False)
class Bounded(Dynamics):
    """A leak that depends on the sign of the membrane, which is kept between two bounds."""

    decay: Value = 0.8
    low: Value = 0.3
    threshold: Value = 1.0

    State = One
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[DoubleGaussian] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "low": "logit", "threshold": "log"}

    def past(self, state):
        return torch.where(state.u > 0, self.decay * state.u, self.low * state.u)

    def advance(self, state, current, spike):
        h = self.past(state) + current
        return One(torch.clamp(h - self.threshold * spike, -2.0, 3.0))


@dataclass(frozen=True, eq=False)
class Graded(Dynamics):
    """A gain that rises from channel to channel: a tensor that is no field."""

    decay: Value = 0.7
    threshold: Value = 1.0

    State = One
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "threshold": "log"}
    scales_with_threshold: ClassVar[bool] = True

    def past(self, state):
        u = state.u
        return self.decay * u * torch.linspace(0.6, 1.2, u.shape[-1], dtype=u.dtype, device=u.device)

    def advance(self, state, current, spike):
        return One((self.past(state) + current) * (1 - spike))


@dataclass(frozen=True, eq=False)
class Trio(Dynamics):
    """Three states, and a switch that decides whether the trace holds the neuron back."""

    tau: Value = 5.0
    mix: Value = 0.3
    threshold: Value = 0.8
    held: bool = True

    State = Three
    transforms: ClassVar[dict[str, str]] = {"tau": "abs", "mix": "abs", "threshold": "log"}

    @property
    def keep(self):
        return torch.exp(-1 / self.tau) if isinstance(self.tau, Tensor) else math.exp(-1 / self.tau)

    def past(self, state):
        mem = self.keep * state.fast + self.mix * state.slow
        return mem - state.trace if self.held else mem

    def advance(self, state, current, spike):
        fast = self.keep * state.fast + current - self.threshold * spike
        return Three(fast, 0.9 * state.slow + 0.1 * state.fast - 0.02, 0.8 * state.trace + 0.5 * spike)


# ---- The same updates once more, in plain letters, on numpy float64 and on tensors: see `helpers.PUBLISHED`.
def _pick(condition, a, b):
    """``a`` where the condition holds, without a function of either library."""
    return condition * a + (1 - condition) * b


def _as_number(condition):
    return condition.to(torch.float64) if isinstance(condition, Tensor) else condition.astype(float)


def _quadratic(P, I, state, fire):
    (u,) = state
    mem = u + P["a"] * u * (u - 0.6)
    s, kept = fire(mem + I - P["threshold"], True)
    return mem, s, ((mem + I) * (1 - kept),)


def _adex(P, I, state, fire):
    v, w = state
    power = math.e ** ((v - 1.0) / P["sharpness"])
    small = _as_number(power < 20.0)
    mem = v + (P["sharpness"] * _pick(small, power, 20.0) - v - w) / P["tau"]
    s, kept = fire(mem + I - P["threshold"], True)
    went = _as_number(kept > 0)
    return mem, s, (_pick(went, 0 * mem, mem + I), w + (0.5 * v - w) / (3 * P["tau"]) + P["jump"] * kept)


def _izhikevich2003(P, I, state, fire):
    v, w = state
    mem = v + 0.5 * (4 * v * v + 5 * v + 1.4 - w)
    s, kept = fire(mem + I - P["threshold"], True)
    h = mem + I
    return mem, s, (h + kept * (P["c"] - h), w + 0.5 * P["a"] * (P["b"] * v - w) + P["d"] * kept)


def _bounded(P, I, state, fire):
    (u,) = state
    mem = _pick(_as_number(u > 0), P["decay"] * u, P["low"] * u)
    s, kept = fire(mem + I - P["threshold"], False)
    h = mem + I - P["threshold"] * kept
    h = _pick(_as_number(h < -2.0), -2.0, h)
    return mem, s, (_pick(_as_number(h > 3.0), 3.0, h),)


def _graded(P, I, state, fire):
    (u,) = state
    count = u.shape[-1]
    gains = [0.6 + 0.6 * c / max(1, count - 1) for c in range(count)]
    mem = P["decay"] * u * (torch.tensor(gains, dtype=u.dtype) if isinstance(u, Tensor) else gains)
    s, kept = fire(mem + I - P["threshold"], True)
    return mem, s, ((mem + I) * (1 - kept),)


def _trio(P, I, state, fire):
    fast, slow, trace = state
    keep = math.e ** (-1 / P["tau"])
    mem = keep * fast + P["mix"] * slow - (trace if P["held"] else 0)
    s, kept = fire(mem + I - P["threshold"], True)
    return mem, s, (keep * fast + I - P["threshold"] * kept, 0.9 * slow + 0.1 * fast - 0.02, 0.8 * trace + 0.5 * kept)


UPDATES = {
    "Quadratic": _quadratic, "AdEx": _adex, "Izhikevich2003": _izhikevich2003, "Bounded": _bounded, "Graded": _graded,
    "Trio": _trio,
}  # fmt: skip


def own_neurons(h):
    """Rows for `helpers.DYNAMICS`; ``h`` (H,) goes from 0 to 1."""
    return [
        ("qif", Quadratic(0.15, 0.9), 0.5),
        ("qif-channels", Quadratic(0.1 + 0.1 * h, 0.7 + 0.4 * h), 0.5),
        ("adex", AdEx(8.0, 0.5, 1.4, 0.2), 0.8),
        ("izhikevich2003", Izhikevich2003(0.03, 0.22, -0.6, 0.05, -0.42), 0.12),
        ("bounded", Bounded(0.85, 0.4, 0.9), 1.0),
        ("bounded-channels", Bounded(0.6 + 0.3 * h, 0.2 + 0.3 * h, 0.7 + 0.5 * h), 1.0),
        ("graded", Graded(0.75, 0.9), 1.0),
        ("trio", Trio(6.0, 0.25, 0.7), 1.0),
        ("trio-free", Trio(4.0, 0.4, 0.9, held=False), 1.0),
    ]
