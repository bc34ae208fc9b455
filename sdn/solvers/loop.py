"""The reference solver: every dynamics, one step after another, plain autograd."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdn.checks.arguments import FrozenValue
from sdn.dynamics.base import Dynamics, State, Trajectory, simulate
from sdn.gradients import SpikeGradient

__all__ = ["Loop"]


@dataclass(frozen=True)
class Loop(FrozenValue):
    """Run `sdn.simulate`: exact, slow, and with memory that grows by several tensors a step.

    Args:
        detach_reset: keep gradients from flowing through the spike into the state. Through `mem` they flow.
        detach_state: keep all gradients from flowing through time ("spatial learning through time", SLTT): what is left
            is the spike gradient at every step, and the fields' own part in that step.

    Source: SLTT is by Meng et al., ICCV 2023 (arXiv 2302.14311).
    """

    detach_reset: bool = True
    detach_state: bool = False

    spellings: ClassVar[Mapping[str, str]] = {"detach": "detach_reset={value}"}

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """The loop runs every dynamics."""

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the state after the last step."""
        out = self.record(dynamics, current, state, gradient)
        assert out.state is not None
        return out.spike, out.state

    def record(self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient) -> Trajectory:
        """`run` with the membrane (B, L, H) of every step."""
        how = {"detach_reset": self.detach_reset, "detach_state": self.detach_state}
        return simulate(dynamics, current, state, spike_gradient=gradient, **how)

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The dynamics' own state at rest."""
        return dynamics.initial_state(batch, channels, device, dtype)
