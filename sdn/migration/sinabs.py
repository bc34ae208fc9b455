"""Neurons of sinabs 3.1: IAF, LIF and ALIF with one spike a step."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.checks.arguments import shown
from sdn.dynamics.base import Value
from sdn.gradients import MultiGaussian, SpikeGradient
from sdn.migration.answer import Migrated
from sdn.migration.gradients import Exponential
from sdn.migration.reading import Makers, is_own, learned, number, read, refuse, unless
from sdn.migration.sinabs_steps import SinabsALIF, SinabsLIF

__all__ = ["from_sinabs"]

WHO = "from_sinabs"


IGNORED = ("shape", "record_states", "train_alphas", "batch_size", "num_timesteps")
_RECURRENT = (
    "reads its own spikes; read the neuron as {0} by its values, found = sdn.from_sinabs({0!r}, ...), and run "
    "sdn.recurrent(x, weight, found.dynamics, spike_gradient=found.spike) with weight = torch.cat([torch.eye(H), V], "
    "1), V (H, H) the weight of rec_connect"
)
ELSEWHERE = {
    **{f"{kind}Recurrent": _RECURRENT.format(kind) for kind in ("IAF", "LIF", "ALIF")},
    **dict.fromkeys(
        ("ExpLeak", "ExpLeakSqueeze"),
        "never spikes; its membrane is sdn.scan(a, b) with a = exp(-1/tau_mem) and b the input, both (B, L, H)",
    ),
}


def from_sinabs(neuron: Any = "LIF", **values: Any) -> Migrated:
    """A neuron of sinabs, which gives the same spikes for the same input here.

    IAF and LIF of sinabs give several spikes a step by default (``MultiSpike``). That cannot be held. With
    ``spike_fn="SingleSpike"`` the neuron is read as if it had been built with one spike a step.

    Args:
        neuron: IAF, LIF or ALIF (or its ...Squeeze), or the name of the class, then with its values by keyword.
        values: keywords as sinabs names them, such as ``tau_mem=20.0``. They go before those of ``neuron``.

    Returns:
        the dynamics, spike gradient and notes, see `Migrated`. States are those of sinabs.

    Raises:
        ArgumentError: a neuron or an option that cannot be held. The sentence says why and what to do.
        ValueError: a value out of range.

    Example:
        >>> found = sdn.from_sinabs(sinabs.layers.LIF(tau_mem=20.0, spike_fn=SingleSpike))
        >>> spikes, state = found.neuron(128)(current)  # (B, L, 128), as in sinabs
    """
    makers: Makers = {
        "LIF": _lif,
        "IAF": _iaf,
        "ALIF": _alif,
        "LIFSqueeze": _lif,
        "IAFSqueeze": _iaf,
        "ALIFSqueeze": _alif,
    }
    name, found = read(WHO, neuron, values, makers, elsewhere=ELSEWHERE, ignored=IGNORED, attributes=_attributes)
    return makers[name](name, **found)  # type: ignore[no-any-return]


def _attributes(layer: Any, name: str) -> dict[str, Any]:
    """The names of attributes that are others than those of keywords; decays where those are trained."""
    found: dict[str, Any] = {"spike_threshold": layer.b0} if hasattr(layer, "b0") else {}
    names = ("mem", "syn", "adapt")
    if getattr(layer, "train_alphas", False):
        found |= {f"tau_{n}": _Decay(getattr(layer, f"alpha_{n}")) for n in names if _has(layer, f"alpha_{n}")}
    return found


def _has(layer: Any, name: str) -> bool:
    return getattr(layer, name, None) is not None


class _Decay(NamedTuple):
    """A trained decay in the place of a time constant."""

    factor: Any


def _decay(name: str, tau: Any) -> Value:
    """``exp(-1/tau)`` in float32, as sinabs computes it."""
    if isinstance(tau, _Decay):
        return number(WHO, name, tau.factor)
    steps = torch.as_tensor(tau).detach().float()
    unless(
        WHO, bool((steps > 0).all()), f"{name}={shown(tau)}", "it is a time constant in steps, > 0",
        "sdn.LIF(decay) takes a decay itself",
    )  # fmt: skip
    return number(WHO, name, torch.exp(-1.0 / steps))


def _carries(tau: Any) -> Any:
    return tau.factor if isinstance(tau, _Decay) else tau


def _lif(
    kind: str,
    /,
    *,
    tau_mem: Any,
    tau_syn: Any = None,
    spike_threshold: Any = 1.0,
    spike_fn: Any = "MultiSpike",
    reset_fn: Any = "MembraneSubtract",
    surrogate_grad_fn: Any = None,
    min_v_mem: Any = None,
    norm_input: bool = True,
) -> Migrated:
    _single(spike_fn)
    reset, value = _reset(reset_fn)
    integrates = kind.startswith("IAF")
    dynamics = SinabsLIF(
        1.0 if integrates else _decay("tau_mem", tau_mem),
        number(WHO, "spike_threshold", spike_threshold),
        reset,
        bool(norm_input) and not integrates,
        None if tau_syn is None else _decay("tau_syn", tau_syn),
        value if reset == "subtract" else None,
        0.0 if reset == "subtract" or value is None else value,
        None if min_v_mem is None else number(WHO, "min_v_mem", min_v_mem),
    )
    step = "no leak" if integrates else "exact: decay is exp(-1/tau_mem), tau in steps"
    gain = "times 1 - decay (norm_input)" if dynamics.scaled else "x1"
    if tau_syn is not None:
        gain += ", through i = exp(-1/tau_syn) (i + input)"
    learns = learned(decay=_carries(tau_mem), synapse=_carries(tau_syn))
    return _found(kind, dynamics, step, gain, surrogate_grad_fn, learns)


def _iaf(
    kind: str,
    /,
    *,
    spike_threshold: Any = 1.0,
    spike_fn: Any = "MultiSpike",
    reset_fn: Any = "MembraneSubtract",
    surrogate_grad_fn: Any = None,
    tau_syn: Any = None,
    min_v_mem: Any = None,
) -> Migrated:
    return _lif(
        kind, tau_mem=None, tau_syn=tau_syn, spike_threshold=spike_threshold, spike_fn=spike_fn, reset_fn=reset_fn,
        surrogate_grad_fn=surrogate_grad_fn, min_v_mem=min_v_mem,
    )  # fmt: skip


def _alif(
    kind: str,
    /,
    *,
    tau_mem: Any,
    tau_adapt: Any,
    tau_syn: Any = None,
    adapt_scale: Any = 1.8,
    spike_threshold: Any = 1.0,
    spike_fn: Any = "SingleSpike",
    reset_fn: Any = "MembraneSubtract",
    surrogate_grad_fn: Any = None,
    min_v_mem: Any = None,
    norm_input: bool = True,
) -> Migrated:
    _single(spike_fn)
    reset, value = _reset(reset_fn)
    unless(WHO, tau_syn is None, "tau_syn of ALIF", "its current is scaled anew in every step", "Write tau_syn=None")
    unless(
        WHO, value is None or (reset == "zero" and value == 0), f"{shown(reset_fn)} of ALIF",
        "only the threshold in force and 0 are known", "Build it with MembraneSubtract() or MembraneReset()",
    )  # fmt: skip
    dynamics = SinabsALIF(
        _decay("tau_mem", tau_mem),
        _decay("tau_adapt", tau_adapt),
        number(WHO, "adapt_scale", adapt_scale),
        number(WHO, "spike_threshold", spike_threshold),
        reset,
        bool(norm_input),
        None if min_v_mem is None else number(WHO, "min_v_mem", min_v_mem),
    )
    step = "exact: decays are exp(-1/tau), tau in steps; a spike raises the threshold from the next step on"
    gain = "times 1 - decay (norm_input)" if norm_input else "x1"
    learns = learned(decay=_carries(tau_mem), adaptation=_carries(tau_adapt))
    return _found(kind, dynamics, step, gain, surrogate_grad_fn, learns)


def _single(spike_fn: Any) -> None:
    word = spike_fn if isinstance(spike_fn, str) else getattr(spike_fn, "__name__", type(spike_fn).__name__)
    if spike_fn is None:
        raise refuse(WHO, "spike_fn=None", "it never spikes", "Its membrane without a reset is sdn.scan(a, b)")
    unless(
        WHO, word == "SingleSpike", f"spike_fn={word}", "it gives several spikes a step, and a neuron here 0 or 1",
        'Build the layer with spike_fn=SingleSpike, or write from_sinabs(..., spike_fn="SingleSpike")',
    )  # fmt: skip


def _reset(reset_fn: Any) -> tuple[str, Any]:
    """The word of the reset, and its value where it has one."""
    word = reset_fn if isinstance(reset_fn, str) else type(reset_fn).__name__
    if word not in ("MembraneSubtract", "MembraneReset"):
        raise refuse(
            WHO, f"reset_fn={shown(reset_fn)}", "only MembraneSubtract and MembraneReset are known",
            "Write your neuron's step as an sdn.Dynamics, see docs/neurons.md",
        )  # fmt: skip
    if word == "MembraneSubtract":
        value = getattr(reset_fn, "subtract_value", None)
        return "subtract", None if value is None else number(WHO, "subtract_value", value)
    return "zero", number(WHO, "reset_value", getattr(reset_fn, "reset_value", 0.0))


def _found(kind: str, dynamics: Any, step: str, gain: str, function: Any, learns: tuple[str, ...]) -> Migrated:
    spike, gradient = _gradient(function, dynamics.threshold)
    zero = dynamics.reset == "zero"
    what = "to 0" if zero else "subtracts the threshold"
    if zero and getattr(dynamics, "reset_to", 0.0) != 0:
        what = f"to 0, and every step adds reset_value={dynamics.reset_to:g}, as sinabs computes it"
    if (value := getattr(dynamics, "subtract", None)) is not None:
        what = f"subtracts {shown(value)}"
    notes = {
        "step": step,
        "input": gain,
        "comparison": "fires at the threshold and above (>=), one spike a step at most",
        "reset": f"{what}, in the step of the spike; gradients {'do not flow' if zero else 'flow'} through it",
        "gradient": gradient,
        "state": f"goes in and comes out: {', '.join(dynamics.State._fields)}; None is rest: no reset_states()",
        "axes": "(batch, time, channels), as in sinabs; (B, T, C, H, W) is x.flatten(2)",
    }
    if kind.startswith("ALIF"):
        notes["differs"] = "the surrogate gradient of sinabs is as wide as the threshold in force, ours as that at rest"
    if learns:
        notes["learned"] = f"{', '.join(learns)}: sinabs trains tau (or the decay), here its logit, so steps differ"
    return Migrated(f"sinabs {kind}", dynamics, spike, learns, zero, notes)


def _gradient(function: Any, threshold: Any) -> tuple[SpikeGradient, str]:
    """Their surrogate gradient, by its class and parameters; its width is relative to the threshold."""
    if is_own(function):
        return function, f"{shown(function)}, as given"
    name = "SingleExponential" if function is None else type(function).__name__
    scale, sigma = (float(getattr(function, key, default)) for key, default in (("grad_scale", 1.0), ("sigma", 0.5)))
    if name == "SingleExponential" and not isinstance(threshold, Tensor):
        width = float(getattr(function, "grad_width", 0.5)) * threshold
        found: SpikeGradient = Exponential(width, scale / width)
    elif name == "Gaussian" and not getattr(function, "mu", 0.0):
        found = MultiGaussian(0.0, sigma, gain=scale, normalised=True)
    elif name == "MultiGaussian" and not getattr(function, "mu", 0.0):
        found = MultiGaussian(float(function.h), sigma, float(function.s), scale, normalised=True)
    else:
        note = f"{name} has no counterpart here: Exponential(0.5, 2.0) stands for it; write yours with slope(v)"
        return Exponential(0.5, 2.0), note
    return found, f"{name} -> {found}, the same function"
