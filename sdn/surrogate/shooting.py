"""Many pieces of a sequence at once, each run by the neuron itself from a guess of its first state that gets better.

A *round* runs all chunks exactly, each from the state at its seam. Chunk c then ends in another state than chunk c + 1
started from. How a change at the start of a chunk moves its end is known, since the run returns that derivative. So one
linear recurrence over the seams finds the changes that would close all gaps at once. This is Newton's method on the
states at the seams. The derivative of the spike is either zero, or a triangle, as in training.

Source: multiple shooting; Newton's method over time is Lim et al., ICLR 2024 (arXiv 2309.12252). The derivative of the
spike in it, and the network that makes the first guess, are ours.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.checks.neurons import check_finite
from sdn.dynamics.base import Dynamics, State, Value, at_start
from sdn.gradients import SpikeGradient, spike
from sdn.ops.chunks import operator as chunks
from sdn.ops.chunks.layout import from_lanes, side, states_to_lanes, to_lanes
from sdn.ops.chunks.seams import HELD, closer
from sdn.ops.common.place import check_kind
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel
from sdn.ops.neuron.sequence import operands, state_of
from sdn.surrogate.predict import predict
from sdn.surrogate.seams import ReducedSeamSDN, modes

__all__ = ["Plan", "conditions_of", "every", "features", "guess", "membrane_of", "membranes", "run_rounds", "starts_of"]

REACH = 6.0
"""Standard deviations that a first guess may lie from the mean state, and that a correction may be long."""


class Plan(NamedTuple):
    """How the states at the seams are found; see `sdn.Surrogate`."""

    network: Any
    """A `ReducedSeamSDN`, or for LIF a pointwise `ReducedSDN`."""
    over: Collection[str]
    """Fields that the network is told."""
    scale: Value
    """The threshold over that which the network knows; 1 where it is no scale."""
    rounds: int
    chunk: int


def _reach(network: ReducedSeamSDN, like: Tensor) -> Tensor:
    """How long a correction of the network may be, (D, 1)."""
    return REACH * network.state_std.to(like)[:, None]


def _round(network: Any, kernel: Kernel, x: Tensor, starts: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and ends of all chunks from these starts, and the starts of the next round.

    With a seam network changes are bounded by the usual size of a state and by the state itself. Far from where the
    neuron usually is, derivatives with a slope can grow beyond all bounds.
    """
    own, is_seams = side(kernel.program), isinstance(network, ReducedSeamSDN)
    slope = network.slope if is_seams else HELD
    spikes, ends, derivatives = chunks.run(kernel, x, starts, chunk, derivative=True, slope=slope)
    most = _reach(network, ends) + REACH * ends[:, :-1, :own].abs().nan_to_num(posinf=0.0) if is_seams else None
    return spikes, ends, closer(starts, ends, derivatives, own, most=most)


