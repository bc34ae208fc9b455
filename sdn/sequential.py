"""Modules one after another in a loop of one's own: states go along, and their past can be cut off."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdn.checks.arguments import ArgumentError, shown

__all__ = ["Sequential", "detach"]

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


class Sequential(nn.Sequential):
    """Modules one after another, such as linear maps and neurons, as one module with one state.

    A module with a state, such as `sdn.Neuron` or another `Sequential`, gives an output and a state. Its output goes to
    the next module, and its state into the state of the whole.

    Example:
        >>> net = sdn.Sequential(nn.Linear(4, 64), sdn.Neuron(sdn.LIF(), 64), nn.Linear(64, 2))
        >>> y, state = net(x)  # x (B, L, 4), y (B, L, 2)
        >>> y, state = net(more, sdn.detach(state))  # the next chunk
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
