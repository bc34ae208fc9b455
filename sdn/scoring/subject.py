"""What is judged: a surrogate in any of its forms, as something that takes currents and returns spikes."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.dynamics.base import Dynamics
from sdn.neuron import Neuron
from sdn.solvers import Surrogate
from sdn.surrogate.artifact import Artifact, load_artifact
from sdn.surrogate.network import SDN, ReducedSDN
from sdn.surrogate.reduction import reduce
from sdn.surrogate.seams import ReducedSeamSDN, SeamSDN

__all__ = ["Subject", "subject_of"]


@dataclass(frozen=True)
class Subject:
    """A surrogate and the neuron that it stands for."""

    dynamics: Dynamics
    artifact: Artifact
    rounds: int
    chunk: int
    is_all: bool
    """Whether all neurons between the bounds of the artifact are meant, and not one."""

    def neuron(self, channels: int, **changes: Any) -> Neuron:
        """A layer of it; ``changes`` are options of `sdn.Surrogate`."""
        options = {"rounds": self.rounds, "chunk": self.chunk if self.rounds else None, **changes}
        return Neuron(self.dynamics, channels, solver=Surrogate(self.artifact, **options))

    @torch.no_grad()
    def spikes(self, x: Tensor) -> Tensor:
        """Currents (1, L, N) of N neurons side by side -> spikes."""
        found: Tensor = self.neuron(x.shape[2])(x)[0]
        return found

    @torch.no_grad()
    def membrane(self, x: Tensor) -> Tensor:
        """The membrane (1, L, N) that it predicts."""
        return self.neuron(x.shape[2]).solver.membrane(self.dynamics, x)  # type: ignore[no-any-return]


def subject_of(
    given: Any, dynamics: Dynamics | None = None, rounds: int | None = None, chunk: int | None = None
) -> Subject:
    """What is meant by an artifact, its path, a network and its neuron, a layer, or a neuron that has a shipped one.

    Raises:
        ArgumentError: something else, or a network without its neuron.
    """
    if isinstance(given, (str, os.PathLike)):
        given = load_artifact(given)
    if isinstance(given, (SDN, SeamSDN)):
        given = reduce(given)
    if isinstance(given, (ReducedSDN, ReducedSeamSDN)):
        if dynamics is None:
            raise ArgumentError(
                f"fidelity: a {type(given).__name__} does not say what neuron it stands for; pass dynamics."
            )
        given = Artifact(given.float(), {"dynamics": dynamics.facts()})
    solver: Any = Surrogate()
    is_all = isinstance(given, Artifact) and dynamics is None
    if isinstance(given, Neuron):
        solver, dynamics = given.solver, given.current_dynamics().detached()
        if not isinstance(solver, Surrogate):
            raise ArgumentError(f"fidelity: the layer runs by {solver}, which is exact; give one with a surrogate.")
    elif isinstance(given, Dynamics):
        dynamics = given
    elif isinstance(given, Artifact):
        solver, dynamics = Surrogate(given), given.dynamics if dynamics is None else dynamics
    else:
        raise ArgumentError(
            "fidelity: takes an artifact, its path, a network with dynamics=, a Neuron or a neuron that ships one, got "
            f"{shown(given)}."
        )
    artifact = solver.stands_for(dynamics)[1]
    kept = rounds if rounds is not None else solver.rounds
    asked = solver.chunk if chunk is None else chunk
    steps = getattr(artifact.network, "chunk", 32) if asked is None else asked
    return Subject(dynamics, artifact, _rounds(artifact, kept), steps, bool(artifact.over) and is_all)


def _rounds(artifact: Artifact, asked: int | None) -> int:
    return asked if asked is not None else 0 if artifact.is_pointwise else 3
