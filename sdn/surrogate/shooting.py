"""Many pieces of a sequence at once, each run by the neuron itself from a guess of its first state that gets better.

A *round* runs all chunks exactly, each from the state at its seam. Chunk c then ends in another state than chunk c + 1
started from. How a change at the start of a chunk moves its end is known, since the run returns that derivative. So one
linear recurrence over the seams finds the changes that would close all gaps at once. This is Newton's method on the
states at the seams. The derivative of the spike is either zero, or a triangle, as in training.

Source: multiple shooting; Newton's method over time is Lim et al., ICLR 2024 (arXiv 2309.12252). The derivative of the
spike in it, and the network that makes the first guess, are ours.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sdn.checks.neurons import check_finite
from sdn.compiler.programs import slope_of
from sdn.dynamics.base import Dynamics, State, Value, at_start
from sdn.gradients import SpikeGradient, Triangle, spike
from sdn.ops.chunks import operator as chunks
from sdn.ops.chunks.layout import from_lanes, side, states_to_lanes, to_lanes
from sdn.ops.common.place import check_kind
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel
from sdn.ops.neuron.sequence import operands, state_of
from sdn.surrogate.predict import predict
from sdn.surrogate.seams import ReducedSeamSDN, modes

__all__ = [
    "closer",
    "conditions_of",
    "every",
    "features",
    "follows",
    "guess",
    "membrane_of",
    "membranes",
    "run_rounds",
    "starts_of",
]

REACH = 6.0
"""Standard deviations from the mean state that a first guess may lie away from it."""

Slope = tuple[str, list[float]]


def follows(width: float) -> Slope:
    """The slope of a spike where seams are mended: a triangle, or none for a width of 0."""
    return slope_of(Triangle(width)) if width > 0 else ("", [])


def closer(starts: Tensor, ends: Tensor, derivatives: Tensor, own: int) -> Tensor:
    """States at the seams that close all gaps of a linear neuron: (B, n, S, H). What is no number is left as it is."""
    gaps = (ends[:, :-1] - starts[:, 1:])[:, :, :own]
    change = chunks.carry(derivatives, gaps)
    found = starts.clone()
    found[:, 1:, :own] += torch.where(change.isfinite(), change, 0)
    return found


def features(
    network: ReducedSeamSDN,
    kernel: Kernel,
    x: Tensor,
    first: Tensor,
    conditions: Tensor | None = None,
    scale: Value = 1.0,
) -> tuple[Tensor, Tensor]:
    """What a network sees of each seam, and the state there that it corrects.

    Args:
        network: for its mean states, the width, and the steps of a chunk.
        kernel: the neuron.
        x: (B, L, H) currents.
        first: (B, S, H), the state before them.
        conditions: (c, H), the fields of the neuron that the network is told.
        scale: of currents and states, a number or (H,): the neuron's threshold over that which the network knows.

    Returns:
        features (B, n - 1, F, H) of the seams inside, and the states (B, n, S, H) at all, the first one included.
    """
    batch, length, channels = x.shape
    chunk, own = network.chunk, side(kernel.program)
    count = -(-length // chunk)
    mean, std = (value.to(x)[:, None] * scale for value in (network.state_mean, network.state_std))
    starts = first.new_zeros(batch, count, *first.shape[1:])
    starts[:, :, :own] = mean
    starts[:, 0] = first
    if count == 1:
        return x.new_empty(batch, 0, 0, channels), starts
    spikes, ends, derivatives = chunks.run(kernel, x, starts, chunk, derivative=True, slope=follows(network.width))
    near = closer(starts, ends, derivatives, own)
    near[:, 1:, :own] = torch.minimum(torch.maximum(near[:, 1:, :own], mean - REACH * std), mean + REACH * std)
    inside = (count - 1) * chunk
    parts = [near[:, 1:, :own] / scale, ends[:, :-1, :own].nan_to_num() / scale]
    parts += [modes(x[:, :inside] / scale, chunk), modes(spikes[:, :inside], chunk)]
    if conditions is not None:
        parts.append(conditions.expand(batch, count - 1, *conditions.shape))
    return torch.cat(parts, 2), near


def guess(
    network: ReducedSeamSDN,
    kernel: Kernel,
    x: Tensor,
    first: Tensor,
    conditions: Tensor | None = None,
    scale: Value = 1.0,
) -> Tensor:
    """The first guess of the states before all chunks, (B, n, S, H); arguments as of `features`."""
    seen, starts = features(network, kernel, x, first, conditions, scale)
    if seen.shape[1]:
        starts[:, 1:, : network.states] += network(seen) * scale
    return starts


def every(kernel: Kernel, x: Tensor, starts: Tensor, chunk: int, wanted: int) -> Tensor:
    """States before chunks of another length, from those before chunks of this one.

    Args:
        kernel, x: the neuron and its currents (B, L, H).
        starts: (B, n, S, H) before every ``chunk`` steps.
        chunk, wanted: steps; one divides the other.
    """
    if wanted % chunk == 0:
        return starts[:, :: wanted // chunk].contiguous()
    times, count = chunk // wanted, starts.shape[1]
    whole = torch.nn.functional.pad(x, (0, 0, 0, count * chunk - x.shape[1])).reshape(len(x), count, chunk, -1)
    found, now = [starts], starts
    for part in range(times - 1):
        piece = whole[:, :, part * wanted : (part + 1) * wanted].flatten(1, 2)
        now = chunks.run(kernel, piece, now, wanted)[1]
        found.append(now)
    return torch.stack(found, 2).flatten(1, 2)[:, : -(-x.shape[1] // wanted)].contiguous()


def starts_of(kernel: Kernel, x: Tensor, starts: Tensor, chunk: int, rounds: int, width: float) -> Tensor:
    """The states before all chunks from which the last of some rounds runs, (B, n, S, H)."""
    own, slope = side(kernel.program), follows(width)
    for _ in range(rounds - 1 if starts.shape[1] > 1 else 0):
        _, ends, derivatives = chunks.run(kernel, x, starts, chunk, derivative=True, slope=slope)
        starts = closer(starts, ends, derivatives, own)
    return starts


def run_rounds(
    network: Any,
    over: Mapping[str, Any],
    scale: Value,
    dynamics: Dynamics,
    current: Tensor,
    state: State | None,
    gradient: SpikeGradient,
    rounds: int,
    chunk: int,
    through_reset: bool,
    through_no_time: bool,
) -> tuple[Tensor, Any]:
    """Spikes (B, L, H) after some rounds, and the neuron's state behind them; see `sdn.Surrogate`."""
    check_kind(current)
    dynamics, state = at_start(dynamics, current, state)
    kernel, first, slope = operands(dynamics, current, state, gradient)
    with torch.no_grad():
        fixed = kernel._replace(fixed=kernel.fixed.detach())
        told = network, over, scale, dynamics.detached()
        starts = _found(*told, fixed, current.detach(), first.detach(), rounds, chunk)
    if through_no_time:
        spikes, last = _without_time(dynamics, kernel, current, starts, chunk, gradient)
    else:
        spikes, last = chunks.stitch(kernel, current, first, starts, chunk, slope, through_reset)
    ended = state_of(dynamics, last)
    check_finite(dynamics, ended, current, state)
    return spikes, ended


