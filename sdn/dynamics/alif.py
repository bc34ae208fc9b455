"""The adaptive leaky integrate-and-fire neuron."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import DoubleGaussian, SpikeGradient

__all__ = ["ALIF", "ALIFState"]


class ALIFState(NamedTuple):
    """Membrane ``u`` after the reset, adaptation ``a`` and the last spike ``s``, each (B, H)."""

    u: Tensor
    a: Tensor
    s: Tensor


@dataclass(frozen=True, eq=False)
class ALIF(Dynamics):
    """LIF whose threshold rises with its own recent spikes.

    With ``alpha = exp(-1/tau_m)`` and ``rho = exp(-1/tau_a)``:
    ``a[t] = rho a[t-1] + (1-rho) spike[t-1]``, threshold in force ``theta[t] = threshold + beta a[t]``,
    ``h = alpha u[t-1] + (1-alpha) input[t]``, ``spike[t] = H(h - theta[t])`` (strict),
    ``u[t] = h - spike[t] theta[t]``.
    So ``mem[t] = alpha u[t-1] - beta a[t]`` and the gain is ``1 - alpha``.

    Args:
        tau_m: membrane time constant in steps, > 0; a number or (H,).
        tau_a: adaptation time constant in steps, > 0; a number or (H,).
        beta: strength of the adaptation, >= 0; a number or (H,).
        threshold: threshold at rest, > 0; a number or (H,).

    Raises:
        ValueError: a number out of range.

    Source: Yin, Corradi, Bohte 2021; as the baseline of Higuchi et al., ICML 2024 (arXiv 2402.14603). They
    differentiate through the reset: use ``Loop(detach_reset=False)`` for that.
    """

    tau_m: Value = 20.0
    tau_a: Value = 200.0
    beta: Value = 1.8
    threshold: Value = 0.01

    State = ALIFState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = DoubleGaussian()
    transforms: ClassVar[dict[str, str]] = {"tau_m": "abs", "tau_a": "abs", "beta": "abs", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "tau_m": Field("steps", hint="It is a time constant in steps."),
        "tau_a": Field("steps", hint="It is a time constant in steps."),
        "beta": Field("of the membrane", closed=True),
        "threshold": Field("of the membrane"),
    }
    spellings: ClassVar[Mapping[str, str]] = {
        "tau": "tau_m={value} (of the membrane) or tau_a={value} (of the adaptation)",
        **dict.fromkeys(("tau_mem", "tau_membrane"), "tau_m={value}"),
        **dict.fromkeys(("tau_adp", "tau_adapt", "tau_adaptation", "tau_w"), "tau_a={value}"),
        **dict.fromkeys(("alpha", "decay"), "tau_m=-1/ln({value}) (a time constant in steps)"),
        **dict.fromkeys(("rho", "decay_adaptation"), "tau_a=-1/ln({value}) (a time constant in steps)"),
        **dict.fromkeys(("b0", "b_0", "b_j0"), "threshold={value}"),
    }

    @property
    def alpha(self) -> Value:
        """``exp(-1/tau_m)``, what the membrane keeps per step."""
        return _decay(self.tau_m)

    @property
    def rho(self) -> Value:
        """``exp(-1/tau_a)``, what the adaptation keeps per step."""
        return _decay(self.tau_a)

    @property
    def gain(self) -> Value:
        """``1 - alpha``."""
        return 1 - self.alpha

    @property
    def operations(self) -> tuple[int, int]:
        """a: 1 and 1, threshold in force: 1 and 1, h: 2 and 1; comparison, reset."""
        return 4, 5

    def past(self, state: ALIFState) -> Tensor:
        """``alpha u - beta a``, with the adaptation of this step: (B, H)."""
        return self.alpha * state.u - self.beta * self._adaptation(state)

    def rise(self, state: ALIFState) -> Tensor:
        """``beta a``, with the adaptation of this step: (B, H)."""
        return self.beta * self._adaptation(state)

    def advance(self, state: ALIFState, current: Tensor, spike: Tensor) -> ALIFState:
        """Adapt, leak, take the input, subtract the threshold in force where the neuron fired: (B, H) each."""
        a = self._adaptation(state)
        h = self.alpha * state.u + self.gain * current
        return ALIFState(h - spike * (self.threshold + self.beta * a), a, spike)

    def _adaptation(self, state: ALIFState) -> Tensor:
        rho = self.rho
        return rho * state.a + (1 - rho) * state.s


def _decay(tau: Value) -> Value:
    return torch.exp(-1 / tau) if isinstance(tau, Tensor) else math.exp(-1 / tau)
