"""The fused neurons as operators: ``sdn::lif``, ``sdn::alif``, ``sdn::rf``, ``sdn::brf``, each with its own backward.

An operator takes tensors and plain numbers only. ``current`` is (B, L, H); ``state`` (B, S, H) holds the fields of the
state side by side, ``fixed`` (P, H) the parameters as the kernels want them. It returns the spikes (B, L, H), the last
state (B, S, H), and every 64th state for the backward pass, (B, ceil(L / 64), S, H), empty where ``save`` is False.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.neuron.layout import MODELS, STRIDE, Kernel, Model, lay_out, spikes_like

__all__ = ["BACKWARD", "OPERATORS", "run"]

OPERATORS: dict[str, Any] = {}
BACKWARD: dict[str, Any] = {}


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
