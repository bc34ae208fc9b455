"""Whether the fields of a neuron that are tensors are in the ranges of its numbers."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sdn.dynamics.base import Dynamics

__all__ = ["check_ranges", "try_all"]


def check_ranges(dynamics: "Dynamics", channels: int) -> None:
    """Refuse a tensor that holds what the field does not take as a number.

    Raises:
        ValueError: what the neuron says of the number, and the neuron that has it.
    """
    for name, value in vars(dynamics).items():
        if isinstance(value, Tensor) and name in dynamics.transforms and value.numel() in (1, channels):
            try_all(dynamics, name, value)


def try_all(dynamics: "Dynamics", field: str, values: Tensor) -> None:
    """Let the dynamics judge the least and the largest of the values, and name the neuron of the one it refuses."""
    values = values.detach().reshape(-1)
    if not values.numel() or values.is_meta:
        return
    for neuron in {int(values.argmin()), int(values.argmax())}:
        try:
            _try(dynamics, field, values[neuron].item())
        except ValueError as error:
            raise ValueError(f"{error} That is {field} of neuron {neuron} of {values.numel()}.") from None


def _try(dynamics: "Dynamics", field: str, value: float) -> None:
    """Let the dynamics judge a start by itself, as the number that its transform makes of it.

    The other fields are tensors meanwhile, which it does not look at: they may start elsewhere.
    """
    fields = {name: getattr(dynamics, name) for name in dynamics.transforms if name != field}
    others = {name: torch.as_tensor(value) for name, value in fields.items() if value is not None}
    dynamics.replace(**others, **{field: abs(value) if dynamics.transforms[field] == "abs" else value})
