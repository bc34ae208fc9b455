"""What a field of a neuron may be: a number, or one number per channel however it is written."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, plain_number, shown
from sdn.checks.finite import at_once

__all__ = ["as_field", "channelwise", "numeric_fields", "stacked"]


@functools.cache
def numeric_fields(kind: Any) -> frozenset[str]:
    """The fields of a dynamics that hold numbers: learnable ones, and those with such a default or such a type."""
    found = set()
    for field in dataclasses.fields(kind):
        hint = str(field.type) if not isinstance(field.type, type) else field.type.__name__
        several = re.search(r"\b(list|tuple|dict|Sequence|Mapping|Callable|ndarray)\b", hint)
        number = re.search(r"\b(float|Value|Tensor)\b", hint) or isinstance(field.default, (float, Tensor))
        if field.name in kind.transforms or (number and not several):
            found.add(field.name)
    return frozenset(found)


def as_field(kind: Any, name: str, value: Any) -> Any:
    """The value of a field of a dynamics: NumPy's numbers as Python's, arrays and lists of numbers as (H,) tensors.

    Args:
        kind: the dynamics.
        name: of the field.
        value: what was given. Tensors stay as they are, and so does what is in a field that is not about numbers.

    Raises:
        ArgumentError: an array or a list that is no (H,) of real numbers, or several numbers where one is asked for.
    """
    value = plain_number(value)
    if name in kind.numbers:
        if isinstance(value, Tensor) and not value.ndim:
            return value.item()
        if isinstance(value, (Tensor, np.ndarray, list, tuple)):
            raise ArgumentError(
                f"{kind.__name__}: {name} is one number for all neurons, got {_size(value)}; give a number."
            )
        return value
    if name not in numeric_fields(kind) or not isinstance(value, (Tensor, np.ndarray, list, tuple)):
        return value
    if isinstance(value, Tensor):
        if value.ndim > 1 or value.is_complex():
            raise ArgumentError(_wrong(kind, name, value))
        return value
    try:
        array = np.asarray(value)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ):  # rows of several lengths, tensors that carry gradients or lie on a GPU
        raise ArgumentError(_wrong(kind, name, value)) from None
    if array.dtype.kind not in "fiu" or array.ndim != 1 or not array.size:
        raise ArgumentError(_wrong(kind, name, value))
    return torch.tensor(array.astype(np.float64))


def _wrong(kind: Any, name: str, value: Any) -> str:
    return (
        f"{kind.__name__}: {name} must be a number or real numbers of shape (H,), one per channel, got {_size(value)}; "
        "give a number, a tensor (H,) or a list of H numbers."
    )


def _size(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {shown(value)}"


def channelwise(value: float | Tensor, like: Tensor) -> Tensor:
    """A parameter as an (H,) tensor in the type and on the device of ``like`` (..., H)."""
    channels = like.shape[-1]
    if isinstance(value, Tensor):
        return value.to(like).expand(channels)
    return like.new_full((channels,), value)


def stacked(rows: Sequence[float | Tensor], like: Tensor) -> Tensor:
    """Numbers and (H,) tensors, one below the other, in the dtype and on the device of ``like`` (..., H): (P, H)."""
    if not rows:
        return like.new_empty(0, like.shape[-1])
    if at_once(like) and not any(isinstance(value, Tensor) for value in rows):  # one tensor is sooner made than many
        return like.new_tensor(rows).unsqueeze(1).expand(-1, like.shape[-1])
    return torch.stack([channelwise(value, like) for value in rows])
