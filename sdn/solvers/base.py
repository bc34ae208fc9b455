"""What every solver offers, and how a word becomes one."""

from typing import Any, Protocol

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, State
from sdn.gradients import SpikeGradient

__all__ = ["Solver"]


class Solver(Protocol):
    """A way of running a whole sequence of steps: a frozen value with its options, no parameters, no state."""

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Raise where it cannot run that neuron with those learnable fields and that spike gradient; say what can."""
        ...

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """Spikes (B, L, H) of 0 and 1 in the current's dtype, and the state after the last step."""
        ...

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The state at rest, as `run` takes and returns it."""
        ...
