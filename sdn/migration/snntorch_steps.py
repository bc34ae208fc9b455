"""The steps of snnTorch 1.0: Leaky, Synaptic and Alpha, whose reset comes one step after the spike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import ArcTan, SpikeGradient
from sdn.migration.steps import check_closed, check_word

__all__ = ["RESETS", "SnnTorchAlpha", "SnnTorchLeaky", "SnnTorchSynaptic"]


RESETS = ("subtract", "zero", "none")


class LeakyState(NamedTuple):
    """The membrane after the step, (B, H), as snnTorch returns it."""

    mem: Tensor


class SynapticState(NamedTuple):
    """Synaptic current and membrane after the step, (B, H) each, as snnTorch returns them."""

    syn: Tensor
    mem: Tensor


class AlphaState(NamedTuple):
    """The two synaptic currents and the membrane after the step, (B, H) each, as snnTorch returns them."""

    syn_exc: Tensor
    syn_inh: Tensor
    mem: Tensor


@dataclass(frozen=True, eq=False)
class SnnTorchLeaky(Dynamics):
    """``h = decay u + gain input``, fires above the threshold; the reset is taken in the next step.

    With ``r = H(u - threshold)``, whether it fired the step before: ``h - r threshold`` ("subtract", not decayed) or
    ``decay (1 - r) u`` for ``decay u`` ("zero"). Without ``delayed`` the spike resets at once, and what is then still
    above the threshold counts as ``r`` again.

    Args:
        decay: beta, in [0, 1]; a number or (H,).
        threshold: > 0; a number or (H,).
        reset: "subtract", "zero" or "none".
        delayed: snnTorch's reset_delay.
        gain: 1, but for Lapicque.

    Source: Eshraghian et al., Proceedings of the IEEE 2023 (arXiv 2109.12894); snnTorch 1.0.
    """

    decay: Value = 0.9
    threshold: Value = 1.0
    reset: str = "subtract"
    delayed: bool = True
    gain: Value = 1.0

    State = LeakyState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = ArcTan()
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {"threshold": Field("of the membrane")}

    def __post_init__(self) -> None:
        check_closed("SnnTorchLeaky", decay=self.decay)
        check_word("SnnTorchLeaky", "reset", self.reset, RESETS)

    def past(self, state: LeakyState) -> Tensor:
        """Leak and the reset of the step before: (B, H)."""
        if self.reset == "subtract":
            return self.decay * state.mem - self._fired(state) * self.threshold
        return self.decay * (state.mem * (1 - self._fired(state)) if self.reset == "zero" else state.mem)

    def advance(self, state: LeakyState, current: Tensor, spike: Tensor) -> LeakyState:
        """The membrane after the input, and after the reset where it is not delayed: (B, H)."""
        h = self.past(state) + self.gain * current
        if self.delayed or self.reset == "none":
            return LeakyState(h)
        due = spike - self._fired(state)
        return LeakyState(h - due * (self.threshold if self.reset == "subtract" else h))

    def _fired(self, state: LeakyState) -> Tensor:
        return (state.mem > self.threshold).to(state.mem.dtype)


@dataclass(frozen=True, eq=False)
class SnnTorchSynaptic(Dynamics):
    """``syn = alpha syn + input``, ``h = beta u + syn``, fires above the threshold; resets as `SnnTorchLeaky`.

    Args:
        alpha: decay of the synaptic current, in [0, 1]; a number or (H,).
        beta: decay of the membrane, in [0, 1]; a number or (H,).
        threshold: > 0; a number or (H,).
        reset: "subtract", "zero" (only if not delayed) or "none".
        delayed: snnTorch's reset_delay.

    Source: as `SnnTorchLeaky`.
    """

    alpha: Value = 0.9
    beta: Value = 0.8
    threshold: Value = 1.0
    reset: str = "subtract"
    delayed: bool = True

    State = SynapticState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = ArcTan()
    transforms: ClassVar[dict[str, str]] = {"alpha": "logit", "beta": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {"threshold": Field("of the membrane")}

    def __post_init__(self) -> None:
        check_closed("SnnTorchSynaptic", alpha=self.alpha, beta=self.beta)
        check_word("SnnTorchSynaptic", "reset", self.reset, RESETS)
        if self.reset == "zero" and self.delayed:
            raise ValueError('SnnTorchSynaptic: reset "zero" needs delayed=False.')

    def past(self, state: SynapticState) -> Tensor:
        """Both leaks and the reset of the step before: (B, H)."""
        mem = self.beta * state.mem + self.alpha * state.syn
        return mem - self._fired(state) * self.threshold if self.reset == "subtract" else mem

    def advance(self, state: SynapticState, current: Tensor, spike: Tensor) -> SynapticState:
        """Current and membrane after the input, and after the reset where it is not delayed: (B, H) each."""
        syn, h = self.alpha * state.syn + current, self.past(state) + current
        if self.delayed or self.reset == "none":
            return SynapticState(syn, h)
        due = spike - self._fired(state)
        return SynapticState(syn, h - due * (self.threshold if self.reset == "subtract" else h))

    def _fired(self, state: SynapticState) -> Tensor:
        return (state.mem > self.threshold).to(state.mem.dtype)


@dataclass(frozen=True, eq=False)
class SnnTorchAlpha(Dynamics):
    """``exc = alpha exc + input``, ``inh = beta inh - input``, ``h = tau (exc + inh)``, fires above the threshold.

    ``tau = ln alpha / (ln beta - ln alpha) + 1``. The input cancels in its own step, so the gain is 0 and it reaches
    the membrane one step later. In the step after a spike "zero" leaves nothing of both currents, input included, and
    "subtract" takes the threshold from the first, leaves nothing of the second, and adds the old second to ``h``.

    Args:
        alpha: decay of the first current, in (0, 1), above beta; a number or (H,).
        beta: decay of the second current, in (0, 1); a number or (H,).
        threshold: > 0; a number or (H,).
        reset: "zero", "subtract" or "none".

    Source: as `SnnTorchLeaky`.
    """

    alpha: Value = 0.9
    beta: Value = 0.8
    threshold: Value = 1.0
    reset: str = "zero"

    State = AlphaState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = ArcTan()
    transforms: ClassVar[dict[str, str]] = {"alpha": "logit", "beta": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "alpha": Field("factor per step", 0, 1),
        "beta": Field("factor per step", 0, 1),
        "threshold": Field("of the membrane"),
    }

    def __post_init__(self) -> None:
        check_word("SnnTorchAlpha", "reset", self.reset, RESETS)

    @property
    def gain(self) -> Value:
        """0: the input cancels in its own step."""
        return 0.0

    def past(self, state: AlphaState) -> Tensor:
        """The membrane of this step: (B, H)."""
        mem = self._tau() * (self.alpha * state.syn_exc + self.beta * state.syn_inh)
        if self.reset == "zero":
            return mem * (1 - self._fired(state))
        return mem + self._fired(state) * state.syn_inh if self.reset == "subtract" else mem

    def advance(self, state: AlphaState, current: Tensor, spike: Tensor) -> AlphaState:
        """Both currents after the input and the reset of the step before, and the membrane: (B, H) each."""
        exc, inh = self.alpha * state.syn_exc + current, self.beta * state.syn_inh - current
        fired = self._fired(state)
        if self.reset == "zero":
            exc, inh = exc * (1 - fired), inh * (1 - fired)
        elif self.reset == "subtract":
            exc, inh = exc - fired * self.threshold, inh * (1 - fired)
        return AlphaState(exc, inh, self.past(state))

    def _fired(self, state: AlphaState) -> Tensor:
        return (state.mem > self.threshold).to(state.mem.dtype)

    def _tau(self) -> Value:
        if isinstance(self.alpha, Tensor) or isinstance(self.beta, Tensor):
            a, b = torch.as_tensor(self.alpha), torch.as_tensor(self.beta)
            return torch.log(a) / (torch.log(b) - torch.log(a)) + 1
        return math.log(self.alpha) / (math.log(self.beta) - math.log(self.alpha)) + 1
