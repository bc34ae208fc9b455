"""A recurrent layer of LIF neurons here, and with the neurons of other libraries: decay 0.5, hard reset, triangle.

norse has a recurrent cell; its synapse is set to forget within a step. snnTorch's is its neuron beside a linear layer,
and SpikingJelly's container multiplies its input by one more square matrix, so these two run their own neuron in the
loop that users write: a linear map of the input beside the last spikes. Time is their first axis. Gradients flow
through the reset, except in norse. That all compute the same is checked.
"""

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import sdn
from benchmarks.harness import Bench, Run

__all__ = ["RecurrentPeer", "compare", "errors", "installed", "ours", "stepwise"]

DECAY = 0.5
OURS = ("fused", "loop")
Layer = Callable[[Tensor, Tensor], Tensor]
"""x and weight (H, C + H) -> spikes: (B, L, C) -> (B, L, H) for ours, (L, B, C) -> (L, B, H) for the others."""


@dataclass(frozen=True)
class RecurrentPeer:
    """A recurrent layer of another library's neurons.

    Args:
        name: of the library.
        run: time first.
        detach_reset: whether its gradients stop at the reset.
        remark: how it differs from its library's usual setting.
    """

    name: str
    run: Layer
    detach_reset: bool = False
    remark: str = ""


def compare(bench: Bench, batch: int, length: int, d_input: int, d_model: int) -> None:
    """Check and time forward and backward of a recurrent layer of LIF on drawn input and an incoming gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, length, d_input, generator=generator)
    outer = 1.2 * torch.randn(d_model, d_input, generator=generator)
    inner = torch.randn(d_model, d_model, generator=generator) / d_model**0.5
    weight, incoming = torch.cat((outer, inner), 1), torch.randn(batch, length, d_model, generator=generator)
    peers = installed()
    layers = {name: partial(ours, name) for name in OURS} | {peer.name: peer.run for peer in peers}
    turned = tuple(value.transpose(0, 1).contiguous() for value in (x, incoming))
    facts = {"fused": errors(layers["fused"], x, weight, incoming)}
    for peer in peers:
        found = errors(partial(_batch_first, peer.run), x, weight, incoming, peer.detach_reset)
        facts[peer.name] = {**found, "remark": peer.remark}
    row = {"table": "peers", "batch": batch, "length": length, "d_input": d_input, "d_model": d_model}
    for kind, make in (("forward", _forward), ("forward and backward", _both)):
        runs = {n: make(run, weight, *((x, incoming) if n in OURS else turned)) for n, run in layers.items()}
        bench.compare({**row, "pass": kind}, runs, batch * length * d_model, ("fused", "loop"), facts)


def errors(run: Layer, x: Tensor, weight: Tensor, incoming: Tensor, detach_reset: bool = False) -> dict[str, Any]:
    """Spikes (B, L, H) against the loop's, how many differ, from which step on, and the gradient on the steps before.

    The gradient's error is relative to the largest one, and infinite where the first step differs.
    """
    loop = partial(ours, "loop", detach_reset=detach_reset)
    with torch.no_grad():
        want, got = loop(x, weight), run(x, weight)
    steps = (want != got).any(2).any(0).nonzero()
    until, error = int(steps[0]) if len(steps) else x.shape[1], math.inf
    if until:
        leaf = weight.clone().requires_grad_()
        exact, found = (torch.autograd.grad(f(x[:, :until], leaf), leaf, incoming[:, :until])[0] for f in (loop, run))
        error = ((found - exact).abs().max() / exact.abs().max()).item()
    flips = {"flips": int((want != got).sum()), "first_flip": until if len(steps) else None}
    return {"spikes": int(want.sum()), "rate": want.mean().item(), **flips, "gradient_error": error}


def ours(solver: str, x: Tensor, weight: Tensor, detach_reset: bool = False) -> Tensor:
    """Ours: (B, L, C), (H, C + H) -> (B, L, H)."""
    return sdn.recurrent(x, weight, sdn.LIF(DECAY), detach_reset=detach_reset, solver=solver)[0]


def stepwise(neuron: Callable[[Tensor, Any], tuple[Tensor, Any]], x: Tensor, weight: Tensor) -> Tensor:
    """The loop over a neuron: (L, B, C), (H, C + H) -> (L, B, H).

    Args:
        neuron: currents (B, H) and its state, None at first -> spikes (B, H) and the state.
        x, weight: see above.
    """
    spike, spikes, state = x.new_zeros(x.shape[1], len(weight)), [], None
    for now in x.unbind(0):
        spike, state = neuron(nn.functional.linear(torch.cat((now, spike), 1), weight), state)
        spikes.append(spike)
    return torch.stack(spikes)


def installed() -> list[RecurrentPeer]:
    """The peers that can be imported here."""
    found = []
    for make in (_spikingjelly, _snntorch, _norse):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(make())
        except ModuleNotFoundError:
            continue
    return found


def _batch_first(run: Layer, x: Tensor, weight: Tensor) -> Tensor:
    return run(x.transpose(0, 1), weight).transpose(0, 1)


def _forward(run: Layer, weight: Tensor, x: Tensor, incoming: Tensor) -> Run:
    def only() -> None:
        with torch.no_grad():
            run(x, weight)

    return only


def _both(run: Layer, weight: Tensor, x: Tensor, incoming: Tensor) -> Run:
    leaf = weight.clone().requires_grad_()

    def both() -> None:
        run(x, leaf).backward(incoming)
        leaf.grad = None

    return both


def _spikingjelly() -> RecurrentPeer:
    base = "spikingjelly.activation_based."
    neuron, surrogate, functional = (importlib.import_module(base + m) for m in ("neuron", "surrogate", "functional"))
    triangle = surrogate.PiecewiseQuadratic(alpha=1.0)
    node = neuron.LIFNode(2.0, False, 1.0, 0.0, triangle, detach_reset=False, step_mode="s")

    def run(x: Tensor, weight: Tensor) -> Tensor:
        functional.reset_net(node)
        return stepwise(lambda current, state: (node(current), state), x, weight)

    return RecurrentPeer("spikingjelly", run)


def _snntorch() -> RecurrentPeer:
    snntorch, surrogate = importlib.import_module("snntorch"), importlib.import_module("snntorch.surrogate")

    def triangle(distance: Tensor, grad: Tensor, _: Tensor) -> Tensor:
        return grad * (1 - distance.abs()).clamp_min(0)

    gradient = surrogate.custom_surrogate(triangle)
    leaky = snntorch.Leaky(DECAY, 1.0, gradient, reset_mechanism="zero", reset_delay=False)

    def neuron(current: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        return leaky(current, torch.zeros_like(current) if membrane is None else membrane)

    return RecurrentPeer("snntorch", partial(stepwise, neuron), remark="reset_delay=False")


def _norse() -> RecurrentPeer:
    lif = importlib.import_module("norse.torch.functional.lif")
    half, one = torch.tensor(1 - DECAY), torch.tensor(1.0)
    parameters = lif.LIFParameters(tau_syn_inv=one, tau_mem_inv=half, method="triangle", alpha=one)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        outer, inner = (weight / half).split((x.shape[2], len(weight)), 1)
        rest = x.new_zeros(x.shape[1], len(weight))
        state, spikes = lif.LIFState(rest, rest, rest), []
        for now in x.unbind(0):
            spike, state = lif.lif_step(now, state, outer, inner, parameters, dt=1.0)
            spikes.append(spike)
        return torch.stack(spikes)

    return RecurrentPeer("norse", run, True, "fed twice the current, since it scales that by 1 - decay; detached reset")
