"""The balanced resonate-and-fire neuron."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from sdn.checks.tracing import transforming
from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import DoubleGaussian, SpikeGradient

__all__ = ["BRF", "BRFState"]

MARGIN = 1e-4
"""How far (dt omega)^2 stays below 1, where the slope of the boundary is infinite."""


class BRFState(NamedTuple):
    """Real part ``u``, imaginary part ``v`` and refractory variable ``q``, each (B, H)."""

    u: Tensor
    v: Tensor
    q: Tensor


@dataclass(frozen=True, eq=False)
class BRF(Dynamics):
    """A resonate-and-fire neuron on the safe side of its divergence boundary, damped and held back by its own spikes.

    With the boundary ``p = (-1 + sqrt(1 - (dt omega)^2)) / dt`` and the damping ``b[t] = p - b_offset - q[t-1]``:
    ``u[t] = u + dt (b[t] u - omega v + input[t])``, ``v[t] = v + dt (omega u + b[t] v)``,
    ``spike[t] = H(u[t] - threshold - q[t-1])`` (strict), ``q[t] = gamma q[t-1] + spike[t]``.
    So ``mem[t] = u + dt (b[t] u - omega v) - q[t-1]`` and the gain is ``dt``. The state is never overwritten.

    Args:
        omega: angular frequency in radians per unit of time, in (0, 1/dt]; a number or (H,). Where it is learned and
            has come above 1/dt it counts as just below, and only a gradient that lowers it passes.
        b_offset: distance from the divergence boundary, >= 0; a number or (H,).
        gamma: factor the refractory variable keeps per step, in [0, 1); a number or (H,).
        dt: length of a step in units of time, > 0.
        threshold: > 0; a number or (H,).
        divergence_boundary: False leaves p out of the damping, which then may be too weak.
        smooth_reset: False leaves q out of the damping.
        refractory_period: False leaves q out of the threshold. The three are for ablations.

    Raises:
        ValueError: a number out of range.

    Source: Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603). Where we differ from its code: the boundary
    follows dt, where theirs always takes 0.01, and is a number for every omega.
    """

    omega: Value = 10.0
    b_offset: Value = 1.0
    gamma: Value = 0.9
    dt: float = 0.01
    threshold: Value = 1.0
    divergence_boundary: bool = True
    smooth_reset: bool = True
    refractory_period: bool = True

    State = BRFState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"omega": "abs", "b_offset": "abs", "gamma": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "dt": Field("units of time"),
        "omega": Field("radians per unit of time"),
        "b_offset": Field("per unit of time", closed=True),
        "gamma": Field("factor per step", 0, 1, closed=True),
        "threshold": Field("of the membrane"),
    }
    when_diverging: ClassVar[str] = (
        "lower b_offset, dt or the learning rate: damping above 2 sqrt(1 - (dt omega)^2) / dt overshoots (without its "
        "boundary, raise b_offset or lower omega)"
    )
    default_std: ClassVar[float] = 50.0
    later: ClassVar[tuple[str, ...]] = ("divergence_boundary", "smooth_reset", "refractory_period")
    numbers: ClassVar[tuple[str, ...]] = ("dt",)
    spellings: ClassVar[Mapping[str, str]] = {
        "b": "b_offset (how far the damping is beyond its boundary)",
        "damping": "b_offset={value} (how far the damping is beyond its boundary)",
        **dict.fromkeys(("decay", "q_decay", "refractory"), "gamma={value}"),
        **dict.fromkeys(("frequency", "freq", "f"), "omega=2 pi {value} (radians per unit of time)"),
        **dict.fromkeys(("delta", "delta_t", "step"), "dt={value}"),
    }

    def __post_init__(self) -> None:
        if not isinstance(self.omega, Tensor) and self.dt * self.omega > 1:
            raise ValueError(
                f"BRF: omega must be at most 1/dt = {1 / self.dt:g}, got {self.omega}: beyond it no damping keeps the "
                "step stable. Lower omega or dt."
            )

    @property
    def gain(self) -> Value:
        """``dt``."""
        return self.dt

    @property
    def turn(self) -> Value:
        """``omega``, and just below 1/dt where a tensor is above."""
        if not isinstance(self.omega, Tensor):
            return self.omega
        top = math.sqrt(1 - MARGIN) / self.dt
        if transforming():
            return self.omega.clamp(max=top)
        below: Tensor = _Below.apply(self.omega, top)  # type: ignore[no-untyped-call]
        return below

    def prepared(self) -> Self:
        """The neuron of an omega that is in range, so that what goes back of it passes `turn` as one sum."""
        return self.replace(omega=self.turn) if isinstance(self.omega, Tensor) else self

    @property
    def boundary(self) -> Value:
        """``p``: the damping at which the free oscillator neither grows nor fades."""
        x = 1 - (self.dt * self.turn) ** 2
        return ((torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)) - 1) / self.dt

    @property
    def rest_damping(self) -> Value:
        """The damping b of a neuron that has not spiked."""
        return self.boundary - self.b_offset if self.divergence_boundary else -self.b_offset

    @property
    def operations(self) -> tuple[int, int]:
        """b: 0 and 1, u: 3 and 3, v: 3 and 2, q: 1 and 1; threshold + q, comparison."""
        return 7, 9

    def past(self, state: BRFState) -> Tensor:
        """``u + dt (b u - omega v) - q``: (B, H)."""
        free = self._free(state)
        return free - state.q if self.refractory_period else free

    def rise(self, state: BRFState) -> Tensor | float:
        """``q``, (B, H), and 0 without the refractory period."""
        return state.q if self.refractory_period else 0.0

    def advance(self, state: BRFState, current: Tensor, spike: Tensor) -> BRFState:
        """One Euler step of the oscillator; the spike only feeds ``q``: (B, H) each."""
        v = state.v + self.dt * (self.turn * state.u + self._damping(state) * state.v)
        return BRFState(self._free(state) + self.dt * current, v, self.gamma * state.q + spike)

    def _damping(self, state: BRFState) -> Any:
        return self.rest_damping - state.q if self.smooth_reset else self.rest_damping

    def _free(self, state: BRFState) -> Tensor:
        free: Tensor = state.u + self.dt * (self._damping(state) * state.u - self.turn * state.v)
        return free


class _Below(torch.autograd.Function):
    """``min(x, top)``; above the top, a gradient passes where a step against it leads back down."""

    @staticmethod
    def forward(x: Tensor, top: float) -> Tensor:
        return x.clamp(max=top)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.top = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where(x > ctx.top, grad.clamp(min=0), grad), None
