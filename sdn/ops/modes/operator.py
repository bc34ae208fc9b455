"""A bank of complex modes per channel as one operator, ``sdn::modes``: a diagonal state space model as a recurrence.

The kernels run it in coordinates where the input is real: with ``B = phase gain``, ``|phase| = 1``, and ``x = phase
v``, ``v[t] = A v[t-1] + gain u[t]`` and ``y = Re sum weight v + D u``, ``weight = 2 C phase``. That is one product less
per mode and step, and it is exact: the change turns numbers but does not stretch them, also where B is zero.
"""

from typing import Any

import torch
from torch import Tensor

from sdn.ops.common.operator import COMPLEX, NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.modes.layout import BLOCK, CELL

__all__ = ["modes"]


def modes(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    initial: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output and last state of N independent modes per channel that a real input drives.

    ``x_n[t] = A_n x_n[t-1] + B_n u[t]``, ``y[t] = 2 Re sum_n C_n x_n[t] + D u[t]``, differentiable in every argument.
    In backward every 64th state is at hand and the others are computed again; without gradients none is kept.

    Args:
        u: (B, L, H) float32 or float64, any strides, L >= 1.
        A, B, C: (H, N) complex of the same precision; |A| <= 1 if L is large.
        D: (H,) real; None is 0.
        initial: (B, H, N) complex state before the first step; None is 0.
        reverse: go from the last step to the first, ``x[t] = A x[t+1] + B u[t]``; the first step is then the last.

    Returns:
        y (B, L, H) and the state after the last step (B, H, N).

    Raises:
        ValueError: shapes or types that do not fit.

    Source: Gu et al., NeurIPS 2022 (arXiv 2206.11893), sec. 2; the backward pass is the adjoint recurrence.
    """
    D = u.new_zeros(u.shape[-1]) if D is None else D
    _check(u, A, B, C, D, initial)
    given = (u, A, B, C, D) if initial is None else (u, A, B, C, D, initial)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    y, last, _ = _modes(u, A, B, C, D, initial, reverse, save)
    return y, last


def _check(u: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial: Tensor | None) -> None:
    if u.ndim != 3 or u.shape[1] < 1 or u.dtype not in COMPLEX:
        raise ValueError(f"modes: u must be a float32 or float64 (B, L, H), got {u.dtype} of shape {tuple(u.shape)}.")
    batch, _, channels = u.shape
    system = (channels, A.shape[-1] if A.ndim else 0)
    needed = [("A", A, system), ("B", B, system), ("C", C, system), ("D", D, (channels,))]
    if initial is not None:
        needed.append(("initial", initial, (batch, *system)))
    for name, x, shape in needed:
        dtype = u.dtype if name == "D" else COMPLEX[u.dtype]
        if x.dtype != dtype or tuple(x.shape) != shape:
            raise ValueError(
                f"modes: {name} is {x.dtype} of shape {tuple(x.shape)}; "
                f"this input, {u.dtype} of shape {tuple(u.shape)}, needs {dtype} of shape {shape}."
            )


# ---- the operators
def _kernels(u: Tensor) -> Any:
    return kernels("modes", u, "use algorithm='fft' in S4D")


def _forward(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial: Tensor | None, reverse: bool, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, last state and the states before every block of 64 steps: (B, ceil(H / 16), ceil(L / 64), 2 N, 16) or none."""
    phase, factors = _coordinates(A, B, C)
    state = _planes(phase, initial, u)
    saved = _saved(u, A, save)
    y = _kernels(u).run(u.contiguous(), factors, D.contiguous(), reverse, state, saved)
    return y, phase * _complex(state), saved


def _forward_fake(u: Tensor, A: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    return u.new_empty(u.shape), A.new_empty(len(u), *A.shape), _saved(u, A, options[-1])


def _backward(
    gradient: Tensor,
    last: Tensor | None,
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    saved: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, A, B, C, D and of the initial state, from those of y and of the last state."""
    phase, factors = _coordinates(A, B, C)
    state = _planes(phase, last, u)
    given = gradient.contiguous(), u.contiguous(), factors, D.contiguous()
    du, sums, dD = _kernels(u).run_backward(*given, reverse, saved, state)
    dA, d_weight, d_drive = (_complex(sums[:, 2 * k : 2 * k + 2]).to(A.dtype) for k in range(3))
    return du, dA, phase * d_drive, 2 * torch.conj_physical(phase) * d_weight, dD.to(D.dtype), phase * _complex(state)


def _backward_fake(
    _: Any, __: Any, u: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dA, dB, dC = (A.new_empty(A.shape) for _ in range(3))
    return u.new_empty(u.shape), dA, dB, dC, D.new_empty(D.shape), A.new_empty(len(u), *A.shape)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    u, A, B, C, D, initial, reverse, _ = inputs
    ctx.save_for_backward(u, A, B, C, D, output[2])
    ctx.reverse, ctx.started = reverse, initial is not None
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, last: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    u, A, B, C, D, saved = ctx.saved_tensors
    gradient = torch.zeros_like(u) if gradient is None else gradient
    *parameters, initial = _modes_backward(gradient, last, u, A, B, C, D, saved, ctx.reverse)
    return *parameters, initial if ctx.started else None, None, None


_modes_backward = operator("sdn::modes_backward", _backward, _backward_fake, *NO_SECOND_DERIVATIVE)
_modes = operator("sdn::modes", _forward, _forward_fake, _differentiate, _save_inputs)


# ---- between the operators' coordinates and the kernels'
def _saved(u: Tensor, A: Tensor, save: bool) -> Tensor:
    batch, length, channels = u.shape
    blocks = (length + BLOCK - 1) // BLOCK if save else 0
    return u.new_empty(batch, (channels + CELL - 1) // CELL, blocks, 2 * A.shape[1], CELL)


def _coordinates(A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The phase of B, and the factors (N, 5, H) of the kernels."""
    phase = torch.sgn(B)
    phase = torch.where(phase == 0, torch.ones_like(phase), phase)
    weight = 2 * C * phase
    return phase, torch.stack([A.real, A.imag, weight.real, weight.imag, B.abs()]).permute(2, 0, 1).contiguous()


def _planes(phase: Tensor, x: Tensor | None, u: Tensor) -> Tensor:
    """States (B, H, N), zero if None, in the kernels' coordinates: (B, N, 2, H) real."""
    if x is None:
        return u.new_zeros(len(u), phase.shape[1], 2, phase.shape[0])
    return torch.view_as_real(torch.conj_physical(phase) * x).permute(0, 2, 3, 1).contiguous()


def _complex(planes: Tensor) -> Tensor:
    """(..., N, 2, H) real to (..., H, N) complex."""
    return torch.complex(planes[..., 0, :], planes[..., 1, :]).mT.contiguous()
