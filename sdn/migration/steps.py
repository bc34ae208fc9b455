"""The step that several libraries share, Euler's with one state, and the checks of fields that may be 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field

__all__ = ["EulerLIF", "EulerState", "StrictEulerLIF", "check_closed", "check_word"]


def check_closed(who: str, **fields: Any) -> None:
    """Refuse a number outside [0, 1], both ends allowed; tensors pass unchecked.

    Raises:
        ValueError: the field, its range and the value.
    """
    for name, value in fields.items():
        if not isinstance(value, Tensor) and not 0 <= value <= 1:
            raise ValueError(f"{who}: {name} must be in [0, 1], got {value}.")


def check_word(who: str, name: str, value: Any, words: tuple[str, ...]) -> None:
    """Refuse another word than these.

    Raises:
        ArgumentError: the words, and what was given.
    """
    if value not in words:
        raise ArgumentError(f"{who}: {name} must be one of {', '.join(map(repr, words))}, got {shown(value)}.")


class EulerState(NamedTuple):
    """Membrane ``u`` after the reset, (B, H), counted from rest."""

    u: Tensor


@dataclass(frozen=True, eq=False)
class EulerLIF(Dynamics):
    """``h = u + rate (input - u)``, Euler's step of ``tau du/dt = input - u``; it fires at equality.

    Where the input is not ``scaled`` it is ``u - rate u + input``; with rate 0 that is integrate-and-fire. Then
    ``u = h (1 - spike) + reset_to spike`` (hard), ``h - threshold spike`` (soft) or ``h`` (none).

    Args:
        rate: length of a step over the time constant, in [0, 1]; a number or (H,).
        threshold: > 0, counted from rest; a number or (H,).
        reset: "hard", "soft" or "none".
        scaled: whether the input is multiplied by the rate.
        reset_to: where a hard reset ends, counted from rest; a number or (H,).

    Source: LIFNode, ParametricLIFNode and IFNode of SpikingJelly 2.0: Fang et al., Science Advances 2023 (arXiv
    2310.16620).
    """

    rate: Value = 0.5
    threshold: Value = 1.0
    reset: str = "hard"
    scaled: bool = True
    reset_to: Value = 0.0

    State = EulerState
    transforms: ClassVar[dict[str, str]] = {"rate": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {"threshold": Field("of the membrane")}

    def __post_init__(self) -> None:
        check_closed(type(self).__name__, rate=self.rate)
        check_word(type(self).__name__, "reset", self.reset, ("hard", "soft", "none"))

    @property
    def gain(self) -> Value:
        """The rate where the input is scaled, else 1."""
        return self.rate if self.scaled else 1.0

    def past(self, state: EulerState) -> Tensor:
        """What the leak leaves: (B, H)."""
        return state.u - self.rate * state.u

    def advance(self, state: EulerState, current: Tensor, spike: Tensor) -> EulerState:
        """The membrane after leak, input and reset: (B, H)."""
        h = self.past(state) + self.gain * current
        if self.reset == "hard":
            return EulerState(h * (1 - spike) + self.reset_to * spike)
        return EulerState(h - self.threshold * spike if self.reset == "soft" else h)


@dataclass(frozen=True, eq=False)
class StrictEulerLIF(EulerLIF):
    """`EulerLIF` that fires above the threshold only, as LIFBoxCell and IAFCell of norse 1.1.

    Source: Pehle and Pedersen, norse, 2021 (doi 10.5281/zenodo.4422025).
    """

    fires_at_threshold: ClassVar[bool] = False
