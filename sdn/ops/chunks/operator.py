"""Chunks of a sequence as operators: ``sdn::chunks`` runs them side by side, ``sdn::carry`` mends their seams, and
``sdn::stitch`` is the run of a whole sequence whose gradient is computed in chunks too.

A sequence of L steps has n = ceil(L / chunk) chunks. A state is (B, n, S, H), the fields side by side. The derivative
of the state at the end of a chunk by that at its start is (B, n, D * D, H), row after row; D is S without the program's
own field.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.ops.chunks.layout import from_lanes, side, states_from_lanes, states_to_lanes, to_lanes
from sdn.ops.common.operator import NO_SECOND_DERIVATIVE, operator
from sdn.ops.common.place import kernels
from sdn.ops.neuron.layout import STRIDE, Kernel, spikes_like

__all__ = ["carry", "run", "stitch"]


def run(
    kernel: Kernel,
    current: Tensor,
    starts: Tensor,
    chunk: int,
    *,
    derivative: bool = False,
    slope: tuple[str, list[float]] = ("", []),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run every chunk from a state of its own, without gradient.

    Args:
        kernel: the neuron.
        current: (B, L, H) float32 or float64.
        starts: (B, n, S, H), the state before the first step of each chunk.
        chunk: steps of a chunk.
        derivative: also return the derivative of the ends by the starts.
        slope: key and numbers of a slope with which the spike follows the potential in that derivative; else it is
            held.

    Returns:
        spikes (B, L, H), ends (B, n, S, H), and the derivatives, empty where they were not asked for.
    """
    program, fixed, numbers = kernel
    options = numbers, program, chunk, derivative, *slope
    found: tuple[Tensor, Tensor, Tensor] = _chunks(current, starts, fixed, *options)
    return found


def carry(derivatives: Tensor, gaps: Tensor, reverse: bool = False) -> Tensor:
    """What a change at each seam comes to further on: ``y[c] = derivatives[c] y[c-1] + gaps[c]``, y[-1] = 0.

    Args:
        derivatives: (B, n, D * D, H).
        gaps: (B, m, D, H), m <= n.
        reverse: ``y[c] = derivatives[c+1]^T y[c+1] + gaps[c]`` instead, y[m] = 0.

    Returns:
        (B, m, D, H).
    """
    found: Tensor = _carry(derivatives, gaps, reverse)
    return found


