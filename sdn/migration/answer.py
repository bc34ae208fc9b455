"""What coming from another library gives: the dynamics, how it is trained there, and what to know about it."""

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdn.dynamics.base import Dynamics
from sdn.gradients import SpikeGradient
from sdn.neuron import Neuron, Start
from sdn.solvers import Solver, as_solver

__all__ = ["Migrated"]


@dataclass(frozen=True)
class Migrated:
    """A neuron of another library as it is written here. ``print`` shows the notes, ``neuron(channels)`` the layer.

    Args:
        source: library and class, such as "snnTorch Leaky".
        dynamics: the same spikes for the same input, from rest.
        spike: the slope that stands in for the derivative of the step.
        learn: fields that are learned there.
        detach_reset: whether gradients are kept from flowing through the reset there.
        notes: what to know, by subject: step, input, comparison, reset, gradient, learned, state, differs.
    """

    source: str
    dynamics: Dynamics
    spike: SpikeGradient
    learn: tuple[str, ...] = ()
    detach_reset: bool = True
    notes: Mapping[str, str] = field(default_factory=dict, compare=False)

    def neuron(
        self,
        channels: int,
        *,
        learn: Mapping[str, Start] | None = None,
        solver: str | Solver = "fused",
        return_state: bool = True,
    ) -> Neuron:
        """The layer: (B, L, channels) currents in, spikes and state out.

        Args:
            channels: H.
            learn: as in `Neuron`; None learns what is learned there, ``{}`` nothing.
            solver: as in `Neuron`. A word, such as "fused", gets the ``detach_reset`` of this neuron.
            return_state: False gives the spikes alone.

        Raises:
            ValueError: fields of another number of channels, or what `Neuron` refuses.
        """
        found: Any = as_solver(solver)
        if isinstance(solver, str) and hasattr(found, "detach_reset"):
            found = dataclasses.replace(found, detach_reset=self.detach_reset)
        fields = dict.fromkeys(self.learn) if learn is None else learn
        try:
            return Neuron(
                self.dynamics, channels, learn=fields, spike=self.spike, solver=found, return_state=return_state
            )
        except ValueError as error:
            if learn is None and "learning" in str(error):
                raise ValueError(f"{error} Write neuron({channels}, learn={{}}) to learn nothing.") from None
            raise

    def __str__(self) -> str:
        lines = [f"{self.source} -> {self.dynamics!r}"]
        for subject, text in self.notes.items():
            lines += textwrap.wrap(f"{subject + ':':<12}{text}", 96, initial_indent="  ", subsequent_indent=14 * " ")
        return "\n".join(lines)
