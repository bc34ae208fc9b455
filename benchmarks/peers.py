"""LIF neurons of other libraries, set to ours: decay 0.5, threshold 1, hard reset to 0, triangle gradient.

None of them is a dependency: what is not installed is left out (``make bench-peers`` makes an environment that has
them). Whether they then compute the same spikes and gradients is checked, not assumed: `compare_to_ours`.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sdn

__all__ = ["DECAY", "Peer", "compare_to_ours", "installed"]

DECAY = 0.5


@dataclass(frozen=True)
class Peer:
    """A multi-step neuron of another library: time-major currents in, spikes out.

    Args:
        name: of the library.
        run: (L, B, H) -> spikes (L, B, H), from rest.
        scale: factor on the currents that makes its neuron ours.
        remark: how it differs from its library's usual setting.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    scale: float = 1.0
    remark: str = ""


def installed() -> list[Peer]:
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


def compare_to_ours(peer: Peer, length: int = 512) -> dict[str, Any]:
    """Whether a peer's spikes equal those of the exact loop on N(0, 1) currents, and its gradients (to 1e-5)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, length, 64, generator=generator).requires_grad_()
    incoming = torch.randn(4, length, 64, generator=generator)
    theirs = peer.run((peer.scale * x).transpose(0, 1)).transpose(0, 1)
    (their_grad,) = torch.autograd.grad(theirs, x, incoming)
    same = "no"
    for detached, words in ((True, "yes"), (False, "yes, through the reset too")):
        ours = sdn.Neuron(sdn.LIF(DECAY), 64, solver=sdn.Loop(detach_reset=detached))(x)[0]
        (our_grad,) = torch.autograd.grad(ours, x, incoming)
        if torch.allclose(our_grad, their_grad, rtol=1e-5, atol=1e-5):
            same = words
            break
    agree = (ours == theirs).double().mean().item()
    spikes = "yes" if agree == 1 else f"no, {100 * agree:.2f} % agree"
    return {"equal dynamics": spikes, "equal gradient": same}


def _spikingjelly() -> Peer:
    base = "spikingjelly.activation_based."
    neuron, surrogate, functional = (importlib.import_module(base + m) for m in ("neuron", "surrogate", "functional"))
    triangle = surrogate.PiecewiseQuadratic(alpha=1.0)
    node = neuron.LIFNode(2.0, False, 1.0, 0.0, triangle, detach_reset=True, step_mode="m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return Peer("spikingjelly", run)


def _snntorch() -> Peer:
    snntorch, surrogate = importlib.import_module("snntorch"), importlib.import_module("snntorch.surrogate")

    def triangle(distance: Tensor, grad: Tensor, _: Tensor) -> Tensor:
        return grad * (1 - distance.abs()).clamp_min(0)

    gradient = surrogate.custom_surrogate(triangle)
    leaky = snntorch.Leaky(DECAY, 1.0, gradient, reset_mechanism="zero")

    def run(x: Tensor) -> Tensor:
        membrane = torch.zeros_like(x[0])
        spikes = []
        for now in x.unbind(0):
            spike, membrane = leaky(now, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return Peer("snntorch", run, remark="its reset comes one step later, before the decay: the same spikes")


def _norse() -> Peer:
    box, norse = importlib.import_module("norse.torch.functional.lif_box"), importlib.import_module("norse.torch")
    half = torch.tensor(1 - DECAY)
    parameters = box.LIFBoxParameters(tau_mem_inv=half, method="triangle", alpha=torch.tensor(1.0))
    cell = norse.LIFBoxCell(parameters, dt=1.0)

    def run(x: Tensor) -> Tensor:
        state, spikes = None, []
        for now in x.unbind(0):
            spike, state = cell(now, state)
            spikes.append(spike)
        return torch.stack(spikes)

    remark = "fed twice the current, since it scales that by 1 - decay; over unbind, since its Lift is quadratic in L"
    return Peer("norse", run, scale=1 / (1 - DECAY), remark=remark)
