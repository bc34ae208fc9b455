"""The operator ``sdn::resonate``: linear complex neurons from their drive to their spikes, with its own backward.

An operator takes tensors and plain numbers only. ``drive`` is (B, L, 2P), real parts and then imaginary parts;
``state`` (B, S, P) holds the real and the imaginary part of x and, for refractory neurons (S = 3), q; ``fixed`` (5, P)
the factor and the gain, real and imaginary, and the threshold; ``rotation`` (2, n, n), real and imaginary, with n = 0
for none. It returns the spikes (B, L, P), the last state (B, S, P), and every 32nd state for the backward pass, (B,
ceil(L / 32), S, P), empty where ``save`` is False: the complex states of the other steps are computed again. With
``reuse`` the backward pass writes the gradient of the drive over the drive, which torch then refuses to use again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.resonate.layout import STRIDE

__all__ = ["run"]


def run(
    drive: Tensor,
    state: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: Sequence[float],
    through_reset: bool,
    reuse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Spikes (B, L, P) and last state (B, S, P), with gradients to drive, state and ``fixed``, none to the rotation.

    Args:
        drive, state, fixed, rotation: as above, of one dtype, float32 or float64.
        magnitude: threshold |x| instead of its real part.
        refractory: factor that q keeps per step; unused where S is 2.
        gradient, shape: key and numbers of the spike gradient, see `sdn.compiler.programs.slope_of`.
        through_reset: let the gradient pass through the spike into q.
        reuse: let the backward pass overwrite the drive, which nobody else may need then.
    """
    save = torch.is_grad_enabled() and (drive.requires_grad or state.requires_grad or fixed.requires_grad)
    options = magnitude, refractory, gradient, list(shape), through_reset, reuse
    spikes, final, _ = _resonate(drive, state, fixed, rotation, *options, save)
    return spikes, final


def _forward(
    drive: Tensor,
    state: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    reuse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(drive).forward(drive, state, fixed, rotation, magnitude, refractory, save)  # type: ignore[no-any-return]


def _forward_fake(drive: Tensor, state: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = drive.shape[0], drive.shape[1], drive.shape[2] // 2
    saved = drive.new_empty(batch if options[-1] else 0, -(-length // STRIDE), *state.shape[1:])
    return drive.new_empty(batch, length, channels), state.new_empty(state.shape), saved


def _backward(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    drive: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    saved: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: list[float],
    through_reset: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_drive = torch.empty_like(drive, memory_format=torch.contiguous_format)
    options = magnitude, refractory, gradient, shape, through_reset
    others = _kernels(drive).backward(grad_spikes, grad_final, drive, fixed, rotation, saved, *options, grad_drive)
    return grad_drive, *others


def _backward_over(
    grad_spikes: Tensor | None,
    grad_final: Tensor | None,
    drive: Tensor,
    fixed: Tensor,
    rotation: Tensor,
    saved: Tensor,
    magnitude: bool,
    refractory: float,
    gradient: str,
    shape: list[float],
    through_reset: bool,
) -> tuple[Tensor, Tensor]:
    """`_backward` with the gradient of a contiguous drive in its place."""
    options = magnitude, refractory, gradient, shape, through_reset, drive
    return _kernels(drive).backward(grad_spikes, grad_final, drive, fixed, rotation, saved, *options)  # type: ignore[no-any-return]


def _backward_over_fake(
    _: Any, __: Any, drive: Tensor, fixed: Tensor, ___: Any, saved: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    return drive.new_empty(drive.shape[0], *saved.shape[2:]), fixed.new_empty(fixed.shape)


def _backward_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return args[2].new_empty(args[2].shape), *_backward_over_fake(*args)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    drive, _, fixed, rotation, *ctx.options, reuse, save = inputs
    assert save, "a backward pass needs save=True"
    ctx.reuse, ctx.spent = reuse and drive.is_contiguous(), False
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(drive, fixed, rotation, output[2])


def _pull_back(ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if ctx.spent:
        raise RuntimeError(
            "resonate: a second backward pass, and the first one has overwritten the drive; build the layer or the "
            "model with reuse=False."
        )
    if ctx.reuse and not torch.is_grad_enabled():
        ctx.spent = True
        drive, *rest = ctx.saved_tensors
        drive = drive.detach()
        others = _resonate_backward_over(grad_spikes, grad_final, drive, *rest, *ctx.options)
        torch.autograd.graph.increment_version(drive)  # so that torch refuses a second backward pass
        return drive, *others, None, None, None, None, None, None, None, None
    grads = _resonate_backward(grad_spikes, grad_final, *ctx.saved_tensors, *ctx.options)
    return *grads, None, None, None, None, None, None, None, None


def _kernels(drive: Tensor) -> Any:
    return kernels("resonate", drive, "use solver='parallel' or 'loop'")


_resonate_backward = operator("sdn::resonate_backward", _backward, _backward_fake, *NO_SECOND_DERIVATIVE)
_resonate_backward_over = operator(
    "sdn::resonate_backward_over", _backward_over, _backward_over_fake, mutates=("drive",)
)
_resonate = operator("sdn::resonate", _forward, _forward_fake, _pull_back, _setup)
