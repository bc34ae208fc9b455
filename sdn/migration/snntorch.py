"""Neurons of snnTorch 1.0: Leaky, Lapicque, Synaptic and Alpha, whose reset comes one step after the spike."""

from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, shown
from sdn.dynamics.base import Value
from sdn.gradients import ArcTan, Sigmoid, SpikeGradient
from sdn.migration.answer import Migrated
from sdn.migration.gradients import FastSigmoid, StraightThrough
from sdn.migration.reading import Makers, is_own, learned, number, read, refuse, unless
from sdn.migration.snntorch_steps import RESETS, SnnTorchAlpha, SnnTorchLeaky, SnnTorchSynaptic
from sdn.migration.steps import check_word

__all__ = ["from_snntorch"]

WHO = "from_snntorch"


def from_snntorch(neuron: Any = "Leaky", **values: Any) -> Migrated:
    """A neuron of snnTorch, which gives the same spikes for the same input here.

    Args:
        neuron: Leaky, Lapicque, Synaptic or Alpha, or the name of the class, then with its values by keyword.
        values: keywords as snnTorch names them, such as ``beta=0.9``. They go before those of ``neuron``.

    Returns:
        the dynamics, spike gradient and notes, see `Migrated`. A membrane of the state is snnTorch's.

    Raises:
        ArgumentError: a neuron or an option that cannot be held. The sentence says why and what to do.
        ValueError: a value out of range.

    Example:
        >>> found = sdn.from_snntorch(snntorch.Leaky(beta=0.9))  # or sdn.from_snntorch("Leaky", beta=0.9)
        >>> print(found)
        >>> spikes, state = found.neuron(128)(current)  # (B, L, 128), snnTorch has time first
    """
    makers: Makers = {"Leaky": _leaky, "Lapicque": _lapicque, "Synaptic": _synaptic, "Alpha": _alpha}
    name, found = read(WHO, neuron, values, makers, elsewhere=ELSEWHERE, ignored=IGNORED, common=COMMON)
    _check_common(*(found.pop(option, default) for option, default in COMMON.items()))
    check_word(WHO, "reset_mechanism", found.get("reset_mechanism", RESETS[0]), RESETS)
    for key in ("alpha", "beta", "threshold"):
        if values.get(f"learn_{key}") and key in (*found, "threshold"):  # by name: an object has parameters for it
            found[key] = torch.as_tensor(found.get(key, 1.0), dtype=torch.float64).detach().clone().requires_grad_()
    return makers[name](name, **found)  # type: ignore[no-any-return]


COMMON = {"inhibition": False, "state_quant": False, "graded_spikes_factor": 1.0}
"""Options of every neuron that cannot be held, and the value at which they do nothing."""
IGNORED = ("init_hidden", "output", "learn_beta", "learn_threshold", "learn_alpha", "learn_graded_spikes_factor")
_RECURRENT = (
    "reads its own spikes; read the neuron as {0} by its values, found = sdn.from_snntorch({1}, beta=neuron.beta, "
    "...), and run sdn.recurrent(x, weight, found.dynamics, bias=bias, spike_gradient=found.spike, "
    "detach_reset=True) with weight = torch.cat([torch.eye(H), V], 1), V (H, H) its recurrent weight"
)
ELSEWHERE = {
    "RLeaky": _RECURRENT.format("Leaky", '"Leaky"'),
    "RSynaptic": _RECURRENT.format("Synaptic", '"Synaptic", alpha=...'),
    "LeakyParallel": "has no reset and is a layer with weights; use torch.nn.Linear and sdn.LIF(decay, reset='none')",
    **dict.fromkeys(
        ("SLSTM", "SConv2dLSTM", "AssociativeLeaky", "DeltaLeaky", "LinearLeaky", "LeakyKernel", "LeakyUnroll"),
        "is none of Leaky, Lapicque, Synaptic and Alpha; write its step as an sdn.Dynamics, see docs/neurons.md",
    ),
}


