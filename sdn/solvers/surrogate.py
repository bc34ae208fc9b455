"""The surrogate solver: a reduced SDN gives the membrane of all steps at once."""

import copy
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, State, check_current
from sdn.spike import SpikeGradient, spike
from sdn.surrogate.network import ReducedSDN
from sdn.surrogate.predict import predict
from sdn.surrogate.reduction import Artifact, load_artifact, shipped_artifacts

__all__ = ["InputWindow", "Surrogate"]


HOW = (
    "train one (`python generate.py`, `python train.py`; sdn.fit for a neuron of your own) and pass its "
    "artifact.safetensors as Surrogate(path), on the command line as "
    "'model.solver={_target_: sdn.Surrogate, artifact: PATH}'."
)


class InputWindow(NamedTuple):
    """The last input currents, oldest first, (B, n, H): all that a network of receptive field R can remember.

    ``n`` is R, or the number of steps since rest where that is smaller: 0 at rest.
    """

    input: Tensor


@dataclass(frozen=True)
class Surrogate:
    """Predict `mem` with an SDN, without gradient; ``spike = H(mem + gain * input - threshold)``.

    The gradient runs through the input (and a learned threshold) of the same step only, none through time: that is the
    gradient of the exact neuron with detached membrane, up to mispredicted spikes. A learned threshold T is met by
    prediction at ``input / T`` and ``mem * T``, which is exact for the dynamics that scale with their threshold.
    The network is frozen and belongs to no module: it is neither trained, nor counted, nor in a `state_dict`.

    Args:
        artifact: an `Artifact`, the path of one, or None for the shipped one made for the same dynamics.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909). Where we differ: with a threshold T the slope is taken at
    ``h - T``, as in every other solver here, and not at ``h / T - 1``.
    """

    artifact: Artifact | str | os.PathLike[str] | None = None

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = ()) -> None:
        """Refuse a neuron that the artifact was not made for, or a learned field it cannot follow."""
        name = type(dynamics).__name__
        if "threshold" in learned and not dynamics.scales_with_threshold:
            raise ValueError(f"{name}: a learned threshold changes more than a scale here; use solver='loop'.")
        if other := [f for f in learned if f != "threshold"]:
            raise ValueError(f"{name}: one SDN stands for one value of {other}; learn them with solver='loop'.")
        artifact = self._artifact(dynamics)
        _on_device(artifact, torch.device("cpu"), torch.float32)  # ready before anything is traced
        made_for = artifact.dynamics
        if made_for != dynamics and not _same_scaled(made_for, dynamics):
            raise ValueError(f"artifact was made for {made_for}, this neuron is {dynamics}; use that neuron, or {HOW}")

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the last window of inputs."""
        check_current("Surrogate", current)
        artifact = self._artifact(dynamics)
        net = _on_device(artifact, current.device, current.dtype)
        dynamics = dynamics.to(current.device, current.dtype)
        scale = dynamics.threshold / artifact.dynamics.threshold
        with torch.no_grad():
            seen = current.detach()
            if state is not None:
                seen = torch.cat([_checked(state, current, net.receptive_field), seen], 1)
            mem = predict(net, seen / scale)[:, -current.shape[1] :] * scale
            last = seen[:, -net.receptive_field :].clone()
        v = dynamics.distance(mem, current)
        return spike(v, gradient, dynamics.fires_at_threshold), InputWindow(last)

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """A window without any step yet, (B, 0, H)."""
        return InputWindow(torch.zeros(batch, 0, channels, device=device, dtype=dtype))

    def _artifact(self, dynamics: Dynamics) -> Artifact:
        if isinstance(self.artifact, Artifact):
            return self.artifact
        return _read(self.artifact) if self.artifact is not None else _shipped_for(_unit(dynamics))


def _unit(dynamics: Dynamics) -> Dynamics:
    return dynamics.replace(threshold=1.0) if dynamics.scales_with_threshold else dynamics


def _same_scaled(made_for: Dynamics, dynamics: Dynamics) -> bool:
    return dynamics.scales_with_threshold and made_for == dynamics.replace(threshold=made_for.threshold)


def _checked(state: State, current: Tensor, reach: int) -> Tensor:
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
    """The artifact at a path, read once as long as the file stays what it is."""
    place = Path(path).resolve()
    known = place.stat() if place.is_file() else None
    return _load(str(place), known and known.st_mtime_ns, known and known.st_size)


@functools.lru_cache(maxsize=64)
def _load(path: str, changed: int | None, size: int | None) -> Artifact:
    with torch.device("cpu"):
        return load_artifact(path)


def _shipped_for(dynamics: Dynamics) -> Artifact:
    for path in shipped_artifacts():
        if _read(path).dynamics == dynamics:
            return _read(path)
    made = ", ".join(str(_read(p).dynamics) for p in shipped_artifacts()) or "none"
    raise ValueError(f"no shipped artifact stands for {dynamics} (shipped: {made}); {HOW}")


@functools.lru_cache(maxsize=64)
def _on_device(artifact: Artifact, device: torch.device, dtype: torch.dtype) -> ReducedSDN:
    return copy.deepcopy(artifact.network).to(device, dtype).eval()
