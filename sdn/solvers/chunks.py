"""Exact spikes from chunks of time that run side by side: states at the seams are guessed, compared and repaired."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import pad

from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel

__all__ = ["Chunked", "run_in_chunks"]


class Chunked(NamedTuple):
    """What `run_in_chunks` finds; a row is one neuron of one sample."""

    spikes: Tensor
    """(B, L, H), those of the loop in the rows that settled."""
    settled: Tensor
    """(B, H) bool, where every seam agreed."""
    rounds: int
    """Runs, the first over all chunks included."""
    redone: int
    """Chunks of a row that were run again."""


def run_in_chunks(
    kernel: Kernel, x: Tensor, first: Tensor, chunk: int = 256, warm_up: int = 64, max_rounds: int = 32
) -> Chunked:
    """Run all chunks of a sequence at once, each from a guess of its first state, and repair the guesses that differ.

    A guess is the state after ``warm_up`` steps from rest before the chunk. A spike with hard reset erases what came
    before, and a leak forgets it, so most guesses are right to the last bit; where one is not, the chunk is run again
    from the last state of the one before. Every round settles at least one more chunk of a row, in order.

    Args:
        kernel: the neuron.
        x: (B, L, H) currents.
        first: (B, S, H) state before the first step.
        chunk: steps of a chunk, >= 1.
        warm_up: steps before a chunk that make its guess, >= 0.
        max_rounds: runs after which rows with a seam that differs are given up.
    """
    batch, length, channels = x.shape
    chunk = min(chunk, length)
    count = -(-length // chunk)
    warm_up = warm_up if count > 1 else 0
    padded = pad(x, (0, 0, warm_up, count * chunk - length)).transpose(1, 2)
    lanes = padded.unfold(2, warm_up + chunk, chunk).permute(3, 0, 1, 2).flatten(1).unsqueeze(0)  # (1, W + T, B H C)
    wide = kernel._replace(fixed=kernel.fixed.repeat(1, batch).repeat_interleave(count, 1))
    shape = first.shape[1], batch * channels, count
    rest = first.new_zeros(1, first.shape[1], lanes.shape[2])
    start = (_run(wide, lanes[:, :warm_up], rest)[1] if warm_up else rest).reshape(shape)
    start[..., 0] = first.transpose(0, 1).flatten(1)
    now = lanes[:, warm_up:]
    spikes, final = _run(wide, now, start.reshape(rest.shape))
    final, rounds, redone = final.reshape(shape), 1, 0
    differs = _seams(start, final)
    while differs.any() and rounds < max_rounds:
        start[:, differs] = final.roll(1, 2)[:, differs]
        some = differs.flatten().nonzero().squeeze(1)
        again = wide._replace(fixed=wide.fixed[:, some])
        found = _run(again, now[:, :, some], start.reshape(rest.shape)[:, :, some])
        spikes[:, :, some], final[:, differs] = found[0], found[1][0]
        rounds, redone = rounds + 1, redone + len(some)
        differs = _seams(start, final)
    whole = spikes.reshape(chunk, batch, channels, count).permute(1, 3, 0, 2).reshape(batch, -1, channels)
    settled = ~differs.any(1).reshape(batch, channels)
    return Chunked(whole[:, :length].contiguous(), settled, rounds, redone)


def _run(kernel: Kernel, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    return neuron.run(kernel, x, first, ("", []), through_reset=False, record=False)[:2]


def _seams(start: Tensor, final: Tensor) -> Tensor:
    """(B H, C) bool: where a chunk did not start from the very state in which the one before ended."""
    differs = (start[..., 1:] != final[..., :-1]).any(0)
    return pad(differs, (1, 0))
