"""One step of exact neurons in inference: a few operations of torch, without what a whole sequence pays for."""

import math
from typing import Any

import torch
from torch import Tensor

from sdn.checks.currents import refuse_current
from sdn.checks.finite import all_finite
from sdn.checks.kept import kept
from sdn.checks.neurons import check_finite, check_state
from sdn.checks.precision import in_full_precision
from sdn.checks.tracing import has_numbers
from sdn.checks.watched import is_watched
from sdn.compiler.programs import program_of
from sdn.dynamics.base import Dynamics, State, at_start
from sdn.solvers.fused import Fused
from sdn.solvers.loop import Loop

__all__ = ["exact_step"]


def exact_step(layer: Any, current: Tensor, state: State | None) -> tuple[Tensor, State] | None:
    """(B, H) and a state -> spikes (B, H) in the current's dtype and the state: what `sdn.simulate` does once.

    Args:
        layer: a `sdn.Neuron`.
        current: (B, H), floating.
        state: None is rest.

    Returns:
        None where this is not what the layer's own call gives, bit for bit: with a gradient, in a graph, on another
        device, under another solver, where somebody looks at the call, or where compiled code rounds otherwise.

    Raises:
        ValueError: as the layer's own call.
    """
    if torch.is_grad_enabled() or current.device.type != "cpu" or not has_numbers(current):
        return None
    if type(layer._solver) not in (Fused, Loop) or is_watched(layer) or is_watched(layer.learned):
        return None
    wide = current if current.dtype == torch.float64 else current.float()
    with in_full_precision(current):
        dynamics = _ready(layer, wide)
        if dynamics is None:
            return None
        batch = wide.shape[0]
        before: Any = state
        if before is None:
            before = dynamics.initial_state(batch, layer.channels, wide.device, wide.dtype)
        check_state(dynamics, before, (batch, layer.channels), 1)
        distance = dynamics.distance(dynamics.past(before), wide)
        fired = (distance >= 0 if dynamics.fires_at_threshold else distance > 0).to(wide.dtype)
        after = dynamics.advance(before, wide, fired)
        total = distance.sum()
        for value in after:
            total = total + value.sum()
        if not math.isfinite(total.item()):
            _explain(dynamics, wide, before, (distance, *after))
    if any(value is fired for value in after):  # a state is not a view of the output
        fired = fired.clone()
    return (fired if current.dtype == wide.dtype else fired.to(current.dtype)), after


def _explain(dynamics: Dynamics, current: Tensor, before: State, found: tuple[Tensor, ...]) -> None:
    """Raise what the layer's own call raises; nothing where finite numbers have an infinite sum."""
    if not all_finite(*found):
        refuse_current(type(dynamics).__name__, current.unsqueeze(1))
        check_finite(dynamics, found[1:], current.unsqueeze(1), before)
        check_finite(dynamics, found[:1])


def _ready(layer: Any, like: Tensor) -> Dynamics | None:
    """The neuron with its parameters as they are now, checked, and with what a step needs of them; None as above."""
    own, fixed = layer._dynamics, layer._modules.get("fixed")
    sources: list[Tensor] = [*layer.learned._parameters.values(), *(() if fixed is None else fixed._buffers.values())]

    def made() -> tuple[Dynamics, Dynamics | None]:
        exact = not program_of(own, like.unsqueeze(1)).step.rounded
        return own, at_start(layer.current_dynamics(), like.unsqueeze(1), None)[0] if exact else None

    return kept(layer, ("exact step", like.dtype, id(own)), sources, made)[
        1
    ]  # which keeps ``own``, so that its id stays
