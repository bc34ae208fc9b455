"""The published S5-RF network a second time: slow, in float64, loops over time, dense P x P products and autograd.

Written from the equations alone and in the published form: complex dense maps, a complex readout whose imaginary half
is dead, a leaky integrator step by step. A network is a dict of float64 arrays with the names of the published
parameters: ``layers.{i}.B_tilde`` (P, H_in, 2), ``layers.{i}.log_decay``, ``.omega``, ``.log_eta`` (P,),
``layers.{i}.V`` (P, P, 2), ``readout.W`` (C, P, 2), ``readout.tau`` (C,).
"""

import math
from typing import NamedTuple

import numpy as np
import torch

SLOW = ("log_decay", "omega", "log_eta")


# ---- start values
def hippo_n(n):
    """Eigenvalues (ascending imaginary parts) and eigenvectors of HiPPO-N, by its definition, in numpy float64."""
    A = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            A[i, j] = -math.sqrt(2 * i + 1) * math.sqrt(2 * j + 1) if i > j else -(i + 1) if i == j else 0.0
    p = np.sqrt(np.arange(n) + 0.5)
    S = A + np.outer(p, p)
    imaginary, V = np.linalg.eigh(-1j * S)
    return np.mean(np.diag(S)) + 1j * imaginary, V, S


