"""The BRF network as it was published, step by step in plain torch: the baseline of suite ``brf``.

As its authors run it: one linear map of the input beside the layer's own last spikes, absolute values and divergence
boundary taken anew at every step, a leaky integrator at every step, outputs stacked; time is the first axis. The loop
goes over ``unbind``, since indexing each step makes the backward pass quadratic in time. Spikes are not counted.

Eager, the spike is a custom autograd function. Scripted (`torch.jit.script` of the whole loop), which takes no such
function, it is the step with its slope injected in the forward pass: the same spikes and the same gradients.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from spikingssm.models import RSNN

__all__ = ["PublishedBRF", "brf_step", "injected", "integrator_step", "network", "scripted_network"]


def slope(v: Tensor) -> Tensor:
    """The double Gaussian: ``0.5 [1.15 G(v; 0, 0.5) - 0.3 G(v; 0, 3)]`` with G the density; (...) -> (...)."""
    narrow = torch.exp(-2.0 * v * v) / (0.5 * math.sqrt(2 * math.pi))
    broad = torch.exp(-v * v / 18.0) / (3.0 * math.sqrt(2 * math.pi))
    return 0.5 * (1.15 * narrow - 0.3 * broad)


class Step(torch.autograd.Function):
    """``H(v)``, strict; backward the slope."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        """(...) -> (...), 0 or 1."""
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """(...) -> (...)."""
        (v,) = ctx.saved_tensors
        return grad * slope(v)


def injected(v: Tensor) -> Tensor:
    """`Step` without a function of its own: ``H(v)`` and, from a term that is 0, the slope; (...) -> (...)."""
    carried = slope(v.detach()) * v
    return (v > 0).to(v.dtype) + (carried - carried.detach())


def brf_step(
    current: Tensor,
    u: Tensor,
    v: Tensor,
    q: Tensor,
    omega: Tensor,
    b_offset: Tensor,
    dt: float = 0.01,
    threshold: float = 1.0,
    gamma: float = 0.9,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of the neuron: the spike and the next u, v and q.

    Args:
        current, u, v, q: (B, H).
        omega, b_offset: (H,), of any sign; their absolute values count.
        dt, threshold, gamma: as published.

    Source: Higuchi et al., ICML 2024 (arXiv 2402.14603).
    """
    omega = omega.abs()
    boundary = (torch.sqrt(1 - (dt * omega) ** 2) - 1) / dt
    b = boundary - b_offset.abs() - q
    u_next = u + dt * (b * u - omega * v + current)
    v_next = v + dt * (omega * u + b * v)
    distance = u_next - threshold - q
    if torch.jit.is_scripting():  # noqa: SIM108 - of an `if` the compiler leaves the other branch out
        z = injected(distance)
    else:
        z = Step.apply(distance)
    return z, u_next, v_next, gamma * q + z


def integrator_step(y: Tensor, z: Tensor, weight: Tensor, tau: Tensor) -> Tensor:
    """The readout: ``alpha y + (1 - alpha) W z`` with ``alpha = exp(-1 / |tau|)``; y (B, C), z (B, H), tau (C,)."""
    alpha = torch.exp(-1 / tau.abs())
    return alpha * y + (1 - alpha) * nn.functional.linear(z, weight)


