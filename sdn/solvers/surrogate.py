"""The surrogate solver: a reduced SDN gives the membrane of all steps at once."""

import copy
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sdn.checks.arguments import ArgumentError, FrozenValue, shown
from sdn.checks.currents import check_current, check_numbers
from sdn.checks.neurons import check_parameters
from sdn.checks.tracing import transforming
from sdn.compiler.programs import has_slope, slope_of
from sdn.dynamics.base import Dynamics, State, Value
from sdn.dynamics.fields import channelwise
from sdn.dynamics.lif import LIF
from sdn.gradients import SpikeGradient, spike
from sdn.ops.membrane.fire import fire, takes
from sdn.surrogate.artifact import Artifact, load_artifact, shipped_artifacts
from sdn.surrogate.network import ReducedSDN
from sdn.surrogate.predict import is_exporting, predict
from sdn.surrogate.sweeps import sweep

__all__ = ["InputWindow", "Surrogate"]


HOW = (
    "train one (`python generate.py`, `python train.py`; sdn.fit for a neuron of your own) and pass its "
    "artifact.safetensors as Surrogate(path), on the command line as "
    "'model.solver={_target_: sdn.Surrogate, artifact: PATH}'."
)


class InputWindow(NamedTuple):
    """The last input currents, oldest first, (B, n, H): all that a network of receptive field R can remember.

    ``n`` is R + refine, or the number of steps since rest where that is smaller: 0 at rest.
    """

    input: Tensor


@dataclass(frozen=True)
class Surrogate(FrozenValue):
    """Predict `mem` with an SDN, without gradient; ``spike = H(mem + gain * input - threshold)``.

    The gradient runs through the input (and a learned threshold) of the same step only, none through time: that is the
    gradient of the exact neuron with detached membrane, up to mispredicted spikes. A learned threshold T is met by
    prediction at ``input / T`` and ``mem * T``, which is exact for the dynamics that scale with their threshold.
    The network is frozen and belongs to no module: it is neither trained, nor counted, nor in a `state_dict`.

    Each sweep of ``refine`` replaces `mem` by what the neuron itself makes of it in one step, for all steps at once:
    ``mem'[t] = decay u[t-1]``, with u the LIF's potential ``mem[t-1] + input[t-1]`` after its reset. After k sweeps
    the last k steps are exact, given the network's `mem` before them; from rest, the first k + 1 values are exact.

    Args:
        artifact: an `Artifact`, the path of one, or None for the shipped one made for the same dynamics. A path is read
            here and never again: what the file holds later changes nothing, and a pickled or copied neuron has it all.
        refine: exact sweeps over the predicted `mem`, >= 0; for LIF only, whose state `mem` and input determine.

    Raises:
        ValueError: ``refine`` below 0, or no integer; a file that is no artifact.
        FileNotFoundError: no file at the path.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909). Where we differ: with a threshold T the slope is taken at
    ``h - T``, as in every other solver here, and not at ``h / T - 1``.
    """

    artifact: Artifact | str | os.PathLike[str] | None = None
    refine: int = 0
    # (neuron at threshold 1, neuron of the artifact, artifact) as `check` found them: tracing cannot read files
    _known: list[tuple[Dynamics, Dynamics, Artifact]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    spellings: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("path", "file", "network", "sdn"), "artifact={value}"),
        "sweeps": "refine={value}",
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
        if isinstance(self.refine, bool) or not isinstance(self.refine, int) or self.refine < 0:
            raise ValueError(f"Surrogate: refine must be an integer >= 0, got {self.refine!r}.")
        if artifact is not None:
            known = artifact.as_it_is() if isinstance(artifact, Artifact) else _read(artifact)
            object.__setattr__(self, "artifact", known)

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Refuse a neuron that the artifact was not made for, or a learned field it cannot follow."""
        name = type(dynamics).__name__
        if not isinstance(dynamics.gain, Tensor) and dynamics.gain == 0:
            raise ValueError(
                f"{name}: a step's input does not reach its own spike (its gain is 0), so no gradient would pass; "
                "use solver='loop'."
            )
        if "threshold" in learned and not dynamics.scales_with_threshold:
            raise ValueError(f"{name}: a learned threshold changes more than a scale here; use solver='loop'.")
        if other := [f for f in learned if f != "threshold"]:
            raise ValueError(f"{name}: one SDN stands for one value of {other}; learn them with solver='loop'.")
        if self.refine and type(dynamics) is not LIF:
            raise ValueError(
                f"{name}: refine={self.refine} needs a neuron whose state follows from mem and input, as LIF's does; "
                "use refine=0, or solver='loop' for exact spikes."
            )
        made_for, artifact = self.stands_for(dynamics)
        _on(artifact, torch.device("cpu"), torch.float32)  # ready before anything is traced
        others = [known for known in self._known if known[0] != _unit(dynamics)]
        self._known[:] = [*others, (_unit(dynamics), made_for, artifact)]

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the last window of inputs."""
        check_current("Surrogate", current)
        check_parameters(dynamics)
        made_for, artifact = self.stands_for(dynamics)
        tracing = torch.compiler.is_dynamo_compiling()  # then nothing is copied; `predict` moves the weights
        net = artifact.network if tracing else _on(artifact, current.device, current.dtype)
        dynamics = dynamics.to(current.device, current.dtype)
        still = dynamics.detached()  # `no_grad` alone lets forward mode through
        reach, scale = net.receptive_field + self.refine, still.threshold / made_for.threshold
        with torch.no_grad():
            seen, known = current.detach(), 0
            if state is not None:
                window = _window(state, current, reach)
                check_numbers("Surrogate: the state", window)
                seen, known = torch.cat([window, seen], 1), window.shape[1]
            skip = max(0, known - self.refine)
            mem = _scaled(net, seen, scale, skip)
            if self.refine and not skip:
                mem[:, 0] = 0  # the window starts at rest
            if self.refine:
                mem = sweep(still, mem, seen, self.refine)  # type: ignore[arg-type]
            mem = mem[:, known - skip :]
            last = seen[:, -reach:].clone()
        return _fire(dynamics, current, mem, gradient), InputWindow(last)

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """A window without any step yet, (B, 0, H)."""
        return InputWindow(torch.zeros(batch, 0, channels, device=device, dtype=dtype))

    def stands_for(self, dynamics: Dynamics) -> tuple[Dynamics, Artifact]:
        """The neuron that the artifact for this one was made for, and the artifact; from `check` where it was there.

        Raises:
            ValueError: an artifact that was made for another neuron, or no shipped one for this.
        """
        unit = _unit(dynamics)
        found = [(made_for, artifact) for known, made_for, artifact in self._known if _same(known, unit)]
        if found:
            return found[0]
        artifact = self.artifact if isinstance(self.artifact, Artifact) else _shipped_for(unit)
        made_for = artifact.dynamics
        if _unit(made_for) != unit:
            raise ValueError(f"artifact was made for {made_for}, this neuron is {dynamics}; use that neuron, or {HOW}")
        return made_for, artifact


