"""Neurons of SpikingJelly 2.0: IFNode, LIFNode and ParametricLIFNode, and their surrogate functions."""

import math
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.dynamics import LIF
from sdn.dynamics.base import Dynamics, Value
from sdn.gradients import ArcTan, MultiGaussian, Sigmoid, SpikeGradient, Triangle
from sdn.migration.answer import Migrated
from sdn.migration.gradients import Exponential, FastSigmoid, Rectangle
from sdn.migration.reading import Makers, is_own, learned, number, read, refuse, unless
from sdn.migration.steps import EulerLIF

__all__ = ["from_spikingjelly"]

WHO = "from_spikingjelly"
IGNORED = ("step_mode", "backend", "store_v_seq")
_OTHER = "is none of IFNode, LIFNode and ParametricLIFNode; write its step as an sdn.Dynamics, see docs/neurons.md"
ELSEWHERE = {
    **dict.fromkeys(
        (
            "CUBALIFNode", "KLIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "GatedLIFNode", "LIAFNode", "PSN",
            "ComplementaryLIFNode", "DSRIFNode", "DSRLIFNode", "ILIFNode", "HalfThresholdIFNode", "MaskedPSN",
            "SlidingPSN", "AdaptBaseNode", "SimpleLIFNode", "SimpleIFNode",
        ),
        _OTHER,
    ),
    **dict.fromkeys(
        ("NonSpikingLIFNode", "NonSpikingIFNode"),
        "never spikes; its membrane is sdn.scan(a, b) with a = 1 - 1/tau and b = x / tau, both (B, L, H)",
    ),
}  # fmt: skip


def from_spikingjelly(neuron: Any = "LIFNode", **values: Any) -> Migrated:
    """A neuron of SpikingJelly, which gives the same spikes for the same input here.

    Membranes are counted from ``v_reset`` here, where theirs rest: ours are theirs minus ``v_reset``.

    Args:
        neuron: IFNode, LIFNode or ParametricLIFNode, or the name of the class, then with its values by keyword.
        values: keywords as SpikingJelly names them, such as ``tau=2.0, v_reset=None``. They go before those of
            ``neuron``.

    Returns:
        the dynamics, spike gradient and notes, see `Migrated`. The dynamics of a LIFNode without ``decay_input`` is a
        plain `sdn.LIF`.

    Raises:
        ArgumentError: a neuron or an option that cannot be held. The sentence says why and what to do.
        ValueError: a value out of range.

    Example:
        >>> found = sdn.from_spikingjelly(neuron.LIFNode(tau=2.0))  # or sdn.from_spikingjelly("LIFNode", tau=2.0)
        >>> spikes, state = found.neuron(128)(current)  # (B, L, 128), SpikingJelly has time first
    """
    makers: Makers = {"LIFNode": _lif, "ParametricLIFNode": _plif, "IFNode": _if}
    name, found = read(WHO, neuron, values, makers, elsewhere=ELSEWHERE, ignored=IGNORED, attributes=_attributes)
    return makers[name](name, **found)  # type: ignore[no-any-return]


def _attributes(node: Any, name: str) -> dict[str, Any]:
    """The weight of a ParametricLIFNode is the logit of 1/tau."""
    return {"init_tau": 1 / node.w.sigmoid()} if name == "ParametricLIFNode" else {}


def _lif(
    kind: str,
    /,
    *,
    tau: Any = 2.0,
    decay_input: bool = True,
    v_threshold: Any = 1.0,
    v_reset: Any = 0.0,
    surrogate_function: Any = None,
    detach_reset: bool = False,
) -> Migrated:
    steps = number(WHO, "tau", tau)
    least = steps.min().item() if isinstance(steps, Tensor) else steps
    way = f"sdn.LIF.from_tau({least:g}) takes such a tau, with a decay of exp(-1/tau)"
    unless(
        WHO, least >= 1, f"tau={shown(tau)}", "Euler's step overshoots where tau is below one step",
        way if least > 0 else "Give a tau of at least 1, in steps",
    )  # fmt: skip
    threshold, reset = _threshold(v_threshold, v_reset)
    parametric = kind == "ParametricLIFNode"
    rate = 1 / steps
    if decay_input or parametric or not bool((torch.as_tensor(rate) > 0).all()):
        dynamics: Dynamics = EulerLIF(rate, threshold, reset, scaled=bool(decay_input))
    else:
        dynamics = LIF(1 - rate, threshold, reset)
    field = "decay" if isinstance(dynamics, LIF) else "rate"
    learns = (field,) if parametric or learned(tau=tau) else ()
    dynamic = "Euler: decay is 1 - 1/tau, tau in steps (an exact exponential would be exp(-1/tau))"
    gain = "divided by tau (decay_input=True)" if decay_input else "x1 (decay_input=False)"
    return _found(kind, dynamics, dynamic, gain, v_reset, surrogate_function, detach_reset, learns)


