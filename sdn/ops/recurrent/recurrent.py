"""A recurrent layer of neurons: each reads the input and the last spikes of all of them."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sdn.checks.arguments import check_tensor
from sdn.checks.axes import mend
from sdn.checks.finite import Diverged, at_once, demand, demand_finite, nothing
from sdn.checks.neurons import locate
from sdn.checks.tracing import has_numbers
from sdn.checks.trees import as_tree
from sdn.dynamics.base import Dynamics, State, at_start, check_dynamics
from sdn.gradients import SpikeGradient, check_gradient, spike
from sdn.ops.common.place import check_kind
from sdn.ops.neuron.sequence import operands, state_of
from sdn.ops.recurrent import operator as kernel

__all__ = ["RecurrentState", "recurrent"]


@as_tree
class RecurrentState(NamedTuple):
    """State after a step: that of the neurons, a NamedTuple of (B, H), and their spikes, (B, H) of 0 and 1."""

    neuron: State
    spike: Tensor


def recurrent(
    x: Tensor,
    weight: Tensor,
    dynamics: Dynamics,
    initial: RecurrentState | None = None,
    *,
    bias: Tensor | None = None,
    spike_gradient: SpikeGradient | None = None,
    detach_reset: bool = False,
    solver: str = "fused",
) -> tuple[Tensor, RecurrentState]:
    """Spikes of H neurons that are connected with each other, over a whole sequence, and their last state.

        current[t] = bias + weight [x[t]; spike[t-1]],    spike[t], state[t] = one step of the neuron, as in `simulate`

    Spikes at t depend on those at t-1 through the weights, so that no solver can be parallel in time. Gradients flow to
    x, weight, bias, the fields of the neuron that are tensors, and the initial state.

    Args:
        x: (B, L, C) float32 or float64, L >= 1.
        weight: (H, C + H): the columns of the inputs, then those of the neurons.
        dynamics: the neuron; tensor fields are (H,).
        initial: state before the first step; None is rest, without spikes. Chunks one after another equal the whole.
        bias: (H,), or None.
        spike_gradient: the slope used where the step has none; None is the dynamics' own.
        detach_reset: keep gradients from flowing through the spike into the neuron's own state. Through the weights
            they flow in any case.
        solver: "fused": one compiled operator. What a step costs goes by the events: inputs
            that are not 0, and neurons that fire. The backward pass computes the states again from every 16th, so that
            beyond input, output and their gradients a training step takes 4 S / 16 bytes a neuron and step in float32,
            S fields of state. "loop": step by step in torch, the reference, for every dynamics.

    Returns:
        spikes (B, L, H), 0 or 1, and the state. The sums of a step are rounded in another order by "fused" than by
        "loop", so that spikes agree up to potentials within rounding of the threshold, and what follows from these.

    Raises:
        ValueError: shapes or dtypes that do not fit, or neurons that diverged: step, row and neuron are named.
        NotImplementedError: a neuron or a spike gradient that is not compiled, or a device without kernels.

    Source: Higuchi, Kairat, Bohte, Otte, "Balanced Resonate-and-Fire Neurons", ICML 2024 (arXiv 2402.14603).
    """
    if solver not in ("fused", "loop"):
        raise ValueError(f"recurrent: solver must be fused or loop, got {solver!r}: spikes depend on those before.")
    check_dynamics("recurrent", dynamics)
    if spike_gradient is not None:
        check_gradient("recurrent", "spike_gradient", spike_gradient)
    channels = _checked(x, weight, bias, initial)
    if has_numbers(x):
        _check_numbers(weight, bias, initial)
    gradient = dynamics.default_spike if spike_gradient is None else spike_gradient
    like = x[:, :1, :1].expand(-1, -1, channels)
    dynamics, state = at_start(dynamics, like, None if initial is None else initial.neuron)
    state = type(state)(*(value.to(x) for value in state))
    spikes0 = x.new_zeros(len(x), channels) if initial is None else initial.spike.to(x)
    run = _fused if solver == "fused" else _loop
    spikes, last = run(x, weight, dynamics, state, spikes0, bias, gradient, detach_reset)
    if has_numbers(x):
        given = x, weight, dynamics, state, spikes0, bias
        demand_finite(last, f"{type(dynamics).__name__}: the state of a recurrent layer", lambda: _explain(*given))
    return spikes, RecurrentState(last, spikes[:, -1].clone())


def _fused(
    x: Tensor,
    weight: Tensor,
    dynamics: Dynamics,
    state: State,
    spikes0: Tensor,
    bias: Tensor | None,
    gradient: SpikeGradient,
    detach_reset: bool,
) -> tuple[Tensor, State]:
    check_kind(x)
    like = x[:, :1, :1].expand(-1, -1, len(weight))
    neuron, first, slope = operands(dynamics, like, state, gradient)
    bias = x.new_zeros(len(weight)) if bias is None else bias
    if not at_once(x):  # the kernel leaves out weights of what does not fire
        bias = bias + nothing(weight).amax(1)
        first = first + (nothing(spikes0) + torch.where((spikes0 == 0) | (spikes0 == 1), 0, torch.nan)).unsqueeze(1)
    spikes, final = kernel.run(neuron, x, weight.T, bias, first, spikes0, slope, not detach_reset)
    return spikes, state_of(dynamics, final)


def _loop(
    x: Tensor,
    weight: Tensor,
    dynamics: Dynamics,
    state: State,
    spikes0: Tensor,
    bias: Tensor | None,
    gradient: SpikeGradient,
    detach_reset: bool,
) -> tuple[Tensor, State]:
    """Step by step, plain autograd."""
    spikes, fired = [], spikes0
    for now in x.unbind(1):
        current = functional.linear(torch.cat([now, fired], -1), weight, bias)
        fired = spike(dynamics.distance(dynamics.past(state), current), gradient, dynamics.fires_at_threshold)
        state = dynamics.advance(state, current, fired.detach() if detach_reset else fired)
        spikes.append(fired)
    return torch.stack(spikes, 1), state


@torch.no_grad()
def _explain(x: Tensor, weight: Tensor, dynamics: Dynamics, state: State, fired: Tensor, bias: Tensor | None) -> None:
    """Run again step by step up to the first state that is not finite, and say where that is."""
    _refuse_nan("x", x)
    for t, now in enumerate(x.unbind(1)):
        current = functional.linear(torch.cat([now, fired], -1), weight, bias)
        fired = dynamics.fires(dynamics.past(state), current).to(x.dtype)
        state = dynamics.advance(state, current, fired)
        locate(dynamics, state, t)
    raise Diverged(
        f"{type(dynamics).__name__}: a state became NaN or infinite, but not when its sums were rounded in another "
        f"order; {dynamics.when_diverging}."
    )


def _check_numbers(weight: Tensor, bias: Tensor | None, initial: RecurrentState | None) -> None:
    """Refuse what would be silent as long as a neuron is: weights that are no numbers, spikes other than 0 and 1."""
    numbers = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    if initial is not None:
        for name, value in zip(initial.neuron._fields, initial.neuron, strict=True):  # type: ignore[attr-defined]
            numbers[f"the state's {name}"] = value
        spikes = initial.spike.detach()
        good = ((spikes == 0) | (spikes == 1)).all()
        demand(good, "recurrent: the spikes of the state are other than 0 and 1 or", lambda: _refuse_spikes(spikes))
    for name, value in numbers.items():
        demand_finite([value], f"recurrent: {name}", functools.partial(_refuse_nan, name, value))


def _refuse_spikes(spikes: Tensor) -> None:
    low, high = spikes.min().item(), spikes.max().item()
    raise ValueError(f"recurrent: the state's spikes must be 0 or 1, got values from {low:g} to {high:g}.")


def _refuse_nan(name: str, value: Tensor) -> None:
    wrong = ~torch.isfinite(value.detach())
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"recurrent: {int(wrong.sum())} of the {value.numel()} numbers of {name} are NaN or infinite, the first at "
            f"{place}."
        )


def _checked(x: Tensor, weight: Tensor, bias: Tensor | None, initial: RecurrentState | None) -> int:
    """H, if everything fits."""
    check_tensor("recurrent", "x", x)
    check_tensor("recurrent", "weight", weight)
    if x.ndim != 3 or 0 in x.shape or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "recurrent: x must be float32 or float64 (batch, length, inputs) with no empty axis, got "
            f"{x.dtype} of shape {tuple(x.shape)}{mend(x)}."
        )
    inputs = x.shape[2]
    if weight.ndim != 2 or weight.shape[1] != inputs + weight.shape[0] or weight.dtype != x.dtype:
        raise ValueError(
            f"recurrent: weight must be (H, {inputs} + H) and {x.dtype} for x of {inputs} inputs, got "
            f"{tuple(weight.shape)} and {weight.dtype}."
        )
    if bias is not None and (tuple(bias.shape) != (len(weight),) or bias.dtype != x.dtype):
        raise ValueError(
            f"recurrent: bias has shape {tuple(bias.shape)} and {bias.dtype}, it must be ({len(weight)},) and "
            f"{x.dtype}."
        )
    if initial is not None:
        if getattr(initial, "_fields", None) != RecurrentState._fields:
            raise ValueError(
                f"recurrent: initial must be a RecurrentState(neuron, spike), got {type(initial).__name__}."
            )
        if not hasattr(initial.neuron, "_fields"):
            raise ValueError(
                "recurrent: the state of the neurons must be that of the dynamics, got "
                f"{type(initial.neuron).__name__}."
            )
        if tuple(initial.spike.shape) != (len(x), len(weight)):
            raise ValueError(
                f"recurrent: the state has spikes {tuple(initial.spike.shape)}, this input needs "
                f"{(len(x), len(weight))}."
            )
    return len(weight)