def _check_common(inhibition: Any, state_quant: Any, graded_spikes_factor: Any) -> None:
    unless(
        WHO, not inhibition, "inhibition=True", "it compares the neurons of a layer, and a step here is of one neuron",
        "Write inhibition=False to read the neuron without it",
    )  # fmt: skip
    unless(
        WHO, not state_quant, "state_quant", "rounding has no compiled form",
        "Write state_quant=False to read the neuron without it",
    )  # fmt: skip
    factor = number(WHO, "graded_spikes_factor", graded_spikes_factor)
    plain = not isinstance(factor, Tensor) and factor == 1 and not learned(factor=graded_spikes_factor)
    unless(
        WHO, plain, f"graded_spikes_factor={shown(graded_spikes_factor)}",
        "spikes here are 0 or 1",
        "Write graded_spikes_factor=1.0 and multiply the weights of the next layer by the factor",
    )  # fmt: skip


def _clamped(name: str, value: Any) -> Value:
    """Beta or alpha as snnTorch uses it, between 0 and 1."""
    found = number(WHO, name, value)
    return found.clamp(0, 1) if isinstance(found, Tensor) else min(max(found, 0.0), 1.0)


def _positive(name: str, value: Any) -> Value:
    """A value that must be above 0 and finite."""
    found = number(WHO, name, value)
    values = torch.as_tensor(found, dtype=torch.float64)
    if not bool(((values > 0) & values.isfinite()).all()):
        raise ArgumentError(f"{WHO}: {name} must be > 0 and finite, got {shown(value)}.")
    return found


def _leaky(
    kind: str,
    /,
    *,
    beta: Any,
    threshold: Any = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike_grad: Any = None,
) -> Migrated:
    decay = _clamped("beta", beta)
    dynamics = SnnTorchLeaky(decay, number(WHO, "threshold", threshold), reset_mechanism, bool(reset_delay))
    differs = ""
    if reset_mechanism == "zero":
        differs = 'sdn.LIF(beta, threshold, "hard") gives the same spikes, but that it also fires at equality'
    step = "beta is the factor per step, no time constant; here decay=beta"
    return _found(kind, dynamics, step, "x1", spike_grad, learned(decay=beta, threshold=threshold), differs)


def _lapicque(
    kind: str,
    /,
    *,
    R: Any,
    C: Any,
    time_step: Any = 1.0,
    threshold: Any = 1.0,
    reset_mechanism: str = "subtract",
    spike_grad: Any = None,
) -> Migrated:
    if reset_mechanism == "zero":
        raise _loses_input(kind, "Write reset_mechanism='subtract', or take Leaky")
    r, c, dt = (_positive(name, value) for name, value in (("R", R), ("C", C), ("time_step", time_step)))
    least = float(torch.as_tensor(r * c - dt, dtype=torch.float64).min())
    unless(
        WHO, least >= 0, f"time_step={shown(time_step)} with R={shown(R)} and C={shown(C)}",
        "Euler's step overshoots where R C, the time constant, is shorter than time_step",
        "Give a time_step of at most R C",
    )  # fmt: skip
    dynamics = SnnTorchLeaky(1 - dt / (r * c), number(WHO, "threshold", threshold), reset_mechanism, True, dt / c)
    step = "Euler: decay is 1 - time_step / (R C), its attribute beta is not used in a step"
    return _found(kind, dynamics, step, "times time_step / C", spike_grad, learned(threshold=threshold))


def _synaptic(
    kind: str,
    /,
    *,
    alpha: Any,
    beta: Any,
    threshold: Any = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike_grad: Any = None,
) -> Migrated:
    if reset_mechanism == "zero" and reset_delay:
        raise _loses_input(kind, "Write reset_delay=False, which resets at once, or reset_mechanism='subtract'")
    dynamics = SnnTorchSynaptic(
        _clamped("alpha", alpha), _clamped("beta", beta), number(WHO, "threshold", threshold), reset_mechanism,
        bool(reset_delay),
    )  # fmt: skip
    step = "alpha and beta are factors per step; the current of a step reaches the membrane in that step"
    learns = learned(alpha=alpha, beta=beta, threshold=threshold)
    return _found(kind, dynamics, step, "x1", spike_grad, learns)


