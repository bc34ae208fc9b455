"""What is done to a trained network or its input: fewer bits, noise, lost spikes. The network itself stays as it is."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdn import ALIF, LIF, Dynamics, Neuron, Surrogate
from spikingssm.datasets.base import Batch
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.readout import LeakyReadout
from spikingssm.layers.recurrent import Recurrent
from spikingssm.layers.s5 import ResonateAndFire
from spikingssm.measures.spikes import neurons_of

__all__ = ["losing_spikes", "noisy_input", "noisy_weights", "quantise", "quantised", "quantised_input"]


def quantise(x: Tensor, bits: int) -> Tensor:
    """x with ``bits`` bits behind the binary point, ``round(2^bits x) / 2^bits``, halves to even; no clipping."""
    if x.is_complex():
        return torch.complex(quantise(x.real, bits), quantise(x.imag, bits))
    return torch.round(x * 2.0**bits) / 2.0**bits


def quantised_input(batch: Batch, bits: int) -> Batch:
    """The batch with x quantised; tokens are left alone."""
    return batch._replace(x=quantise(batch.x, bits)) if batch.x.is_floating_point() else batch


def noisy_input(batch: Batch, sigma: float, draw: torch.Generator) -> Batch:
    """``x + sigma N(0, 1)``, anew for every number of x; no clipping."""
    return batch._replace(x=batch.x + sigma * _normal(batch.x, draw))


@torch.no_grad()
def noisy_weights(model: nn.Module, strength: float, draw: torch.Generator) -> nn.Module:
    """A copy with ``w + strength w N(0, 1)`` for every number of every 2-D parameter."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.add_(strength * parameter * _normal(parameter, draw))
    return model


@torch.no_grad()
def quantised(model: nn.Module, bits: int) -> nn.Module:
    """A copy with every parameter and buffer quantised, and then the factors that its neurons and readouts keep a step.

    Such factors are the decay of LIF, alpha and rho of ALIF, the complex factor of S5-RF, and alpha of a leaky readout;
    neurons under a surrogate, which stands for one decay only, keep theirs.
    Nothing is quantised that follows from others at every step: the state, and of RF and BRF boundary and damping. The
    discrete system of an S4D is computed from its quantised parameters.
    """
    model = copy.deepcopy(model)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point() or value.is_complex():
            value.copy_(quantise(value, bits))
    for part in model.modules():
        if isinstance(part, LeakyReadout):
            part.tau.copy_(quantise(torch.sigmoid(part.tau), bits).logit())
        elif isinstance(part, LeakyIntegrator):
            part.tau.copy_(_tau(quantise(part.alpha, bits)))
        elif isinstance(part, ResonateAndFire):
            _put(part, "system", _rounded_system(part.system, bits))
        elif isinstance(part, Neuron) and not isinstance(part.solver, Surrogate):
            _put(part, "current_dynamics", _constantly(_rounded(part.current_dynamics(), bits)))
    return model


@contextmanager
def losing_spikes(model: nn.Module, part: float, draw: torch.Generator) -> Iterator[None]:
    """While open, every spike gets lost with probability ``part``, behind the neuron that fired it.

    The neuron's own state has seen its spike. Whatever reads it has not: later layers, the readout and, one step later,
    the neurons of a recurrent layer; and it is not counted as a spike.

    Args:
        model: any module with neurons; it is left as it was.
        part: probability, in [0, 1].
        draw: gives the random numbers, one for each row, step and neuron of every call of a layer.
    """

    def kept(shape: tuple[int, ...], like: Tensor) -> Tensor:
        return (torch.rand(shape, generator=draw) >= part).to(like)

    def lose(_: nn.Module, __: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        spikes, state = output
        return spikes * kept(tuple(spikes.shape), spikes), state

    handles, stepped = [], []
    try:
        for layer in neurons_of(model).values():
            if isinstance(layer, Recurrent):
                _put(layer, "forward", _by_steps(layer.forward, layer.channels, kept))
                stepped.append(layer)
            else:
                handles.append(layer.register_forward_hook(lose))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in stepped:
            del layer.__dict__["forward"]


def _by_steps(plain: Callable[..., Any], channels: int, kept: Callable[..., Tensor]) -> Callable[..., Any]:
    """A recurrent layer's ``forward`` that runs step by step and takes the lost spikes out of what is fed back."""

    def forward(x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        keep, arrived = kept((*x.shape[:2], channels), x), []
        for t in range(x.shape[1]):
            spikes, state = plain(x[:, t : t + 1], state)
            arrived.append(spikes * keep[:, t : t + 1])
            state = state._replace(spike=arrived[-1][:, 0].to(state.spike.dtype))
        return torch.cat(arrived, 1), state

    return forward


def _rounded(dynamics: Dynamics, bits: int) -> Dynamics:
    """The neuron with its decay factors quantised."""
    if isinstance(dynamics, LIF):
        return dynamics.replace(decay=quantise(torch.as_tensor(dynamics.decay), bits))
    if isinstance(dynamics, ALIF):
        alpha, rho = (quantise(torch.as_tensor(factor), bits) for factor in (dynamics.alpha, dynamics.rho))
        return dynamics.replace(tau_m=_tau(alpha), tau_a=_tau(rho))
    return dynamics


def _rounded_system(system: Callable[..., Any], bits: int) -> Callable[..., Any]:
    def rounded(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        factor, gain = system(dtype)
        return quantise(factor, bits), gain

    return rounded


def _constantly(value: Any) -> Callable[[], Any]:
    return lambda: value


def _tau(factor: Tensor) -> Tensor:
    """The time constant in steps of a factor: 0 of the factor 0, and 1e30 of 1, from which exp(-1 / tau) is 1 again."""
    return torch.where(factor < 1, -1 / torch.log(factor), 1e30)


def _normal(like: Tensor, draw: torch.Generator) -> Tensor:
    """N(0, 1) of that shape, the same on every device."""
    return torch.randn(like.shape, generator=draw).to(like)


def _put(module: nn.Module, method: str, function: Callable[..., Any]) -> None:
    """A method of this one module replaced, past the bookkeeping of `nn.Module`."""
    module.__dict__[method] = function
