"""The surrogate as published: a reduced SDN gives the membrane of every step from the currents before it."""

import copy
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn.checks.currents import check_numbers
from sdn.checks.tracing import transforming
from sdn.checks.trees import as_tree
from sdn.compiler.programs import has_slope, slope_of
from sdn.dynamics.base import Dynamics, State, Value
from sdn.dynamics.fields import channelwise
from sdn.gradients import SpikeGradient, spike
from sdn.ops.membrane.fire import fire, takes
from sdn.surrogate.artifact import Artifact
from sdn.surrogate.network import ReducedSDN
from sdn.surrogate.predict import is_exporting, predict
from sdn.surrogate.sweeps import sweep

__all__ = ["InputWindow", "fired", "network_on", "run_pointwise", "scaled"]


@as_tree
class InputWindow(NamedTuple):
    """The last input currents, oldest first, (B, n, H): all that a network of receptive field R can remember.

    ``n`` is R + refine, or the number of steps since rest where that is smaller: 0 at rest.
    """

    input: Tensor


def run_pointwise(
    artifact: Artifact,
    scale: Value,
    dynamics: Dynamics,
    current: Tensor,
    state: State | None,
    gradient: SpikeGradient,
    refine: int,
) -> tuple[Tensor, State]:
    """Spikes (B, L, H) and the last window of inputs; ``scale`` is the threshold over that of the artifact."""
    tracing = torch.compiler.is_dynamo_compiling()  # then nothing is copied; `predict` moves the weights
    net: Any = artifact.network if tracing else network_on(artifact, current.device, current.dtype)
    still = dynamics.detached()  # `no_grad` alone lets forward mode through
    reach = net.receptive_field + refine
    with torch.no_grad():
        seen, known = current.detach(), 0
        if state is not None:
            window = _window(state, current, reach)
            check_numbers("Surrogate: the state", window)
            seen, known = torch.cat([window, seen], 1), window.shape[1]
        skip = max(0, known - refine)
        mem = scaled(net, seen, scale, skip)
        if refine and not skip:
            mem[:, 0] = 0  # the window starts at rest
        if refine:
            mem = sweep(still, mem, seen, refine)  # type: ignore[arg-type]
        mem = mem[:, known - skip :]
        last = seen[:, -reach:].clone()
    return fired(dynamics, current, mem, gradient), InputWindow(last)


def fired(dynamics: Dynamics, current: Tensor, mem: Tensor, gradient: SpikeGradient) -> Tensor:
    """Spikes where ``mem + gain current`` reaches the threshold; in one pass where there is a kernel for it."""
    if not has_slope(gradient) or is_exporting() or transforming() or not takes(current, mem):
        return spike(dynamics.distance(mem, current), gradient, dynamics.fires_at_threshold)
    gain, threshold = (channelwise(value, current) for value in (dynamics.gain, dynamics.threshold))
    return fire(current, mem, gain, threshold, dynamics.fires_at_threshold, *slope_of(gradient))


def scaled(net: ReducedSDN, input: Tensor, scale: Value, skip: int) -> Tensor:
    """``scale net(input / scale)``"""
    if not isinstance(scale, Tensor) and scale == 1:
        return predict(net, input, skip)
    return predict(net, input / scale, skip).mul_(scale)


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


def network_on(artifact: Artifact, device: torch.device, dtype: torch.dtype) -> Any:
    """Its network on a device; under `torch.func` a copy of its own, which no later call may see."""
    versions = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in artifact.tensors)
    return (_cast if transforming() else _on_device)(artifact, device, dtype, versions)


def _cast(artifact: Artifact, device: torch.device, dtype: torch.dtype, versions: tuple[Any, ...]) -> Any:
    """A copy of its network; ``versions`` tell a network that was changed in place from what it was before."""
    network = copy.deepcopy(artifact.network)
    for part in network.modules():
        for name, value in part.named_parameters(recurse=False):  # `Module.to` writes into them, which vmap refuses
            setattr(part, name, nn.Parameter(value.detach().to(device, dtype), requires_grad=False))
    return network.eval()


_on_device = functools.lru_cache(maxsize=64)(_cast)
