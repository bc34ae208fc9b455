"""The surrogate solver: a reduced SDN gives the membrane of all steps at once."""

import functools
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, State, check_current, check_state
from sdn.spike import SpikeGradient, spike
from sdn.surrogate.network import ReducedSDN
from sdn.surrogate.reduction import Artifact, load_artifact, shipped_artifacts

__all__ = ["InputWindow", "Surrogate", "predict"]


class InputWindow(NamedTuple):
    """The last R input currents, oldest first, (B, R, H): all that a network of receptive field R can remember."""

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
        made_for = self._artifact(dynamics).dynamics
        if made_for != dynamics and not _same_scaled(made_for, dynamics):
            raise ValueError(
                f"artifact was made for {made_for}, this neuron is {dynamics}; train one with `python generate.py` and "
                "`python train.py`, reduce it with convert.ipynb, and pass it as Surrogate(path)."
            )

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the last window of inputs."""
        check_current("Surrogate", current)
        artifact = self._artifact(dynamics)
        net = _on_device(artifact, current.device, current.dtype)
        dynamics = dynamics.to(current.device, current.dtype)
        window = self._window(net, current, state)
        scale = dynamics.threshold / artifact.dynamics.threshold
        with torch.no_grad():
            seen = torch.cat([window, current.detach()], 1) if state is not None else current.detach()
            mem = predict(net, seen / scale)[:, -current.shape[1] :] * scale
            last = torch.cat([window, current.detach()], 1)[:, -net.receptive_field :]
        v = mem + dynamics.gain * current - dynamics.threshold
        return spike(v, gradient, dynamics.fires_at_threshold), InputWindow(last)

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """A window of silence, (B, R, H)."""
        length = self._artifact(dynamics).network.receptive_field
        return InputWindow(torch.zeros(batch, length, channels, device=device, dtype=dtype))

    def _window(self, net: ReducedSDN, current: Tensor, state: State | None) -> Tensor:
        batch, _, channels = current.shape
        if state is None:
            return current.new_zeros(batch, net.receptive_field, channels)
        check_state("Surrogate", state, (batch, net.receptive_field, channels))
        return state[0].detach()

    def _artifact(self, dynamics: Dynamics) -> Artifact:
        if isinstance(self.artifact, Artifact):
            return self.artifact
        return _load(os.fspath(self.artifact)) if self.artifact is not None else _shipped_for(_unit(dynamics))


def predict(net: ReducedSDN, input: Tensor, block: int = 32768) -> Tensor:
    """``net`` over (B, L, H), channel by channel, in blocks small enough for the cache: (B, L, H), no gradient.

    Memory beyond input and output is bounded by the block, not by the sequence (the plain form takes 160 bytes an
    element). Equal to ``net`` on the rows (B*H, L) up to rounding.

    Args:
        net: the reduced network.
        input: (B, L, H).
        block: elements computed at a time.
    """
    batch, length, channels = input.shape
    rows = input.transpose(1, 2).reshape(batch * channels, length)
    out = torch.empty_like(rows)
    if torch.compiler.is_compiling():
        return net(rows).reshape(batch, channels, length).transpose(1, 2)  # type: ignore[no-any-return]
    reach, step = net.receptive_field, max(block // max(1, min(len(rows), 64)), net.receptive_field)
    height = max(1, block // step) if length > step else max(1, block // length)
    for top in range(0, len(rows), height):
        part = rows[top : top + height]
        for left in range(0, length, step):
            start = max(0, left - reach)
            out[top : top + height, left : left + step] = net(part[:, start : left + step])[:, left - start :]
    return out.reshape(batch, channels, length).transpose(1, 2)


def _unit(dynamics: Dynamics) -> Dynamics:
    return dynamics.replace(threshold=1.0) if dynamics.scales_with_threshold else dynamics


def _same_scaled(made_for: Dynamics, dynamics: Dynamics) -> bool:
    return dynamics.scales_with_threshold and made_for == dynamics.replace(threshold=made_for.threshold)


@functools.cache
def _load(path: str) -> Artifact:
    return load_artifact(path)


def _shipped_for(dynamics: Dynamics) -> Artifact:
    for path in shipped_artifacts():
        if _load(str(path)).dynamics == dynamics:
            return _load(str(path))
    made = ", ".join(str(_load(str(p)).dynamics) for p in shipped_artifacts()) or "none"
    raise ValueError(
        f"no shipped artifact stands for {dynamics} (shipped: {made}); train one with `python generate.py` and "
        "`python train.py`, reduce it with convert.ipynb, and pass it as Surrogate(path)."
    )


@functools.lru_cache(maxsize=64)
def _on_device(artifact: Artifact, device: torch.device, dtype: torch.dtype) -> ReducedSDN:
    source = artifact.network
    copy = ReducedSDN(source.d_model, source.kernel_size, source.n_layers).to(device, dtype)
    copy.load_state_dict(source.state_dict())
    return copy.eval()
