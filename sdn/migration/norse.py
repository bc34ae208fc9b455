"""Neurons of norse 1.1: LIFBoxCell, IAFCell, and LIFCell and LIF with their synaptic current."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn.checks.arguments import shown
from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import MultiGaussian, SpikeGradient
from sdn.migration.answer import Migrated
from sdn.migration.gradients import FastSigmoid, Hat, Logistic
from sdn.migration.reading import Makers, learned, number, read, refuse, unless
from sdn.migration.steps import StrictEulerLIF, check_closed

__all__ = ["NorseLIF", "from_norse"]

WHO = "from_norse"


class NorseState(NamedTuple):
    """Membrane ``v`` after the reset, counted from ``v_leak``, and synaptic current ``i``, (B, H) each."""

    v: Tensor
    i: Tensor


@dataclass(frozen=True, eq=False)
class NorseLIF(Dynamics):
    """``i += input``, ``h = v + rate_mem (i - v)``, ``i -= rate_syn i``; fires above the threshold.

    Then ``v = h (1 - spike) + reset_to spike``.

    Args:
        rate_mem: ``dt tau_mem_inv``, in [0, 1]; a number or (H,).
        rate_syn: ``dt tau_syn_inv``, in [0, 1]; a number or (H,).
        threshold: ``v_th - v_leak``, > 0; a number or (H,).
        reset_to: ``v_reset - v_leak``; a number or (H,).

    Source: Pehle and Pedersen, norse, 2021 (doi 10.5281/zenodo.4422025).
    """

    rate_mem: Value = 0.1
    rate_syn: Value = 0.2
    threshold: Value = 1.0
    reset_to: Value = 0.0

    State = NorseState
    fires_at_threshold: ClassVar[bool] = False
    default_spike: ClassVar[SpikeGradient] = FastSigmoid(1.0)
    transforms: ClassVar[dict[str, str]] = {"rate_mem": "logit", "rate_syn": "logit", "threshold": "log"}
    ranges: ClassVar[Mapping[str, Field]] = {"threshold": Field("of the membrane")}

    def __post_init__(self) -> None:
        check_closed("NorseLIF", rate_mem=self.rate_mem, rate_syn=self.rate_syn)

    @property
    def gain(self) -> Value:
        """The rate of the membrane."""
        return self.rate_mem

    def past(self, state: NorseState) -> Tensor:
        """What leak and current make of the membrane: (B, H)."""
        return state.v + self.rate_mem * (state.i - state.v)

    def advance(self, state: NorseState, current: Tensor, spike: Tensor) -> NorseState:
        """Membrane after the reset, and current after its decay: (B, H) each."""
        h, i = self.past(state) + self.rate_mem * current, state.i + current
        return NorseState(h * (1 - spike) + self.reset_to * spike, i - self.rate_syn * i)


IGNORED = ("sparse", "record_states")
_RECURRENT = (
    "reads its own spikes; read the neuron as LIFCell by its parameters, found = sdn.from_norse(p, dt=dt), and run "
    "sdn.recurrent(x, torch.cat([input_weights, recurrent_weights], 1), found.dynamics, spike_gradient=found.spike)"
)
_OTHER = "is none of LIFCell, LIF, LIFBoxCell and IAFCell; write its step as an sdn.Dynamics, see docs/neurons.md"
ELSEWHERE = {
    **dict.fromkeys(("LIFRecurrent", "LIFRecurrentCell"), _RECURRENT),
    **dict.fromkeys(
        ("LI", "LICell", "LILinearCell", "LIBoxCell"),
        "never spikes; Euler's step of its membrane is sdn.scan(a, b) with a = 1 - dt tau_mem_inv, both (B, L, H)",
    ),
    **dict.fromkeys(
        (
            "LIFAdEx", "LIFAdExCell", "LIFEx", "LIFExCell", "LSNN", "LSNNCell", "LSNNRecurrent", "LSNNRecurrentCell",
            "IzhikevichCell", "Izhikevich", "CobaLIFCell", "LIFRefracCell", "LIFMCRecurrentCell", "Lift",
        ),
        _OTHER,
    ),
}  # fmt: skip
PARAMETERS = {"LIFParameters": "LIFCell", "LIFBoxParameters": "LIFBoxCell", "IAFParameters": "IAFCell"}


def from_norse(neuron: Any = "LIFCell", **values: Any) -> Migrated:
    """A neuron of norse, which gives the same spikes for the same input here.

    Membranes are counted from ``v_leak`` here (of IAFCell from ``v_reset``), where theirs start.

    Args:
        neuron: LIFCell, LIF, LIFBoxCell, IAFCell or IAF; or parameters such as ``LIFParameters(...)``; or the name of
            the class, then with its values by keyword.
        values: keywords as norse names them, such as ``tau_mem_inv=100.0, dt=0.001``. They go before those of
            ``neuron``.

    Returns:
        the dynamics, spike gradient and notes, see `Migrated`.

    Raises:
        ArgumentError: a neuron or an option that cannot be held. The sentence says why and what to do.
        ValueError: a value out of range.

    Example:
        >>> found = sdn.from_norse(norse.LIFCell(dt=0.001))  # or sdn.from_norse(norse.LIFParameters(), dt=0.001)
        >>> spikes, state = found.neuron(128)(current)  # (B, L, 128), norse has time first
    """
    makers: Makers = {"LIFCell": _lif, "LIF": _lif, "LIFBoxCell": _box, "IAFCell": _iaf, "IAF": _iaf}
    if (kind := type(neuron).__name__) in PARAMETERS:
        values = {**_fields(neuron), **values}
        neuron = PARAMETERS[kind]
    name, found = read(WHO, neuron, values, makers, elsewhere=ELSEWHERE, ignored=IGNORED, attributes=_attributes)
    return makers[name](name, **found)  # type: ignore[no-any-return]


def _attributes(cell: Any, name: str) -> dict[str, Any]:
    return _fields(cell.p) | {"dt": cell.dt}


def _fields(parameters: Any) -> dict[str, Any]:
    """Parameters as keywords, whether they are a named tuple or a module."""
    names = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset", "method", "alpha", "reset_method")
    return {name: getattr(parameters, name) for name in names if hasattr(parameters, name)}


def _lif(
    kind: str,
    /,
    *,
    tau_syn_inv: Any = 200.0,
    tau_mem_inv: Any = 100.0,
    v_leak: Any = 0.0,
    v_th: Any = 1.0,
    v_reset: Any = 0.0,
    method: str = "super",
    alpha: Any = 100.0,
    dt: float = 0.001,
) -> Migrated:
    threshold, to = _levels(v_th, v_leak, v_reset)
    mem, syn = _rate("tau_mem_inv", tau_mem_inv, dt), _rate("tau_syn_inv", tau_syn_inv, dt)
    dynamics = NorseLIF(mem, syn, threshold, to)
    step = "Euler: decay of the membrane is 1 - dt tau_mem_inv, of the current 1 - dt tau_syn_inv"
    learns = learned(rate_mem=tau_mem_inv, rate_syn=tau_syn_inv, threshold=v_th)
    return _found(
        kind, dynamics, step, "times dt tau_mem_inv, in its own step", "v_leak", v_leak, method, alpha, learns
    )


def _box(
    kind: str,
    /,
    *,
    tau_mem_inv: Any = 100.0,
    v_leak: Any = 0.0,
    v_th: Any = 1.0,
    v_reset: Any = 0.0,
    method: str = "super",
    alpha: Any = 100.0,
    reset_method: Any = "reset_value",
    dt: float = 0.001,
) -> Migrated:
    word = reset_method if isinstance(reset_method, str) else getattr(reset_method, "__name__", shown(reset_method))
    unless(
        WHO, word in ("reset_value", "reset_subtract"), f"reset_method={word}",
        "only reset_value and reset_subtract are known", "Write reset_method='reset_value' to read the neuron with it",
    )  # fmt: skip
    soft = word == "reset_subtract"
    unless(
        WHO, not soft or not torch.as_tensor(v_leak).any(), f"reset_subtract with v_leak={shown(v_leak)}",
        "norse subtracts v_th, which is another number than the way up from v_leak", "Shift v_th so that v_leak is 0",
    )  # fmt: skip
    threshold, to = _levels(v_th, v_leak, v_reset)
    rate = _rate("tau_mem_inv", tau_mem_inv, dt)
    dynamics = StrictEulerLIF(rate, threshold, "soft" if soft else "hard", reset_to=0.0 if soft else to)
    step = "Euler: decay is 1 - dt tau_mem_inv"
    learns = learned(rate=tau_mem_inv, threshold=v_th)
    return _found(kind, dynamics, step, "times dt tau_mem_inv", "v_leak", v_leak, method, alpha, learns)


def _iaf(
    kind: str,
    /,
    *,
    v_th: Any = 1.0,
    v_reset: Any = 0.0,
    method: str = "super",
    alpha: Any = 100.0,
    dt: float = 0.001,
) -> Migrated:
    threshold, _ = _levels(v_th, v_reset, v_reset)
    dynamics = StrictEulerLIF(0.0, threshold, "hard", scaled=False)
    learns = learned(threshold=v_th)
    return _found(kind, dynamics, "no leak, dt is not used", "x1", "v_reset", v_reset, method, alpha, learns)


def _rate(name: str, inverse: Any, dt: float) -> Value:
    """Length of a step over a time constant, rounded as norse rounds it."""
    number(WHO, "dt", dt)
    checked = number(WHO, name, inverse)
    rate = number(WHO, f"dt {name}", dt * (checked if isinstance(inverse, (list, tuple)) else inverse))
    least, most = (f(torch.as_tensor(rate)).item() for f in (torch.min, torch.max))
    unless(
        WHO, least >= 0 and most <= 1, f"dt {name} = {most if most > 1 else least:g}",
        "Euler's step overshoots where the time constant is shorter than dt",
        f"Give a dt of at most 1 / {name}; LIFCell's defaults are per second, with dt=0.001",
    )  # fmt: skip
    return rate


def _levels(v_th: Any, rest: Any, v_reset: Any) -> tuple[Value, Value]:
    """Threshold and reset, counted from rest."""
    names = ("v_th", v_th), ("v_leak", rest), ("v_reset", v_reset)
    high, low, to = (number(WHO, name, value) for name, value in names)
    if not bool((torch.as_tensor(high - low) > 0).all()):
        option = f"v_th={shown(v_th)} with a rest of {shown(rest)}"
        raise refuse(WHO, option, "the neuron would rest at or above its threshold", "Give a v_th above it")
    return high - low, to - low


def _found(
    kind: str, dynamics: Any, step: str, gain: str, rest: str, value: Any, method: str, alpha: Any,
    learns: tuple[str, ...],
) -> Migrated:  # fmt: skip
    spike, gradient = _gradient(method, number(WHO, "alpha", alpha))
    soft = getattr(dynamics, "reset", "hard") == "soft"
    notes = {
        "step": step,
        "input": gain,
        "comparison": "fires above the threshold, not at it (>)",
        "reset": f"{'subtracts v_th' if soft else 'to v_reset'}, in the step of the spike; gradients flow through it",
        "gradient": gradient,
        "state": f"goes in and comes out: {', '.join(dynamics.State._fields)}; None is rest, which is {rest}",
        "axes": "(batch, time, channels); norse has time first: x.transpose(0, 1)",
    }
    if torch.as_tensor(value).any():
        notes["state"] += f"; membranes are counted from {rest}: ours = theirs - {shown(number(WHO, rest, value))}"
    if learns:
        notes["learned"] = f"{', '.join(learns)}: one value a channel, through logit or log, so steps differ"
    return Migrated(f"norse {kind}", dynamics, spike, learns, False, notes)


def _gradient(method: str, alpha: Any) -> tuple[SpikeGradient, str]:
    """Their threshold function, by its word."""
    known: dict[str, Any] = {
        "super": lambda: FastSigmoid(1.0),
        "triangle": lambda: Hat(1.0, alpha),
        "tanh": lambda: Logistic(2 * alpha),
        "heavi_erfc": lambda: MultiGaussian(0.0, 0.5**0.5 / alpha, gain=2 / math.pi**0.5),
    }
    if method in known and not isinstance(alpha, Tensor):
        found = known[method]()
        odd = " (norse 1.1 does not use alpha there)" if method == "super" else f", alpha={alpha:g}"
        return found, f"{method}{odd} -> {found}, the same function"
    return FastSigmoid(1.0), f"{method} has no counterpart: FastSigmoid(1.0) stands here; write yours with slope(v)"
