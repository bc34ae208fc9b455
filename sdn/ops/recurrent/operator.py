"""The operator ``sdn::recurrent``: a layer of neurons that read an input and each other's last spikes.

An operator takes tensors and plain numbers only. ``x`` is (B, L, C); ``weight`` (C + H, H), row k what source k adds to
all H neurons, the inputs first; ``bias`` (H,); ``first`` (B, S, H) the state before the first step, its fields side by
side, and ``spikes0`` (B, H) the spikes before it; ``fixed`` (P, H) and ``numbers`` as for `sdn::neuron`. The
current of a step is the sum of bias, inputs in order, and neurons in order. It returns the spikes (B, L, H), the last
state (B, S, H), and every 16th state for the backward pass, (B, ceil(L / 16), S, H), empty where ``save`` is False:
currents and states between are computed again, from the spikes, which are known.
"""

from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.neuron.layout import Kernel
from sdn.ops.recurrent.layout import STRIDE

__all__ = ["run"]


def run(
    kernel: Kernel,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    first: Tensor,
    spikes0: Tensor,
    slope: tuple[str, list[float]],
    through_reset: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes (B, L, H) and last state (B, S, H), with gradients to all tensors.

    Args:
        kernel: the neuron.
        x, weight, bias, first, spikes0: as above, of one dtype, float32 or float64.
        slope: key and numbers of the spike gradient, see `sdn.compiler.programs.slope_of`.
        through_reset: let the gradient pass through the spike into the neuron's own state.
    """
    tensors = x, weight, bias, first, spikes0, kernel.fixed
    save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    options = kernel.numbers, kernel.program, *slope, through_reset, save
    spikes, final, _ = _recurrent(*tensors, *options)
    return spikes, final


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    first: Tensor,
    spikes0: Tensor,
    fixed: Tensor,
    numbers: list[float],
    program: str,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(x).forward(program, x, weight, bias, first, spikes0, fixed, numbers, save)  # type: ignore[no-any-return]


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor, first: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = len(x), x.shape[1], first.shape[2]
    saved = first.new_empty(batch if options[-1] else 0, -(-length // STRIDE), *first.shape[1:])
    return x.new_empty(batch, length, channels), first.new_empty(first.shape), saved


def _backward(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    spikes0: Tensor,
    fixed: Tensor,
    spikes: Tensor,
    saved: Tensor,
    numbers: list[float],
    program: str,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = x, weight, bias, spikes0, fixed, spikes, saved
    options = numbers, gradient, shape, through_reset, need_x
    return _kernels(x).backward(program, grad_spikes, grad_final, *given, *options)  # type: ignore[no-any-return]


def _backward_fake(
    _: Any, __: Any, x: Tensor, weight: Tensor, bias: Tensor, spikes0: Tensor, fixed: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    saved, need_x = rest[1], rest[-1]
    first = x.new_empty(len(x), *saved.shape[2:])
    of_weight, of_bias, of_spikes0, of_fixed = (t.new_empty(t.shape) for t in (weight, bias, spikes0, fixed))
    return x.new_empty(x.shape if need_x else (0,)), of_weight, of_bias, first, of_spikes0, of_fixed


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, _, spikes0, fixed, *ctx.options, save = inputs
    assert save, "a backward pass needs save=True"
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, spikes0, fixed, output[0], output[2])


def _pull_back(ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    need_x = ctx.needs_input_grad[0]
    grads = _recurrent_backward(grad_spikes, grad_final, *ctx.saved_tensors, *ctx.options, need_x)
    grad_x, grad_weight, grad_bias, grad_first, grad_spikes0, grad_fixed = grads
    found = grad_x if need_x else None, grad_weight, grad_bias, grad_first, grad_spikes0, grad_fixed
    return *found, None, None, None, None, None, None


def _kernels(x: Tensor) -> Any:
    return kernels("recurrent", x)


_recurrent_backward = operator("sdn::recurrent_backward", _backward, _backward_fake, *NO_SECOND_DERIVATIVE)
_recurrent = operator("sdn::recurrent", _forward, _forward_fake, _pull_back, _setup)
