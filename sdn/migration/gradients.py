"""Spike gradients that other libraries have and `sdn` does not, as values with ``slope(v)``."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdn.checks.arguments import FrozenValue

__all__ = ["Exponential", "FastSigmoid", "Hat", "Logistic", "Rectangle", "StraightThrough"]


def _positive(who: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{who}: {name} must be > 0 and finite, got {value}.")


@dataclass(frozen=True)
class FastSigmoid(FrozenValue):
    """Slope ``gain / (1 + steepness |v|)^2``: the derivative of a fast sigmoid.

    Args:
        steepness: > 0, in one over units of the membrane.
        gain: the peak, > 0.

    Source: Zenke and Ganguli, Neural Computation 2018 (arXiv 1705.11146), SuperSpike.
    """

    steepness: float = 25.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _positive("FastSigmoid", steepness=self.steepness, gain=self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return self.gain / (1 + self.steepness * v.abs()) ** 2


@dataclass(frozen=True)
class Exponential(FrozenValue):
    """Slope ``gain exp(-|v| / width)``.

    Args:
        width: > 0, in units of the membrane.
        gain: the peak, > 0.

    Source: Shrestha and Orchard, NeurIPS 2018 (arXiv 1810.08646), SLAYER.
    """

    width: float = 0.5
    gain: float = 2.0

    def __post_init__(self) -> None:
        _positive("Exponential", width=self.width, gain=self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return self.gain * torch.exp(-v.abs() / self.width)


@dataclass(frozen=True)
class Rectangle(FrozenValue):
    """Slope ``1 / width`` where ``|v| < width / 2``, else 0.

    Args:
        width: > 0, in units of the membrane.

    Source: Wu et al., Frontiers in Neuroscience 2018 (arXiv 1706.02609), STBP.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _positive("Rectangle", width=self.width)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return (v.abs() < self.width / 2).to(v.dtype) / self.width


@dataclass(frozen=True)
class StraightThrough(FrozenValue):
    """Slope 1 everywhere: the straight-through estimator.

    Source: Bengio, Leonard, Courville 2013 (arXiv 1308.3432).
    """

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return torch.ones_like(v)


@dataclass(frozen=True)
class Hat(FrozenValue):
    """Slope ``gain max(0, 1 - |v| / width)``: `sdn.Triangle` with a peak of its own.

    Args:
        width: half the length of the foot, > 0, in units of the membrane.
        gain: the peak, > 0.

    Source: Bellec et al., Nature Communications 2020 (doi 10.1038/s41467-020-17236-y), there with gain 0.3.
    """

    width: float = 1.0
    gain: float = 0.3

    def __post_init__(self) -> None:
        _positive("Hat", width=self.width, gain=self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return self.gain * (1 - v.abs() / self.width).clamp_min(0.0)


@dataclass(frozen=True)
class Logistic(FrozenValue):
    """Slope ``4 gain s (1 - s)`` with ``s = 1 / (1 + exp(-alpha v))``: `sdn.Sigmoid` with a peak of its own.

    ``1 - tanh(k v)^2`` is ``Logistic(2 k)``.

    Args:
        alpha: sharpness, > 0, in one over units of the membrane.
        gain: the peak, > 0.

    Source: as `sdn.Sigmoid`.
    """

    alpha: float = 2.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _positive("Logistic", alpha=self.alpha, gain=self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return 4 * self.gain * torch.sigmoid(self.alpha * v) * torch.sigmoid(-self.alpha * v)
