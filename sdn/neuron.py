"""A neuron as a layer: dynamics, a solver that runs them, and the parameters that are learned."""

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, overload

import torch
from torch import Tensor, nn

from sdn.checks.arguments import ArgumentError, Spelled, check_count, check_learn, field_meant, shown
from sdn.checks.axes import check_step
from sdn.checks.currents import check_current
from sdn.checks.finite import nothing
from sdn.checks.precision import in_full_precision
from sdn.checks.words import LAYER_WORDS, Words
from sdn.dynamics.base import Dynamics, State, Trajectory, Value, check_dynamics
from sdn.dynamics.ranges import check_ranges, try_all
from sdn.gradients import SpikeGradient, check_gradient
from sdn.solvers import Solver, as_solver
from sdn.solvers.exact_step import exact_step

__all__ = ["Fixed", "Neuron", "SpikingLayer", "Start", "normal", "uniform"]

Start = Value | Callable[[int], Tensor] | None
"""Where a learned field starts: None (the dynamics' value), a number, an (H,) tensor, or channels -> (H,)."""


class SpikingLayer(Spelled, nn.Module):
    """What every layer of neurons is: ``forward(current, state)`` gives spikes (B, L, H), 0 or 1, and a state.

    Such layers are what spikes are counted of. ``channels`` is H; ``solver`` says how they run.
    """

    channels: int
    _solver: Any
    spellings: ClassVar[Words] = LAYER_WORDS

    @property
    def solver(self) -> Any:
        """How the neurons run; it may be set to a word or a value, and is refused if it does not fit them."""
        return self._solver

    @solver.setter
    def solver(self, solver: str | Solver) -> None:
        self._solver = self._checked(solver)

    def with_solver(self, solver: str | Solver) -> Self:
        """The same neurons, with the very same parameters, under another solver."""
        clone = copy.copy(self)
        clone.__dict__ = {k: v.copy() if isinstance(v, dict) else v for k, v in self.__dict__.items()}
        clone.solver = solver
        return clone

    def _checked(self, solver: str | Solver) -> Any:
        """The solver that is meant, if it fits these neurons."""
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled; earlier versions kept the solver as ``solver``."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "solver" in self.__dict__:
            self._solver = self.__dict__.pop("solver")