def _plif(
    kind: str,
    /,
    *,
    init_tau: Any = 2.0,
    decay_input: bool = True,
    v_threshold: Any = 1.0,
    v_reset: Any = 0.0,
    surrogate_function: Any = None,
    detach_reset: bool = False,
) -> Migrated:
    return _lif(
        kind, tau=init_tau, decay_input=decay_input, v_threshold=v_threshold, v_reset=v_reset,
        surrogate_function=surrogate_function, detach_reset=detach_reset,
    )  # fmt: skip


def _if(
    kind: str,
    /,
    *,
    v_threshold: Any = 1.0,
    v_reset: Any = 0.0,
    surrogate_function: Any = None,
    detach_reset: bool = False,
) -> Migrated:
    threshold, reset = _threshold(v_threshold, v_reset)
    dynamics = EulerLIF(0.0, threshold, reset, scaled=False)
    return _found(kind, dynamics, "no leak", "x1", v_reset, surrogate_function, detach_reset, ())


def _threshold(v_threshold: Any, v_reset: Any) -> tuple[Value, Any]:
    """The threshold above rest, and the word of the reset."""
    threshold = number(WHO, "v_threshold", v_threshold)
    if v_reset is None:
        return threshold, "soft"
    above = threshold - number(WHO, "v_reset", v_reset)
    if not bool((torch.as_tensor(above) > 0).all()):
        option = f"v_threshold={shown(v_threshold)} with v_reset={shown(v_reset)}"
        raise refuse(WHO, option, "the neuron would rest at or above its threshold", "Give a v_reset below v_threshold")
    return above, "hard"


def _found(
    kind: str, dynamics: Any, step: str, gain: str, v_reset: Any, function: Any, detach: bool, learns: tuple[str, ...]
) -> Migrated:
    spike, gradient = _gradient(function)
    to = "subtracts the threshold (v_reset=None)" if v_reset is None else f"to v_reset={shown(v_reset)}"
    notes = {
        "step": step,
        "input": gain,
        "comparison": "fires at the threshold and above (>=)",
        "reset": f"{to}, in the step of the spike; gradients {'do not flow' if detach else 'flow'} through it",
        "gradient": gradient,
        "state": "goes in and comes out, None is rest: no functional.reset_net",
        "axes": "(batch, time, channels); step_mode='m' has time first: x.transpose(0, 1)",
    }
    if v_reset is not None and torch.as_tensor(v_reset).any():
        notes["state"] += f"; membranes are counted from v_reset: ours = theirs - {shown(v_reset)}"
    if learns == ("rate",):
        notes["learned"] = "rate = 1/tau = sigmoid(w), the same parameter w; one a channel here, one a layer there"
    elif learns:
        notes["learned"] = "decay = 1 - 1/tau, through its logit, so steps differ"
    return Migrated(f"SpikingJelly {kind}", dynamics, spike, learns, bool(detach), notes)


def _gradient(function: Any) -> tuple[SpikeGradient, str]:
    """Their surrogate function, by its class and parameters."""
    if function is None:
        return Sigmoid(4.0), "Sigmoid(alpha=4.0), the default -> the same function"
    if is_own(function):
        return function, f"{shown(function)}, as given"
    if isinstance(function, str):
        way = "surrogate.ATan() of SpikingJelly, or None for its default"
        raise ArgumentError(f"{WHO}: surrogate_function must be an object such as {way}, got {function!r:.40}.")
    name = type(function).__name__
    if getattr(function, "spiking", True) is False:
        raise refuse(
            WHO, f"{name}(spiking=False)", "it gives no spikes but its smooth stand-in", "Build it with spiking=True"
        )
    alpha = float(getattr(function, "alpha", 1.0))
    known: dict[str, Any] = {
        "Sigmoid": lambda: Sigmoid(alpha),
        "ATan": lambda: ArcTan(alpha),
        "PiecewiseQuadratic": lambda: Triangle(1 / alpha),
        "PiecewiseExp": lambda: Exponential(1 / alpha, alpha / 2),
        "SoftSign": lambda: FastSigmoid(alpha, alpha / 2),
        "SuperSpike": lambda: FastSigmoid(1.0, alpha),
        "Erf": lambda: MultiGaussian(0.0, 1 / (alpha * math.sqrt(2)), normalised=True),
        "Rect": lambda: Rectangle(1 / alpha),
    }
    if name in known:
        found = known[name]()
        return found, f"{name}(alpha={alpha:g}) -> {found}, the same function"
    return Sigmoid(4.0), f"{name} has no counterpart: Sigmoid(4.0) stands here; write yours as an object with slope(v)"
