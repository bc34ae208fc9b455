"""The fused neurons as operators: ``sdn::lif``, ``sdn::alif``, ``sdn::rf``, ``sdn::brf``, each with its own backward.

An operator takes tensors and plain numbers only. ``current`` is (B, L, H); ``state`` (B, S, H) holds the fields of the
state side by side, ``fixed`` (P, H) the parameters as the kernels want them. It returns the spikes (B, L, H), the last
state (B, S, H), and every 64th state for the backward pass, (B, ceil(L / 64), S, H), empty where ``save`` is False.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels

__all__ = [
    "BACKWARD",
    "OPERATORS",
    "STRIDE",
    "Kernel",
    "Model",
    "as_saved",
    "from_rows",
    "lay_out",
    "run",
    "spikes_like",
    "to_rows",
]

STRIDE = 64
NARROW = 32
"""Below so many channels the rows of a batch are laid side by side, so that the inner loop stays long."""


def lay_out(current: Tensor) -> tuple[int, int]:
    """Rows and lanes that a kernel sees: (B, H), or (1, B H) where H is small."""
    batch, _, channels = current.shape
    return (1, batch * channels) if batch > 1 and channels < NARROW else (batch, channels)


def spikes_like(current: Tensor) -> Tensor:
    """An empty (B, L, H), with the lanes of one step side by side in memory."""
    batch, length, channels = current.shape
    if lay_out(current)[0] == batch:
        return current.new_empty(batch, length, channels)
    return current.new_empty(length, batch, channels).transpose(0, 1)


def to_rows(x: Tensor, rows: int) -> Tensor:
    """(B, L, H) or (B, S, H) as (rows, L or S, lanes), the lanes side by side in memory: a view where that is one."""
    x = x.detach() if rows == len(x) else x.detach().transpose(0, 1).reshape(rows, x.shape[1], -1)
    return x if x.stride(2) == 1 else x.contiguous()


def from_rows(state: Tensor, batch: int) -> Tensor:
    """(rows, S, lanes) as contiguous (B, S, H)."""
    return state if len(state) == batch else state.reshape(state.shape[1], batch, -1).transpose(0, 1).contiguous()


def as_saved(states: Tensor) -> Tensor:
    """States (B, n, S, H) before every 64th step, laid out as the operators keep them: (rows, n, S, lanes)."""
    batch, _, _, channels = states.shape
    if lay_out(states[:, :, 0])[0] == batch:
        return states.contiguous()
    return states.permute(1, 2, 0, 3).reshape(1, *states.shape[1:3], batch * channels)


class Model(NamedTuple):
    """Sizes of a neuron: fields of its state S, parameters of its kernel P."""

    states: int
    parameters: int


MODELS = {"lif": Model(1, 2), "alif": Model(3, 6), "rf": Model(2, 3), "brf": Model(3, 4)}
OPERATORS: dict[str, Any] = {}
BACKWARD: dict[str, Any] = {}


class Kernel(NamedTuple):
    """One neuron as its kernel sees it."""

    name: str
    """A key of `MODELS`."""
    fixed: Tensor
    """(P, H) parameters, in the order of the kernel."""
    constants: list[float]
    """Numbers of the model: hard and soft reset for LIF, dt for RF and BRF."""


def run(
    kernel: Kernel, current: Tensor, state: Tensor, gradient: str, shape: Sequence[float], through_reset: bool
) -> tuple[Tensor, Tensor]:
    """Spikes (B, L, H) and last state (B, S, H) of a whole sequence, with gradients to current, state and parameters.

    Args:
        kernel: the neuron.
        current: (B, L, H) float32 or float64, on the CPU or a CUDA device.
        state: (B, S, H) before the first step.
        gradient: name of the spike gradient: triangle, gaussians, multi_gaussians, arctan, sigmoid.
        shape: its numbers, in the order of the kernel.
        through_reset: let the gradient pass through the spike into the state.
    """
    name, fixed, constants = kernel
    save = torch.is_grad_enabled() and (current.requires_grad or state.requires_grad or fixed.requires_grad)
    spikes, final, _ = OPERATORS[name](current, state, fixed, constants, gradient, list(shape), through_reset, save)
    return spikes, final


def _define(name: str, model: Model) -> tuple[Any, Any]:
    """Register one neuron: ``sdn::name`` and ``sdn::name_backward``."""

    def forward(
        current: Tensor,
        state: Tensor,
        fixed: Tensor,
        constants: list[float],
        gradient: str,
        shape: list[float],
        through_reset: bool,
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not current.numel():
            return forward_fake(current, state, save)
        return _kernels(current).forward(name, current, state, fixed, constants, save)  # type: ignore[no-any-return]

    def forward_fake(current: Tensor, state: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
        rows, lanes = lay_out(current)
        saved = current.new_empty(rows if options[-1] else 0, -(-current.shape[1] // STRIDE), model.states, lanes)
        return spikes_like(current), state.new_empty(state.shape), saved

    def backward(
        grad_spikes: Tensor | None,
        grad_final: Tensor | None,
        current: Tensor,
        fixed: Tensor,
        saved: Tensor,
        constants: list[float],
        gradient: str,
        shape: list[float],
        through_reset: bool,
        learn: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not current.numel():
            return *backward_fake(None, None, current, fixed)[:2], torch.zeros_like(fixed)
        return _kernels(current).backward(  # type: ignore[no-any-return]
            name, grad_spikes, grad_final, current, fixed, saved, constants, gradient, shape, through_reset, learn
        )

    def backward_fake(_: Any, __: Any, current: Tensor, fixed: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
        state = current.new_empty(current.shape[0], model.states, current.shape[2])
        return spikes_like(current), state, fixed.new_empty(fixed.shape if options and options[-1] else (0,))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, _, fixed, *ctx.options, save = inputs
        assert save, "a backward pass needs save=True"
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, fixed, output[2])

    def pull_back(
        ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        learn = ctx.needs_input_grad[2]
        grads = backward_operator(grad_spikes, grad_final, *ctx.saved_tensors, *ctx.options, learn)
        return grads[0], grads[1], grads[2] if learn else None, None, None, None, None, None

    backward_operator = operator(f"sdn::{name}_backward", backward, backward_fake, *NO_SECOND_DERIVATIVE)
    return operator(f"sdn::{name}", forward, forward_fake, pull_back, setup_context), backward_operator


def _kernels(current: Tensor) -> Any:
    return kernels("neuron", current)


for _name, _model in MODELS.items():
    OPERATORS[_name], BACKWARD[_name] = _define(_name, _model)
