"""Which steps of what passes through a network are real, and a look at what a module reads."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdn import SpikingLayer
from spikingssm.models.base import patch_of

__all__ = ["first_two", "real_steps", "watch_input"]


@contextmanager
def real_steps(model: nn.Module) -> Iterator[Callable[[str, Tensor], Tensor | None]]:
    """While the context is open, say of a tensor inside a call of the model which of its steps are no padding.

    That is what the innermost module around it is told that holds neurons: by an argument ``valid`` (B, L, 1) of its
    forward, or by ``lengths`` (B,), counted in steps of its input and divided by its attribute ``patch``, if any.

    Yields:
        (name of a layer, for errors; (B, L, H)) -> (B, L), False at padding; None is all True. It raises a ValueError
        for lengths that are not of these rows.
    """
    told: list[Tensor | None] = [None]
    handles = []
    for module in model.modules():
        known = inspect.signature(module.forward).parameters
        key = next((key for key in ("valid", "lengths") if key in known), None)
        if key is not None and any(isinstance(part, SpikingLayer) for part in module.modules()):
            handles.append(module.register_forward_pre_hook(_pusher(key, told), with_kwargs=True))
            handles.append(module.register_forward_hook(_popper(told), always_call=True))
    try:
        yield lambda name, seen: _valid(name, told[-1], seen)
    finally:
        for handle in handles:
            handle.remove()


def watch_input(model: nn.Module, target: str, look: Callable[[Tensor], None]) -> Any:
    """Show what a module of a model reads before each call of it.

    Args:
        model: any module.
        target: name in it. For a map of a layer of neurons, which may use the weights without a call, that layer is
            watched.
        look: gets the first argument.

    Returns:
        a handle with ``remove``.
    """
    entry, around = model.get_submodule(target), model.get_submodule(target.rpartition(".")[0])
    entry = around if isinstance(around, SpikingLayer) else entry

    def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(first_two(module, args, kwargs)[0])

    return entry.register_forward_pre_hook(read, with_kwargs=True)


def first_two(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The first and the second argument of a call, whatever its ``forward`` calls them; None for one not given."""
    first, second = (*inspect.signature(module.forward).parameters, "", "")[:2]
    given = {**dict(zip((first, second), args, strict=False)), **kwargs}
    return given.get(first), given.get(second)


def _pusher(key: str, told: list[Tensor | None]) -> Any:
    def push(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = inspect.signature(module.forward).bind(*args, **kwargs).arguments.get(key)
        if found is None:
            told.append(told[-1])
        else:
            told.append(found.squeeze(-1) if key == "valid" else -(-found // patch_of(module)))

    return push


def _popper(told: list[Tensor | None]) -> Any:
    def pop(*_: Any) -> None:
        if len(told) > 1:  # else the call failed before it was pushed
            told.pop()

    return pop


def _valid(name: str, told: Tensor | None, seen: Tensor) -> Tensor | None:
    """(B, L) from a mask of that shape, or from lengths (B,)."""
    if told is None:
        return None
    told = told.to(seen.device)
    valid = told if told.dtype == torch.bool else torch.arange(seen.shape[1], device=seen.device) < told[..., None]
    if valid.shape != seen.shape[:2]:
        raise ValueError(
            f"{name}: the module around it was given lengths of shape {tuple(told.shape)} and the neuron "
            f"{tuple(seen.shape[:2])} rows and steps; give a module in between an argument valid (B, L, 1)."
        )
    return valid
