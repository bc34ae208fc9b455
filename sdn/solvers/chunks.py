"""Exact spikes from chunks of time that run side by side: states at the seams are guessed, compared and repaired."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.compiler.affine import Stage
from sdn.compiler.graph import leaves
from sdn.compiler.neuron import evaluate
from sdn.compiler.programs import program, slope_of
from sdn.gradients import Triangle
from sdn.ops.chunks import operator as chunks
from sdn.ops.chunks.layout import side
from sdn.ops.chunks.seams import HELD, Slope, closer
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel
from sdn.solvers.linear import certain

__all__ = ["Found", "Rows", "follows", "proof", "run_in_chunks", "run_rows"]

FEW = 12
"""Seams that are left to further rounds: up to so many cost less than to prove the spikes of a row by `certain`."""
UNKNOWN = -1.0
"""Margin of a row whose spikes nobody has tried to prove."""


class Rows(NamedTuple):
    """Rows side by side, one neuron of one sample each: every tensor has them on its last axis."""

    kernel: Kernel
    x: Tensor
    """(1, L, n)"""
    first: Tensor
    """(1, S, n), the state before the first step."""

    def some(self, keep: Tensor) -> "Rows":
        """The rows at these positions (m,), or where True (n,)."""
        kernel = self.kernel._replace(fixed=self.kernel.fixed[:, keep])
        return Rows(kernel, self.x[..., keep], self.first[..., keep])


class Found(NamedTuple):
    """Spikes of some rows and what is known about them."""

    spikes: Tensor
    """(1, L, n), those of the loop in the rows that settled and in those with a margin above 1."""
    final: Tensor
    """(1, S, n), the state after the last step."""
    settled: Tensor
    """(n,) bool, where every chunk started from the very state in which the one before ended."""
    margin: Tensor
    """(n,) float64, the least distance to the threshold in units of its error; 0 where it says nothing."""
    rounds: int


def run_rows(rows: Rows) -> tuple[Tensor, Tensor]:
    """Spikes (1, L, n) and last state (1, S, n) by the fused loop."""
    return neuron.run(rows.kernel, rows.x, rows.first, ("", []), through_reset=False, record=False)[:2]


def run_in_chunks(rows: Rows, chunk: int, warm_up: int, max_rounds: int) -> Found:
    """Run all chunks of a sequence at once, each from a guess of its first state, and repair the guesses that differ.

    The first guess is the state after ``warm_up`` steps from rest before the chunk. The next ones would close all gaps
    of a linear neuron with the derivatives that the chunks have. Up to the first seam that differs they are the very
    states in which the chunks before ended, so every round settles at least one more chunk of a row, in order. Where
    the spikes of a row do not change any more and many chunks are left, `certain` may spare the rounds.

    In the derivatives the spike is held. After a soft reset, which lets an error live on, it follows the potential with
    a triangle in every other round.

    Args:
        rows: what is to be run.
        chunk: steps of a chunk, >= 1.
        warm_up: steps before a chunk that make its guess, >= 0.
        max_rounds: runs after which the rows that are left are given up.
    """
    chunk, n = min(chunk, rows.x.shape[1]), rows.x.shape[2]
    is_linear = program(rows.kernel.program).affine is not None
    spikes, final = torch.empty_like(rows.x), torch.empty_like(rows.first)
    margin = torch.full((n,), UNKNOWN, dtype=torch.float64, device=rows.x.device)
    settled, left = torch.zeros_like(margin, dtype=torch.bool), torch.arange(n, device=margin.device)
    starts, slopes = _guess(rows, chunk, warm_up), (follows(rows), HELD)
    before, least = rows.x, margin
    for rounds in range(1, max_rounds + 1):
        options: dict[str, Any] = {"derivative": starts.shape[1] > 1, "slope": slopes[rounds % 2]}
        now, ends, derivatives = chunks.run(rows.kernel, rows.x, starts, chunk, **options)
        last = ends[:, -1]
        behind = (ends[:, :-1] != starts[:, 1:]).any(2)[0].cumsum(0).bool().sum(0)  # seams from the first that differs
        if is_linear and rounds > 1 and (behind > FEW).any():
            same = (now == before).all(1)[0]
            least = torch.where(same, least, UNKNOWN)
            ask = same & (behind > FEW) & (least == UNKNOWN)
            if ask.any():
                least[ask], last[..., ask] = proof(rows.some(ask), now[..., ask], last[..., ask])
        done = (behind == 0) | (least > 1) | (rounds == max_rounds)
        if done.any():
            place, keep = left[done], ~done
            spikes[..., place], final[..., place] = now[..., done], last[..., done]
            settled[place], margin[place] = behind[done] == 0, least[done]
            if done.all():
                break
            rows, left, least = rows.some(keep), left[keep], least[keep]
            now, starts, ends, derivatives = (t[..., keep] for t in (now, starts, ends, derivatives))
        own, before = side(rows.kernel.program), now
        tried = least != UNKNOWN  # then what is within rounding is left out, so that the last bits come to rest
        rounding = torch.finfo(ends.dtype).eps * ends[:, :-1, :own].abs().amax(1, keepdim=True) * tried
        starts = closer(starts, ends, derivatives, own, least=rounding)
    return Found(spikes, final, settled, margin.clamp(min=0), rounds)


def proof(rows: Rows, spikes: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Margins (n,) of rows with these spikes, and their last states (1, S, n) where that is above 1."""
    known = certain(*rows, spikes)
    if known is None:
        return spikes.new_zeros(spikes.shape[2], dtype=torch.float64), last
    margin = torch.where(known.spikes == spikes, known.margin, 0).amin((0, 1))
    return margin, torch.where(margin > 1, known.final.to(last), last)


