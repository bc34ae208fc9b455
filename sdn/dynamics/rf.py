"""The resonate-and-fire neuron."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import DoubleGaussian, SpikeGradient

__all__ = ["RF", "RFState"]


class RFState(NamedTuple):
    """Real part ``u`` and imaginary part ``v`` of the oscillator, each (B, H)."""

    u: Tensor
    v: Tensor


@dataclass(frozen=True, eq=False)
class RF(Dynamics):
    """A damped oscillator that fires (strictly) above threshold and is never reset.

    Explicit Euler, both lines from the values of t-1, ``b = -damping``:
    ``u[t] = u + dt (b u - omega v + input[t])``, ``v[t] = v + dt (omega u + b v)``, ``spike[t] = H(u[t] - threshold)``.
    So ``mem[t] = u + dt (b u - omega v)`` and the gain is ``dt``. It grows without bound where
    ``(1 + dt b)^2 + (dt omega)^2 > 1``.

    Args:
        omega: angular frequency in radians per unit of time, > 0; a number or (H,).
        damping: minus the published b, >= 0; a number or (H,).
        dt: length of a step in units of time, > 0.
        threshold: of the potential, > 0; a number or (H,).

    Raises:
        ValueError: a number out of range, or an oscillator that diverges.

    Source: Izhikevich 2001; as the baseline of Higuchi et al., ICML 2024 (arXiv 2402.14603).
    """

    omega: Value = 10.0
    damping: Value = 1.0
    dt: float = 0.01
    threshold: Value = 1.0

    State = RFState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"omega": "abs", "damping": "abs", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "omega": Field("radians per unit of time"),
        "damping": Field("per unit of time", closed=True),
        "dt": Field("units of time"),
        "threshold": Field("of the membrane"),
    }
    scales_with_threshold: ClassVar[bool] = True
    when_diverging: ClassVar[str] = (
        "lower omega, dt or the learning rate, raise the damping, or take BRF, which balances itself"
    )
    default_std: ClassVar[float] = 25.0
    numbers: ClassVar[tuple[str, ...]] = ("dt",)
    spellings: ClassVar[Mapping[str, str]] = {
        "b": "damping={minus} (minus the published b)",
        "b_offset": "damping={value} (there is no boundary here)",
        **dict.fromkeys(("tau", "tau_m"), "damping=1/{value} (per unit of time)"),
        **dict.fromkeys(("frequency", "freq", "f"), "omega=2 pi {value} (radians per unit of time)"),
        **dict.fromkeys(("delta", "delta_t", "step"), "dt={value}"),
    }

    def __post_init__(self) -> None:
        if isinstance(self.omega, Tensor) or isinstance(self.damping, Tensor):
            return
        growth = math.hypot(1 - self.dt * self.damping, self.dt * self.omega)
        if growth > 1:
            raise ValueError(
                f"RF: omega {self.omega} with damping {self.damping} and dt {self.dt} grows by {growth:.6f} a step; "
                "raise the damping or lower omega or dt (BRF balances itself)."
            )

    @property
    def gain(self) -> Value:
        """``dt``."""
        return self.dt

    @property
    def operations(self) -> tuple[int, int]:
        """u: 3 and 2, v: 2 and 1; comparison."""
        return 5, 4

    def past(self, state: RFState) -> Tensor:
        """``u + dt (b u - omega v)``: (B, H)."""
        return state.u + self.dt * (-self.damping * state.u - self.omega * state.v)

    def advance(self, state: RFState, current: Tensor, spike: Tensor) -> RFState:
        """One Euler step of the oscillator; the spike leaves it alone: (B, H) each."""
        v = state.v + self.dt * (self.omega * state.u - self.damping * state.v)
        return RFState(self.past(state) + self.dt * current, v)