def _found(
    network: Any,
    over: Mapping[str, Any],
    scale: Value,
    dynamics: Dynamics,
    kernel: Kernel,
    x: Tensor,
    first: Tensor,
    rounds: int,
    chunk: int,
) -> Tensor:
    """The states before all chunks from which the last round runs."""
    if isinstance(network, ReducedSeamSDN):
        starts = guess(network, kernel, x, first, conditions_of(dynamics, over, x), scale)
        made_for, width = network.chunk, network.width * _mean(scale)
    else:
        starts = _from_membrane(network, dynamics, x, first, chunk, scale)
        made_for, width = chunk, 0.0
    if chunk != made_for:
        starts = every(kernel, x, starts, made_for, chunk)
    return starts_of(kernel, x, starts, chunk, rounds, width)


def membrane_of(
    network: Any,
    over: Mapping[str, Any],
    scale: Value,
    dynamics: Dynamics,
    current: Tensor,
    rounds: int,
    chunk: int,
) -> Tensor:
    """The membrane (B, L, H) of the last round, from rest."""
    dynamics, state = at_start(dynamics, current, None)
    kernel, first, _ = operands(dynamics, current, state, dynamics.default_spike)
    starts = _found(network, over, scale, dynamics, kernel, current, first, rounds, chunk)
    return membranes(kernel, current, starts, chunk)[0]


def conditions_of(dynamics: Dynamics, over: Mapping[str, Any], like: Tensor) -> Tensor | None:
    """The fields that a network is told, (c, H)."""
    if not over:
        return None
    values = [torch.as_tensor(getattr(dynamics, name), dtype=like.dtype, device=like.device) for name in over]
    return torch.stack([value.expand(like.shape[-1]) for value in values])


def _mean(scale: Value) -> float:
    return float(scale.mean()) if isinstance(scale, Tensor) else scale


def _from_membrane(network: Any, dynamics: Dynamics, x: Tensor, first: Tensor, chunk: int, scale: Value) -> Tensor:
    """States of a LIF before all chunks, from the `mem` that a pointwise network predicts."""
    decay = torch.as_tensor(dynamics.decay, dtype=x.dtype, device=x.device)  # type: ignore[attr-defined]
    plain = isinstance(scale, Tensor) or scale != 1
    mem = predict(network, x / scale if plain else x) * scale
    u = torch.where(decay > 0, mem[:, ::chunk] / decay, 0).unsqueeze(2)
    u = torch.cat([u, first[:, 1:].unsqueeze(1).expand(-1, u.shape[1], -1, -1)], 2)
    u[:, 0] = first
    return u.contiguous()


def _without_time(
    dynamics: Dynamics, kernel: Kernel, current: Tensor, starts: Tensor, chunk: int, gradient: SpikeGradient
) -> tuple[Tensor, Tensor]:
    """Spikes of the last round whose gradient flows through the current of the same step only, and the last state."""
    with torch.no_grad():
        mem, _, last = membranes(kernel, current.detach(), starts, chunk)
    return spike(dynamics.distance(mem, current), gradient, dynamics.fires_at_threshold), last


def membranes(kernel: Kernel, x: Tensor, starts: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Membrane and spikes (B, L, H) of all chunks, each from its start, and the state after the last, (B, S, H)."""
    batch, length, _ = x.shape
    wide = kernel._replace(fixed=kernel.fixed.detach().repeat(1, batch * starts.shape[1]))
    lanes = to_lanes(x, chunk).contiguous(), states_to_lanes(starts).contiguous()
    spikes, _, mem = neuron.run(wide, *lanes, ("", []), False, True)
    last = chunks.run(kernel, x, starts, chunk)[1][:, -1]
    mem, spikes = (from_lanes(part, batch, length).contiguous() for part in (mem, spikes))
    return mem, spikes, last
