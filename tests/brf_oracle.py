"""The published BRF networks a second time: slow, float64, a loop over time, dense products and plain autograd.

Written from the equations alone, in the papers' letters. A network is a dict of float64 tensors with the names of the
published files: ``hidden.linear.weight`` (H, in + H), ``hidden.linear.bias`` and ``hidden.linear.mask`` where there are
any, ``hidden.omega`` and ``hidden.b_offset`` (BRF, RF, HRF) or ``hidden.tau_mem`` and ``hidden.tau_adp`` (ALIF), (H,)
each and raw, ``out.linear.weight`` (C, H), ``out.tau_mem`` (C,).
"""

import math
from typing import NamedTuple

import torch

DELTA, THETA, GAMMA = 0.01, 1.0, 0.9
OWN = {"brf": ("omega", "b_offset"), "rf": ("omega", "b_offset"), "hrf": ("omega", "b_offset"),
       "alif": ("tau_mem", "tau_adp")}  # fmt: skip


# ---- the step and its slope
def gaussian(v, sd):
    return torch.exp(-(v**2) / (2 * sd**2)) / math.sqrt(2 * math.pi * sd**2)


def slope(v, p=0.15, length=0.5, scale=6.0, gain=0.5):
    """Double Gaussian."""
    return gain * ((1 + p) * gaussian(v, length) - 2 * p * gaussian(v, scale * length))


