"""Exact spikes from chunks of time that run side by side: states at the seams are guessed, compared and repaired."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.compiler.programs import program
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel
from sdn.solvers.linear import certain, solve, spikes_at

__all__ = ["Found", "Rows", "run_in_chunks", "run_rows"]


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
    redone: int
    """Chunks of a row that were run again."""


def run_rows(rows: Rows) -> tuple[Tensor, Tensor]:
    """Spikes (1, L, n) and last state (1, S, n) by the fused loop."""
    return neuron.run(rows.kernel, rows.x, rows.first, ("", []), through_reset=False, record=False)[:2]


def run_in_chunks(rows: Rows, chunk: int, warm_up: int, max_rounds: int) -> Found:
    """Run all chunks of a sequence at once, each from a guess of its first state, and repair the guesses that differ.

    The first guess is the state after ``warm_up`` steps from rest before the chunk. The next ones are the states that
    the neuron has at the seams if it spikes as the chunks just did, found by a scan. Where it is not linear, where its
    spikes do not change any more, and where all seams before agree, they are the states in which the chunks before
    ended. So every round settles at least one more chunk of a row, in order.

    Args:
        rows: what is to be run.
        chunk: steps of a chunk, >= 1.
        warm_up: steps before a chunk that make its guess, >= 0.
        max_rounds: runs after which the rows that are left are given up.
    """
    chunk = min(chunk, rows.x.shape[1])
    work = _Chunks(rows, chunk, warm_up)
    is_linear = program(rows.kernel.program).affine is not None
    margin = torch.zeros(rows.x.shape[2], dtype=torch.float64, device=rows.x.device)
    kept = torch.zeros_like(margin, dtype=torch.bool)  # whose spikes do not change any more
    asked = kept.clone()  # of these, whose margin is known
    ends = torch.zeros_like(rows.first)  # their last states
    rounds, redone = 1, 0
    while True:
        differs = work.seams()
        settled = ~differs.any(0)
        start = work.final.roll(1, 1)
        ask = (~settled & ~asked).nonzero().squeeze(1) if is_linear else settled.new_empty(0, dtype=torch.int64)
        if len(ask):
            part, spikes = rows.some(ask), work.spikes(ask)
            distance, states = solve(*part, spikes, slice(chunk - 1, -1, chunk))
            kept[ask] |= (spikes_at(part.kernel, distance) == spikes).all(1).squeeze(0)
            sure = kept[ask]
            if sure.any():
                asked |= kept
                known = certain(*part.some(sure), spikes[..., sure])
                if known is not None:
                    margin[ask[sure]] = torch.where(known.spikes == spikes[..., sure], known.margin, 0).amin((0, 1))
                    ends[..., ask[sure]] = known.final.to(ends)
            seams = pad(states[0].transpose(0, 1)[..., ~sure], (0, 0, 1, 0))  # (S, C, m)
            ask = ask[~sure]
            agree = (~differs[:, ask]).cumprod(0).bool()
            right = pad(agree[:-1], (0, 0, 1, 0), value=True)
            start[..., ask] = torch.where(right, start[..., ask], seams)
        left = ~settled & ~(margin > 1)
        if rounds == max_rounds or not left.any():
            final = torch.where(~settled & (margin > 1), ends, work.last())
            return Found(work.spikes(), final, settled, margin, rounds, redone)
        changed, count = work.run_again(left, start)
        kept, asked = ~changed, asked & ~changed
        rounds, redone = rounds + 1, redone + count


class _Chunks:
    """All chunks of some rows: the states they start from, those they end in, and their spikes between."""

    def __init__(self, rows: Rows, chunk: int, warm_up: int) -> None:
        length, n = rows.x.shape[1:]
        count = -(-length // chunk)
        warm_up = warm_up if count > 1 else 0
        padded = pad(rows.x[0], (0, 0, warm_up, count * chunk - length))
        lanes = padded.unfold(0, warm_up + chunk, chunk).permute(2, 0, 1)  # (W + T, C, n)
        self.rows, self.now = rows, lanes[warm_up:]
        rest = rows.first.new_zeros(rows.first.shape[1], count, n)
        everywhere = torch.ones(count, n, dtype=torch.bool, device=rows.x.device)
        start = self._run(everywhere, lanes[:warm_up], rest)[1] if warm_up else rest
        self.start = start.reshape(rest.shape)
        self.start[:, 0] = rows.first[0]
        spikes, final = self._run(everywhere, self.now, self.start)
        self._spikes, self.final = spikes.reshape(chunk, count, n), final.reshape(rest.shape)

    def _run(self, where: Tensor, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes (T, m) and last states (S, m) of the chunks of ``where``, (C, n) with m times True."""
        kernel = self.rows.kernel._replace(fixed=self.rows.kernel.fixed[:, where.nonzero()[:, 1]])
        spikes, final = run_rows(Rows(kernel, x[:, where].unsqueeze(0), start[:, where].unsqueeze(0)))
        return spikes[0], final[0]

    def seams(self) -> Tensor:
        """(C, n) bool: where a chunk did not start from the very state in which the one before ended."""
        return pad((self.start[:, 1:] != self.final[:, :-1]).any(0), (0, 0, 1, 0))

    def run_again(self, rows: Tensor, start: Tensor) -> tuple[Tensor, int]:
        """Let the chunks of some rows, (n,) bool, start from other states (S, C, n).

        Returns:
            rows whose spikes changed, (n,) bool, and how many chunks were run.
        """
        where = rows & (start != self.start).any(0)
        where[0] = False
        self.start = torch.where(where, start, self.start)
        spikes, self.final[:, where] = self._run(where, self.now, self.start)
        changed = torch.zeros_like(where)
        changed[where] = (spikes != self._spikes[:, where]).any(0)
        self._spikes[:, where] = spikes
        return changed.any(0), spikes.shape[1]

    def spikes(self, some: Tensor | slice = slice(None)) -> Tensor:
        """(1, L, n)"""
        whole = self._spikes[..., some].transpose(0, 1).flatten(0, 1)
        return whole[: self.rows.x.shape[1]].unsqueeze(0)

    def last(self) -> Tensor:
        """The state after the last step, (1, S, n)."""
        rest = self.rows.x.shape[1] % len(self.now)
        if not rest:
            return self.final[:, -1].unsqueeze(0)
        return run_rows(Rows(self.rows.kernel, self.rows.x[:, -rest:], self.start[:, -1].unsqueeze(0)))[1]
