"""The balanced resonate-and-fire neuron."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, Value, check_range
from sdn.spike import DoubleGaussian, SpikeGradient

__all__ = ["BRF", "BRFState"]


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
        omega: angular frequency in radians per unit of time, in (0, 1/dt]; a number or (H,).
        b_offset: distance from the divergence boundary, >= 0; a number or (H,).
        gamma: factor the refractory variable keeps per step, in [0, 1); a number or (H,).
        dt: length of a step in units of time, > 0.
        threshold: > 0; a number or (H,).

    Raises:
        ValueError: a number out of range.

    Source: Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603).
    """

    omega: Value = 10.0
    b_offset: Value = 1.0
    gamma: Value = 0.9
    dt: float = 0.01
    threshold: Value = 1.0

    State = BRFState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"omega": "abs", "b_offset": "abs", "gamma": "logit", "threshold": "log"}
    default_std: ClassVar[float] = 50.0

    def __post_init__(self) -> None:
        check_range("BRF", "dt", self.dt, 0, math.inf, closed=False)
        check_range("BRF", "omega", self.omega, 0, math.inf, closed=False)
        if not isinstance(self.omega, Tensor) and self.dt * self.omega > 1:
            raise ValueError(
                f"BRF: omega must be at most 1/dt = {1 / self.dt:g}, got {self.omega}: beyond it no damping keeps the "
                "step stable. Lower omega or dt."
            )
        check_range("BRF", "b_offset", self.b_offset, 0, math.inf)
        check_range("BRF", "gamma", self.gamma, 0, 1)
        check_range("BRF", "threshold", self.threshold, 0, math.inf, closed=False)

    @property
    def gain(self) -> Value:
        """``dt``."""
        return self.dt

    @property
    def boundary(self) -> Value:
        """``p``: the damping at which the free oscillator neither grows nor fades."""
        x = 1 - (self.dt * self.omega) ** 2
        return ((torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)) - 1) / self.dt

    def past(self, state: BRFState) -> Tensor:
        """``u + dt (b u - omega v) - q``: (B, H)."""
        return self._free(state) - state.q

    def advance(self, state: BRFState, current: Tensor, spike: Tensor) -> BRFState:
        """One Euler step of the oscillator; the spike only feeds ``q``: (B, H) each."""
        v = state.v + self.dt * (self.omega * state.u + self._damping(state) * state.v)
        return BRFState(self._free(state) + self.dt * current, v, self.gamma * state.q + spike)

    def _damping(self, state: BRFState) -> Tensor:
        return self.boundary - self.b_offset - state.q

    def _free(self, state: BRFState) -> Tensor:
        return state.u + self.dt * (self._damping(state) * state.u - self.omega * state.v)