def features(
    network: ReducedSeamSDN, kernel: Kernel, x: Tensor, first: Tensor, conditions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What a network sees of each seam, and the state there that it corrects.

    Args:
        network: for its mean states, the slope of a spike, and the steps of a chunk.
        kernel: the neuron.
        x: (B, L, H) currents.
        first: (B, S, H), the state before them.
        conditions: (c, H), the fields of the neuron that the network is told.

    Returns:
        features (B, n - 1, F, H) of the seams inside, and the states (B, n, S, H) at all, the first one included.
    """
    batch, length, channels = x.shape
    chunk, own = network.chunk, side(kernel.program)
    count = -(-length // chunk)
    begin = first.unsqueeze(1)
    if count == 1:
        return x.new_empty(batch, 0, 0, channels), begin.clone()
    mean = network.state_mean.to(x)[:, None]
    usual = mean.expand(batch, count - 1, own, channels)
    watch = torch.zeros_like(begin[:, :, own:]).expand(-1, count - 1, -1, -1)
    starts = torch.cat([begin, torch.cat([usual, watch], 2)], 1)
    spikes, ends, near = _round(network, kernel, x, starts, chunk)
    reach = _reach(network, x)
    inner = torch.minimum(torch.maximum(near[:, 1:, :own], mean - reach), mean + reach)
    near = torch.cat([near[:, :1], torch.cat([inner, near[:, 1:, own:]], 2)], 1)
    inside = (count - 1) * chunk
    parts = [inner, ends[:, :-1, :own].nan_to_num(), modes(x[:, :inside], chunk), modes(spikes[:, :inside], chunk)]
    if conditions is not None:
        parts.append(conditions.expand(batch, count - 1, *conditions.shape))
    return torch.cat(parts, 2), near


def guess(
    network: ReducedSeamSDN, kernel: Kernel, x: Tensor, first: Tensor, conditions: Tensor | None = None
) -> Tensor:
    """The first guess of the states before all chunks, (B, n, S, H); arguments as of `features`."""
    seen, starts = features(network, kernel, x, first, conditions)
    if not seen.shape[1]:
        return starts
    own, reach = network.states, _reach(network, x)
    correction = torch.minimum(torch.maximum(network(seen), -reach), reach)
    corrected = torch.cat([starts[:, 1:, :own] + correction, starts[:, 1:, own:]], 2)
    return torch.cat([starts[:, :1], corrected], 1)


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


def starts_of(network: Any, kernel: Kernel, x: Tensor, starts: Tensor, chunk: int, rounds: int) -> Tensor:
    """The states before all chunks from which the last of some rounds runs, (B, n, S, H)."""
    for _ in range(min(rounds, starts.shape[1]) - 1):
        starts = _round(network, kernel, x, starts, chunk)[2]
    return starts


def run_rounds(
    plan: Plan,
    dynamics: Dynamics,
    current: Tensor,
    state: State | None,
    gradient: SpikeGradient,
    *,
    through_reset: bool = False,
    through_time: bool = True,
) -> tuple[Tensor, Any]:
    """Spikes (B, L, H) after some rounds, and the neuron's state behind them."""
    check_kind(current)
    dynamics, state = at_start(dynamics, current, state)
    kernel, first, slope = operands(dynamics, current, state, gradient)
    if not current.numel():
        spikes, last, _ = neuron.run(kernel, current, first, slope, through_reset, False)
        return spikes, state_of(dynamics, last)
    with torch.no_grad():
        starts = _found(plan, dynamics.detached(), current.detach(), first.detach())
    if through_time:
        spikes, last = chunks.stitch(kernel, current, first, starts, plan.chunk, slope, through_reset)
    else:
        with torch.no_grad():
            x = current.detach()
            mem, last = membranes(kernel, x, starts, plan.chunk), chunks.run(kernel, x, starts, plan.chunk)[1][:, -1]
        spikes = spike(dynamics.distance(mem, current), gradient, dynamics.fires_at_threshold)
    ended = state_of(dynamics, last)
    check_finite(dynamics, ended, current, state)
    return spikes, ended


def membrane_of(plan: Plan, dynamics: Dynamics, current: Tensor) -> Tensor:
    """The membrane (B, L, H) of the last round, from rest."""
    dynamics, state = at_start(dynamics, current, None)
    kernel, first, _ = operands(dynamics, current, state, dynamics.default_spike)
    return membranes(kernel, current, _found(plan, dynamics, current, first), plan.chunk)


def membranes(kernel: Kernel, x: Tensor, starts: Tensor, chunk: int) -> Tensor:
    """The membrane (B, L, H) of all chunks, each from its start."""
    batch, length, _ = x.shape
    wide = kernel._replace(fixed=kernel.fixed.detach().repeat(1, batch * starts.shape[1]))
    lanes = to_lanes(x, chunk).contiguous(), states_to_lanes(starts).contiguous()
    mem = neuron.run(wide, *lanes, ("", []), through_reset=False, record=True)[2]
    return from_lanes(mem, batch, length).contiguous()


def _found(plan: Plan, dynamics: Dynamics, x: Tensor, first: Tensor) -> Tensor:
    """The states before all chunks from which the last round runs.

    A neuron whose threshold is a scale is looked at in units of it, in which each channel is by itself.
    """
    network, over, scale, rounds, chunk = plan
    scaled = isinstance(scale, Tensor) or scale != 1
    if scaled:
        dynamics, x, first = dynamics.with_known({"threshold": dynamics.threshold / scale}), x / scale, first / scale
    kernel = operands(dynamics, x, state_of(dynamics, first), dynamics.default_spike)[0]
    if isinstance(network, ReducedSeamSDN):
        starts = guess(network, kernel, x, first, conditions_of(dynamics, over, x))
        if chunk != network.chunk:
            starts = every(kernel, x, starts, network.chunk, chunk)
    else:
        starts = _from_membrane(network, dynamics, x, first, chunk)
    starts = starts_of(network, kernel, x, starts, chunk, rounds)
    return starts * scale if scaled else starts


def conditions_of(dynamics: Dynamics, over: Collection[str], like: Tensor) -> Tensor | None:
    """The fields that a network is told, (c, H)."""
    if not over:
        return None
    values = [torch.as_tensor(getattr(dynamics, name), dtype=like.dtype, device=like.device) for name in over]
    return torch.stack([value.expand(like.shape[-1]) for value in values])


def _from_membrane(network: Any, dynamics: Dynamics, x: Tensor, first: Tensor, chunk: int) -> Tensor:
    """States of a LIF before all chunks, from the `mem` that a pointwise network predicts."""
    decay = torch.as_tensor(dynamics.decay, dtype=x.dtype, device=x.device)  # type: ignore[attr-defined]
    u = torch.where(decay > 0, predict(network, x)[:, ::chunk] / decay, 0).unsqueeze(2)[:, 1:]
    rest = torch.zeros_like(first[:, None, 1:]).expand(-1, u.shape[1], -1, -1)
    return torch.cat([first.unsqueeze(1), torch.cat([u, rest], 2)], 1)
