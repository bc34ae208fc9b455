"""A layer of spiking neurons that are connected with each other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn import Dynamics, Fused, Loop, Neuron, RecurrentState, Solver, SpikeGradient, Trajectory, recurrent
from sdn.checks.arguments import ArgumentError, check_count, check_tensor, shown
from sdn.checks.axes import mend
from sdn.checks.precision import in_full_precision
from sdn.dynamics.base import State, at_start
from sdn.neuron import Start
from sdn.solvers import as_solver
from spikingssm.layers.maps import is_plain, weight_of

__all__ = ["Recurrent"]


class Recurrent(Neuron):
    """H neurons that read an input and each other's last spikes: (B, L, d_input) -> spikes (B, L, H).

    The current of step t is ``input(x[t]) + recurrent(spike[t-1])``, connections of a neuron with itself included. Both
    maps start uniform with the bound of Glorot and Bengio for the whole matrix, ``sqrt(6 / (d_input + 2 H))``.

    Args:
        d_input: features per step.
        dynamics: what one neuron does in a step.
        channels: H.
        learn: fields of the dynamics to learn per neuron, and where each starts, see `sdn.Neuron`.
        spike: spike gradient; None is the dynamics' own.
        bias: give the input map a bias, which starts as that of a `torch.nn.Linear` of the whole matrix.
        mask: recurrent connections that are there, (H, H) of 0 and 1 from neuron (column) to neuron (row); or the
            share, in [0, 1), of connections that are cut at random for good; None for all.
        solver: "fused" or "loop", or a value of `sdn.Fused` or `sdn.Loop`; see `sdn.recurrent`. The words let gradients
            flow through the spike into the neuron's own state, as published.

    Raises:
        ValueError: a size below 1, a mask of another shape or out of range, or what `sdn.Neuron` refuses.
        NotImplementedError: a solver that works on all steps at once, or a neuron without a kernel.

    Computes in float32 (float64 for float64 input), also under autocast. ``input`` and ``recurrent`` are called where
    something stands between them and their weights (pruning, norms by hooks, dynamic quantisation, hooks of your own):
    once a pass, ``input`` with x, ``recurrent`` with the identity, since no step can wait for a call. That is slower.

    Source: Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603).
    """

    mask: Tensor | None

    def __init__(
        self,
        d_input: int,
        dynamics: Dynamics,
        channels: int,
        *,
        learn: Mapping[str, Start] | None = None,
        spike: SpikeGradient | None = None,
        bias: bool = False,
        mask: Tensor | float | None = None,
        solver: str | Solver = "fused",
    ) -> None:
        given: Any = (dynamics, channels)
        if isinstance(given[1], Dynamics) and not isinstance(given[0], Dynamics):
            right = f"Recurrent({shown(d_input)}, {shown(channels)}, {shown(dynamics)})"
            raise ArgumentError(f"Recurrent: the dynamics comes second; write {right}.")
        for name, size in (("d_input", d_input), ("channels", channels)):
            check_count("Recurrent", name, size, least=None)
        if d_input < 1 or channels < 1:
            raise ValueError(f"Recurrent: d_input and channels must be at least 1, got {d_input} and {channels}.")
        super().__init__(dynamics, channels, learn=learn, spike=spike, solver=solver)
        self.d_input = d_input
        self.input = nn.Linear(d_input, channels, bias=bias)
        self.recurrent = nn.Linear(channels, channels, bias=False)
        bound = (6 / (d_input + 2 * channels)) ** 0.5
        for part in (self.input, self.recurrent):
            nn.init.uniform_(part.weight, -bound, bound)
        if bias:
            nn.init.uniform_(self.input.bias, -((d_input + channels) ** -0.5), (d_input + channels) ** -0.5)
        self.register_buffer("mask", _mask(mask, channels))

    def forward(  # type: ignore[override]  # its state holds the last spikes besides
        self, x: Tensor, state: RecurrentState | None = None, *, record: str | None = None
    ) -> Any:
        """Spikes and the state after the last step.

        Args:
            x: (B, L, d_input).
            state: before the first step; None is rest. Chunks one after another equal the whole.
            record: "mem" keeps the membrane of every step, by a second loop in PyTorch over the spikes of the first.

        Returns:
            spikes (B, L, H), 0 or 1, in x's dtype, and the state. With ``record="mem"`` a `sdn.Trajectory` whose
            ``input`` is the current of each neuron, of x and of the spikes before: tensors (B, L, H), and the state.

        Raises:
            ValueError: x or state of another shape, something else to record, or neurons that diverged: step, row and
                neuron are named.
        """
        check_tensor("Recurrent", "x", x)
        if record not in (None, "mem"):
            raise ArgumentError(f"Recurrent: record must be 'mem' or None, got {shown(record)}.")
        if x.ndim != 3 or x.shape[-1] != self.d_input or not x.is_floating_point():
            raise ValueError(
                f"Recurrent: x must be a floating-point (batch, length, {self.d_input}), got {x.dtype} of shape "
                f"{tuple(x.shape)}{mend(x, self.d_input)}."
            )
        wide = torch.promote_types(x.dtype, torch.float32)
        assert isinstance(self.solver, (Fused, Loop))
        with in_full_precision(x):
            given, weight, bias = self._given(x)
            given, weight, bias = given.to(wide), weight.to(wide), None if bias is None else bias.to(wide)
            spikes, after = recurrent(
                given,
                weight,
                self.current_dynamics(),
                state,
                bias=bias,
                spike_gradient=self.spike,
                detach_reset=self.solver.detach_reset,
                solver="fused" if isinstance(self.solver, Fused) else "loop",
            )
            if record is None:
                return spikes.to(x.dtype), after
            before = torch.zeros_like(spikes[:, 0]) if state is None else state.spike.to(spikes)  # (B, H)
            read = torch.cat([before.unsqueeze(1), spikes[:, :-1]], 1)  # (B, L, H)
            current = functional.linear(torch.cat([given, read], -1), weight, bias)
            mem = self._membranes(current, spikes, None if state is None else state.neuron)
        whole: Any = after  # which holds the last spikes besides
        return Trajectory(current.to(x.dtype), mem.to(x.dtype), spikes.to(x.dtype), whole)

    def _membranes(self, current: Tensor, spikes: Tensor, state: State | None) -> Tensor:
        """What the past contributes at every step, (B, L, H), under these currents and spikes (B, L, H)."""
        dynamics, now = at_start(self.current_dynamics(), current, state)
        fired = spikes.detach() if self.solver.detach_reset else spikes
        mems = []
        for step, spike in zip(current.unbind(1), fired.unbind(1), strict=True):
            mems.append(dynamics.past(now))
            now = dynamics.advance(now, step, spike)
        return torch.stack(mems, 1)

    def _given(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs, weights (H, inputs + H), bias: those of the maps, or what ``input`` makes of x and weights of 1."""
        if is_plain(self.input):
            return x, self.weight, self.input.bias
        currents: Tensor = self.input(x)
        ones = torch.eye(self.channels, dtype=currents.dtype, device=x.device)
        return currents, torch.cat([ones, self._inner().to(ones)], 1), None

    @property
    def weight(self) -> Tensor:
        """(H, d_input + H): both maps side by side, without the connections that are cut."""
        return torch.cat([weight_of(self.input), self._inner()], 1)

    def _inner(self) -> Tensor:
        inner = weight_of(self.recurrent)
        return inner if self.mask is None else inner * self.mask

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> RecurrentState:
        """Rest, without spikes."""
        wide = torch.promote_types(dtype, torch.float32)
        state = self.dynamics.initial_state(batch, self.channels, device, wide)
        return RecurrentState(state, torch.zeros(batch, self.channels, device=device, dtype=wide))

    def _checked(self, solver: str | Solver) -> Solver:
        return super()._checked(_solver(solver))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.d_input} inputs, {super().extra_repr()}"


