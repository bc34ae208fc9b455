"""The leaky integrate-and-fire neuron."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from sdn.checks.neurons import check_range
from sdn.checks.words import LIF_WORDS, Words
from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.fields import as_field
from sdn.dynamics.record import Field

__all__ = ["LIF", "LIFState"]


class LIFState(NamedTuple):
    """Membrane ``u`` after the reset, (B, H)."""

    u: Tensor


@dataclass(frozen=True, eq=False)
class LIF(Dynamics):
    """Leaky integrate-and-fire with unit time step; at equality it fires.

    ``mem[t] = decay u[t-1]``, ``h = mem[t] + input[t]``, ``spike[t] = H(h - threshold)``, and then
    ``u[t] = h (1 - spike)`` (hard), ``h - threshold spike`` (soft) or ``h`` (none).

    Args:
        decay: factor kept per step, in [0, 1); a number or (H,). For a time constant use `from_tau`.
        threshold: of the potential, > 0; a number or (H,).
        reset: "hard" to zero, "soft" by subtraction, "none".

    Raises:
        ValueError: a number out of range, or an unknown reset.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909), eqs. 1-3. Their generator uses decay 0.2, their networks 0.125.
    """

    decay: Value = 0.2
    threshold: Value = 1.0
    reset: Literal["hard", "soft", "none"] = "hard"

    State = LIFState
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "decay": Field("factor per step", 0, 1, closed=True),
        "threshold": Field("of the membrane"),
    }
    scales_with_threshold: ClassVar[bool] = True
    spellings: ClassVar[Words] = LIF_WORDS

    def in_range(self, **hints: str) -> None:
        """As of every neuron, with a word on a decay that looks like a time constant."""
        hint = ""
        if isinstance(self.decay, (int, float)) and 1 < self.decay < math.inf:
            tau = f"{self.decay:g}"
            hint = f"For a time constant of {tau} steps use LIF.from_tau({tau}): decay {math.exp(-1 / self.decay):.4f}."
        super().in_range(**{"decay": hint, **hints})

    def __post_init__(self) -> None:
        if self.reset not in ("hard", "soft", "none"):
            known = {"zero": "; write 'hard'", "subtract": "; write 'soft'", "None": "; write 'none'"}
            way = known.get(str(self.reset), "")
            raise ValueError(f"LIF: reset must be 'hard', 'soft' or 'none', got {self.reset!r}{way}.")

    @classmethod
    def from_tau(cls, tau: Value, scheme: Literal["exp", "euler"] = "exp", **fields: Value) -> Self:
        """The LIF of a time constant in steps: decay ``exp(-1/tau)`` ("exp") or ``1 - 1/tau`` ("euler").

        Args:
            tau: time constant in steps, > 0 for "exp", >= 1 for "euler"; a number or (H,).
            scheme: how the differential equation is discretised.
            fields: threshold and reset as in `LIF`.
        """
        if scheme not in ("exp", "euler"):
            raise ValueError(f"LIF.from_tau: scheme must be 'exp' or 'euler', got {scheme!r}.")
        tau = as_field(cls, "decay", tau)
        for each in tau.reshape(-1).tolist() if isinstance(tau, Tensor) else [tau]:
            check_range("LIF.from_tau", "tau", each, 0 if scheme == "exp" else 1, math.inf, closed=scheme == "euler")
        if scheme == "euler":
            return cls(1 - 1 / tau, **fields)  # type: ignore[arg-type]
        decay = torch.exp(-1 / tau) if isinstance(tau, Tensor) else math.exp(-1 / tau)
        return cls(decay, **fields)  # type: ignore[arg-type]

    @property
    def operations(self) -> tuple[int, int]:
        """decay u; input, comparison, reset."""
        return 1, 2 if self.reset == "none" else 3

    def past(self, state: LIFState) -> Tensor:
        """``decay u``: (B, H)."""
        return self.decay * state.u

    def advance(self, state: LIFState, current: Tensor, spike: Tensor) -> LIFState:
        """The membrane after leak, input and reset: (B, H)."""
        h = self.past(state) + current
        if self.reset == "hard":
            return LIFState(h * (1 - spike))
        return LIFState(h - self.threshold * spike if self.reset == "soft" else h)
