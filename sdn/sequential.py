"""What a loop of one's own needs: modules one after another with their states, a past cut off, membranes kept."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdn.checks.arguments import ArgumentError, check_uncompiled, shown
from sdn.dynamics.base import Trajectory
from sdn.neuron import SpikingLayer

__all__ = ["Sequential", "detach", "record_membranes"]

Nest = TypeVar("Nest")


def detach(state: Nest) -> Nest:
    """A state without its past: the same numbers, through which no gradient goes on.

    For truncated back-propagation and for endless streams: ``spikes, state = neuron(chunk, sdn.detach(state))``.

    Args:
        state: of any layer or network: tensors, None, and tuples, lists and dicts of them.

    Returns:
        the same nest with detached tensors.
    """
    found: Any = state
    if isinstance(found, Tensor):
        return found.detach()  # type: ignore[return-value]
    if isinstance(found, dict):
        return type(found)((name, detach(part)) for name, part in found.items())  # type: ignore[return-value]
    if not isinstance(found, (tuple, list)):
        return state
    parts = [detach(part) for part in found]
    return type(found)(*parts) if hasattr(found, "_fields") else type(found)(parts)  # type: ignore[return-value]


@contextmanager
def record_membranes(model: nn.Module) -> Iterator[dict[str, Trajectory]]:
    """Keep the membrane of every step of every neuron in a model while the context is open.

    The model is called as always and returns what it always does. Membranes come out of the same loop as the spikes, so
    a loss on them reaches the parameters. Kept is the last call of each layer. Layers that have no ``record``, such as
    the neurons of S5-RF, are left out.

    Args:
        model: any module, such as `Sequential`, `torch.nn.Sequential` or a network of `spikingssm`; layers go by their
            names in ``model.named_modules()``, and a layer that is the model itself is "neuron".

    Yields:
        layer name -> `sdn.Trajectory` (input, mem and spike, (B, L, H) each, and the state), filled by each call. It
        stays valid after the context, and the model is left as it was.

    Raises:
        ValueError: a model without such layers, what `torch.compile` gives, or a layer whose solver does not go through
            all membranes.

    Example:
        >>> with sdn.record_membranes(net) as found:
        ...     y, state = net(x)
        >>> loss = loss + 0.01 * (found["1"].mem ** 2).mean()
        >>> axes = sdn.plot.traces(found["1"], net[1])
    """
    check_uncompiled("record_membranes", model)
    layers = {name or "neuron": part for name, part in model.named_modules() if isinstance(part, SpikingLayer)}
    layers = {name: part for name, part in layers.items() if "record" in inspect.signature(part.forward).parameters}
    if not layers:
        raise ArgumentError(f"record_membranes: {type(model).__name__} holds no sdn.Neuron, so there is no membrane.")
    for name, part in layers.items():
        if not hasattr(part.solver, "record"):
            kind, way = type(part.solver).__name__, "set its solver to 'fused', which is exact"
            raise ArgumentError(f"record_membranes: {name} runs by {kind}, which keeps no membrane; {way}.")
    found = _Recorded(layers)
    recorders = [_Recorder(name, found) for name in layers]
    handles = []
    try:
        for recorder, part in zip(recorders, layers.values(), strict=True):
            handles.append(part.register_forward_pre_hook(recorder.before, with_kwargs=True))
            handles.append(part.register_forward_hook(recorder.after, prepend=True, with_kwargs=True))
        yield found
    finally:
        for handle in handles:
            handle.remove()


class _Recorded(dict[str, Trajectory]):
    """Trajectories by layer; one that has none says why."""

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self.layers = list(layers)

    def __missing__(self, name: str) -> Trajectory:
        if name in self.layers:
            way = "call the model inside `with record_membranes(model)`, and not what torch.compile made of it"
            raise KeyError(f"{name} was not run; {way}")
        raise KeyError(f"no layer is named {name!r}; there are {', '.join(self.layers)}")


class _Recorder:
    """Asks a layer for its membrane and keeps it; a copy of the layer gets one that does neither."""

    def __init__(self, name: str, found: dict[str, Trajectory] | None = None) -> None:
        self.name, self.found, self.asked = name, found, False

    def __reduce__(self) -> tuple[Any, ...]:
        return _Recorder, (self.name,)  # of pickle and deepcopy

    def before(self, layer: nn.Module, args: Any, named: dict[str, Any]) -> Any:
        """Call the layer with ``record="mem"``."""
        if self.found is None:
            return None
        self.asked = named.get("record") is not None
        return args, {**named, "record": "mem"}

    def after(self, layer: nn.Module, args: Any, named: dict[str, Any], seen: Any) -> Any:
        """Keep what it gives, and give what the caller has asked for."""
        if self.found is None:
            return None
        self.found[self.name] = seen
        if self.asked:
            return seen
        return (seen.spike, seen.state) if getattr(layer, "return_state", True) else seen.spike


class Sequential(nn.Sequential):
    """Modules one after another, such as linear maps and neurons, as one module with one state.

    A module with a state, such as `sdn.Neuron` or another `Sequential`, gives an output and a state. Its output goes to
    the next module, and its state into the state of the whole.

    Example:
        >>> net = sdn.Sequential(nn.Linear(4, 64), sdn.Neuron(sdn.LIF(), 64), nn.Linear(64, 2))
        >>> y, state = net(x)  # x (B, L, 4), y (B, L, 2)
        >>> y, state = net(more, sdn.detach(state))  # the next chunk

    `record_membranes` gives the membranes of its neurons too.
    """

    def forward(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: what the first module takes, such as (B, L, C).
            state: before the first step, one for each module, as it was returned; None is rest.

        Returns:
            what the last module gives, and the state: for each module its own, or None for one without.

        Raises:
            ValueError: a state of another number of modules.
        """
        return self._through(x, state, "__call__")

    def step(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """One step of a stream: (B, C) -> what comes out of it, and the state; modules without a state are called."""
        return self._through(x, state, "step")

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> tuple[Any, ...]:
        """The state at rest, which None stands for too."""
        return tuple(
            part.initial_state(batch, device, dtype) if _has_state(part) else None  # type: ignore[operator]
            for part in self
        )

    def _through(self, x: Tensor, state: tuple[Any, ...] | None, way: str) -> tuple[Tensor, tuple[Any, ...]]:
        if state is not None and (not isinstance(state, tuple) or len(state) != len(self)):
            found = len(state) if isinstance(state, (tuple, list)) else shown(state)
            raise ArgumentError(f"Sequential: state must hold one part for each of {len(self)} modules, got {found}.")
        after = []
        for number, part in enumerate(self):
            if not _has_state(part):
                x, kept = part(x), None
            else:
                run = part if way == "__call__" else getattr(part, way)
                x, kept = run(x, None if state is None else state[number])
            after.append(kept)
        return x, tuple(after)


def _has_state(part: nn.Module) -> bool:
    """Whether a module gives an output and a state."""
    return hasattr(part, "initial_state") and getattr(part, "return_state", True)