def _fire(dynamics: Dynamics, current: Tensor, mem: Tensor, gradient: SpikeGradient) -> Tensor:
    """Spikes where ``mem + gain current`` reaches the threshold; in one pass where there is a kernel for it."""
    if not has_slope(gradient) or is_exporting() or transforming() or not takes(current, mem):
        return spike(dynamics.distance(mem, current), gradient, dynamics.fires_at_threshold)
    gain, threshold = (channelwise(value, current) for value in (dynamics.gain, dynamics.threshold))
    return fire(current, mem, gain, threshold, dynamics.fires_at_threshold, *slope_of(gradient))


def _scaled(net: ReducedSDN, input: Tensor, scale: Value, skip: int) -> Tensor:
    """``scale net(input / scale)``"""
    if not isinstance(scale, Tensor) and scale == 1:
        return predict(net, input, skip)
    return predict(net, input / scale, skip).mul_(scale)


def _unit(dynamics: Dynamics) -> Dynamics:
    return dynamics.with_known({"threshold": 1.0}) if dynamics.scales_with_threshold else dynamics


def _same(one: Dynamics, other: Dynamics) -> bool:
    """Whether two neurons are equal; of neurons of plain numbers without their facts, which a step has no time for."""
    values = (*vars(one).values(), *vars(other).values())
    if type(one) is not type(other) or any(isinstance(value, Tensor) for value in values):
        return one == other
    return vars(one) == vars(other)


def _window(state: State, current: Tensor, reach: int) -> Tensor:
    window = getattr(state, "input", None)
    batch, _, channels = current.shape
    if window is None or window.ndim != 3 or window.shape[1] > reach or window.shape[::2] != (batch, channels):
        found = type(state).__name__ if window is None else tuple(window.shape)
        raise ValueError(
            f"Surrogate: the state must be an InputWindow of shape ({batch}, at most {reach}, {channels}), got "
            f"{found}; pass what this solver returned, or None for rest."
        )
    seen: Tensor = window.detach()
    return seen


def _read(path: str | os.PathLike[str]) -> Artifact:
    with torch.device("cpu"):
        return load_artifact(path)


_shipped = functools.lru_cache(maxsize=None)(_read)


def _shipped_for(dynamics: Dynamics) -> Artifact:
    known = [_shipped(path) for path in shipped_artifacts()]
    for artifact in known:
        if artifact.dynamics == dynamics:
            return artifact
    made = ", ".join(str(artifact.dynamics) for artifact in known) or "none"
    raise ValueError(f"no shipped artifact stands for {dynamics} (shipped: {made}); {HOW}")


def _on(artifact: Artifact, device: torch.device, dtype: torch.dtype) -> ReducedSDN:
    """Its network on a device; under `torch.func` a copy of its own, which no later call may see."""
    versions = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in artifact.tensors)
    return (_cast if transforming() else _on_device)(artifact, device, dtype, versions)


def _cast(artifact: Artifact, device: torch.device, dtype: torch.dtype, versions: tuple[Any, ...]) -> ReducedSDN:
    """A copy of its network; ``versions`` tell a network that was changed in place from what it was before."""
    network = copy.deepcopy(artifact.network)
    for part in network.modules():
        for name, value in part.named_parameters(recurse=False):  # `Module.to` writes into them, which vmap refuses
            setattr(part, name, nn.Parameter(value.detach().to(device, dtype), requires_grad=False))
    return network.eval()


_on_device = functools.lru_cache(maxsize=64)(_cast)
