"""Izhikevich's resonate-and-fire neuron, with its reset."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import DoubleGaussian, SpikeGradient

__all__ = ["IzhikevichRF", "IzhikevichRFState"]


class IzhikevichRFState(NamedTuple):
    """Real part ``u`` and imaginary part ``v`` of the oscillator after the reset, each (B, H)."""

    u: Tensor
    v: Tensor


@dataclass(frozen=True, eq=False)
class IzhikevichRF(Dynamics):
    """A damped oscillator that fires (strictly) on its imaginary part and is then set to i.

    Explicit Euler, both lines from the values of t-1, ``b = -damping``:
    ``u' = u + dt (b u - omega v + input[t])``, ``v' = v + dt (omega u + b v)``, ``spike[t] = H(v' - threshold)``, then
    ``u[t], v[t] = 0, 1`` where it fired and ``u', v'`` elsewhere.
    The input enters the real part and reaches the imaginary one a step later: ``mem[t] = v'`` and the gain is 0. So a
    spike has no gradient to the input of its own step, and only solvers that go through time can train it.

    Args:
        omega: angular frequency in radians per unit of time, > 0; a number or (H,).
        damping: minus the published b, >= 0; a number or (H,).
        dt: length of a step in units of time, > 0.
        threshold: of the potential, > 0 and not below ``1 - dt damping``, which a reset leaves a step later; a number
            or (H,).

    Raises:
        ValueError: a number out of range, an oscillator that grows without input, or one that would fire for ever.

    Source: Izhikevich, Resonate-and-fire neurons, Neural Networks 14, 2001; in discrete time as a variant of Higuchi et
    al., ICML 2024 (arXiv 2402.14603).
    """

    omega: Value = 10.0
    damping: Value = 1.0
    dt: float = 0.01
    threshold: Value = 1.0

    State = IzhikevichRFState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"omega": "abs", "damping": "abs", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "omega": Field("radians per unit of time"),
        "damping": Field("per unit of time", closed=True),
        "dt": Field("units of time"),
        "threshold": Field("of the membrane"),
    }
    word: ClassVar[str] = "izhikevich"
    when_diverging: ClassVar[str] = "lower omega, dt or the learning rate, or raise the damping"
    default_std: ClassVar[float] = 100.0
    numbers: ClassVar[tuple[str, ...]] = ("dt",)
    spellings: ClassVar[Mapping[str, str]] = {
        "b": "damping={minus} (minus the published b)",
        "b_offset": "damping={value} (there is no boundary here)",
        **dict.fromkeys(("tau", "tau_m"), "damping=1/{value} (per unit of time)"),
        **dict.fromkeys(("frequency", "freq", "f"), "omega=2 pi {value} (radians per unit of time)"),
        **dict.fromkeys(("delta", "delta_t", "step"), "dt={value}"),
    }

    def __post_init__(self) -> None:
        if isinstance(self.damping, Tensor):
            return
        after_reset = 1 - self.dt * self.damping
        if not isinstance(self.threshold, Tensor) and self.threshold < after_reset:
            raise ValueError(
                f"IzhikevichRF: a reset leaves {after_reset:g} = 1 - dt damping at the next step, above the threshold "
                f"{self.threshold}, so it would fire for ever; raise the threshold, or scale the currents."
            )
        growth = 0.0 if isinstance(self.omega, Tensor) else math.hypot(after_reset, self.dt * self.omega)
        if growth > 1:
            raise ValueError(
                f"IzhikevichRF: omega {self.omega} with damping {self.damping} and dt {self.dt} grows by {growth:.6f} "
                "a step without any input; raise the damping or lower omega or dt."
            )

    @property
    def gain(self) -> Value:
        """0: the input of a step cannot move the imaginary part of that step."""
        return 0.0

    @property
    def operations(self) -> tuple[int, int]:
        """As RF."""
        return 5, 4

    def past(self, state: IzhikevichRFState) -> Tensor:
        """``v + dt (omega u + b v)``: (B, H)."""
        return state.v + self.dt * (self.omega * state.u - self.damping * state.v)

    def advance(self, state: IzhikevichRFState, current: Tensor, spike: Tensor) -> IzhikevichRFState:
        """One Euler step of the oscillator, set to i where it fired: (B, H) each."""
        u = state.u + self.dt * (-self.damping * state.u - self.omega * state.v + current)
        return IzhikevichRFState(u * (1 - spike), self.past(state) * (1 - spike) + spike)
