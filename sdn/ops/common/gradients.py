"""What the operators take instead of Python values: spike gradients as names and numbers, fields as (H,) tensors."""

import math
from typing import Any

from torch import Tensor

from sdn.dynamics.base import Value
from sdn.gradients import ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, SpikeGradient, Triangle

__all__ = ["COMPILED", "channelwise", "compiled"]

COMPILED = (Triangle, DoubleGaussian, MultiGaussian, ArcTan, Sigmoid)
"""The spike gradients that kernels know; a class derived from one is another."""


def compiled(gradient: SpikeGradient) -> tuple[str, list[float]]:
    """The compiled form of a spike gradient: its name and the numbers it is computed with.

    Raises:
        NotImplementedError: a spike gradient of your own.
    """
    g: Any = gradient
    if type(gradient) is Triangle:
        return "triangle", [1 / g.width]
    if type(gradient) is DoubleGaussian:
        wide = g.scale * g.sigma
        narrow, broad = g.gain * (1 + g.height) / _area(g.sigma), 2 * g.gain * g.height / _area(wide)
        return "gaussians", [narrow, 0.5 / g.sigma**2, broad, 0.5 / wide**2]
    if type(gradient) is MultiGaussian:
        wide = g.scale * g.sigma
        centre = g.gain * (1 + g.height) / (_area(g.sigma) if g.normalised else 1)
        side = g.gain * g.height / (_area(wide) if g.normalised else 1)
        return "multi_gaussians", [centre, 0.5 / g.sigma**2, side, 0.5 / wide**2, g.sigma]
    if type(gradient) is ArcTan:
        return "arctan", [g.alpha / 2, math.pi / 2 * g.alpha]
    if type(gradient) is Sigmoid:
        return "sigmoid", [g.alpha]
    raise NotImplementedError(
        f"there is no compiled form of {gradient!r}; use a spike gradient of sdn.spike, or solver='loop'."
    )


def _area(sigma: float) -> float:
    return sigma * math.sqrt(2 * math.pi)


def channelwise(value: Value, like: Tensor) -> Tensor:
    """A parameter as an (H,) tensor in the type and on the device of ``like`` (..., H)."""
    channels = like.shape[-1]
    return value.expand(channels) if isinstance(value, Tensor) else like.new_full((channels,), value)
