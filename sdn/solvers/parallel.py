"""The parallel solver: exact spikes without a loop over all steps, and a certificate that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from sdn.checks.arguments import FrozenValue
from sdn.checks.tracing import transforming
from sdn.compiler.programs import program_of
from sdn.dynamics import RF
from sdn.dynamics.base import Dynamics, State, at_start, check_current, check_finite
from sdn.gradients import SpikeGradient, spike
from sdn.ops.common.operator import operator
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import STRIDE, Kernel, as_saved
from sdn.ops.neuron.operands import operands, state_of
from sdn.solvers.chunks import run_in_chunks
from sdn.solvers.fused import Fused
from sdn.solvers.linear import distance_error, linear_of
from sdn.solvers.linear import solve as solve_linear
from sdn.solvers.surrogate import Surrogate

__all__ = ["Certificate", "Parallel", "solve"]


class Certificate(NamedTuple):
    """What a parallel run knows about itself. A row is one neuron of one sample, B * H of them."""

    rounds: int
    """Times the recurrence was solved or pieces were run, the one that confirmed the result included."""
    rows: int
    settled: int
    """Rows whose spikes, or whose states at the seams, reproduced themselves within the rounds allowed."""
    certified: int
    """Rows that settled and, for "rounds", stayed clear of the threshold by more than rounding."""
    handed_over: int
    """All other rows: they were run by the fused loop, so every spike returned is the loop's."""
    margin: float
    """"rounds": smallest |potential - threshold| over its rounding bound in the certified rows, > 1; "chunks": inf."""


