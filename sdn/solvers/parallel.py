"""The parallel solver: exact spikes without a loop over all steps, and a certificate that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, FrozenValue
from sdn.checks.currents import check_current
from sdn.checks.neurons import check_finite
from sdn.checks.tracing import transforming
from sdn.compiler.programs import program
from sdn.dynamics.base import Dynamics, State, at_start
from sdn.gradients import SpikeGradient, spike
from sdn.ops.common.operator import operator
from sdn.ops.common.place import check_kind
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import STRIDE, Kernel, as_saved
from sdn.ops.neuron.sequence import operands, state_of
from sdn.solvers.chunks import Found, Rows, run_in_chunks, run_rows
from sdn.solvers.fused import Fused
from sdn.solvers.linear import certain
from sdn.solvers.linear import solve as solve_linear

__all__ = ["Certificate", "Parallel", "solve"]

NO_SCHEME = "a neuron whose spikes move no state takes one scan, every other one takes chunks"
NO_GUESS = "chunks make their own first guess by warm_up steps"


class Certificate(NamedTuple):
    """What a parallel run knows about itself. A row is one neuron of one sample, B * H of them."""

    rounds: int
    """Times that the chunks were run; 1 for one scan, 0 where the fused solver ran everything for its gradient."""
    rows: int
    settled: int
    """Rows whose chunks all started from the very state, bit for bit, in which the chunk before ended."""
    certified: int
    """Other rows that stayed farther from the threshold than rounding can reach."""
    handed_over: int
    """All other rows: they were run by the fused loop, so every spike returned is the loop's."""
    margin: float
    """Smallest |potential - threshold| over its rounding bound in the certified rows, > 1; inf without any."""


@dataclass(frozen=True)
class Parallel(FrozenValue):
    """Exact spikes, parallel in time with the reset kept, that say when they are done.

    A neuron whose spikes move no state, as RF, is a linear recurrence: one `sdn.scan` finds all potentials and spikes.

    For all others pieces of the sequence run side by side, each from a guess of its first state that some warm-up
    steps give. A piece also says how a change of its first state moves its last. From that follow better guesses of the
    states at all seams at once, which are exact for a linear neuron, round by round.

    A row is done when every piece started from the very state in which the one before ended. Where its spikes do not
    change any more and many pieces are left, a neuron that is linear given its spikes is also done when its potential
    stays farther from the threshold than a bound on all rounding of the loop. Rows that are not done within
    ``max_rounds`` are run by the fused loop: spikes are always those of `sdn.simulate`, given the state before them.
    How many they were is in the `Certificate` that `solve` returns. The last state of certified rows and gradients
    equal the loop's up to rounding, so a stream in chunks can differ from the whole where a potential lies within
    rounding of the threshold.

    The backward pass is parallel in time where the neuron is linear given its spikes and the reset is detached; else it
    is the fused solver's, and for neurons that are not linear so is the forward pass before it. It pays, if at all,
    where rows are few, sequences long and a GPU idles; on a CPU the fused loop is always faster.

    Args:
        max_rounds: runs of the pieces before a row that is not done is handed over, >= 1.
        chunk: steps of a piece, >= 1.
        warm_up: steps before a piece that make its first guess, >= 0.
        detach_reset: keep gradients from flowing through the spike into the state. Through `mem` they always flow.

    Raises:
        ValueError: an option out of range.

    Source: the scan is Martin and Cundy's (ICLR 2018, arXiv 1709.04057); Newton's method over time is Lim et al., ICLR
    2024 (arXiv 2309.12252), here over the states at the seams. Derivative of the spike, certificate and bound are ours.
    """

    max_rounds: int = 48
    chunk: int = 256
    warm_up: int = 256
    detach_reset: bool = True

    spellings: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("rounds", "iterations"), "max_rounds={value}"),
        "chunk_size": "chunk={value}",
        "detach": "detach_reset={value}",
        "scheme": f"leave it out: {NO_SCHEME}",
        "guess": f"leave it out: {NO_GUESS}",
    }

    def __post_init__(self) -> None:
        first: object = self.max_rounds
        if isinstance(first, str):
            raise ArgumentError(f"Parallel: there are no schemes to choose from, got {first!r}; {NO_SCHEME}.")
        whole = all(isinstance(n, int) for n in (self.max_rounds, self.chunk, self.warm_up))
        if not whole or self.max_rounds < 1 or self.chunk < 1 or self.warm_up < 0:
            raise ValueError(
                "Parallel: needs integers max_rounds >= 1, chunk >= 1 and warm_up >= 0, got "
                f"{self.max_rounds}, {self.chunk} and {self.warm_up}."
            )

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Refuse a neuron or a spike gradient that has no compiled form."""
        Fused().check(dynamics, learned, gradient)

    def run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State]:
        """(B, L, H) -> spikes (B, L, H) and the state after the last step."""
        return self._run(dynamics, current, state, gradient)[:2]

    def initial_state(
        self, dynamics: Dynamics, batch: int, channels: int, device: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """The dynamics' own state at rest."""
        return dynamics.initial_state(batch, channels, device, dtype)

    def _run(
        self, dynamics: Dynamics, current: Tensor, state: State | None, gradient: SpikeGradient
    ) -> tuple[Tensor, State, Tensor]:
        check_current(type(dynamics).__name__, current)
        check_kind(current)
        started = state
        dynamics, state = at_start(dynamics, current, state)
        kernel, first, slope = operands(dynamics, current, state, gradient)
        learns = _has_gradient(current, first, kernel.fixed)
        is_linear = program(kernel.program).affine is not None
        if not current.numel() or (learns and not is_linear):
            nothing = current.new_tensor([0, 0, 0, float("inf")], dtype=torch.float64)
            return *Fused(self.detach_reset).run(dynamics, current, started, gradient), nothing
        with torch.no_grad():
            sizes = [self.max_rounds, self.chunk, self.warm_up]
            spikes, final, report = _settle(kernel.program, current, first, kernel.fixed, kernel.numbers, sizes)
        if learns and self.detach_reset:
            distance, states = solve_linear(kernel, current, first, spikes)
            last = states[:, -1]
            spikes, final = _known(distance, spikes, gradient), final + (last - last.detach())
        elif learns:
            given = spikes, final, kernel.program, kernel.numbers, *slope
            spikes, final, _ = _ThroughReset.apply(current, first, kernel.fixed, *given)  # type: ignore[no-untyped-call]
        ended = state_of(dynamics, final)
        check_finite(dynamics, ended, current, state)
        return spikes, ended, report