def published_arrays(sizes, num_blocks, seed=0, gain=1.0, eta=(0.05, 0.5)):
    """Arrays of a network with widths ``sizes`` = (H_in, P, ..., P, C); ``gain`` on the dense maps makes it lively."""
    rng = np.random.default_rng(seed)
    *widths, classes = sizes
    P = widths[-1]
    eigenvalues, V, _ = hippo_n(P // num_blocks)
    V = np.kron(np.eye(num_blocks), V)
    arrays = {}
    for i, H_in in enumerate(widths[:-1]):
        B = rng.standard_normal((P, H_in, 2)) * gain / math.sqrt(H_in)
        B = V.conj().T @ (B[..., 0] + 1j * B[..., 1])
        arrays[f"layers.{i}.B_tilde"] = np.stack([B.real, B.imag], -1)
        arrays[f"layers.{i}.log_decay"] = math.log(0.5) + 0.3 * rng.standard_normal(P)
        arrays[f"layers.{i}.omega"] = np.tile(eigenvalues.imag, num_blocks) * rng.uniform(0.8, 1.2, P)
        arrays[f"layers.{i}.log_eta"] = rng.uniform(math.log(eta[0]), math.log(eta[1]), P)
        arrays[f"layers.{i}.V"] = np.stack([V.real, V.imag], -1)
    arrays["readout.W"] = rng.standard_normal((classes, P, 2)) / math.sqrt(P)
    arrays["readout.tau"] = math.log(4.0) + 0.2 * rng.standard_normal(classes)
    return arrays


def as_leaves(arrays):
    """float64 tensors; all but V ask for a gradient."""
    return {k: torch.tensor(v, dtype=torch.float64, requires_grad=not k.endswith(".V")) for k, v in arrays.items()}


# ---- one layer
class MultiGaussianSpike(torch.autograd.Function):
    """H(v), strict; backward: three Gaussians without their 1 / (sd sqrt(2 pi))."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad * surrogate(v)


def surrogate(v, h=0.15, sigma=0.5, s=6.0):
    def E(mu, sd):
        return torch.exp(-((v - mu) ** 2) / (2 * sd**2))

    return (1 + h) * E(0.0, sigma) - h * E(sigma, s * sigma) - h * E(-sigma, s * sigma)


def bars(name, log_decay, omega, log_eta):
    """Lambda-bar and B-bar, (P,) complex."""
    lam = torch.complex(-torch.exp(log_decay), omega)
    eta = torch.exp(log_eta)
    if name == "dirac":
        return torch.exp(lam * eta), eta.to(lam.dtype)
    if name == "zoh":
        return torch.exp(lam * eta), (torch.exp(lam * eta) - 1) / lam
    if name == "bilinear":
        return (1 + eta * lam / 2) / (1 - eta * lam / 2), eta / (1 - eta * lam / 2)
    raise AssertionError(name)


class Run(NamedTuple):
    states: torch.Tensor  # (B, T, P) complex, rotated where there is a rotation
    spikes: torch.Tensor  # (B, T, P)
    margins: torch.Tensor  # (B, T, P): what the step looked at
    last: torch.Tensor  # (B, P) complex: the unrotated state after the last step
    refractory: torch.Tensor  # (B, P)


def resonate_and_fire(
    u, factor, gain, V=None, *, threshold=1.0, magnitude=False, rho=None, detach=True, x=None, q=None
):
    """u (B, T, P) complex, factor and gain (P,) complex, V (P, P) complex: a loop with dense P x P products."""
    B, T, P = u.shape
    transition, entry = torch.diag(factor), torch.diag(gain)
    V = torch.eye(P, dtype=factor.dtype) if V is None else V
    x = torch.zeros(B, P, dtype=factor.dtype) if x is None else x
    q = torch.zeros(B, P, dtype=factor.real.dtype) if q is None else q
    states, spikes, margins = [], [], []
    for k in range(T):
        x = torch.einsum("pr,br->bp", transition, x) + torch.einsum("pr,br->bp", entry, u[:, k])
        y = torch.einsum("pr,br->bp", V, x)
        potential = torch.abs(y) if magnitude else y.real  # of slope 0 at 0
        v = potential - threshold - q
        s = MultiGaussianSpike.apply(v)
        q = q if rho is None else rho * q + (s.detach() if detach else s)
        for kept, new in ((states, y), (spikes, s), (margins, v)):
            kept.append(new)
    return Run(*(torch.stack(kept, 1) for kept in (states, spikes, margins)), x, q)


# ---- the network
class Outcome(NamedTuple):
    spikes: list  # of (B, T, P)
    margins: list
    logits: torch.Tensor  # (B, C): mean of the leaky integrator
    log_probabilities: torch.Tensor


def depth(arrays):
    return sum(k.endswith(".omega") for k in arrays)


def network(arrays, s, *, names=None, skips=None, masks=None, lengths=None, magnitude=False, rho=None):
    """s (B, T, H_in) real -> `Outcome`.

    ``names``: discretisation of every layer (zoh, then dirac). ``skips``: layers with a residual; None is the published
    0 < i < L-1. ``masks``: {layer: (B, T, P, 2)}, factors of an inverted dropout. ``lengths``: valid steps of each row.
    """
    L = depth(arrays)
    names = ["zoh"] + ["dirac"] * (L - 1) if names is None else names
    skips = range(1, L - 1) if skips is None else skips
    spikes, margins = [], []
    for i in range(L):
        B_tilde, *rest = (arrays[f"layers.{i}.{k}"] for k in ("B_tilde", *SLOW))
        u = torch.einsum("ph,bth->btp", torch.complex(*B_tilde.unbind(-1)), s.to(torch.complex128))
        if masks and i in masks:
            u = torch.complex(u.real * masks[i][..., 0], u.imag * masks[i][..., 1])
        V = torch.complex(*arrays[f"layers.{i}.V"].unbind(-1)) if i == 0 and names[0] == "zoh" else None
        run = resonate_and_fire(u, *bars(names[i], *rest), V, magnitude=magnitude, rho=rho)
        spikes.append(run.spikes)
        margins.append(run.margins)
        s = run.spikes + s if i in skips else run.spikes
    logits = readout(arrays["readout.W"], arrays["readout.tau"], s, lengths)
    return Outcome(spikes, margins, logits, torch.log_softmax(logits, -1))


def readout(W, tau, s, lengths=None):
    """Re(W s), a leaky integrator without (1 - alpha), the mean over time."""
    o = torch.einsum("cp,btp->btc", torch.complex(*W.unbind(-1)), s.to(torch.complex128)).real
    alpha, rows = torch.sigmoid(tau), []
    for b in range(len(o)):
        T = o.shape[1] if lengths is None else int(lengths[b])
        y, total = torch.zeros_like(alpha), torch.zeros_like(alpha)
        for k in range(T):
            y = alpha * y + o[b, k]
            total = total + y
        rows.append(total / T)
    return torch.stack(rows)


def loss(outcome, labels):
    """Soft-label cross entropy of the already normalised logits, mean over the batch."""
    targets = torch.nn.functional.one_hot(labels, outcome.logits.shape[1]).to(torch.float64)
    return -(targets * torch.log_softmax(outcome.log_probabilities, -1)).sum(-1).mean()


# ---- the optimiser
def cosine(n, N):
    return (1 - 1e-6) * 0.5 * (1 + math.cos(math.pi * n / N)) + 1e-6


class TwoGroups:
    """AdamW (dense, readout, leak) and Adam without decay (decay, frequency, time scale), step by step."""

    def __init__(self, leaves, lr, lr_slow, weight_decay):
        self.leaves = {k: v for k, v in leaves.items() if v.requires_grad}
        self.lr, self.lr_slow, self.weight_decay, self.n = lr, lr_slow, weight_decay, 0
        self.m = {k: torch.zeros_like(v) for k, v in self.leaves.items()}
        self.v = {k: torch.zeros_like(v) for k, v in self.leaves.items()}

    def step(self, factor=1.0):
        """One update out of ``.grad``; ``factor`` is the schedule's."""
        self.n += 1
        for k, leaf in self.leaves.items():
            slow = k.rsplit(".", 1)[1] in SLOW
            self.m[k] = 0.9 * self.m[k] + 0.1 * leaf.grad
            self.v[k] = 0.999 * self.v[k] + 0.001 * leaf.grad**2
            adam = (self.m[k] / (1 - 0.9**self.n)) / (torch.sqrt(self.v[k] / (1 - 0.999**self.n)) + 1e-8)
            decay = 0.0 if slow else self.weight_decay
            leaf.data = leaf.data - factor * (self.lr_slow if slow else self.lr) * (adam + decay * leaf.data)
            leaf.grad = None