def stitch(
    kernel: Kernel,
    current: Tensor,
    first: Tensor,
    starts: Tensor,
    chunk: int,
    slope: tuple[str, list[float]],
    through_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run every chunk from a state of its own, with the gradient of a run that was never cut.

    The backward pass goes through all chunks at once. What passes a seam is found by the derivatives of the ends of
    the chunks, so that no gradient is lost there; a second pass hands it on inside the chunks.

    Args:
        kernel: the neuron.
        current: (B, L, H) float32 or float64.
        first: (B, S, H), the state before the first step.
        starts: (B, n, S, H), the state before the first step of each chunk, which gets no gradient; its first is
            ``first``.
        chunk: steps of a chunk.
        slope: key and numbers of the spike gradient.
        through_reset: let the gradient pass through the spike into the state.

    Returns:
        spikes (B, L, H) and the last state (B, S, H).
    """
    program, fixed, numbers = kernel
    options = numbers, program, chunk, *slope, through_reset
    found: tuple[Tensor, Tensor] = _stitch(current, first, fixed, starts.detach(), *options)
    return found


def _run(
    current: Tensor,
    starts: Tensor,
    fixed: Tensor,
    numbers: list[float],
    program: str,
    chunk: int,
    derivative: bool,
    gradient: str,
    shape: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    if not current.numel():
        return _fake_run(current, starts, fixed, numbers, program, chunk, derivative)
    options = numbers, chunk, derivative, gradient, shape
    return kernels("chunks", current).chunks(program, current, starts, fixed, *options)  # type: ignore[no-any-return]


def _fake_run(
    current: Tensor,
    starts: Tensor,
    fixed: Tensor,
    numbers: list[float],
    program: str,
    chunk: int,
    derivative: bool,
    *rest: object,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, count, _, channels = starts.shape
    found = starts.new_empty(batch, count, side(program) ** 2, channels) if derivative else starts.new_empty(0)
    return spikes_like(current), starts.new_empty(starts.shape), found


def _run_carry(derivatives: Tensor, gaps: Tensor, reverse: bool) -> Tensor:
    if not gaps.numel():
        return torch.empty_like(gaps)
    return kernels("chunks", gaps).carry(derivatives, gaps, reverse)  # type: ignore[no-any-return]


def _fake_carry(derivatives: Tensor, gaps: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(gaps, memory_format=torch.contiguous_format)


def _run_stitched(
    current: Tensor,
    first: Tensor,
    fixed: Tensor,
    starts: Tensor,
    numbers: list[float],
    program: str,
    chunk: int,
    gradient: str,
    shape: list[float],
    through_reset: bool,
) -> tuple[Tensor, Tensor]:
    if not current.numel():
        return spikes_like(current), first.clone()
    given = program, current, starts, fixed, numbers, chunk, False
    spikes, ends, _ = kernels("chunks", current).chunks(*given, "", [])
    return _mark(spikes, ends, chunk)


def _mark(spikes: Tensor, ends: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Spikes and last state, NaN behind a chunk that ends in no number: what comes there starts from a guess."""
    lost = ~ends.isfinite().all(2).cumprod(1).bool()
    if lost[:, -1].any():
        behind = torch.cat([torch.zeros_like(lost[:, :1]), lost[:, :-1]], 1)
        where = behind.repeat_interleave(chunk, 1)[:, : spikes.shape[1]]
        spikes = spikes.masked_fill(where, float("nan"))
    return spikes, ends[:, -1].masked_fill(lost[:, -1:], float("nan"))


def _fake_stitched(current: Tensor, first: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return spikes_like(current), first.new_empty(first.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    current, _, fixed, starts, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(current, fixed, starts)


def _pull_back(ctx: Any, grad_spikes: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[2]
    grads = _backward(grad_spikes, grad_last, *ctx.saved_tensors, *ctx.options, learn)
    return grads[0], grads[1], grads[2] if learn else None, *(None,) * 7


def _run_backward(
    grad_spikes: Tensor | None,
    grad_last: Tensor | None,
    current: Tensor,
    fixed: Tensor,
    starts: Tensor,
    numbers: list[float],
    program: str,
    chunk: int,
    gradient: str,
    shape: list[float],
    through_reset: bool,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not current.numel():
        return *_fake_backward(None, None, current, fixed, starts)[:2], torch.zeros_like(fixed)
    how = _How(numbers, program, chunk, gradient, shape, through_reset, learn)
    cut = current.shape[1] // chunk * chunk
    if cut in (0, current.shape[1]):
        return _whole_backward(grad_spikes, grad_last, current, fixed, starts, how)
    head, tail = (None, None) if grad_spikes is None else (grad_spikes[:, :cut], grad_spikes[:, cut:])
    after = _whole_backward(tail, grad_last, current[:, cut:], fixed, starts[:, -1:], how)
    before = _whole_backward(head, after[1], current[:, :cut], fixed, starts[:, :-1], how)
    return torch.cat([before[0], after[0]], 1), before[1], before[2] + after[2] if learn else before[2]


class _How(NamedTuple):
    """What a backward pass takes beside tensors."""

    numbers: list[float]
    program: str
    chunk: int
    gradient: str
    shape: list[float]
    through_reset: bool
    learn: bool


def _whole_backward(
    grad_spikes: Tensor | None, grad_last: Tensor | None, current: Tensor, fixed: Tensor, starts: Tensor, how: _How
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward pass of chunks of one length."""
    numbers, program, chunk, gradient, shape, through_reset, learn = how
    (batch, length, channels), count = current.shape, starts.shape[1]
    chunk = min(chunk, length)
    lanes, first = to_lanes(current, chunk).contiguous(), states_to_lanes(starts).contiguous()
    wide = fixed.repeat(1, count * batch)
    gs = None if grad_spikes is None else to_lanes(grad_spikes, chunk).contiguous()
    whole = kernels("neuron", current)
    kept = first.unsqueeze(1)
    if chunk > STRIDE:
        kept = whole.forward(program, lanes, first, wide, numbers, True, False)[2]

    def back(grad_ends: Tensor | None, learn: bool) -> tuple[Tensor, Tensor, Tensor]:
        options = numbers, gradient, shape, through_reset, learn
        return whole.backward(program, gs, grad_ends, None, lanes, wide, kept, *options)  # type: ignore[no-any-return]

    ends = starts.new_zeros(starts.shape)
    if grad_last is not None:
        ends[:, -1] = grad_last
    if count > 1:
        if gs is not None:
            ends[:, :-1] = states_from_lanes(back(None, False)[1], batch, count)[:, 1:]
        own, slope = side(program), (gradient, shape) if through_reset else ("", [])
        given = program, current, starts, fixed, numbers, chunk, True
        derivatives = kernels("chunks", current).chunks(*given, *slope)[2]
        ends[:, :, :own] = carry(derivatives, ends[:, :, :own], True)
    grad_current, grad_first, grad_fixed = back(states_to_lanes(ends).contiguous(), learn)
    first_of = states_from_lanes(grad_first, batch, count)[:, 0].contiguous()
    if learn:
        grad_fixed = grad_fixed.reshape(len(fixed), -1, channels).sum(1)
    return from_lanes(grad_current, batch, length).contiguous(), first_of, grad_fixed


def _fake_backward(
    _: Any, __: Any, current: Tensor, fixed: Tensor, starts: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, fields, channels = starts.shape
    plain = torch.empty_like(current, memory_format=torch.contiguous_format)
    learned = fixed.new_empty(fixed.shape if options and options[-1] else (0,))
    return plain, starts.new_empty(batch, fields, channels), learned


_backward = operator("sdn::stitch_backward", _run_backward, _fake_backward, *NO_SECOND_DERIVATIVE)
_stitch = operator("sdn::stitch", _run_stitched, _fake_stitched, _pull_back, _setup)
_chunks = operator("sdn::chunks", _run, _fake_run)
_carry = operator("sdn::carry", _run_carry, _fake_carry)