def solve(
    dynamics: Dynamics,
    current: Tensor,
    state: State | None = None,
    *,
    gradient: SpikeGradient | None = None,
    solver: Parallel | None = None,
) -> tuple[Tensor, State, Certificate]:
    """Spikes (B, L, H) and last state as a `Neuron` with this solver returns them, and the certificate.

    Args:
        dynamics: the neuron; tensor fields are (H,).
        current: (B, L, H) float32 or float64, finite.
        state: before the first step, (B, H) per field; None is rest.
        gradient: spike gradient; None is the dynamics' own.
        solver: options; None is ``Parallel()``.
    """
    solver = Parallel() if solver is None else solver
    solver.check(dynamics)
    chosen = dynamics.default_spike if gradient is None else gradient
    spikes, last, report = solver._run(dynamics, current, state, chosen)
    rounds, settled, certified = map(int, report[:3].tolist())
    rows = current.shape[0] * current.shape[2]
    left = rows - settled - certified
    return spikes, last, Certificate(rounds, rows, settled, certified, left, report[3].item())


def _has_gradient(*tensors: Tensor) -> bool:
    return transforming() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def _exact_spikes(
    name: str, current: Tensor, first: Tensor, fixed: Tensor, numbers: list[float], sizes: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Exact spikes (B, L, H) and last state (B, S, H); rounds, settled rows, certified rows and margin (4,)."""
    max_rounds, chunk, warm_up = sizes
    batch, _, channels = current.shape
    lanes = (t.transpose(0, 1).reshape(1, -1, batch * channels) for t in (current, first))
    rows = Rows(Kernel(name, fixed.repeat(1, batch), numbers), *lanes)
    affine = program(name).affine
    found = _by_a_scan(rows) if affine is not None and not affine.feeds_back else None
    found = run_in_chunks(rows, chunk, warm_up, max_rounds) if found is None else found
    spikes, final = found.spikes, found.final
    certified = ~found.settled & (found.margin > 1)
    left = ~(found.settled | certified)
    if left.any():
        spikes[..., left], final[..., left] = run_rows(rows.some(left))
    counts = found.rounds, int(found.settled.sum()), int(certified.sum())
    margin = found.margin[certified].min().item() if counts[2] else float("inf")
    report = torch.tensor([*counts, margin], dtype=torch.float64, device=current.device)
    whole = [t.reshape(-1, batch, channels).transpose(0, 1).contiguous() for t in (spikes, final)]
    return whole[0], whole[1], report


def _fake_spikes(name: str, current: Tensor, first: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
    return spikes, first.new_empty(first.shape), current.new_empty(4, dtype=torch.float64)


_settle = operator("sdn::settle", _exact_spikes, _fake_spikes)


def _by_a_scan(rows: Rows) -> Found | None:
    """Spikes of neurons whose spikes move no state; None where nothing can be said about their rounding."""
    known = certain(*rows, torch.zeros_like(rows.x))
    if known is None:
        return None
    margin = known.margin.amin((0, 1))
    settled = torch.zeros_like(margin, dtype=torch.bool)
    return Found(known.spikes.to(rows.x), known.final.to(rows.x), settled, margin, 1)


def _known(distance: Tensor, spikes: Tensor, gradient: SpikeGradient) -> Tensor:
    """Known spikes, with the slope at a distance to the threshold that rounding may have moved across it."""
    if transforming():
        slope = spike(distance, gradient, at_threshold=True)
        return slope + (spikes - slope).detach()
    out: Tensor = _Known.apply(distance, spikes, gradient)  # type: ignore[no-untyped-call]
    return out


class _Known(torch.autograd.Function):
    """`_known` in one piece."""

    @staticmethod
    def forward(distance: Tensor, spikes: Tensor, gradient: SpikeGradient) -> Tensor:
        return spikes.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.gradient = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return grad * ctx.gradient.slope(distance), None, None


class _ThroughReset(torch.autograd.Function):
    """Known spikes with the fused solver's backward pass, from the states that the linear solution passes through."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        current: Tensor,
        first: Tensor,
        fixed: Tensor,
        spikes: Tensor,
        final: Tensor,
        name: str,
        constants: list[float],
        gradient: str,
        shape: list[float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernel = Kernel(name, fixed, constants)
        kept = solve_linear(kernel, current, first, spikes, slice(STRIDE - 1, -1, STRIDE)).states
        return spikes.clone(), final.clone(), as_saved(torch.cat([first.unsqueeze(1), kept], 1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, _, fixed, _, _, name, numbers, *slope = inputs
        ctx.options = numbers, name, *slope
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, fixed, output[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        current, fixed, saved = ctx.saved_tensors
        learn = ctx.needs_input_grad[2]
        found = neuron.backward(*grads[:2], None, current, fixed, saved, *ctx.options, True, learn)
        return found[0], found[1], found[2] if learn else None, *(None,) * 6
