"""The first-order linear recurrence x[t] = a[t] x[t-1] + b[t], real or complex, as one differentiable operator.

Not to be confused with a parallel scan: on the CPU one pass in the order of memory is faster than any of them.
"""

from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import check_tensor
from sdn.checks.axes import mend
from sdn.ops.common.operator import operator
from sdn.ops.common.place import has_kernels, kernels

__all__ = ["scan", "scan_loop"]

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def scan(a: Tensor, b: Tensor, initial: Tensor | None = None, reverse: bool = False) -> Tensor:
    """All steps of a linear recurrence that is diagonal over channels, differentiable (to any order) in every argument.

        x[t] = a[t] x[t-1] + b[t],    x[-1] = initial            (reverse: x[t] = a[t] x[t+1] + b[t], x[L] = initial)

    Costs one pass over the arrays, and one more backward, for which ``a`` and the output are kept and nothing else. A
    constant factor is never written out over time. Components of the state below the smallest normal number become
    zero, so that a decaying state does not slow the processor down. The same numbers come out for any thread count.
    On devices without kernels, others than the CPU and GPUs of NVIDIA, it is the plain loop over time.

    Args:
        a: (H,), (1 or B, 1, H), (L, H), (B, L, H): any shape of at most three axes that broadcasts to that of ``b``.
        b: (B, L, H), L >= 1, float32, float64, complex64 or complex128; ``a`` and ``initial`` are promoted with it.
        initial: (B, H), the value before the first step (after the last one for ``reverse``); zeros if left out.
        reverse: run from the last step to the first.

    Returns:
        (B, L, H).

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Source:
        Gradients by the adjoint recurrence l[t] = g[t] + conj(a[t+1]) l[t+1]: dL/db[t] = l[t], dL/da[t] = l[t]
        conj(x[t-1]), dL/dinitial = conj(a[0]) l[0] (Martin & Cundy, "Parallelizing linear recurrent neural nets over
        sequence length", ICLR 2018, section 2.2, for real factors; torch's convention for complex ones).
    """
    if not has_kernels(b):
        return scan_loop(a, b, initial, reverse)
    a, b, initial = _checked(a, b, initial)
    out: Tensor = _scan(a, b, initial, reverse)
    return out


def scan_loop(a: Tensor, b: Tensor, initial: Tensor | None = None, reverse: bool = False) -> Tensor:
    """The same as `scan`, as a plain loop over time: the reference that it is held against."""
    a, b, initial = _checked(a, b, initial)
    x = torch.zeros_like(b[:, 0]) if initial is None else initial
    steps = list(zip(a.expand(b.shape).unbind(1), b.unbind(1), strict=True))
    states = []
    for factor, inputs in reversed(steps) if reverse else steps:
        x = factor * x + inputs
        states.append(x)
    return torch.stack(states[::-1] if reverse else states, 1)


def _checked(a: Tensor, b: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """One dtype for all, and ``a`` as (1 or B, 1 or L, H)."""
    check_tensor("scan", "a", a)
    check_tensor("scan", "b", b)
    if b.ndim != 3 or 0 in b.shape:
        raise ValueError(
            f"scan: b must be (B, L, H) with no empty axis, got shape {tuple(b.shape)}{mend(b, None, 'b')}."
        )
    fits = all(n == 1 or n == m for n, m in zip(a.shape[::-1], b.shape[::-1], strict=False))
    if a.ndim > 3 or not fits:
        raise ValueError(
            f"scan: a has shape {tuple(a.shape)}, b has shape {tuple(b.shape)}; a must broadcast to b: (H,) where "
            "it is constant over time, (L, H) or (B, L, H) where it varies."
        )
    if initial is not None and initial.shape != (b.shape[0], b.shape[2]):
        raise ValueError(
            f"scan: initial has shape {tuple(initial.shape)}, b has shape {tuple(b.shape)}; initial must be (B, H)."
        )
    dtype = torch.promote_types(a.dtype, b.dtype)
    dtype = dtype if initial is None else torch.promote_types(dtype, initial.dtype)
    if dtype not in _DTYPES:
        raise ValueError(
            f"scan: a is {a.dtype}, b is {b.dtype}; together they must be float32, float64, complex64 or complex128: "
            "cast b first, b.float()."
        )
    a = a.reshape((1,) * (3 - a.ndim) + a.shape)
    a = a.expand(-1, -1, b.shape[2]).to(dtype)
    return a, b.to(dtype), None if initial is None else initial.to(dtype)


# ---- the operators
def _kernels(b: Tensor) -> Any:
    return kernels("scan", b)


def _forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    return _kernels(b).forward(a, b, initial, reverse)  # type: ignore[no-any-return]


def _backward(
    grad: Tensor, a: Tensor, x: Tensor | None, initial: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """grad_b; the products (B, 1 or L, H) whose sum is grad_a (empty without ``x``); grad_initial."""
    return _kernels(grad).backward(grad, a, x, initial, reverse)  # type: ignore[no-any-return]


def _backward_fake(grad: Tensor, a: Tensor, x: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, channels = grad.shape
    products = (0, 1, channels) if x is None else (batch, a.shape[1], channels)
    return grad.new_empty(grad.shape), grad.new_empty(products), grad.new_empty(batch, channels)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, bool], output: Tensor) -> None:
    a, _, initial, ctx.reverse = inputs
    learn = ctx.needs_input_grad[0]  # the states are only needed for the gradient of the factors
    ctx.save_for_backward(a, output if learn else None, initial if learn else None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
    a, x, initial = ctx.saved_tensors
    adjoint = _composed if torch.is_grad_enabled() else _scan_backward
    grad_b, products, grad_initial = adjoint(grad, a, x, initial, ctx.reverse)
    grad_a = products.sum_to_size(a.shape) if ctx.needs_input_grad[0] else None
    return grad_a, grad_b, grad_initial if ctx.needs_input_grad[2] else None, None


def _composed(
    grad: Tensor, a: Tensor, x: Tensor | None, initial: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What `_scan_backward` computes, out of differentiable parts: for gradients of gradients."""
    step, first = (-1, -1) if reverse else (1, 0)
    adjoint = _scan(a.conj().roll(-step, 1), grad, None, not reverse)
    grad_initial = a[:, first].conj() * adjoint[:, first]
    if x is None:
        return adjoint, grad.new_empty(0, 1, grad.shape[2]), grad_initial
    return adjoint, adjoint * _before(x, initial, reverse).conj(), grad_initial


def _before(x: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """The state before each step, (B, L, H)."""
    initial = torch.zeros_like(x[:, 0]) if initial is None else initial
    rest = x.narrow(1, 1 if reverse else 0, x.shape[1] - 1)
    return torch.cat([rest, initial.unsqueeze(1)] if reverse else [initial.unsqueeze(1), rest], 1)


def _tangent(inputs: list[Any], x: Tensor, tangents: tuple[Any, ...]) -> Tensor:
    """The same recurrence of the tangents: ``x'[t] = a[t] x'[t-1] + a'[t] x[t-1] + b'[t]``."""
    (a, _, initial, reverse), (da, db, d_initial, _) = inputs, tangents
    drive = torch.zeros_like(x) if db is None else db
    drive = drive if da is None else drive + da * _before(x, initial, reverse)
    found: Tensor = _scan(a, drive, d_initial, reverse)
    return found


_scan_backward = operator("sdn::scan_backward", _backward, _backward_fake)
_scan = operator("sdn::scan", _forward, lambda a, b, *_: b.new_empty(b.shape), _gradients, _setup, tangent=_tangent)
