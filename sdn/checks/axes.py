"""Tensors whose axes are others than (batch, length, channels), and the call that mends each."""

import math
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import check_tensor

__all__ = ["check_dtype", "check_sequence", "check_step", "mend", "mend_step"]


def mend(x: Tensor, channels: int | None = None, name: str = "x") -> str:
    """How to make (batch, length, channels) of a tensor of another shape or type, for the end of a message.

    That time stands first, as in snnTorch and SpikingJelly, cannot be seen where the last axis fits.

    Args:
        x: what was given.
        channels: size of the last axis that is asked for; None is any.
        name: of the argument.

    Returns:
        "; " and the call that mends it, or "" where none is known.
    """
    way = "" if 0 in x.shape else _way(tuple(x.shape), channels, name)
    if not way and not (x.is_floating_point() or x.is_complex()):
        grey = " (divided by 255, if it holds grey levels)" if x.dtype == torch.uint8 else ""
        way = f"convert it with {name}.float(){grey}"
    return f"; {way}" if way else ""


def mend_step(x: Tensor, channels: int, name: str = "x") -> str:
    """The same for a single step, (batch, channels)."""
    shape, way = tuple(x.shape), ""
    if len(shape) == 3:
        way = "a sequence goes to the layer itself, step takes one step of it"
    elif shape == (channels,):
        way = f"one row is {name}.unsqueeze(0)"
    elif len(shape) == 1 and channels == 1:
        way = f"one channel is {name}.unsqueeze(-1)"
    elif len(shape) == 2 and shape[0] == channels != shape[1]:
        way = f"axis 0 of {shape} has {channels}: if it holds the channels, pass {name}.T"
    elif len(shape) > 3 and math.prod(shape[1:]) == channels:
        way = f"pass {name}.flatten(1)"
    elif len(shape) == 2 and shape[1] != channels:
        way = f"its last axis has {shape[1]} channels, {channels} are asked for"
    elif not x.is_floating_point():
        way = f"convert it with {name}.float()"
    return f"; {way}" if way else ""


def check_sequence(who: str, x: Tensor, channels: int) -> None:
    """Refuse what is no floating-point x (batch, length, channels).

    Raises:
        ArgumentError: no tensor.
        ValueError: a tensor of another shape or type.
    """
    check_tensor(who, "x", x)
    if x.ndim != 3 or x.shape[-1] != channels or not x.is_floating_point():
        raise ValueError(
            f"{who}: x must be a floating-point (batch, length, {channels}), got {x.dtype} of shape "
            f"{tuple(x.shape)}{mend(x, channels)}."
        )


def check_step(who: str, name: str, x: Tensor, channels: int) -> None:
    """Refuse what is no step (batch, channels).

    Raises:
        ArgumentError: no tensor.
        ValueError: a tensor of another shape.
    """
    check_tensor(who, name, x)
    if x.ndim != 2 or x.shape[1] != channels:
        shape = tuple(x.shape)
        raise ValueError(f"{who}: a step must be (batch, {channels}), got shape {shape}{mend_step(x, channels, name)}.")


def check_dtype(who: str, name: str, x: Tensor, weight: Any) -> None:
    """Refuse numbers of another precision than the weights they meet, unless autocast takes care of that.

    Raises:
        ValueError: both precisions and the two ways to bring them together.
    """
    if not isinstance(weight, Tensor) or x.dtype == weight.dtype or torch.is_autocast_enabled(_device(x)):
        return
    raise ValueError(
        f"{who}: {name} is {x.dtype} and the weights are {weight.dtype}; pass {name}.to({weight.dtype}), or convert "
        f"the model with .to({x.dtype})."
    )


def _device(x: Tensor) -> str:
    return "cpu" if x.is_meta else x.device.type


def _way(shape: tuple[int, ...], channels: int | None, name: str) -> str:
    if len(shape) == 1:
        if channels == shape[0] != 1:
            return f"one step of one row is for step({name}[None])"
        return f"one sequence of one channel is {name}.unsqueeze(0).unsqueeze(-1)" if channels in (None, 1) else ""
    if len(shape) == 2:
        return _of_two(shape, channels, name)
    if len(shape) == 3:
        if channels in (None, shape[2]):
            return ""
        axis = next((i for i in (1, 0) if shape[i] == channels), None)
        if axis is None:
            return f"no axis of {shape} has {channels}"
        return f"axis {axis} of {shape} has {channels}: if it holds the channels, pass {name}.movedim({axis}, -1)"
    return _of_many(shape, channels, name) if len(shape) > 3 else ""


def _of_two(shape: tuple[int, ...], channels: int | None, name: str) -> str:
    ways = [f"(batch, length) of one channel is {name}.unsqueeze(-1)"] if channels in (None, 1) else []
    if channels in (None, shape[1]):
        ways.append(f"one sequence (length, channels) is {name}.unsqueeze(0)")
    if channels == shape[1]:
        ways.append(f"one step (batch, channels) is for step({name})")
    if channels == shape[0] != shape[1]:
        ways.append(f"one sequence (channels, length) is {name}.T.unsqueeze(0)")
    return ", ".join(ways) or f"no axis of {shape} has {channels}"


def _of_many(shape: tuple[int, ...], channels: int | None, name: str) -> str:
    size = math.prod(shape[2:])
    if channels not in (None, size):
        if len(shape) == 4 and channels in (shape[1], shape[3]):
            flat, axes = ("flatten(2).movedim(1, -1)", "channels, height, width")
            if shape[1] != channels:
                flat, axes = "flatten(1, 2)", "height, width, channels"
            return f"(batch, {axes}) with a pixel a step is {name}.{flat}"
        if len(shape) == 5 and shape[2] == channels:
            each = f"{name}.permute(0, 3, 4, 1, 2).flatten(0, 2)"
            return (
                f"{name}.flatten(2) makes {size} channels of (batch, length, channels, height, width), which the layer "
                f"must then have; with these {channels} at every pixel it is {each}"
            )
    flat = f"{name}.flatten(2)"
    asked = "" if channels in (None, size) else f", {channels} are asked for"
    return f"{flat} makes {size} channels of the last axes{asked} ({flat}.transpose(0, 1) where time stands first)"