class Neuron(SpikingLayer):
    """``channels`` neurons of one kind, run over a sequence: (B, L, H) currents in, (B, L, H) spikes out.

    Args:
        dynamics: what one neuron does in a step.
        channels: H.
        learn: fields of the dynamics to learn per channel, and where each starts, e.g. ``{"threshold": None}``.
        spike: slope that stands in for the derivative of the step; None is the dynamics' own.
        solver: "fused", "loop", "parallel", "surrogate", or a value such as ``Fused(detach_reset=False)`` or
            ``Surrogate("my.safetensors")``.
        return_state: False gives the spikes alone, as `torch.nn.Sequential` takes them; `sdn.Sequential` keeps states.

    Raises:
        ValueError: a field that the dynamics does not have or cannot learn, a start out of range, or a solver that
            does not fit the neuron.

    The parameters are ``learned.<field>``, (H,). They are not the values but what a transform makes of them (log,
    logit, abs; see docs/neurons.md): for a decay of 0.9, ``neuron.learned["decay"]`` is 2.1972, its logit.
    ``neuron.current_dynamics().decay`` is the value. Fields of the dynamics that are tensors are the buffers
    ``fixed.<field>``. The solver holds neither parameters nor state, so a `state_dict` fits every solver.
    """

    return_state: bool = True

    def __init__(
        self,
        dynamics: Dynamics,
        channels: int,
        *,
        learn: Mapping[str, Start] | None = None,
        spike: SpikeGradient | None = None,
        solver: str | Solver = "fused",
        return_state: bool = True,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        self.return_state = return_state
        if isinstance(channels, Dynamics):
            raise ArgumentError(f"{who}: the dynamics comes first; write {who}({channels!r}, {shown(dynamics)}).")
        check_dynamics(who, dynamics)
        check_count(who, "channels", channels, least=0)
        self.channels = channels
        self.spike: SpikeGradient = dynamics.default_spike if spike is None else spike
        check_gradient(who, "spike", self.spike)
        check_learn(who, learn)
        check_ranges(dynamics, channels)
        self.learned = nn.ParameterDict()
        for field, start in (learn or {}).items():
            self.learned[field] = nn.Parameter(_raw_start(dynamics, field, start, channels))
        self.dynamics = dynamics
        self.solver = solver

    @property
    def dynamics(self) -> Dynamics:
        """What one neuron does in a step, without what is learned; fields that are tensors are the buffers."""
        fixed = self._modules.get("fixed")
        return self._dynamics if fixed is None else self._dynamics.replace(**dict(fixed.named_buffers()))

    @dynamics.setter
    def dynamics(self, dynamics: Dynamics) -> None:
        fields = {name: value for name, value in vars(dynamics).items() if isinstance(value, Tensor)}
        for name, value in fields.items():
            if value.ndim and tuple(value.shape) != (self.channels,):
                found = f"{name} has shape {tuple(value.shape)}"
                raise ValueError(f"Neuron: {found}, this neuron has {self.channels} channels.")
            if value.requires_grad and name not in self.learned:
                raise ValueError(
                    f"Neuron: {name} is a tensor with a gradient, which no optimiser would find among this neuron's "
                    f"parameters; learn it with learn={{{name!r}: value}}, or give value.detach() to keep it as it is."
                )
        if "_solver" in self.__dict__:
            self._solver.check(dynamics, tuple(self.learned), self.spike)
        self._dynamics = dynamics
        self._modules.pop("fixed", None)
        if kept := {name: value for name, value in fields.items() if name not in self.learned}:
            self.fixed = Fixed(kept)

    def _checked(self, solver: str | Solver) -> Solver:
        found = as_solver(solver)
        found.check(self.dynamics, tuple(self.learned), self.spike)
        return found

    @overload
    def forward(self, current: Tensor, state: State | None = None, *, record: None = None) -> tuple[Tensor, State]: ...

    @overload
    def forward(self, current: Tensor, state: State | None = None, *, record: str) -> Trajectory: ...

    def forward(self, current: Tensor, state: State | None = None, *, record: str | None = None) -> Any:
        """Spikes and the state after the last step.

        Args:
            current: (B, L, H), any strides; float32 and float64 as they are, lower precision is computed in float32.
            state: state before the first step; None is rest. Feeding chunks one after another equals the whole.
            record: "mem" keeps the membrane of every step, out of the same loop: what the past contributes at a step,
                before its input. For plots, and for losses on the membrane, through which gradients flow.

        Returns:
            spikes (B, L, H), 0 or 1, in the current's dtype, of any strides, and the state (but for
            ``return_state=False``). With ``record="mem"`` a ``Trajectory(input, mem, spike, state)``.

        Raises:
            ValueError: a current of another shape or with NaN, or something else to record.
            NotImplementedError: a solver that does not go through all membranes; "fused" and "loop" do.
        """
        if record is None:
            spikes, state = self._solved(self.solver.run, current, state)
            return (spikes.to(current.dtype), state) if self.return_state else spikes.to(current.dtype)
        if record != "mem":
            raise ArgumentError(f"Neuron: record must be 'mem' or None, got {shown(record)}.")
        if not hasattr(self.solver, "record"):
            name = type(self.solver).__name__
            raise NotImplementedError(f"{name} keeps no membrane; use neuron.with_solver('fused')(x, record='mem').")
        found: Trajectory = self._solved(self.solver.record, current, state)
        return found._replace(input=current, mem=found.mem.to(current.dtype), spike=found.spike.to(current.dtype))

    def _solved(self, run: Callable[..., Any], current: Tensor, state: State | None) -> Any:
        check_current("Neuron", current, self.channels, finite=False)
        wide = current if current.dtype == torch.float64 else current.float()
        with in_full_precision(current):
            return run(self.current_dynamics(), wide, state, self.spike)

    def step(self, current: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step: (B, H) -> spikes (B, H) and the state."""
        check_step(type(self).__name__, "x", current, getattr(self, "d_input", self.channels))
        quick: Any = exact_step(self, current, state) if type(self) is Neuron else None
        if quick is not None:
            return quick if self.return_state else quick[0]  # type: ignore[no-any-return]
        found: Any = self(current.unsqueeze(1), state)
        return (found[0].squeeze(1), found[1]) if self.return_state else found.squeeze(1)

    def initial_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
        """The state at rest, as the solver of this neuron takes it."""
        return self.solver.initial_state(self.dynamics, batch, self.channels, device, dtype)

    def current_dynamics(self) -> Dynamics:
        """The dynamics with the learned values in place, as (H,) tensors that carry gradients."""
        if not self.learned:
            return self.dynamics
        for renew in self.learned._forward_pre_hooks.values():  # pruning and norms; a ParameterDict is never called
            renew(self.learned, ())
        values = {f: _from_raw(raw, self.dynamics.transforms[f]) for f, raw in self.learned.items()}
        return self.dynamics.with_known(values)

    def extra_repr(self) -> str:
        """What `print` shows."""
        learned = f", learn={sorted(self.learned)}" if self.learned else ""
        return f"{self.dynamics}, channels={self.channels}, spike={self.spike}, solver={self.solver}{learned}"


class Fixed(nn.Module):
    """The fields of a neuron that are tensors and not learned, as buffers of their names."""

    def __init__(self, fields: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in fields.items():
            self.register_buffer(name, value.detach().clone())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Keep what is there where the state_dict is of a version that did not hold it."""
        if missing := [name for name in self._buffers if prefix + name not in state_dict]:
            warnings.warn(
                f"the state_dict does not hold {prefix}{missing[0]}, as none of an earlier version does; it stays as "
                "this neuron was built.",
                stacklevel=2,
            )
            state_dict |= {prefix + name: self._buffers[name] for name in missing}
        super()._load_from_state_dict(state_dict, prefix, *args)


def uniform(low: float, high: float) -> Callable[[int], Tensor]:
    """A start drawn from U(low, high) per channel, by torch's global generator."""
    return lambda channels: torch.empty(channels).uniform_(low, high)


def normal(mean: float, std: float) -> Callable[[int], Tensor]:
    """A start drawn from N(mean, std) per channel, by torch's global generator."""
    return lambda channels: torch.empty(channels).normal_(mean, std)


def _raw_start(dynamics: Dynamics, field: str, start: Start, channels: int) -> Tensor:
    name = type(dynamics).__name__
    if field not in dynamics.transforms:
        way = f"; write {meant!r}" if (meant := field_meant(type(dynamics), field)) in dynamics.transforms else ""
        fields = sorted(dynamics.transforms)
        raise ValueError(f"{name} cannot learn {field!r}; its learnable fields are {fields}{way}.")
    if isinstance(start, bool):
        raise ArgumentError(
            f"{name}: learn[{field!r}] is where it starts, or None for the neuron's value, got {start}."
        )
    value = getattr(dynamics, field) if start is None else start(channels) if callable(start) else start
    if value is None:
        raise ValueError(f"{name}: this neuron has no {field}; write learn={{{field!r}: start}} with where it starts.")
    value = torch.as_tensor(value, dtype=torch.get_default_dtype())
    if value.ndim > 1 or (value.ndim == 1 and len(value) != channels):
        raise ValueError(
            f"{name}: the start of {field!r} has shape {tuple(value.shape)}, the neuron has {channels} channels."
        )
    value = value.expand(channels).clone()
    try_all(dynamics, field, value)
    raw = _to_raw(value, dynamics.transforms[field])
    if not raw.is_meta and not torch.isfinite(raw).all():
        low, high = value.min().item(), value.max().item()
        raise ValueError(
            f"{name}: learning {field!r} goes through {dynamics.transforms[field]}, which cannot start at values from "
            f"{low:g} to {high:g}; log needs > 0, logit needs values inside (0, 1)."
        )
    return raw


def _to_raw(value: Tensor, transform: str) -> Tensor:
    if transform == "log":
        return value.log()
    return value.logit() if transform == "logit" else value


def _from_raw(raw: Tensor, transform: str) -> Tensor:
    """The value that a parameter stands for; NaN for infinity too, of which a transform can make a plausible number."""
    value = {"log": torch.exp, "logit": torch.sigmoid, "abs": torch.abs}.get(transform, torch.clone)(raw)
    return value + nothing(raw)
