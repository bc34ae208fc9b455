"""The spike: a step forward, a chosen slope backward.

A solver makes the step, ``H(v)`` with ``v = mem + gain * input - threshold``. What stands in for the derivative of that
step is a *spike gradient*: a small value with one method, ``slope(v)``, element by element. Any object with such a
method can be passed where one is asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, FrozenValue, not_a_value, shown

__all__ = [
    "ArcTan", "DoubleGaussian", "MultiGaussian", "Sigmoid", "SpikeGradient", "Triangle", "check_gradient", "spike",
]  # fmt: skip


class SpikeGradient(Protocol):
    """Anything with ``slope(v)``: (...) -> (...), the derivative used where the step has none."""

    def slope(self, v: Tensor) -> Tensor:
        """The slope at ``v``, the distance to the threshold, same shape (...)."""
        ...


@dataclass(frozen=True)
class Triangle(FrozenValue):
    """Slope ``max(0, 1 - |v| / width) / width``: the piecewise-quadratic gradient, of area 1 for every width.

    With width 1 (peak 1) it is the one SpikingSSM trains with.

    Args:
        width: half the length of the foot, > 0, in units of the membrane.

    Source: Bellec et al., NeurIPS 2018 (arXiv 1803.09574); Shen et al., AAAI 2025 (arXiv 2408.14909).
    """

    width: float = 1.0

    spellings: ClassVar[Mapping[str, str]] = dict.fromkeys(("alpha", "slope", "scale", "sharpness"), "width=1/{value}")

    def __post_init__(self) -> None:
        _positive("Triangle", width=self.width)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return (1.0 - v.abs() / self.width).clamp_min(0.0) / self.width


_GAUSSIAN = {
    **dict.fromkeys(("width", "lens", "std"), "sigma={value}"),
    **dict.fromkeys(("gamma", "amplitude"), "gain={value}"),
    "h": "height={value}",
    "s": "scale={value}",
}
"""Words of other codes for the parameters of the Gaussians."""


@dataclass(frozen=True)
class MultiGaussian(FrozenValue):
    """A Gaussian with a broad negative one on either side.

    ``gain * [(1+height) E(v; 0, sigma) - height E(v; sigma, scale*sigma) - height E(v; -sigma, scale*sigma)]`` with
    ``E(v; m, s) = exp(-(v-m)^2 / (2 s^2))``, divided by ``s sqrt(2 pi)`` where ``normalised``.

    The defaults are S5-RF's (not normalised, gain 1). BRF networks use ``MultiGaussian(gain=0.5, normalised=True)``.

    Args:
        height: weight of the side lobes, >= 0.
        sigma: width of the centre, > 0, in units of the membrane.
        scale: side width over centre width, > 0.
        gain: factor on the whole.
        normalised: use Gaussian densities instead of bumps of height 1.

    Source: Yin, Corradi, Bohte, Nature Machine Intelligence 2021; Huber et al. 2024 (arXiv 2504.00719).
    """

    height: float = 0.15
    sigma: float = 0.5
    scale: float = 6.0
    gain: float = 1.0
    normalised: bool = False

    spellings: ClassVar[Mapping[str, str]] = _GAUSSIAN

    def __post_init__(self) -> None:
        _positive("MultiGaussian", sigma=self.sigma, scale=self.scale)
        _weights("MultiGaussian", self.height, self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        wide = self.scale * self.sigma
        sides = _bump(v - self.sigma, wide, self.normalised) + _bump(v + self.sigma, wide, self.normalised)
        return self.gain * ((1 + self.height) * _bump(v, self.sigma, self.normalised) - self.height * sides)


@dataclass(frozen=True)
class DoubleGaussian(FrozenValue):
    """A narrow Gaussian density minus a broad one, both centred.

    ``gain * [(1+height) G(v; 0, sigma) - 2 height G(v; 0, scale*sigma)]`` with G the normalised density; 0.438837 at 0.

    Args:
        height: half the weight of the broad Gaussian, >= 0.
        sigma: width of the narrow one, > 0, in units of the membrane.
        scale: broad width over narrow width, > 0.
        gain: factor on the whole.

    Source: Higuchi et al., ICML 2024 (arXiv 2402.14603).
    """

    height: float = 0.15
    sigma: float = 0.5
    scale: float = 6.0
    gain: float = 0.5

    spellings: ClassVar[Mapping[str, str]] = _GAUSSIAN

    def __post_init__(self) -> None:
        _positive("DoubleGaussian", sigma=self.sigma, scale=self.scale)
        _weights("DoubleGaussian", self.height, self.gain)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        narrow, broad = _bump(v, self.sigma, True), _bump(v, self.scale * self.sigma, True)
        return self.gain * ((1 + self.height) * narrow - 2 * self.height * broad)


@dataclass(frozen=True)
class ArcTan(FrozenValue):
    """Slope ``(alpha/2) / (1 + (pi alpha v / 2)^2)``: the derivative of a scaled arctangent, area 1.

    Args:
        alpha: sharpness, > 0; the peak is alpha / 2.

    Source: Fang et al., ICCV 2021 (arXiv 2007.05785).
    """

    alpha: float = 2.0

    spellings: ClassVar[Mapping[str, str]] = {
        "slope": "alpha={value}",
        "sharpness": "alpha={value}",
        "width": "alpha=1/{value}",
    }

    def __post_init__(self) -> None:
        _positive("ArcTan", alpha=self.alpha)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * v) ** 2)


@dataclass(frozen=True)
class Sigmoid(FrozenValue):
    """Slope ``alpha s (1 - s)`` with ``s = 1 / (1 + exp(-alpha v))``: the derivative of a logistic curve, area 1.

    Args:
        alpha: sharpness, > 0; the peak is alpha / 4.

    Source: Zenke and Ganguli, Neural Computation 2018 (the family); Neftci et al. 2019 (arXiv 1901.09948).
    """

    alpha: float = 4.0

    spellings: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("slope", "beta", "sharpness"), "alpha={value}"),
        "width": "alpha=1/{value}",
    }

    def __post_init__(self) -> None:
        _positive("Sigmoid", alpha=self.alpha)

    def slope(self, v: Tensor) -> Tensor:
        """(...) -> (...)."""
        return self.alpha * torch.sigmoid(self.alpha * v) * torch.sigmoid(-self.alpha * v)


def spike(v: Tensor, gradient: SpikeGradient, at_threshold: bool) -> Tensor:
    """The step of ``v``: 1 where ``v > 0`` (or ``v >= 0`` with ``at_threshold``), else 0, in v's dtype.

    Where v is NaN or infinite the step is NaN, so that nobody takes a neuron that has no potential for a silent one.

    Args:
        v: (...) distance to the threshold.
        gradient: the slope used in the backward pass.
        at_threshold: whether v exactly 0 fires.

    Returns:
        (...) zeros and ones; its gradient is ``gradient.slope(v)``, in reverse and in forward mode.
    """
    step = _Step if torch.compiler.is_compiling() else _TransformedStep
    out: Tensor = step.apply(v, gradient, at_threshold)  # type: ignore[no-untyped-call]
    return out


def check_gradient(who: str, name: str, gradient: Any) -> None:
    """Refuse what is no value with ``slope(v)``, such as the class Triangle, the word "atan" or a function.

    Raises:
        ArgumentError: another kind of thing; the sentence says what to write.
    """
    fits = callable(getattr(gradient, "slope", None))
    if fits and not isinstance(gradient, type):
        return
    words = dict.fromkeys(("atan", "arctan"), "sdn.ArcTan()") | {"sigmoid": "sdn.Sigmoid()"}
    words |= dict.fromkeys(("triangle", "triangular", "piecewisequadratic"), "sdn.Triangle()")
    words |= {"multigaussian": "sdn.MultiGaussian()", "doublegaussian": "sdn.DoubleGaussian()"}
    kind = "a value with slope(v)"
    raise ArgumentError(not_a_value(who, name, gradient, kind, "sdn.Triangle()", fits, words))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(v: Tensor, gradient: SpikeGradient, at_threshold: bool) -> Tensor:
        return (v >= 0 if at_threshold else v > 0) + (v - v)  # v - v is 0, or NaN where v is not finite

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.gradient = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.gradient.slope(v), None, None


class _TransformedStep(_Step):
    """The step with forward-mode derivatives and `torch.vmap`, which Dynamo does not take."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Step.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (v,) = ctx.saved_tensors
        return tangent * ctx.gradient.slope(v)  # type: ignore[no-any-return]


def _bump(v: Tensor, sigma: float, normalised: bool) -> Tensor:
    bump = torch.exp(-0.5 * (v / sigma) ** 2)
    return bump / (sigma * math.sqrt(2 * math.pi)) if normalised else bump


def _positive(name: str, **values: Any) -> None:
    for field, value in values.items():
        _number(name, field, value, " > 0")
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {field} must be > 0{' and finite' if value > 0 else ''}, got {value}.")


def _number(name: str, field: str, value: Any, range: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        why = "; a spike gradient is not learned" if isinstance(value, Tensor) else ""
        raise ArgumentError(f"{name}: {field} must be a number{range}, got {shown(value)}{why}.")


def _weights(name: str, height: float, gain: float) -> None:
    """Refuse a height below 0, and a height or a gain that is no finite number."""
    for field, value in {"height": height, "gain": gain}.items():
        _number(name, field, value)
        if not math.isfinite(value):
            raise ValueError(f"{name}: {field} must be finite, got {value}.")
    if height < 0:
        raise ValueError(f"{name}: height must be >= 0, got {height}.")
