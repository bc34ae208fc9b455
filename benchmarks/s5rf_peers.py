"""S5-RF with a tree for its scan, in torch and in JAX: the baselines of suite ``s5rf``, on the parameters of our model.

Two forms of each. The lean one does no more than the network asks for: the complex dense layer as one real product, the
diagonals element by element, the leaky mean in closed form. The one "as published" does what the published code does:
complex products, every diagonal as a dense P x P matrix at every step, the identity back-rotation of the later layers
too, the leaky integrator as one more scan. Losses and gradients are the same; the suite checks it.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tree_scan import tree_scan
from sdn.gradients import MultiGaussian, spike

__all__ = ["Form", "Passes", "decayed", "jax_module", "jax_passes", "torch_logits", "torch_passes", "torch_potential"]

BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 1e-4
"""Of AdamW, as published; the weight decay is that of the dense layers and the readout."""


class Passes(NamedTuple):
    """One way to train a network: its loss with gradients by parameter; one step, which returns the new parameters."""

    gradients: Callable[[], tuple[float, dict[str, np.ndarray]]]
    step: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Form:
    """What the parameters do not say.

    Args:
        n_layers: their number; all but the first and the last have a skip.
        first: discretisation of the first layer, "zoh" (with back-rotation) or "dirac"; the others are dirac.
        published: whether diagonals are dense matrices and products complex.
    """

    n_layers: int
    first: str
    published: bool = False


def decayed(name: str) -> bool:
    """Whether a parameter is in the group with weight decay: all but those of the neurons."""
    return ".neuron." not in name


# ---- torch
def torch_logits(form: Form, parameters: Mapping[str, Tensor], rotation: Tensor | None, x: Tensor) -> Tensor:
    """The network on the parameters of an `S5RF`, by `tree_scan`.

    Args:
        form: see there.
        parameters: by their names in the model.
        rotation: (n, n) complex, the block of the first layer; None without.
        x: (B, L, d_input).

    Returns:
        (B, d_output).
    """
    for i in range(form.n_layers):
        spikes = spike(torch_potential(form, i, parameters, rotation, x) - 1, MultiGaussian(), at_threshold=False)
        x = spikes + x if 0 < i < form.n_layers - 1 else spikes
    weight, alpha = parameters["readout.weight"], torch.sigmoid(parameters["readout.tau"])
    if form.published:
        out = (x.to(torch.complex64) @ weight.to(torch.complex64).T).real
        return tree_scan(alpha, out).mean(1)
    left = torch.arange(x.shape[1], 0, -1).unsqueeze(-1)  # steps from each to the end
    return (nn.functional.linear(x, weight) * (1 - alpha**left) / (1 - alpha)).mean(1)


def torch_potential(form: Form, i: int, parameters: Mapping[str, Tensor], rotation: Tensor | None, x: Tensor) -> Tensor:
    """The potential (B, L, P) of layer i whose input is x (B, L, d)."""
    p = {name: parameters[f"layers.{i}.{name}"] for name in _LAYER}
    kind, block = (form.first, rotation) if i == 0 else ("dirac", None)
    return (_torch_published if form.published else _torch_lean)(p, kind, block, x)


_LAYER = ("dense.weight", "neuron.log_decay", "neuron.omega", "neuron.log_eta")


def _torch_factors(p: Mapping[str, Tensor], kind: str) -> tuple[Tensor, Tensor]:
    eigenvalue = torch.complex(-p["neuron.log_decay"].exp(), p["neuron.omega"])
    eta = p["neuron.log_eta"].exp()
    z = eta * eigenvalue
    return z.exp(), torch.expm1(z) / eigenvalue if kind == "zoh" else eta.to(z.dtype)


def _torch_lean(p: Mapping[str, Tensor], kind: str, rotation: Tensor | None, x: Tensor) -> Tensor:
    factor, gain = _torch_factors(p, kind)
    states = tree_scan(factor, gain * torch.complex(*nn.functional.linear(x, p["dense.weight"]).chunk(2, -1)))
    if rotation is None:
        return states.real
    return (states.unflatten(-1, (-1, len(rotation))) @ rotation.T).flatten(-2).real


def _torch_published(p: Mapping[str, Tensor], kind: str, rotation: Tensor | None, x: Tensor) -> Tensor:
    factor, gain = _torch_factors(p, kind)
    dense = torch.complex(*p["dense.weight"].chunk(2))  # (P, H)
    drive = (x.to(dense.dtype) @ dense.T) @ torch.diag(gain)
    blocks = [torch.eye(len(factor), dtype=dense.dtype)]
    if rotation is not None:
        blocks = [rotation] * (len(factor) // len(rotation))
    return (tree_scan(factor, drive) @ torch.block_diag(*blocks).T).real


def torch_passes(
    logits: Callable[[], Tensor], parameters: Mapping[str, Tensor], labels: Tensor, rates: tuple[float, float]
) -> Passes:
    """A network in torch, ours or `torch_logits`, trained by AdamW: what `jax_passes` returns for it.

    Args:
        logits: the network on its batch, (B, d_output).
        parameters: what it is computed from, leaves that ask for gradients, by their names in the model.
        labels: (B,).
        rates: as for `jax_passes`.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if decayed(n) == decay], "lr": lr, "weight_decay": DECAY * decay}
        for lr, decay in zip(rates, (True, False), strict=True)
    ]
    optimiser = torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON)

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        loss = nn.functional.cross_entropy(logits(), labels)
        grads = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), {n: g.cpu().numpy() for n, g in zip(parameters, grads, strict=True)}

    def step() -> Mapping[str, Any]:
        nn.functional.cross_entropy(logits(), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return parameters

    return Passes(gradients, step)


# ---- JAX
def jax_module() -> Any:
    """JAX, on one thread where XLA keeps to it; None where it is not installed."""
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.setdefault("XLA_FLAGS", one_thread)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        return importlib.import_module("jax")
    except ModuleNotFoundError:
        return None


def jax_passes(
    form: Form,
    parameters: Mapping[str, Tensor],
    rotation: Tensor | None,
    x: Tensor,
    labels: Tensor,
    rates: tuple[float, float],
) -> Passes:
    """The same in JAX, by `jax.lax.associative_scan`.

    Args:
        form, parameters, rotation, x: as for `torch_logits`.
        labels: (B,).
        rates: the learning rates of dense layers and readout, and of the neurons.

    Returns:
        Loss and gradients; and a training step, compiled here.
    """
    jax = jax_module()
    jnp = jax.numpy
    block = None if rotation is None else rotation.numpy()
    values = {name: jnp.asarray(value.detach().numpy()) for name, value in parameters.items()}
    inputs, wanted = jnp.asarray(x.numpy()), jnp.asarray(labels.numpy())
    logits = _jax_logits(jax, form, block)

    def loss(p: Any, x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(logits(p, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def update(p: Any, moments: Any, count: Any, rates: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(p, x, y)
        new = {n: _adamw(jnp, p[n], grads[n], *moments[n], count, rates, decayed(n)) for n in p}
        return {n: found[0] for n, found in new.items()}, {n: found[1:] for n, found in new.items()}, value

    state = [values, {n: (jnp.zeros_like(v), jnp.zeros_like(v)) for n, v in values.items()}, 0]
    rest = (jnp.asarray(rates), inputs, wanted)
    compiled = jax.jit(update).lower(*state[:2], jnp.asarray(1.0), *rest).compile()

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        value, grads = jax.jit(jax.value_and_grad(loss))(values, inputs, wanted)
        return float(value), {n: np.asarray(g) for n, g in grads.items()}

    def step() -> Mapping[str, Any]:
        state[2] += 1
        state[:2] = jax.block_until_ready(compiled(*state[:2], jnp.asarray(float(state[2])), *rest))[:2]
        return state[0]

    return Passes(gradients, step)


def _adamw(jnp: Any, p: Any, grad: Any, m: Any, v: Any, count: Any, rates: Any, decay: bool) -> tuple[Any, Any, Any]:
    """One step of AdamW on one parameter."""
    m = BETAS[0] * m + (1 - BETAS[0]) * grad
    v = BETAS[1] * v + (1 - BETAS[1]) * grad**2
    direction = m / (1 - BETAS[0] ** count) / (jnp.sqrt(v / (1 - BETAS[1] ** count)) + EPSILON)
    return p - (rates[0] * (direction + DECAY * p) if decay else rates[1] * direction), m, v


def _jax_logits(jax: Any, form: Form, rotation: np.ndarray | None) -> Callable[[Any, Any], Any]:
    jnp, fire = jax.numpy, _jax_spike(jax)

    def logits(parameters: Any, x: Any) -> Any:
        for i in range(form.n_layers):
            p = {name: parameters[f"layers.{i}.{name}"] for name in _LAYER}
            kind, block = (form.first, rotation) if i == 0 else ("dirac", None)
            spikes = fire((_jax_published if form.published else _jax_lean)(jax, p, kind, block, x) - 1)
            x = spikes + x if 0 < i < form.n_layers - 1 else spikes
        weight, alpha = parameters["readout.weight"], jax.nn.sigmoid(parameters["readout.tau"])
        if form.published:
            out = (x.astype(jnp.complex64) @ weight.astype(jnp.complex64).T).real
            return _jax_tree(jax, alpha, out).mean(1)
        left = jnp.arange(x.shape[1], 0, -1)[:, None]
        return (x @ weight.T * (1 - alpha**left) / (1 - alpha)).mean(1)

    return logits


def _jax_spike(jax: Any) -> Callable[[Any], Any]:
    jnp, g = jax.numpy, MultiGaussian()

    @jax.custom_jvp
    def fire(v: Any) -> Any:
        return (v > 0).astype(v.dtype)

    def slope(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        ((v,), (dv,)) = primals, tangents

        def bump(middle: float, width: float) -> Any:
            return jnp.exp(-0.5 * ((v - middle) / width) ** 2)

        sides = bump(g.sigma, g.scale * g.sigma) + bump(-g.sigma, g.scale * g.sigma)
        return fire(v), dv * ((1 + g.height) * bump(0, g.sigma) - g.height * sides)

    fire.defjvp(slope)
    return fire


def _jax_factors(jax: Any, p: Any, kind: str) -> tuple[Any, Any]:
    jnp = jax.numpy
    eigenvalue = jax.lax.complex(-jnp.exp(p["neuron.log_decay"]), p["neuron.omega"])
    eta = jnp.exp(p["neuron.log_eta"])
    z = eta * eigenvalue
    return jnp.exp(z), jnp.expm1(z) / eigenvalue if kind == "zoh" else eta.astype(z.dtype)


def _jax_tree(jax: Any, factor: Any, b: Any) -> Any:
    """x[t] = factor x[t-1] + b[t] over (B, L, P), the factors written out over time but shared by all rows."""

    def combine(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
        return right[0] * left[0], right[0] * left[1] + right[1]

    factors = jax.numpy.broadcast_to(factor, (1, *b.shape[1:]))
    return jax.lax.associative_scan(combine, (factors, b), axis=1)[1]


def _jax_lean(jax: Any, p: Any, kind: str, rotation: np.ndarray | None, x: Any) -> Any:
    factor, gain = _jax_factors(jax, p, kind)
    states = _jax_tree(jax, factor, gain * jax.lax.complex(*jax.numpy.split(x @ p["dense.weight"].T, 2, -1)))
    if rotation is None:
        return states.real
    return (states.reshape(*states.shape[:-1], -1, len(rotation)) @ rotation.T).reshape(states.shape).real


def _jax_published(jax: Any, p: Any, kind: str, rotation: np.ndarray | None, x: Any) -> Any:
    jnp = jax.numpy
    factor, gain = _jax_factors(jax, p, kind)
    dense = jax.lax.complex(*jnp.split(p["dense.weight"], 2))
    drive = (x.astype(dense.dtype) @ dense.T) @ jnp.diag(gain)
    blocks = np.eye(len(factor), dtype=np.complex64)
    if rotation is not None:
        blocks = np.kron(np.eye(len(factor) // len(rotation), dtype=np.complex64), rotation)
    return (_jax_tree(jax, factor, drive) @ blocks.T).real
