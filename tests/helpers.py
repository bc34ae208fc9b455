"""What the tests share: neurons off their defaults, the published updates written out again, comparisons of spikes."""

import math
import os

import numpy as np
import pytest
import torch
from own_neurons import UPDATES, own_neurons

from sdn import ALIF, BRF, LIF, RF, Triangle
from sdn.dynamics import HRF, IzhikevichRF

LONG = bool(os.environ.get("SDN_LONG"))
CHANNELS = 5
_h = torch.linspace(0.0, 1.0, CHANNELS)

# A new dynamics gets one line here and one function in PUBLISHED; every law follows. Third column: std of the currents.
DYNAMICS = [
    ("lif-hard", LIF(0.37, 0.8, "hard"), 1.0),
    ("lif-soft", LIF(0.61, 1.3, "soft"), 1.0),
    ("lif-none", LIF(0.45, 0.7, "none"), 1.0),
    ("lif-hard-channels", LIF(0.05 + 0.9 * _h, 0.6 + 0.7 * _h, "hard"), 1.0),
    ("lif-soft-channels", LIF(0.9 - 0.7 * _h, 0.5 + _h, "soft"), 1.0),
    ("alif", ALIF(tau_m=7.0, tau_a=31.0, beta=0.9, threshold=0.05), 1.0),
    ("alif-channels", ALIF(4.0 + 9 * _h, 20 + 50 * _h, 0.4 + _h, 0.02 + 0.1 * _h), 1.0),
    ("rf", RF(omega=17.0, damping=3.0, dt=0.012, threshold=0.6), 25.0),
    ("rf-channels", RF(5 + 20 * _h, 4 + 2 * _h, dt=0.008, threshold=0.5 + _h), 30.0),
    ("brf", BRF(omega=23.0, b_offset=2.5, gamma=0.8, dt=0.012, threshold=0.7), 50.0),
    ("brf-channels", BRF(8 + 40 * _h, 1 + 3 * _h, 0.5 + 0.4 * _h, dt=0.009, threshold=0.6 + 0.5 * _h), 60.0),
    ("brf-no-boundary", BRF(14.0, 2.5, gamma=0.8, dt=0.012, threshold=0.7, divergence_boundary=False), 50.0),
    ("brf-no-smooth-reset", BRF(23.0, 2.5, gamma=0.8, dt=0.012, threshold=0.7, smooth_reset=False), 50.0),
    ("brf-no-refractory", BRF(23.0, 2.5, gamma=0.8, dt=0.012, threshold=0.7, refractory_period=False), 50.0),
    ("hrf", HRF(omega=21.0, b_offset=2.5, gamma=0.8, dt=0.012, threshold=0.7), 50.0),
    ("hrf-consistent", HRF(37.0, 1.5, gamma=0.7, dt=0.008, threshold=0.6, boundary="consistent"), 50.0),
    ("hrf-channels", HRF(10 + 40 * _h, 1 + 3 * _h, 0.5 + 0.4 * _h, dt=0.009, threshold=0.6 + 0.5 * _h), 60.0),
    ("izhikevich", IzhikevichRF(omega=17.0, damping=3.0, dt=0.012, threshold=1.1), 90.0),
    ("izhikevich-channels", IzhikevichRF(12 + 20 * _h, 5 + 2 * _h, dt=0.008, threshold=0.98 + 0.2 * _h), 200.0),
]
BUILT_IN = [*DYNAMICS]
DYNAMICS += own_neurons(_h)
FUSED = DYNAMICS
"""Those that the fused solver takes: all."""


def examples(few, many):
    """How many random cases: a few, or many where SDN_LONG=1 is set."""
    return many if LONG else few


def _over(dynamics):
    return pytest.mark.parametrize(("dynamics", "std"), [pytest.param(d, s, id=n) for n, d, s in dynamics])


every_dynamics, every_fused = _over(DYNAMICS), _over(FUSED)

