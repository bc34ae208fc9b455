"""The fused solver: the loop over time as one operator with its own backward."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdn.checks.arguments import FrozenValue
from sdn.dynamics.base import Dynamics, State, at_start, check_current, check_finite
from sdn.gradients import SpikeGradient, spike
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.operands import check_compiled, check_kind, operands, state_of

__all__ = ["Fused"]


@dataclass(frozen=True)
class Fused(FrozenValue):
    """Run any neuron whose step is elementwise as one compiled operator: the spikes of `sdn.simulate`, at memory speed.

    Every 64th state is kept for the backward pass, which computes the others again: beyond input and output a training
    step takes 4 S / 64 bytes an element, S fields of state in float32, and nothing under ``torch.no_grad()``. Spikes
    are bit-identical to the loop's; a state field below 1.2e-38 is set to zero, since subnormal numbers are slow.
    On the CPU a loop is compiled when it first runs (a few seconds) and kept on disk.

    Args:
        detach_reset: keep gradients from flowing through the spike into the state. Through `mem` they flow.
        detach_state: keep all gradients from flowing through time (SLTT, see `Loop`): the exact spikes with the
            gradient that the surrogate solver has. Of the fields, only the threshold can be learned then.
    """

    detach_reset: bool = True
    detach_state: bool = False

    spellings: ClassVar[Mapping[str, str]] = {"detach": "detach_reset={value}"}

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Refuse a neuron or a spike gradient that has no compiled form."""
        check_compiled(dynamics, gradient)
        if self.detach_state and (other := [f for f in learned if f != "threshold"]):
            raise NotImplementedError(f"Fused(detach_state=True) cannot learn {other}; use Loop(detach_state=True).")

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the state after the last step."""
        check_current(type(dynamics).__name__, current, finite=False)
        check_kind(current)
        dynamics, state = at_start(dynamics, current, state)
        kernel, first, slope = operands(dynamics, current, state, gradient)
        through = not (self.detach_reset or self.detach_state)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_state):
            spikes, final, mem = neuron.run(kernel, current, first, slope, through, record=self.detach_state)
        if self.detach_state and torch.is_grad_enabled():
            spikes = _at_each_step(dynamics, current, mem, spikes, gradient)
        last = state_of(dynamics, final)
        check_finite(dynamics, last, current, state)
        return spikes, last

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The dynamics' own state at rest."""
        return dynamics.initial_state(batch, channels, device, dtype)


def _at_each_step(dynamics: Dynamics, current: Tensor, mem: Tensor, spikes: Tensor, gradient: SpikeGradient) -> Tensor:
    """The known spikes, with the spike gradient of their own step only: to the current and to the threshold."""
    slope = spike(dynamics.distance(mem, current), gradient, dynamics.fires_at_threshold)
    return slope + (spikes - slope).detach()
