"""The surrogate solver: a small network instead of the loop over time, alone or with rounds of the exact neuron."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, FrozenValue, shown
from sdn.checks.currents import check_current
from sdn.checks.neurons import check_parameters
from sdn.compiler.programs import check_compiled
from sdn.dynamics.base import Dynamics, State
from sdn.dynamics.lif import LIF
from sdn.gradients import SpikeGradient
from sdn.solvers import matching
from sdn.solvers.pointwise import InputWindow, network_on, run_pointwise, scaled
from sdn.surrogate.artifact import Artifact
from sdn.surrogate.shooting import Plan, membrane_of, run_rounds

__all__ = ["InputWindow", "Surrogate"]

ROUNDS = 3
LARGEST = 1 << 31


@dataclass(frozen=True)
class Surrogate(FrozenValue):
    """A small network stands in for the loop over time, so that a sequence of L steps is computed in a few short runs.

    With a *seam network* (any neuron) the network guesses the state every ``chunk`` steps. In each of ``rounds`` the
    neuron itself then runs in all chunks side by side, and its linear response corrects the states at the seams. The
    spikes are those of the last round; gradients flow through all steps, as in the fused solver. More rounds are
    nearer to the exact neuron: after as many as there are chunks every spike is exact.

    With a *pointwise* network (LIF with a decay of at most 0.2) there are no rounds: `mem` of every step is predicted,
    without gradient, and ``spike = H(mem + gain * input - threshold)``. The gradient then runs through the input (and a
    learned threshold) of the same step only. That is the published method. Each sweep of ``refine`` replaces `mem` by
    what the neuron itself makes of it in one step: after k sweeps the last k steps are exact, given the network's `mem`
    before them.

    A learned threshold T is met by prediction at ``input / T`` and states times T, which is exact for the dynamics that
    scale with their threshold. Other fields can be learned, or differ by channel, within the bounds that a network
    was trained over. The network is frozen and belongs to no module: it is neither trained, nor counted, nor in a
    `state_dict`.

    Args:
        artifact: an `Artifact`, the path of one, or None for the shipped one made for the same dynamics. A path is read
            here and never again: what the file holds later changes nothing, and a pickled or copied neuron has it all.
        refine: exact sweeps over a predicted `mem`, >= 0; for a pointwise network of a LIF.
        rounds: runs of the exact neuron; None is 3 with a seam network and 0 with a pointwise one, which takes
            rounds for LIF too.
        chunk: steps of a chunk; None is what the network was trained with (32). One must divide the other.
        detach_reset: keep gradients from flowing through the spike into the state. Only rounds go through it at all.
        detach_state: keep all gradients from flowing through time, as the published method does. None keeps them with
            a pointwise network alone.

    Raises:
        ValueError: an option out of range; a file that is no artifact.
        FileNotFoundError: no file at the path.

    Source: pointwise, Shen et al., AAAI 2025 (arXiv 2408.14909). Where we differ: with a threshold T the slope is taken
    at ``h - T``, as in every other solver here, and not at ``h / T - 1``. Rounds: see `sdn.surrogate.shooting`.
    """

    artifact: Artifact | str | os.PathLike[str] | None = None
    refine: int = 0
    rounds: int | None = None
    chunk: int | None = None
    detach_reset: bool = True
    detach_state: bool | None = None
    # (neuron at threshold 1, neuron of the artifact, artifact) as `check` found them: tracing cannot read files
    _known: list[tuple[Dynamics, Dynamics, Artifact]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    spellings: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("path", "file", "network", "sdn"), "artifact={value}"),
        "sweeps": "refine={value}",
        **dict.fromkeys(("iterations", "max_rounds", "k"), "rounds={value}"),
        **dict.fromkeys(("chunk_size", "c"), "chunk={value}"),
        **dict.fromkeys(
            ("alpha", "slope", "spike", "spike_grad", "surrogate_function"),
            "Neuron(dynamics, channels, spike=ArcTan()) (Surrogate is a solver, ArcTan() a spike gradient)",
        ),
    }

    def __post_init__(self) -> None:
        artifact: object = self.artifact
        if artifact is not None and not isinstance(artifact, (Artifact, str, os.PathLike)):
            fits = callable(getattr(artifact, "slope", None))
            way = "; a spike gradient goes into Neuron(dynamics, channels, spike=...)" if fits else ""
            raise ArgumentError(
                "Surrogate: artifact must be an Artifact, a path or None for the shipped one, got "
                f"{shown(artifact)}{way}."
            )
        for name, value, least in (("refine", self.refine, 0), ("rounds", self.rounds, 0), ("chunk", self.chunk, 1)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value < LARGEST
            if not (value is None and name != "refine") and not (whole and value >= least):  # type: ignore[operator]
                raise ValueError(f"Surrogate: {name} must be an integer >= {least}, got {value!r}.")
        for name, value, words in (("detach_reset", self.detach_reset, (True, False)),
                                   ("detach_state", self.detach_state, (True, False, None))):  # fmt: skip
            if not any(value is word for word in words):
                raise ValueError(f"Surrogate: {name} must be one of {words}, got {value!r}.")
        if artifact is not None:
            known = artifact.as_it_is() if isinstance(artifact, Artifact) else matching.read(artifact)
            object.__setattr__(self, "artifact", known)

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Refuse a neuron that the artifact was not made for, or a learned field it cannot follow."""
        name = type(dynamics).__name__
        told = self.artifact.over if isinstance(self.artifact, Artifact) else {}
        if "threshold" in learned and not dynamics.scales_with_threshold and "threshold" not in told:
            raise ValueError(
                f"{name}: a learned threshold changes more than a scale here; leave it as it is (learn_threshold=False "
                "in a SpikingSSM), or use solver='fused' or solver='loop'."
            )
        artifact = self._found(dynamics, learned)
        if self._rounds(artifact):
            check_compiled(dynamics, gradient)
            self._check_rounds(name, artifact)
        else:
            self._check_pointwise(dynamics, artifact)
        if other := [f for f in learned if f != "threshold" and f not in artifact.over]:
            raise ValueError(
                f"{name}: one SDN stands for one value of {other}; learn them with solver='loop', or train one over "
                f"a range (`python generate.py DATA --over {other[0]}=LOW:HIGH`)."
            )
        if self.detach_state and [f for f in learned if f != "threshold"]:
            raise NotImplementedError(f"{name}: Surrogate(detach_state=True) learns a threshold only, not {learned}.")
        network_on(artifact, torch.device("cpu"), torch.float32)  # ready before anything is traced
        others = [known for known in self._known if known[0] != matching.unit(dynamics)]
        self._known[:] = [*others, (matching.unit(dynamics), artifact.dynamics, artifact)]
        matching.warn_outside(dynamics, artifact)
        matching.warn_changed(dynamics, artifact)

    def _check_rounds(self, name: str, artifact: Artifact) -> None:
        if self.refine:
            raise ValueError(f"{name}: refine={self.refine} is for a pointwise network alone; use more rounds.")
        if artifact.is_pointwise and type(artifact.dynamics) is not LIF:
            raise ValueError(
                f"{name}: rounds need a seam network, this artifact is pointwise; use rounds=0, or {matching.HOW}"
            )
        made, chunk = self._made_for_chunk(artifact), self._chunk(artifact)
        if max(made, chunk) % min(made, chunk):
            raise ValueError(
                f"Surrogate: chunk={chunk} and the {made} steps that the network was trained with must divide each "
                f"other; use chunk={made}."
            )

    def _check_pointwise(self, dynamics: Dynamics, artifact: Artifact) -> None:
        name = type(dynamics).__name__
        if not artifact.is_pointwise:
            raise ValueError(
                f"{name}: rounds=0 needs a pointwise network, this artifact is a seam network; use rounds."
            )
        if not isinstance(dynamics.gain, Tensor) and dynamics.gain == 0:
            raise ValueError(
                f"{name}: a step's input does not reach its own spike (its gain is 0), so no gradient would pass; "
                "use rounds, or solver='loop'."
            )
        if self.refine and type(dynamics) is not LIF:
            raise ValueError(
                f"{name}: refine={self.refine} needs a neuron whose state follows from mem and input, as LIF's does; "
                "use refine=0, or solver='loop' for exact spikes."
            )
        if self.detach_state is False:
            raise ValueError(f"{name}: gradients through time need rounds; use rounds=1 or more, or leave it out.")

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and a state: that of the neuron after rounds, else the last inputs."""
        check_current("Surrogate", current)
        check_parameters(dynamics)
        made_for, artifact = self.stands_for(dynamics)
        dynamics = dynamics.to(current.device, current.dtype)
        scale = dynamics.detached().threshold / made_for.threshold if dynamics.scales_with_threshold else 1.0
        rounds = self._rounds(artifact)
        if artifact.over and current.device.type == "cpu" and not torch.compiler.is_dynamo_compiling():
            matching.warn_outside(dynamics, artifact, once=True)
        if not rounds:
            return run_pointwise(artifact, scale, dynamics, current, state, gradient, self.refine)
        tracing = torch.compiler.is_dynamo_compiling()  # then nothing is copied, and the network moves its weights
        network = artifact.network if tracing else network_on(artifact, current.device, current.dtype)
        plan = Plan(network, artifact.over, scale, rounds, self._chunk(artifact))
        options = {"through_reset": not self.detach_reset, "through_time": not self.detach_state}
        return run_rounds(plan, dynamics, current, state, gradient, **options)

    @torch.no_grad()
    def membrane(self, dynamics: Dynamics, current: Tensor) -> Tensor:
        """The membrane (B, L, H) that its spikes come from, from rest: what the past contributes at each step."""
        made_for, artifact = self.stands_for(dynamics)
        network = network_on(artifact, current.device, current.dtype)
        dynamics = dynamics.to(current.device, current.dtype).detached()
        scale = dynamics.threshold / made_for.threshold if dynamics.scales_with_threshold else 1.0
        if not self._rounds(artifact):
            return scaled(network, current, scale, 0)
        plan = Plan(network, artifact.over, scale, self._rounds(artifact), self._chunk(artifact))
        return membrane_of(plan, dynamics, current)

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The dynamics' state at rest, or without rounds a window without any step yet, (B, 0, H)."""
        if self._rounds(self.stands_for(dynamics)[1]):
            return dynamics.initial_state(batch, channels, device, dtype)
        return InputWindow(torch.zeros(batch, 0, channels, device=device, dtype=dtype))

    def stands_for(self, dynamics: Dynamics) -> tuple[Dynamics, Artifact]:
        """The neuron that the artifact for this one was made for, and the artifact; from `check` where it was there.

        Raises:
            ValueError: an artifact that was made for another neuron, or no shipped one for this.
        """
        unit = matching.unit(dynamics)
        for known, made_for, artifact in self._known:
            told = [*artifact.over]
            if matching.same(matching.with_fields(made_for, known, told), matching.with_fields(made_for, unit, told)):
                return made_for, artifact
        artifact = self._found(dynamics)
        return artifact.dynamics, artifact

    def _found(self, dynamics: Dynamics, learned: tuple[str, ...] = ()) -> Artifact:
        artifact = self.artifact if isinstance(self.artifact, Artifact) else matching.shipped_for(dynamics, learned)
        if not matching.stands_for(artifact, dynamics):
            made_for = artifact.dynamics
            raise ValueError(
                f"artifact was made for {made_for}, this neuron is {dynamics}; use that neuron, or {matching.HOW}"
            )
        return artifact

    def _rounds(self, artifact: Artifact) -> int:
        return self.rounds if self.rounds is not None else 0 if artifact.is_pointwise else ROUNDS

    def _chunk(self, artifact: Artifact) -> int:
        return self.chunk or self._made_for_chunk(artifact)

    @staticmethod
    def _made_for_chunk(artifact: Artifact) -> int:
        return int(getattr(artifact.network, "chunk", 32))