DTYPES = [torch.float64, torch.float32]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))

# One table: how far two ways of computing the same numbers may lie apart, relative to the largest of them.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def currents(std, batch=3, length=63, channels=CHANNELS, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (std * torch.randn(batch, length, channels, generator=generator, dtype=torch.float64)).to(dtype)


def some_state(dynamics, batch=3, channels=CHANNELS, dtype=torch.float64, seed=1):
    """A state that a run could have reached: spikes are 0 or 1, adaptation and refraction are not negative."""
    generator = torch.Generator().manual_seed(seed)
    draw = {f: torch.randn(batch, channels, generator=generator, dtype=dtype) for f in dynamics.State._fields}
    for field, value in draw.items():
        draw[field] = (value > 0).to(dtype) if field == "s" else value.abs() if field in "qa" else 0.4 * value
    return dynamics.State(**draw)


# ---- the published updates, in the papers' own letters; the same text runs on numpy float64 and on autograd tensors.
# Each takes parameters P, one step of current I, the old state and fire(v, at_equality) -> (spike, spike for the
# state), and returns carry (`mem`), spike and new state.
def _lif(P, I, state, fire):
    (u,) = state
    r = P["decay"] * u
    h = r + I
    s, kept = fire(h - P["threshold"], True)
    if P["reset"] == "hard":
        return r, s, (h - kept * h,)
    return r, s, (h - kept * P["threshold"] if P["reset"] == "soft" else h,)


def _alif(P, I, state, fire):
    u, a, z = state
    alpha, rho = math.e ** (-1 / P["tau_m"]), math.e ** (-1 / P["tau_a"])
    a = rho * a + (1 - rho) * z
    theta = P["threshold"] + P["beta"] * a
    u_next = alpha * u + (1 - alpha) * I
    s, kept = fire(u_next - theta, False)
    return alpha * u - P["beta"] * a, s, (u_next - kept * theta, a, kept)


def _rf(P, I, state, fire):
    u, v = state
    delta, b, omega = P["dt"], -P["damping"], P["omega"]
    u_next = u + delta * (b * u - omega * v + I)
    s, _ = fire(u_next - P["threshold"], False)
    return u_next - delta * I, s, (u_next, v + delta * (omega * u + b * v))


def _brf(P, I, state, fire):
    u, v, q = state
    delta, omega = P["dt"], P["omega"]
    p = (-1 + (1 - (delta * omega) ** 2) ** 0.5) / delta
    b = (p if P["divergence_boundary"] else 0) - P["b_offset"] - (q if P["smooth_reset"] else 0)
    refractory = q if P["refractory_period"] else 0
    u_next = u + delta * (b * u - omega * v + I)
    z, kept = fire(u_next - P["threshold"] - refractory, False)
    return u_next - delta * I - refractory, z, (u_next, v + delta * (omega * u + b * v), P["gamma"] * q + kept)


def _hrf(P, I, state, fire):
    u, v, q = state
    delta, omega = P["dt"], P["omega"]
    b = (delta * omega**2 / 2 if P["boundary"] == "published" else 0) + P["b_offset"] + q
    v = v + delta * u
    u_next = u + delta * (I - 2 * b * u - omega**2 * v)
    z, kept = fire(u_next - P["threshold"] - q, False)
    return u_next - delta * I - q, z, (u_next, v, P["gamma"] * q + kept)


def _izhikevich(P, I, state, fire):
    u, v = state
    delta, b, omega = P["dt"], -P["damping"], P["omega"]
    u, v = u + delta * (b * u - omega * v + I), v + delta * (omega * u + b * v)
    s, kept = fire(v - P["threshold"], False)
    return v, s, (u - kept * u, v + kept * (1 - v))


PUBLISHED = {"LIF": _lif, "ALIF": _alif, "RF": _rf, "BRF": _brf, "HRF": _hrf, "IzhikevichRF": _izhikevich, **UPDATES}


