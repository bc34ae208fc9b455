"""The steps of sinabs 3.1: LIF and ALIF with one spike a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import SpikeGradient
from sdn.migration.gradients import Exponential
from sdn.migration.steps import check_closed, check_word

__all__ = ["SinabsALIF", "SinabsLIF"]


class SinabsState(NamedTuple):
    """Membrane after the reset and synaptic current, (B, H) each, as sinabs keeps them."""

    v_mem: Tensor
    i_syn: Tensor


class SinabsAdaptiveState(NamedTuple):
    """Membrane after the reset and adaptation ``b`` after the step, (B, H) each, as sinabs keeps them."""

    v_mem: Tensor
    b: Tensor


@dataclass(frozen=True, eq=False)
class SinabsLIF(Dynamics):
    """``h = decay v + g input``, g is ``1 - decay`` where the input is ``scaled``, else 1; it fires at equality.

    With ``synapse`` it is ``i = synapse (i + input)``, ``h = decay v + g i``. Then ``v = h - subtract spike``
    ("subtract") or ``h (1 - spike) + reset_to`` ("zero": sinabs adds the value whether or not the neuron fired), and
    what is below ``least`` becomes that.

    Args:
        decay: ``exp(-1/tau_mem)``, in [0, 1]; 1 is integrate-and-fire; a number or (H,).
        threshold: > 0; a number or (H,).
        reset: "subtract" or "zero".
        scaled: sinabs's norm_input.
        synapse: ``exp(-1/tau_syn)``, in [0, 1], or None.
        subtract: what a spike subtracts; None is the threshold.
        reset_to: what the reset "zero" adds.
        least: sinabs's min_v_mem, or None.

    Source: SynSense, sinabs 3.1 (doi 10.5281/zenodo.8385545).
    """

    decay: Value = 0.9
    threshold: Value = 1.0
    reset: str = "subtract"
    scaled: bool = True
    synapse: Value | None = None
    subtract: Value | None = None
    reset_to: Value = 0.0
    least: Value | None = None

    State = SinabsState
    default_spike: ClassVar[SpikeGradient] = Exponential(0.5, 2.0)
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "synapse": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {"threshold": Field("of the membrane")}

    def __post_init__(self) -> None:
        check_closed("SinabsLIF", decay=self.decay, synapse=0.0 if self.synapse is None else self.synapse)
        check_word("SinabsLIF", "reset", self.reset, ("subtract", "zero"))

    @property
    def gain(self) -> Value:
        """What one unit of input adds to the membrane at once."""
        scale = 1 - self.decay if self.scaled else 1.0
        return scale if self.synapse is None else scale * self.synapse

    def past(self, state: SinabsState) -> Tensor:
        """What leak and current make of the membrane: (B, H)."""
        leaked = self.decay * state.v_mem
        return leaked if self.synapse is None else leaked + self.gain * state.i_syn

    def advance(self, state: SinabsState, current: Tensor, spike: Tensor) -> SinabsState:
        """Membrane after the reset and the lower bound, and current: (B, H) each."""
        h = self.past(state) + self.gain * current
        if self.reset == "zero":
            v = h * (1 - spike) + self.reset_to
        else:
            v = h - spike * (self.threshold if self.subtract is None else self.subtract)
        if self.least is not None:
            v = (v - self.least).clamp_min(0.0) + self.least
        return SinabsState(v, state.i_syn if self.synapse is None else self.synapse * (state.i_syn + current))


@dataclass(frozen=True, eq=False)
class SinabsALIF(Dynamics):
    """`SinabsLIF` whose threshold is ``threshold + scale b``, ``b = adaptation b + (1 - adaptation) spike`` after it.

    Args:
        decay: ``exp(-1/tau_mem)``, in [0, 1]; a number or (H,).
        adaptation: ``exp(-1/tau_adapt)``, in [0, 1]; a number or (H,).
        scale: sinabs's adapt_scale, >= 0; a number or (H,).
        threshold: > 0, at rest; a number or (H,).
        reset: "subtract" (of the threshold in force) or "zero".
        scaled: sinabs's norm_input.
        least: sinabs's min_v_mem, or None.

    Source: as `SinabsLIF`; Bellec et al., NeurIPS 2018 (arXiv 1803.09574).
    """

    decay: Value = 0.9
    adaptation: Value = 0.99
    scale: Value = 1.8
    threshold: Value = 1.0
    reset: str = "subtract"
    scaled: bool = True
    least: Value | None = None

    State = SinabsAdaptiveState
    default_spike: ClassVar[SpikeGradient] = Exponential(0.5, 2.0)
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "adaptation": "logit", "scale": "abs", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {
        "scale": Field("of the membrane", closed=True), "threshold": Field("of the membrane"),
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_closed("SinabsALIF", decay=self.decay, adaptation=self.adaptation)
        check_word("SinabsALIF", "reset", self.reset, ("subtract", "zero"))

    @property
    def gain(self) -> Value:
        """``1 - decay`` where the input is scaled, else 1."""
        return 1 - self.decay if self.scaled else 1.0

    def past(self, state: SinabsAdaptiveState) -> Tensor:
        """``decay v - scale b``: (B, H). As in sinabs, a spike has no gradient with respect to its threshold."""
        return self.decay * state.v_mem - self.scale * state.b.detach()

    def advance(self, state: SinabsAdaptiveState, current: Tensor, spike: Tensor) -> SinabsAdaptiveState:
        """Membrane after the reset and the lower bound, and adaptation: (B, H) each."""
        h = self.decay * state.v_mem + self.gain * current
        in_force = self.threshold + self.scale * state.b
        v = h * (1 - spike) if self.reset == "zero" else h - spike * in_force
        if self.least is not None:
            v = (v - self.least).clamp_min(0.0) + self.least
        return SinabsAdaptiveState(v, self.adaptation * state.b + (1 - self.adaptation) * spike)
