"""What the fields and the states of a neuron must be; ``dynamics`` is a `sdn.Dynamics`."""

import math
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, init_fields, plain_number, shown
from sdn.checks.currents import refuse_current
from sdn.checks.finite import Diverged, demand_finite
from sdn.checks.tracing import has_numbers

__all__ = ["check_fields", "check_finite", "check_parameters", "check_range", "check_state", "locate"]


def check_fields(dynamics: Any, channels: int) -> None:
    """Refuse fields that are tensors of another number of channels, which would broadcast into another network.

    Raises:
        ValueError: a field that is neither one number nor (H,).
    """
    for name in init_fields(dynamics):
        value = getattr(dynamics, name)
        if (
            isinstance(value, Tensor)
            and value.ndim
            and (value.ndim > 1 or (len(value) != channels and len(value) != 1))
        ):
            who, shape = type(dynamics).__name__, tuple(value.shape)
            raise ValueError(f"{who}: {name} has shape {shape}, the current has {channels} channels.")


def check_state(dynamics: Any, state: Any, shape: tuple[int, ...], length: int | None = None) -> None:
    """Refuse a state of another kind of neuron, or of another shape; ``length`` is that of the current."""
    who, expected = type(dynamics).__name__, dynamics.State._fields
    found = getattr(state, "_fields", None)
    if found != expected:
        raise ArgumentError(
            f"{who}: the state must be a {dynamics.State.__name__}{expected}, got {type(state).__name__}; pass what "
            "the neuron returned, or None for rest."
        )
    for name, value in zip(expected, state, strict=True):
        if tuple(value.shape) != shape:
            first = "; where the current has time first, pass it as current.transpose(0, 1)"
            way = first if value.ndim == 2 and tuple(value.shape) == (length, *shape[1:]) else ""
            if not way and tuple(value.shape[1:]) == shape[1:]:
                way = "; it is of another batch, None is rest"
            found = f"state field {name!r} has shape {tuple(value.shape)}, this current needs {shape}{way}"
            raise ValueError(f"{who}: {found}.")


def check_parameters(dynamics: Any) -> None:
    """Refuse fields that are tensors with NaN or infinity: a threshold that is NaN is never reached, in silence."""
    fields = {name: value for name in init_fields(dynamics) if isinstance(value := getattr(dynamics, name), Tensor)}
    if not fields or not has_numbers(next(iter(fields.values()))):
        return
    who = type(dynamics).__name__

    def explain() -> None:
        for name, value in fields.items():
            wrong = ~torch.isfinite(value.detach()).reshape(-1)
            if wrong.any():
                neuron, of_it = int(wrong.int().argmax()), f"{int(wrong.sum())} of {wrong.numel()} neurons"
                raise Diverged(
                    f"{who}: {name} of neuron {neuron} is {value.detach().reshape(-1)[neuron]:g} ({of_it}); if it is "
                    "learned, lower the learning rate or clip the gradient."
                )

    demand_finite([*fields.values()], f"{who}: one of {', '.join(fields)}", explain)


def check_finite(dynamics: Any, state: Any, current: Tensor | None = None, first: Any = None) -> None:
    """Refuse a run that has diverged, which would otherwise end in silence: NaN never reaches a threshold.

    A NaN or an infinite current ends as NaN or infinity in the last state of every neuron here: with ``current`` given
    (not checked before), it is named first; with ``first``, the state before it, then the step and the neuron are.
    """
    if not has_numbers(state[0]):
        return
    who = type(dynamics).__name__

    def explain() -> None:
        if current is not None:
            refuse_current(who, current.detach())
        if current is not None and first is not None:
            _find_step(dynamics, current.detach(), first)
        raise Diverged(
            f"{who}: the state became NaN or infinite, so the neuron diverges with these parameters and currents; "
            f"{dynamics.when_diverging}."
        )

    demand_finite(state, f"{who}: the state", explain)


@torch.no_grad()
def _find_step(dynamics: Any, current: Tensor, state: Any) -> None:
    """Run once more, slowly, up to the first state that is not finite, and name its step and neuron."""
    locate(dynamics, state, -1)
    for t, now in enumerate(current.unbind(1)):
        fired = dynamics.fires(dynamics.past(state), now).to(now.dtype)
        state = dynamics.advance(state, now, fired)
        locate(dynamics, state, t)


def locate(dynamics: Any, state: Any, step: int) -> None:
    """Refuse a state that is not finite: name its step, row and neuron, and what that neuron's parameters are.

    Step -1 stands for the state before the first step.

    Raises:
        Diverged: a field of the state, (B, H), holds NaN or infinity.
    """
    bad = ~torch.isfinite(torch.stack([value.detach() for value in state])).all(0)
    if not bad.any():
        return
    row, neuron = bad.nonzero()[0].tolist()
    values = {name: getattr(dynamics, name) for name in dynamics.transforms}
    of_it = {k: float(v[neuron]) if isinstance(v, Tensor) and v.ndim else float(v) for k, v in values.items()}
    facts = ", ".join(f"{k} {v:.4g}" for k, v in of_it.items())
    when = f"became NaN or infinite at step {step}" if step >= 0 else "starts from a state that is NaN or infinite"
    raise Diverged(
        f"{type(dynamics).__name__}: neuron {neuron} of row {row} {when} ({facts}; "
        f"{int(bad.any(0).sum())} of {bad.shape[1]} neurons did); {dynamics.when_diverging}."
    )


def check_range(who: str, field: str, value: Any, low: float, high: float, hint: str = "", closed: bool = True) -> None:
    """Refuse a plain number outside [low, high) (or (low, high) where not closed); tensors pass unchecked."""
    if isinstance(value, Tensor) or torch.compiler.is_compiling():
        return
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        what = f"a {type(value).__name__}" if callable(value) else shown(value)
        drawn = f"; a start that is drawn goes into Neuron(learn={{'{field}': ...}})" if callable(value) else ""
        raise ArgumentError(f"{who}: {field} must be a number or numbers of shape (H,), got {what}{drawn}.")
    inside = (low <= value if closed else low < value) and value < high
    if not (inside and math.isfinite(value)):
        interval = f"{'[' if closed else '('}{low:g}, {high:g})"
        raise ValueError(f"{who}: {field} must be in {interval}, got {value}.{' ' + hint if hint else ''}")