def published_numpy(dynamics, current, state):
    """mem, spike, distance to the threshold (all (B, L, H)) and last state, in numpy float64."""

    def fire(v, at_equality):
        margins.append(v)
        s = np.where(v >= 0 if at_equality else v > 0, 1.0, 0.0)
        return s, s

    P = {k: np.asarray(v, dtype=np.float64) if isinstance(v, list) else v for k, v in dynamics.facts().items()}
    x, state = current.double().numpy(), tuple(f.double().numpy() for f in state)
    mems, spikes, margins = [], [], []
    for t in range(x.shape[1]):
        mem, s, state = PUBLISHED[P["name"]](P, x[:, t], state, fire)
        mems.append(mem)
        spikes.append(s)
    stack = [torch.from_numpy(np.stack(a, 1)) for a in (mems, spikes, margins)]
    return *stack, tuple(torch.from_numpy(f) for f in state)


def published_autograd(dynamics, current, state, slope, detach_reset):
    """mem, spike and last state with gradients: a constant step plus slope * v (forward gradient injection)."""

    def fire(v, at_equality):
        d = slope(v.detach()) * v
        s = (v >= 0 if at_equality else v > 0).to(v.dtype).detach() + (d - d.detach())
        return s, (s.detach() if detach_reset else s)

    name = type(dynamics).__name__
    P = {k: getattr(dynamics, k) for k in dynamics.facts() if k != "name"}
    mems, spikes = [], []
    for t in range(current.shape[1]):
        mem, s, state = PUBLISHED[name](P, current[:, t], state, fire)
        mems.append(mem)
        spikes.append(s)
    return torch.stack(mems, 1), torch.stack(spikes, 1), state


def triangle(v):
    return (1 - v.abs()).clamp(min=0)


def normal_density(v, sd):
    return torch.exp(-v * v / (2 * sd * sd)) / (sd * math.sqrt(2 * math.pi))


def double_gaussian(v):
    return 0.5 * (1.15 * normal_density(v, 0.5) - 0.30 * normal_density(v, 3.0))


def published_slope(dynamics):
    return triangle if isinstance(dynamics.default_spike, Triangle) else double_gaussian


# ---- comparisons
def assert_close(got, want, dtype=None, factor=1.0):
    """Equal within the table's tolerance, relative to the largest number of the reference."""
    tolerance = factor * TOLERANCE[dtype or got.dtype]
    want = want.to(torch.float64)
    assert got.shape == want.shape
    scale = max(1.0, want.abs().max().item())
    error = (got.to(torch.float64) - want).abs().max().item()
    assert error <= tolerance * scale, f"differs by {error:.3e}, largest value {scale:.3g}, tolerance {tolerance:.1e}"


def assert_lively(spike, low=0.02, high=0.8):
    """An equality of spike trains says something only if there are spikes, and not everywhere."""
    rate = spike.double().mean().item()
    assert low < rate < high, f"spike rate {rate:.4f} is too trivial to test anything"


def assert_same_spikes(got, want, margin, dtype=None):
    """Equal; a first disagreement in a row is forgiven only where the reference is within rounding of the threshold.

    Returns the (B, L, H) mask of the steps up to the first disagreement: what comes later is another trajectory.
    """
    assert got.shape == want.shape
    assert set(got.unique().tolist()) <= {0.0, 1.0}
    assert_lively(want)
    differ = got.double() != want.double()
    first = differ & (differ.cumsum(1) == 1)
    scale = max(1.0, margin.abs().max().item())
    worst = margin.abs()[first].max().item() if first.any() else 0.0
    assert worst <= TOLERANCE[dtype or got.dtype] * scale, f"a spike differs {worst:.3e} away from the threshold"
    assert differ.any(1).double().mean() <= 0.1, "too many rows needed forgiveness"
    return differ.cumsum(1) == 0