def _solver(solver: str | Solver) -> Solver:
    words: dict[Any, Solver] = {"fused": Fused(detach_reset=False), "loop": Loop(detach_reset=False)}
    found = words.get(solver, solver) if isinstance(solver, str) else as_solver(solver)
    if not isinstance(found, (Fused, Loop)):
        raise NotImplementedError(
            f"Recurrent: solver={solver!r} works on all steps at once, but a step here needs the spikes before; use "
            "solver='fused' or 'loop'."
        )
    if found.detach_state:
        raise NotImplementedError("Recurrent: detach_state=True would cut the recurrence; use detach_state=False.")
    return found


def _mask(mask: Tensor | float | None, channels: int) -> Tensor | None:
    if mask is None:
        return None
    if isinstance(mask, Tensor):
        if tuple(mask.shape) != (channels, channels) or not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"Recurrent: mask must be ({channels}, {channels}) of 0 and 1, got {tuple(mask.shape)} with values "
                f"from {mask.min():g} to {mask.max():g}."
            )
        return mask.detach().to(torch.get_default_dtype()).clone()
    if not isinstance(mask, (int, float)) or not 0 <= mask < 1:
        raise ValueError(f"Recurrent: mask, the share of connections that are cut, must be in [0, 1), got {mask!r}.")
    return (torch.rand(channels, channels) >= mask).to(torch.get_default_dtype())
