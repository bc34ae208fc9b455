"""Neurons whose spikes are known: what is left is a linear recurrence, solved for all steps by `sdn.scan`.

Every function takes a neuron as its kernel sees it (`Kernel`: parameters (P, H), constants), currents (B, L, H), the
state before them (B, S, H) and spikes (B, L, H), and is differentiable in the first three.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.ops.neuron.layout import Kernel
from sdn.ops.scan.operator import scan

__all__ = ["Linear", "distance_error", "solve"]

LAST = slice(-1, None)


class Linear(NamedTuple):
    """What `solve` finds."""

    distance: Tensor
    """(B, L, H), the potential minus the threshold in force."""
    states: Tensor
    """(B, n, S, H), the states after the steps asked for."""


def solve(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice = LAST) -> Linear:
    """Distances to the threshold, and some states, of the neuron that spikes at these steps, whatever it would do.

    With s the spikes: LIF ``h[t] = decay (1 - s[t-1]) h[t-1] + x[t]`` (hard reset), ``decay h[t-1] + x[t] - decay
    threshold s[t-1]`` (soft); ALIF two scans, first of the adaptation; RF and BRF one complex scan of u + i v, after
    one of q for BRF.
    """
    return {"lif": _lif, "alif": _alif, "rf": _rf, "brf": _brf}[kernel.name](kernel, x, first, spikes, at)


def _lif(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice) -> Linear:
    (decay, threshold), (hard, soft) = kernel.fixed.unbind(), kernel.constants
    before = _shifted(spikes)
    if hard:
        h = scan(decay * (1 - before), x, first[:, 0])
    else:
        h = scan(decay, x - (decay * threshold) * before if soft else x, first[:, 0])
    then, s = h[:, at], spikes[:, at]
    return Linear(h - threshold, (then * (1 - hard * s) - soft * threshold * s).unsqueeze(2))


def _alif(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice) -> Linear:
    alpha, gain, rho, fresh, beta, threshold = kernel.fixed.unbind()
    u, a, s = first.unbind(1)
    adaptation = scan(rho, fresh * _shifted(spikes, s), a)
    theta = threshold + beta * adaptation
    h = scan(alpha, gain * x - alpha * _shifted(spikes * theta), u)
    states = h[:, at] - spikes[:, at] * theta[:, at], adaptation[:, at], spikes[:, at]
    return Linear(h - theta, torch.stack(states, 2))


def _rf(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice) -> Linear:
    (omega, damping, threshold), (dt,) = kernel.fixed.unbind(), kernel.constants
    z = scan(torch.complex(1 - dt * damping, dt * omega), dt * x, torch.complex(*first.unbind(1)))
    return Linear(z.real - threshold, torch.stack([z[:, at].real, z[:, at].imag], 2))


def _brf(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice) -> Linear:
    (omega, base, gamma, threshold), (dt, smooth, refractory) = kernel.fixed.unbind(), kernel.constants
    u, v, q_first = first.unbind(1)
    q = scan(gamma, spikes, q_first)
    before = _shifted(q, q_first)
    real = 1 + dt * (base - smooth * before)
    z = scan(torch.complex(real, (dt * omega).expand_as(real)), dt * x, torch.complex(u, v))
    return Linear(z.real - refractory * before - threshold, torch.stack([z[:, at].real, z[:, at].imag, q[:, at]], 2))


def distance_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    """How far the distance of `solve` may lie from that of the step by step loop, both as rounded: (B, L, H), no sign.

    Both compute the same sums of products; each is off the true one by what it rounds. The loop, and a scan that runs
    in order, adds at a step the rounding of its product and its sum and carries the rest on: ``e[t] = |a| e[t-1] + c
    eps (|h[t]| + |b[t]|)``. A scan by a tree of depth D rounds every term at most c D + c + 1 times: ``e <= (c D + c +
    1) eps S`` with S the same recurrence over magnitudes. c is 2 for real and 4 for complex factors; taking the machine
    epsilon for the unit roundoff leaves a factor 2. Nothing is said about numbers that underflow.
    """
    return _BOUNDS[kernel.name](kernel, x, first, spikes, sequential)


def _lif_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    (decay, threshold), (hard, soft) = kernel.fixed.unbind(), kernel.constants
    before = _shifted(spikes)
    inputs = x.abs() + soft * (decay * threshold).abs() * before
    size = (solve(kernel, x, first, spikes).distance + threshold).abs()
    factor = decay.abs() * (1 - hard * before)
    return _error(factor, inputs, first[:, 0].abs(), size, 0.0, sequential) + _eps(x) * (size + threshold.abs())


def _alif_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    alpha, gain, rho, fresh, beta, threshold = kernel.fixed.unbind()
    u, a, s = first.unbind(1)
    rise = fresh * _shifted(spikes, s)
    adaptation = scan(rho, rise, a)
    theta = threshold + beta * adaptation
    parts = threshold.abs() + (beta * adaptation).abs()
    theta_error = beta.abs() * _error(rho, rise.abs(), a.abs(), adaptation.abs(), 0.0, sequential)
    theta_error = theta_error + 4 * _eps(x) * parts
    size = (solve(kernel, x, first, spikes).distance + theta).abs()
    inputs = gain * x.abs() + alpha * _shifted(spikes * parts)
    given = alpha * _shifted(spikes * theta_error)
    return _error(alpha, inputs, u.abs(), size, given, sequential) + theta_error + 4 * _eps(x) * (size + parts)


def _rf_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    (omega, damping, threshold), (dt,) = kernel.fixed.unbind(), kernel.constants
    factor, start = torch.complex(1 - dt * damping, dt * omega), torch.complex(*first.unbind(1))
    size = scan(factor, dt * x, start).abs()
    given = _cancelled(dt * (damping.abs() + omega.abs()), size, start)
    error = _error(factor.abs(), dt * x.abs(), start.abs(), size, given, sequential, cost=4)
    return error + 4 * _eps(x) * (size + threshold.abs())


def _brf_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    (omega, base, gamma, threshold), (dt, smooth, refractory) = kernel.fixed.unbind(), kernel.constants
    u, v, q_first = first.unbind(1)
    q, start = scan(gamma, spikes, q_first), torch.complex(u, v)
    before = _shifted(q, q_first)
    q_error = _shifted(_error(gamma.abs(), spikes, q_first.abs(), q.abs(), 0.0, sequential))
    damped, raised = smooth * before, refractory * before
    real = 1 + dt * (base - damped)
    factor = torch.complex(real, (dt * omega).expand_as(real))
    size = scan(factor, dt * x, start).abs()
    given = _cancelled(dt * (base.abs() + damped.abs() + omega.abs()), size, start)
    given = given + dt * smooth * q_error * _shifted(size, start.abs())
    error = _error(factor.abs(), dt * x.abs(), start.abs(), size, given, sequential, cost=4)
    return error + refractory * q_error + 4 * _eps(x) * (size + raised.abs() + threshold.abs())


def _cancelled(turn: Tensor, size: Tensor, start: Tensor) -> Tensor:
    """What the Euler step ``u + dt (b u - omega v)`` rounds before its terms cancel; ``turn = dt (|b| + omega)``."""
    return 4 * _eps(size) * turn * _shifted(size, start.abs())


_BOUNDS = {"lif": _lif_error, "alif": _alif_error, "rf": _rf_error, "brf": _brf_error}


def _error(
    factor: Tensor, inputs: Tensor, first: Tensor, size: Tensor, given: Tensor | float, sequential: bool, cost: int = 2
) -> Tensor:
    """Bound of ``|scan - loop|``: magnitudes of factors, inputs, start and state, and the error ``given`` in inputs."""
    eps = _eps(size)
    in_order = scan(factor, given + cost * eps * (size + inputs))
    if sequential:
        return 2 * in_order
    depth = math.ceil(math.log2(inputs.shape[1] + 1))
    return 2 * in_order + (cost * depth + cost + 1) * eps * scan(factor, inputs, first)


def _eps(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).eps)


def _shifted(x: Tensor, first: Tensor | None = None) -> Tensor:
    """x[t-1] at step t: (B, L, H), with ``first`` (B, H) or zeros at the first step."""
    if first is None:
        return pad(x, (0, 0, 1, 0))[:, :-1]
    return torch.cat([first.unsqueeze(1), x[:, :-1]], 1)
