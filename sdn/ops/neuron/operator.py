"""A fused neuron as an operator, ``sdn::neuron``, with its own backward.

An operator takes tensors and plain values only. ``current`` is (B, L, H); ``state`` (B, S, H) holds the fields of the
state side by side, ``fixed`` (P, H) what its program reads per channel, ``numbers`` what is one number for all. It
returns the spikes (B, L, H), the last state (B, S, H), every 64th state for the backward pass, (B, ceil(L / 64), S, H),
empty where ``save`` is False, and the membrane (B, L, H), empty unless ``record``.
"""

from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.neuron.layout import STRIDE, Kernel, lay_out, spikes_like

__all__ = ["backward", "run"]


def run(
    kernel: Kernel, current: Tensor, state: Tensor, slope: tuple[str, list[float]], through_reset: bool, record: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (B, L, H), last state (B, S, H) and membrane of a whole sequence, with gradients to all tensors.

    Args:
        kernel: the neuron.
        current: (B, L, H) float32 or float64, on the CPU or a CUDA device.
        state: (B, S, H) before the first step.
        slope: key and numbers of the spike gradient, see `sdn.compiler.programs.slope_of`.
        through_reset: let the gradient pass through the spike into the state.
        record: return the membrane (B, L, H); else an empty tensor.
    """
    program, fixed, numbers = kernel
    save = torch.is_grad_enabled() and (current.requires_grad or state.requires_grad or fixed.requires_grad)
    options = numbers, program, *slope, through_reset, save, record
    spikes, final, _, mem = _neuron(current, state, fixed, *options)
    return spikes, final, mem


def _forward(
    current: Tensor,
    state: Tensor,
    fixed: Tensor,
    numbers: list[float],
    program: str,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    save: bool,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not current.numel():
        return _forward_fake(current, state, save, record)
    return _kernels(current).forward(program, current, state, fixed, numbers, save, record)  # type: ignore[no-any-return]


def _forward_fake(current: Tensor, state: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (rows, lanes), (save, record) = lay_out(current), options[-2:]
    saved = current.new_empty(rows if save else 0, -(-current.shape[1] // STRIDE), state.shape[1], lanes)
    mem = spikes_like(current) if record else current.new_empty(0)
    return spikes_like(current), state.new_empty(state.shape), saved, mem


def _backward(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    grad_mem: Tensor | None,
    current: Tensor,
    fixed: Tensor,
    saved: Tensor,
    numbers: list[float],
    program: str,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not current.numel():
        return *_backward_fake(None, None, None, current, fixed, saved)[:2], torch.zeros_like(fixed)
    grads = grad_spikes, grad_final, grad_mem
    options = numbers, gradient, shape, through_reset, learn
    return _kernels(current).backward(program, *grads, current, fixed, saved, *options)  # type: ignore[no-any-return]


def _backward_fake(
    _: Any, __: Any, ___: Any, current: Tensor, fixed: Tensor, saved: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    state = current.new_empty(current.shape[0], saved.shape[2], current.shape[2])
    return spikes_like(current), state, fixed.new_empty(fixed.shape if options and options[-1] else (0,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    current, _, fixed, *ctx.options, save, ctx.record = inputs
    assert save, "a backward pass needs save=True"
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(current, fixed, output[2])


def _pull_back(
    ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None, _: None, grad_mem: Tensor | None
) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[2]
    given = grad_mem if ctx.record else None, *ctx.saved_tensors, *ctx.options, learn
    grads = backward(grad_spikes, grad_final, *given)
    return grads[0], grads[1], grads[2] if learn else None, None, None, None, None, None, None, None


def _kernels(current: Tensor) -> Any:
    return kernels("neuron", current)


backward = operator("sdn::neuron_backward", _backward, _backward_fake, *NO_SECOND_DERIVATIVE)
_neuron = operator("sdn::neuron", _forward, _forward_fake, _pull_back, _setup)