@dataclass(frozen=True)
class Parallel(FrozenValue):
    """Exact spikes, parallel in time with the reset kept, by one of two schemes that say when they are done.

    "chunks": pieces of the sequence run side by side, each from a guess of its first state that a few warm-up steps
    give; where a state at a seam is not bit for bit the one that the piece before ended in, that piece runs again. A
    hard reset or a strong leak forgets a wrong guess within a piece.

    "rounds": given its spikes a neuron is linear, and `sdn.scan` finds all its potentials at once; they give new
    spikes, until none changes. The dynamics is causal, so every round gets at least one more step right and the fixed
    point is unique. RF needs one round, and one to confirm it. A row whose potential comes nearer to the threshold
    than a bound on the rounding of scan and loop is not trusted.

    Rows that have not settled, and rows that are not trusted, are run by the fused loop: spikes are always those of
    `sdn.simulate`, given the state before them. How many they were is in the `Certificate` that `solve` returns.
    Potentials, last state and gradients equal the loop's up to rounding, so a stream in chunks can differ from the
    whole where a potential lies within rounding of the threshold. The backward pass is parallel in time where the
    reset is detached; else it is the fused solver's. It pays where rows are few and a GPU idles; on a CPU the fused
    loop is always faster.

    Args:
        scheme: "chunks", "rounds", or None: rounds for RF, which needs two, and chunks for the others. ALIF and BRF
            rarely settle by rounds, and by chunks only one after another: there the fused solver is the one to take.
        max_rounds: rounds (or runs of the pieces) before a row that has not settled is handed over, >= 1.
        chunk: steps of a piece, >= 1.
        warm_up: steps before a piece that make its guess, >= 0.
        guess: a `Surrogate` whose spikes are the first guess of "rounds"; None thresholds ``gain * input``.
        detach_reset: keep gradients from flowing through the spike into the state. Through `mem` they always flow.

    Raises:
        ValueError: an option out of range, or a guess for "chunks".

    Source: the fixed point over spikes is that of Feng et al., ICML 2025 (arXiv 2506.12087), run to its end and without
    relaxation; the scan is Martin and Cundy's (ICLR 2018, arXiv 1709.04057). Chunks, certificate and bound are ours.
    """

    scheme: Literal["chunks", "rounds"] | None = None
    max_rounds: int = 48
    chunk: int = 256
    warm_up: int = 64
    guess: Surrogate | None = None
    detach_reset: bool = True

    spellings: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("rounds", "iterations"), "max_rounds={value}"),
        "chunk_size": "chunk={value}",
        "detach": "detach_reset={value}",
    }

    def __post_init__(self) -> None:
        if self.scheme not in (None, "chunks", "rounds"):
            raise ValueError(f"Parallel: scheme must be 'chunks', 'rounds' or None, got {self.scheme!r}.")
        whole = all(isinstance(n, int) for n in (self.max_rounds, self.chunk, self.warm_up))
        if not whole or self.max_rounds < 1 or self.chunk < 1 or self.warm_up < 0:
            raise ValueError(
                "Parallel: needs integers max_rounds >= 1, chunk >= 1 and warm_up >= 0, got "
                f"{self.max_rounds}, {self.chunk} and {self.warm_up}."
            )
        if self.guess is not None and self.scheme == "chunks":
            raise ValueError(f"Parallel: chunks make their own guess, got guess={self.guess}; use scheme='rounds'.")

    def check(self, dynamics: Dynamics, learned: tuple[str, ...] = (), gradient: SpikeGradient | None = None) -> None:
        """Refuse a neuron that has no fused kernel, or one that the guess was not made for."""
        Fused().check(dynamics, learned, gradient)
        linear_of(program_of(dynamics))
        if self.guess is not None:
            self.guess.check(dynamics, learned)

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
        dynamics, state = at_start(dynamics, current, state)
        if not current.numel():
            return *Fused(self.detach_reset).run(dynamics, current, state, gradient), current.new_zeros(4)
        kernel, first, slope = operands(dynamics, current, state, gradient)
        with torch.no_grad():
            guess = self._first_guess(dynamics, current, gradient)
            sizes = [self.max_rounds, self.chunk, self.warm_up]
            spikes, report = _settle(
                kernel.program, current, first, kernel.fixed, kernel.numbers, guess, dynamics.fires_at_threshold, sizes
            )
        if self.detach_reset:
            distance, states = solve_linear(kernel, current, first, spikes)
            out, final = _known(distance, spikes, gradient), states[:, -1].clone()
        else:
            neuron_without_spikes = kernel.program, kernel.numbers, *slope
            out, final, _ = _ThroughReset.apply(current, first, kernel.fixed, spikes, *neuron_without_spikes)  # type: ignore[no-untyped-call]
        last = state_of(dynamics, final)
        check_finite(dynamics, last, current, state)
        return out, last, report

    def _first_guess(self, dynamics: Dynamics, current: Tensor, gradient: SpikeGradient) -> Tensor | None:
        """Spikes (B, L, H) to start the rounds from; None for chunks."""
        by_rounds = isinstance(dynamics, RF) or self.guess is not None
        if self.scheme == "chunks" or (self.scheme is None and not by_rounds):
            return None
        if self.guess is None:
            return dynamics.fires(torch.zeros_like(current), current)
        return self.guess.run(dynamics, current, None, gradient)[0] > 0


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
        dynamics: LIF, ALIF, RF or BRF; tensor fields are (H,).
        current: (B, L, H) float32 or float64, finite.
        state: before the first step, (B, H) per field; None is rest.
        gradient: spike gradient; None is the dynamics' own.
        solver: options; None is ``Parallel()``.
    """
    solver = Parallel() if solver is None else solver
    solver.check(dynamics)
    chosen = dynamics.default_spike if gradient is None else gradient
    spikes, last, report = solver._run(dynamics, current, state, chosen)
    rounds, settled, certified, margin = report.tolist()
    rows = current.shape[0] * current.shape[2]
    return spikes, last, Certificate(int(rounds), rows, int(settled), int(certified), rows - int(certified), margin)


def _exact_spikes(
    name: str,
    current: Tensor,
    first: Tensor,
    fixed: Tensor,
    constants: list[float],
    guess: Tensor | None,
    at_threshold: bool,
    sizes: list[int],
) -> tuple[Tensor, Tensor]:
    """Spikes (B, L, H) of the exact neuron, without gradient; rounds, settled rows, certified rows and margin (4,)."""
    max_rounds, chunk, warm_up = sizes
    kernel = Kernel(name, fixed, constants)
    if guess is None:
        return _by_chunks(kernel, current, first, max_rounds, chunk, warm_up)
    return _by_rounds(kernel, current, first, guess.to(current.dtype), at_threshold, max_rounds)


def _fake_spikes(_: str, current: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(current, memory_format=torch.contiguous_format), current.new_empty(4, dtype=torch.float64)


_settle = operator("sdn::settle", _exact_spikes, _fake_spikes)


def _by_chunks(
    kernel: Kernel, current: Tensor, first: Tensor, max_rounds: int, chunk: int, warm_up: int
) -> tuple[Tensor, Tensor]:
    found = run_in_chunks(kernel, current, first, chunk, warm_up, max_rounds)
    if not found.settled.all():
        everything = _all_rows(kernel, current, first, found.spikes)
        rest = everything.some((~found.settled).flatten().nonzero().squeeze(1))
        found.spikes.permute(1, 0, 2)[:, ~found.settled] = _by_the_loop(rest)[0]
    settled = int(found.settled.sum())
    report = [found.rounds, settled, settled, float("inf")]
    return found.spikes, torch.tensor(report, dtype=torch.float64, device=current.device)


class _Rows(NamedTuple):
    """Rows laid side by side: the ``number`` (n,) of each in the flattened (B, H), and their problem, (1, L, n)."""

    number: Tensor
    kernel: Kernel
    x: Tensor
    first: Tensor
    spikes: Tensor

    def some(self, keep: Tensor) -> "_Rows":
        """The rows at these positions (m,)."""
        kernel = self.kernel._replace(fixed=self.kernel.fixed[:, keep])
        parts = (t.index_select(2, keep) for t in (self.x, self.first, self.spikes))
        return _Rows(self.number[keep], kernel, *parts)


def _all_rows(kernel: Kernel, current: Tensor, first: Tensor, spikes: Tensor) -> _Rows:
    batch, _, channels = current.shape
    lanes = (t.transpose(0, 1).reshape(1, -1, batch * channels) for t in (current, first, spikes))
    everything = torch.arange(batch * channels, device=current.device)
    return _Rows(everything, kernel._replace(fixed=kernel.fixed.repeat(1, batch)), *lanes)


def _by_rounds(
    kernel: Kernel, current: Tensor, first: Tensor, guess: Tensor, at_threshold: bool, max_rounds: int
) -> tuple[Tensor, Tensor]:
    batch, length, channels = current.shape
    rows = _all_rows(kernel, current, first, guess)
    out, doubtful = torch.empty_like(rows.x), []
    settled = certified = rounds = 0
    margin = float("inf")
    while len(rows.number) and rounds < max_rounds:
        rounds += 1
        distance = solve_linear(rows.kernel, rows.x, rows.first, rows.spikes).distance
        fires = (distance >= 0 if at_threshold else distance > 0).to(current.dtype)
        same = (fires == rows.spikes).all(1).squeeze(0)
        if same.any():
            done = rows.some(same.nonzero().squeeze(1))
            error = distance_error(done.kernel, done.x, done.first, done.spikes, sequential=not current.is_cuda)
            clear = (distance[:, :, same].abs() / error).amin(1).squeeze(0)
            sure = clear > 1
            settled, certified = settled + len(clear), certified + int(sure.sum())
            if sure.any():
                margin = min(margin, clear[sure].min().item())
            out[:, :, done.number] = done.spikes
            doubtful.append(done.some((~sure).nonzero().squeeze(1)))
        rows = rows._replace(spikes=fires).some((~same).nonzero().squeeze(1))
    for rest in (*doubtful, rows):
        if len(rest.number):
            out[:, :, rest.number] = _by_the_loop(rest)
    report = torch.tensor([rounds, settled, certified, margin], dtype=torch.float64, device=current.device)
    return out.reshape(length, batch, channels).transpose(0, 1).contiguous(), report


def _by_the_loop(rows: _Rows) -> Tensor:
    return neuron.run(rows.kernel, rows.x, rows.first, ("", []), through_reset=False, record=False)[0]


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
        name: str,
        constants: list[float],
        gradient: str,
        shape: list[float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernel = Kernel(name, fixed, constants)
        kept = solve_linear(kernel, current, first, spikes, slice(STRIDE - 1, -1, STRIDE)).states
        final = solve_linear(kernel, current, first, spikes).states[:, -1].clone()
        return spikes.clone(), final, as_saved(torch.cat([first.unsqueeze(1), kept], 1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, _, fixed, _, program, numbers, *slope = inputs
        ctx.options = numbers, program, *slope
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, fixed, output[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        current, fixed, saved = ctx.saved_tensors
        learn = ctx.needs_input_grad[2]
        found = neuron.backward(*grads[:2], None, current, fixed, saved, *ctx.options, True, learn)
        return found[0], found[1], found[2] if learn else None, None, None, None, None, None
