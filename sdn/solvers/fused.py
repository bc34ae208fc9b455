"""The fused solver: the loop over time as one operator with its own backward."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdn.checks.arguments import FrozenValue
from sdn.compiler.programs import check_compiled
from sdn.dynamics.base import Dynamics, State, Trajectory
from sdn.gradients import SpikeGradient, spike
from sdn.ops.neuron.sequence import run_sequence

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
        found = self._run(dynamics, current, state, gradient, record=False)
        return found.spike, found.state  # type: ignore[return-value]

    def record(self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient) -> Trajectory:
        """`run` with the membrane (B, L, H) of every step, out of the same loop; gradients flow through it too."""
        return self._run(dynamics, current, state, gradient, record=True)

    def _run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient, record: bool
    ) -> Trajectory:
        if not self.detach_state:
            through = not self.detach_reset
            return run_sequence(dynamics, current, state, gradient, through_reset=through, record=record)
        found = run_sequence(dynamics, current, state, gradient, through_time=False, record=True)
        if not torch.is_grad_enabled():
            return found
        dynamics = dynamics.to(current.device, current.dtype)
        slope = spike(dynamics.distance(found.mem, current), gradient, dynamics.fires_at_threshold)
        return found._replace(spike=slope + (found.spike - slope).detach())

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The dynamics' own state at rest."""
        return dynamics.initial_state(batch, channels, device, dtype)