def _guess(rows: Rows, chunk: int, warm_up: int) -> Tensor:
    """The states before all chunks (1, C, S, n): the first one, then those after some steps from rest."""
    count = -(-rows.x.shape[1] // chunk)
    starts = rows.first.new_zeros(1, count, *rows.first.shape[1:])
    if warm_up and count > 1:
        windows = pad(rows.x, (0, 0, warm_up, 0)).unfold(1, warm_up, chunk)[:, :count]
        steps = windows.transpose(2, 3).flatten(1, 2).contiguous()
        starts = chunks.run(rows.kernel, steps, starts, warm_up)[1]
    starts[:, 0] = rows.first
    return starts


def follows(rows: Rows) -> Slope:
    """A triangle about twice as wide as what the current adds to the potential; none where no reset is soft.

    The width is a power of 2, since each that was used is kept.
    """
    found = program(rows.kernel.program)
    if found.affine is None or not any(map(_is_soft, found.affine.stages)):
        return HELD
    zero = torch.zeros_like(rows.first[0, 0])
    values: dict[str, Any] = dict.fromkeys(found.step.states, zero)
    values |= dict(zip(found.step.rows, rows.kernel.fixed, strict=True))
    values |= dict(zip(found.step.numbers, rows.kernel.numbers, strict=True))
    one, other = (evaluate([found.step.distance], {**values, "current": zero + x})[0] for x in (1.0, 0.0))
    usual = torch.linalg.vector_norm(rows.x, dtype=torch.float64) / rows.x.numel() ** 0.5
    width = 2 * float((one - other).abs().mean() * usual)
    return slope_of(Triangle(2.0 ** round(math.log2(width)))) if 0 < width < math.inf else HELD


def _is_soft(stage: Stage) -> bool:
    """Whether the states that take the current are moved by the spike, and yet forget nothing by it."""
    kept, added = ({leaf.name for leaf in leaves(nodes)} for nodes in ([n for row in stage.A for n in row], stage.b))
    return {"current", "spike"} <= added and "spike" not in kept