def network(
    x: Tensor,
    weight: Tensor,
    omega: Tensor,
    b_offset: Tensor,
    readout: Tensor,
    tau: Tensor,
    record: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The loop over time.

    Args:
        x: (T, B, C).
        weight: (H, C + H), input columns first.
        omega, b_offset: (H,).
        readout: (O, H).
        tau: (O,), in steps.
        record: keep the spikes.

    Returns:
        Outputs (T, B, O); the spikes, T times (B, H), or none.
    """
    z = torch.zeros(x.shape[1], weight.shape[0], dtype=x.dtype, device=x.device)
    u, v, q = torch.zeros_like(z), torch.zeros_like(z), torch.zeros_like(z)
    y = torch.zeros(x.shape[1], readout.shape[0], dtype=x.dtype, device=x.device)
    outputs: list[Tensor] = []
    spikes: list[Tensor] = []
    for now in x.unbind(0):
        current = nn.functional.linear(torch.cat((now, z), 1), weight)
        z, u, v, q = brf_step(current, u, v, q, omega, b_offset)
        y = integrator_step(y, z, readout, tau)
        outputs.append(y)
        if record:
            spikes.append(z)
    return torch.stack(outputs), spikes


@functools.cache
def scripted_network() -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """`network` under `torch.jit.script`, which newer versions of torch call deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(network)  # type: ignore[no-any-return]


class PublishedBRF(nn.Module):
    """One recurrent layer of BRF neurons and a leaky integrator, ready to train.

    Args:
        d_input, d_model, d_output: C, H and O.
        omega, b_offset: ranges of their uniform starts.
        tau: mean and standard deviation of its normal start.
        scripted: run `scripted_network` instead of `network`.
    """

    def __init__(
        self,
        d_input: int,
        d_model: int,
        d_output: int,
        *,
        omega: tuple[float, float] = (15.0, 50.0),
        b_offset: tuple[float, float] = (0.1, 1.0),
        tau: tuple[float, float] = (20.0, 5.0),
        scripted: bool = False,
    ) -> None:
        super().__init__()
        self.scripted = scripted
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(d_model, d_input + d_model)))
        self.omega = nn.Parameter(torch.empty(d_model).uniform_(*omega))
        self.b_offset = nn.Parameter(torch.empty(d_model).uniform_(*b_offset))
        self.readout = nn.Parameter(nn.init.xavier_uniform_(torch.empty(d_output, d_model)))
        self.tau = nn.Parameter(torch.empty(d_output).normal_(*tau))

    @classmethod
    def sharing(cls, model: "RSNN", scripted: bool = False) -> Self:
        """A copy of our network's parameters, in its dtype and on its device.

        Raises:
            ValueError: a model that is not one layer of BRF with learned omega and b_offset, without bias and mask.
        """
        mine = {name: p.detach().clone() for name, p in model.named_parameters()}
        if set(mine) != set(NAMES):
            raise ValueError(f"PublishedBRF: the model must have exactly {sorted(NAMES)}, it has {sorted(mine)}.")
        w = mine["layers.0.input.weight"]
        made = cls(w.shape[1], w.shape[0], len(mine["readout.tau"]), scripted=scripted)
        made.weight = nn.Parameter(torch.cat((w, mine["layers.0.recurrent.weight"]), 1))
        for name, own in NAMES.items():
            if own != "weight":
                setattr(made, own, nn.Parameter(mine[name]))
        return made

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, C) -> outputs (T, B, O)."""
        return self._run(x, False)[0]

    def spikes(self, x: Tensor) -> Tensor:
        """(T, B, C) -> spikes (T, B, H)."""
        return torch.stack(self._run(x, True)[1])

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the parameters by the names that they have in our network.

        Raises:
            ValueError: before a backward pass.
        """
        if any(p.grad is None for p in self.parameters()):
            raise ValueError("PublishedBRF: no gradients yet; call backward() on a loss first.")
        grads = {name: getattr(self, own).grad for name, own in NAMES.items()}
        d_input = self.weight.shape[1] - self.weight.shape[0]
        for name, part in (
            ("layers.0.input.weight", slice(d_input)),
            ("layers.0.recurrent.weight", slice(d_input, None)),
        ):
            grads[name] = grads[name][:, part]
        return grads

    def _run(self, x: Tensor, record: bool) -> tuple[Tensor, list[Tensor]]:
        run = scripted_network() if self.scripted else network
        return run(x, self.weight, self.omega, self.b_offset, self.readout, self.tau, record)


NAMES = {
    "layers.0.input.weight": "weight",
    "layers.0.recurrent.weight": "weight",
    "layers.0.learned.omega": "omega",
    "layers.0.learned.b_offset": "b_offset",
    "readout.weight": "readout",
    "readout.tau": "tau",
}
"""Parameters of an `RSNN`, and here."""