class Heaviside(torch.autograd.Function):
    """H(v), 1 only where v > 0."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return torch.where(v > 0, 1.0, 0.0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * slope(ctx.saved_tensors[0])


def inject(v):
    """H(v) by forward gradient injection: the same value and the same first-order gradient."""
    injected = slope(v).detach() * v
    return torch.where(v > 0, 1.0, 0.0).to(v.dtype) + (injected - injected.detach())


# ---- one step of each cell: raw parameters, state, current, z of the step before -> z, margin, state
def divergence_boundary(omega, delta=DELTA):
    return (torch.sqrt(1 - (delta * omega) ** 2) - 1) / delta


def brf(own, state, current, z, delta):
    omega, b_prime = own["omega"].abs(), own["b_offset"].abs()
    u, v, q = state
    b = divergence_boundary(omega, delta) - b_prime - q
    du, dv = b * u - omega * v + current, omega * u + b * v
    u, v = u + delta * du, v + delta * dv
    margin = u - THETA - q
    z = Heaviside.apply(margin)
    return z, margin, (u, v, GAMMA * q + z)


def rf(own, state, current, z, delta):
    omega, b = own["omega"].abs(), -own["b_offset"].abs()
    u, v = state
    du, dv = b * u - omega * v + current, omega * u + b * v
    u, v = u + delta * du, v + delta * dv
    return inject(u - THETA), u - THETA, (u, v)


def hrf(own, state, current, z, delta):
    omega, b_prime = own["omega"].abs(), own["b_offset"].abs()
    u, v, q = state
    b = delta * omega**2 / 2 + b_prime + q
    v = v + delta * u
    u = u + delta * (current - 2 * b * u - omega**2 * v)
    margin = u - THETA - q
    z = Heaviside.apply(margin)
    return z, margin, (u, v, GAMMA * q + z)


def alif(own, state, current, z, delta):
    alpha, rho = torch.exp(-1 / own["tau_mem"].abs()), torch.exp(-1 / own["tau_adp"].abs())
    u, a = state
    a = rho * a + (1 - rho) * z
    theta = 0.01 + 1.8 * a
    u = alpha * u + (1 - alpha) * current
    margin = u - theta
    z = Heaviside.apply(margin)
    return z, margin, (u - z * theta, a)


CELLS = {"brf": (brf, 3), "rf": (rf, 2), "hrf": (hrf, 3), "alif": (alif, 2)}


# ---- the layer and the network
class Run(NamedTuple):
    spikes: torch.Tensor  # (B, T, H)
    margins: torch.Tensor  # (B, T, H): what the step looked at
    states: tuple  # of (B, T, H), after every step


def layer(neuron, own, x, weight, bias=None, mask=None, delta=DELTA):
    """x (B, T, in), weight (H, in + H): I[t] = W [x[t]; z[t-1]] + bias, all states start at 0."""
    cell, size = CELLS[neuron]
    weight = weight if mask is None else weight * mask
    zero = x.new_zeros(len(x), len(weight))
    z, state, kept = zero, (zero,) * size, []
    for t in range(x.shape[1]):
        current = torch.cat([x[:, t], z], -1) @ weight.T
        current = current if bias is None else current + bias
        z, margin, state = cell(own, state, current, z, delta)
        kept.append((z, margin, *state))
    spikes, margins, *states = (torch.stack(values, 1) for values in zip(*kept, strict=True))
    return Run(spikes, margins, tuple(states))


def integrator(z, weight, tau, bias=None):
    """z (B, T, H) -> potentials (B, T, C), step by step."""
    alpha, y, kept = torch.exp(-1 / tau.abs()), 0.0, []
    for t in range(z.shape[1]):
        drive = z[:, t] @ weight.T
        y = alpha * y + (1 - alpha) * (drive if bias is None else drive + bias)
        kept.append(y)
    return torch.stack(kept, 1)


class Outcome(NamedTuple):
    hidden: Run
    potentials: torch.Tensor  # (B, T, C)


def network(neuron, arrays, x, delta=DELTA):
    own = {name: arrays[f"hidden.{name}"] for name in OWN[neuron]}
    linear = [arrays.get(f"hidden.linear.{name}") for name in ("weight", "bias", "mask")]
    run = layer(neuron, own, x, *linear, delta=delta)
    out = (arrays["out.linear.weight"], arrays["out.tau_mem"], arrays.get("out.linear.bias"))
    return Outcome(run, integrator(run.spikes, *out))


def loss(potentials, labels, label_last=False, skip=0):
    """Batch mean of the NLL, summed over the T' recorded steps and, as reported, over T'; labels (B,) or (B, T)."""
    log_p = torch.log_softmax(potentials, -1)
    batch, steps, _ = log_p.shape
    recorded = [steps - 1] if label_last else range(skip, steps)
    total = 0.0
    for t in recorded:
        now = labels if labels.ndim == 1 else labels[:, t]
        total = total - log_p[torch.arange(batch), t, now].mean()
    return total / len(recorded)


# ---- numbers
def drawn(neuron, d_input, hidden, classes, seed=0, *, gain=1.0, recurrent=1.0, bias=False, ranges=None):
    """Arrays of a network: published start values, some raw signs minus; ``gain`` on the inputs makes it lively."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    bound = math.sqrt(6 / (d_input + 2 * hidden))
    weight = uniform(-bound, bound, hidden, d_input + hidden)
    weight[:, :d_input] *= gain
    weight[:, d_input:] *= recurrent
    arrays = {"hidden.linear.weight": weight}
    first, second = ranges or {"alif": ((15.0, 25.0), (100.0, 200.0)), "rf": ((5.0, 10.0), (2.0, 3.0))}.get(
        neuron, ((15.0, 50.0), (0.1, 1.0))
    )
    for name, limits in zip(OWN[neuron], (first, second), strict=True):
        sign = torch.where(uniform(0.0, 1.0, hidden) < 0.4, -1.0, 1.0) if neuron != "alif" else 1.0
        arrays[f"hidden.{name}"] = sign * uniform(*limits, hidden)
    bound = math.sqrt(6 / (hidden + classes))
    arrays["out.linear.weight"] = uniform(-bound, bound, classes, hidden)
    arrays["out.tau_mem"] = uniform(10.0, 30.0, classes)
    if bias:
        arrays["hidden.linear.bias"] = gain * uniform(-0.1, 0.1, hidden)
        arrays["out.linear.bias"] = uniform(-0.1, 0.1, classes)
    return arrays


def as_leaves(arrays):
    return {k: v.clone().requires_grad_(not k.endswith("mask")) for k, v in arrays.items()}