def _alpha(
    kind: str,
    /,
    *,
    alpha: Any,
    beta: Any,
    threshold: Any = 1.0,
    reset_mechanism: str = "zero",
    spike_grad: Any = None,
) -> Migrated:
    dynamics = SnnTorchAlpha(
        _clamped("alpha", alpha), _clamped("beta", beta), number(WHO, "threshold", threshold), reset_mechanism
    )
    step = "alpha and beta are factors per step; the input cancels in its own step and is seen one step later"
    learns = learned(alpha=alpha, beta=beta, threshold=threshold)
    return _found(kind, dynamics, step, "x0 in its own step", spike_grad, learns)


def _loses_input(kind: str, way: str) -> Exception:
    why = f"{kind} also throws away the input of the step after a spike, and a neuron here takes every input"
    return refuse(WHO, "reset_mechanism='zero'", why, way)


def _found(
    kind: str, dynamics: Any, step: str, gain: str, grad: Any, learns: tuple[str, ...], differs: str = ""
) -> Migrated:
    spike, gradient = _gradient(grad)
    delayed = getattr(dynamics, "delayed", True)
    how = {"subtract": "subtracts the threshold", "zero": "to 0", "none": "none"}[dynamics.reset]
    when = ""
    if dynamics.reset != "none":
        when = ", one step after the spike" if delayed else ", in the step of the spike"
        when += " (reset_delay)" if kind in ("Leaky", "Synaptic") else ""
    notes = {
        "step": step,
        "input": gain,
        "comparison": "fires above the threshold, not at it (>)",
        "reset": f"{how}{when}; gradients {'do not flow' if delayed else 'flow'} through it",
        "gradient": gradient,
        "state": f"goes in and comes out: {', '.join(dynamics.State._fields)}, as snnTorch has them; rest is 0",
        "axes": "(batch, time, channels); snnTorch's loop has time first: x.transpose(0, 1)",
    }
    if learns:
        notes["learned"] = f"{', '.join(learns)}: one value a channel, through logit or log, so steps differ"
    if differs:
        notes["differs"] = differs
    return Migrated(f"snnTorch {kind}", dynamics, spike, learns, delayed, notes)


def _gradient(grad: Any) -> tuple[SpikeGradient, str]:
    """Their surrogate, by the name of the function that made it and what that function kept."""
    if grad is None:
        return ArcTan(), "atan(alpha=2.0), the default -> ArcTan(alpha=2.0), the same function"
    if is_own(grad):
        return grad, f"{shown(grad)}, as given"
    name = grad if isinstance(grad, str) else getattr(grad, "__qualname__", type(grad).__name__).split(".")[0]
    code, cells = getattr(grad, "__code__", None), getattr(grad, "__closure__", None) or ()
    kept = dict(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=True)) if code else {}
    known: dict[str, Any] = {
        "atan": lambda: ArcTan(float(kept.get("alpha", 2.0))),
        "sigmoid": lambda: Sigmoid(float(kept.get("slope", 25))),
        "fast_sigmoid": lambda: FastSigmoid(float(kept.get("slope", 25))),
        "straight_through_estimator": StraightThrough,
    }
    if name in known:
        found = known[name]()
        words = "the same function"
        if name == "sigmoid":
            words += f" (snnTorch's is NaN where its membrane is {88 / found.alpha:.2g} or more below the threshold)"
        return found, f"{name}({', '.join(f'{k}={v}' for k, v in kept.items())}) -> {found}, {words}"
    if isinstance(grad, str):
        raise ArgumentError(
            f"{WHO}: spike_grad must be a function of snntorch.surrogate or one of {', '.join(map(repr, known))}, got "
            f"{grad!r:.40}."
        )
    return ArcTan(), f"{name} has no counterpart: ArcTan() stands here; write yours as an object with slope(v)"
