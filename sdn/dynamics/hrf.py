"""The harmonic resonate-and-fire neuron and its balanced form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import DoubleGaussian, SpikeGradient

__all__ = ["HRF", "HRFState"]


class HRFState(NamedTuple):
    """Velocity ``u``, which fires, position ``v`` of the oscillator, and refractory variable ``q``, each (B, H)."""

    u: Tensor
    v: Tensor
    q: Tensor


@dataclass(frozen=True, eq=False)
class HRF(Dynamics):
    """A damped harmonic oscillator that fires on its velocity, damped and held back by its own spikes (BHRF).

    With the damping ``b[t] = boundary + b_offset + q[t-1]``, the position first (semi-implicit Euler):
    ``v[t] = v + dt u``, ``u[t] = u + dt (input[t] - 2 b[t] u - omega^2 v[t])``,
    ``spike[t] = H(u[t] - threshold - q[t-1])`` (strict), ``q[t] = gamma q[t-1] + spike[t]``.
    So ``mem[t] = u + dt (-2 b[t] u - omega^2 (v + dt u)) - q[t-1]`` and the gain is ``dt``.

    A step without input has determinant ``1 - 2 dt b`` and trace ``2 - 2 dt b - (dt omega)^2``: it does not grow where
    ``0 <= dt b <= 1 - (dt omega / 2)^2``. Fully explicit Euler, with the old ``v`` in both lines, has determinant
    ``1 - 2 dt b + (dt omega)^2`` and needs ``b >= dt omega^2 / 2``: the published boundary, more than this step needs.

    Args:
        omega: angular frequency in radians per unit of time, > 0; a number or (H,).
        b_offset: damping beyond the boundary, >= 0; a number or (H,).
        gamma: factor the refractory variable keeps per step, in [0, 1); a number or (H,).
        dt: length of a step in units of time, > 0.
        threshold: > 0; a number or (H,).
        boundary: "published", ``dt omega^2 / 2``, or "consistent", 0, where this step neither grows nor fades.

    Raises:
        ValueError: a number out of range, an oscillator that diverges without spikes, or an unknown boundary.

    Source: Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603). Where we differ: their code has 0.005 for
    ``dt / 2``, whatever the dt.
    """

    omega: Value = 30.0
    b_offset: Value = 3.0
    gamma: Value = 0.9
    dt: float = 0.01
    threshold: Value = 1.0
    boundary: Literal["published", "consistent"] = "published"

    State = HRFState
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
    when_diverging: ClassVar[str] = "lower omega, b_offset, dt or the learning rate"
    default_std: ClassVar[float] = 75.0
    numbers: ClassVar[tuple[str, ...]] = ("dt",)
    spellings: ClassVar[Mapping[str, str]] = {
        "b": "b_offset (how far the damping is beyond its boundary)",
        "damping": "b_offset={value} (how far the damping is beyond its boundary)",
        **dict.fromkeys(("decay", "q_decay", "refractory"), "gamma={value}"),
        **dict.fromkeys(("frequency", "freq", "f"), "omega=2 pi {value} (radians per unit of time)"),
        **dict.fromkeys(("delta", "delta_t", "step"), "dt={value}"),
    }

    def __post_init__(self) -> None:
        if self.boundary not in ("published", "consistent"):
            raise ValueError(f"HRF: boundary must be 'published' or 'consistent', got {self.boundary!r}.")
        if isinstance(self.omega, Tensor) or isinstance(self.b_offset, Tensor):
            return
        damping, most = self.dt * (self.boundary_damping + self.b_offset), 1 - (self.dt * self.omega / 2) ** 2
        if damping > most:
            raise ValueError(
                f"HRF: omega {self.omega} with b_offset {self.b_offset} and dt {self.dt} diverges: dt b is "
                f"{damping:g}, above 1 - (dt omega / 2)^2 = {most:g}; lower omega, b_offset or dt."
            )

    @property
    def gain(self) -> Value:
        """``dt``."""
        return self.dt

    @property
    def boundary_damping(self) -> Value:
        """The damping at the boundary: ``dt omega^2 / 2`` (published) or 0 (consistent)."""
        return self.dt * self.omega**2 / 2 if self.boundary == "published" else 0.0

    @property
    def operations(self) -> tuple[int, int]:
        """b: 0 and 1, v: 1 and 1, u: 4 and 3, q: 1 and 1; threshold + q, comparison."""
        return 6, 8

    def past(self, state: HRFState) -> Tensor:
        """``u + dt (-2 b u - omega^2 (v + dt u)) - q``: (B, H)."""
        return self._free(state) - state.q

    def rise(self, state: HRFState) -> Tensor:
        """``q``: (B, H)."""
        return state.q

    def advance(self, state: HRFState, current: Tensor, spike: Tensor) -> HRFState:
        """One step of the oscillator, position first; the spike only feeds ``q``: (B, H) each."""
        u = self._free(state) + self.dt * current
        return HRFState(u, self._position(state), self.gamma * state.q + spike)

    def _position(self, state: HRFState) -> Tensor:
        return state.v + self.dt * state.u

    def _free(self, state: HRFState) -> Tensor:
        damping = self.boundary_damping + self.b_offset + state.q
        return state.u - self.dt * (2 * damping * state.u + self.omega**2 * self._position(state))
