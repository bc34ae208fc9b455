"""The operator ``sdn::fire``: spikes from a membrane that something else has found, on the CPU in one pass."""

from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator

__all__ = ["fire", "takes"]


def takes(current: Tensor, mem: Tensor) -> bool:
    """Whether `fire` is made for them: contiguous float32 or float64 on the CPU."""
    fits = current.dtype == mem.dtype and current.dtype in (torch.float32, torch.float64)
    return (
        fits
        and current.numel() > 0
        and current.device.type == "cpu"
        and current.is_contiguous()
        and mem.is_contiguous()
    )


def fire(
    current: Tensor, mem: Tensor, gain: Tensor, threshold: Tensor, at_threshold: bool, gradient: str, shape: list[float]
) -> Tensor:
    """``H(mem + gain current - threshold)``, with gradients to the current and the threshold, none to ``mem``.

    Nothing is stored but the arguments: the distance to the threshold is computed again in the backward pass.

    Args:
        current, mem: (B, L, H), see `takes`.
        gain, threshold: (H,).
        at_threshold: whether a potential exactly at the threshold fires.
        gradient, shape: key and numbers of the spike gradient, see `sdn.compiler.programs.slope_of`.

    Returns:
        (B, L, H) zeros and ones.
    """
    out: Tensor = _fire(current, mem, torch.stack([gain, threshold]), at_threshold, gradient, shape)
    return out


def _forward(
    current: Tensor, mem: Tensor, fixed: Tensor, at_threshold: bool, gradient: str, shape: list[float]
) -> Tensor:
    from sdn.ops.membrane import fire_cpu

    return fire_cpu.forward(current, mem, fixed, at_threshold)


def _backward(
    grad: Tensor, current: Tensor, mem: Tensor, fixed: Tensor, gradient: str, shape: list[float]
) -> tuple[Tensor, Tensor]:
    from sdn.ops.membrane import fire_cpu

    return fire_cpu.backward(grad, current, mem, fixed, gradient, shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.gradient = inputs[4:]


def _pull_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_current, grad_threshold = _fire_backward(grad, *ctx.saved_tensors, *ctx.gradient)
    grad_fixed = torch.stack([torch.zeros_like(grad_threshold), grad_threshold])
    return grad_current, None, grad_fixed, None, None, None


def _backward_fake(grad: Tensor, current: Tensor, mem: Tensor, fixed: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return current.new_empty(current.shape), fixed.new_empty(fixed.shape[1])


_fire_backward = operator("sdn::fire_backward", _backward, _backward_fake, *NO_SECOND_DERIVATIVE)
_fire = operator("sdn::fire", _forward, lambda current, *_: current.new_empty(current.shape), _pull_back, _setup)
