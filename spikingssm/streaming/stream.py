"""A network as one compiled step with an explicit state: microseconds a call, for any number of streams."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from torch import Tensor

from sdn.checks.arguments import check_count
from sdn.compiler.sources import module_of
from spikingssm.streaming.plan import Plan

__all__ = ["Stream", "StreamState"]

Array = np.ndarray[Any, Any]


@dataclass
class StreamState:
    """Where B streams of a `Stream` are. Its arrays change in place with every step.

    Args:
        values: (B, S) float32, states of all layers.
        sums: (B, P) float64, sums over all steps, where the network has a mean.
        counts: (B, layers) int64, spikes so far.
        steps: of each stream so far, (B,) int64.
    """

    values: Array
    sums: Array
    counts: Array
    steps: Array
    room: Array = field(repr=False)
    """For what a step computes."""

    def copy(self) -> Self:
        """The same as arrays of its own, to come back to."""
        parts = self.values, self.sums, self.counts, self.steps, self.room
        return type(self)(*(part.copy() for part in parts))

    def reset(self, rows: Any = slice(None)) -> None:
        """Bring streams to rest; all, or those of some rows."""
        for part in (self.values, self.sums, self.counts, self.steps):
            part[rows] = 0


class Stream:
    """A network of fixed weights as one compiled step. ``model.compile_step()`` makes it.

    Args:
        plan: of the network.
        name: of its class.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self.d_input, self.d_output, self.name = plan.d_input, plan.d_output, name
        self.layers = dict(plan.layers)
        self.source = plan.source()
        self._plan = plan
        self._weights, self._integers = plan.weights(), plan.integers()
        if not np.isfinite(self._weights).all():
            raise ValueError(
                f"Stream: a weight of this {name} is NaN or infinite; train it anew, or load other weights."
            )
        self._run = module_of(f"stream-{name.lower()}", self.source).run

    def initial_state(self, batch: int = 1) -> StreamState:
        """Rest, for so many streams."""
        check_count("Stream", "batch", batch)
        sizes = self._plan.sizes
        return StreamState(
            np.zeros((batch, sizes["s"]), np.float32),
            np.zeros((batch, sizes["p"]), np.float64),
            np.zeros((batch, len(self.layers)), np.int64),
            np.zeros(batch, np.int64),
            np.zeros(sizes["t"], np.float32),
        )

    def memory(self) -> dict[str, int]:
        """Bytes: ``weights`` as the loop keeps them, ``state`` of one stream, and the ``room`` that all streams share.

        Arrays begin at whole cache lines, so these are a little more than the numbers in them.
        """
        state = self.initial_state()
        parts = state.values, state.sums, state.counts, state.steps
        return {
            "weights": self._weights.nbytes,
            "state": sum(part.nbytes for part in parts),
            "room": state.room.nbytes,
        }

    def step(self, x: Array | Tensor, state: StreamState) -> Array:
        """One step of each stream.

        Args:
            x: (B, d_input) float32, or (d_input,) for one stream; an array or a tensor.
            state: of B streams; it changes in place.

        Returns:
            the logits, (B, d_output) or (d_output,), as ``model.step`` gives them.

        Raises:
            ValueError: another shape, or a state that became NaN or infinite.
        """
        given = np.ascontiguousarray(x, np.float32)
        batch = len(state.values)
        if given.shape not in ((batch, self.d_input), (self.d_input,)) or (given.ndim == 1 and batch != 1):
            raise ValueError(f"Stream: a step of {batch} streams must be ({batch}, {self.d_input}), got {given.shape}.")
        logits = self._through(given.reshape(batch, 1, self.d_input), state)
        return logits[0, 0] if given.ndim == 1 else logits[:, 0]

    def run(self, x: Array | Tensor, state: StreamState) -> Array:
        """Several steps: (B, L, d_input), or (L, d_input) for one stream -> the logits after each of them.

        Raises:
            ValueError: as `step`.
        """
        given, batch = np.ascontiguousarray(x, np.float32), len(state.values)
        alone = given.ndim == 2 and batch == 1
        whole = given[None] if alone else given
        if whole.ndim != 3 or whole.shape[::2] != (batch, self.d_input) or not whole.size:
            raise ValueError(
                f"Stream: steps of {batch} streams must be ({batch}, steps, {self.d_input}), got {given.shape}."
            )
        logits = self._through(whole, state)
        return logits[0] if alone else logits

    def spikes(self, state: StreamState) -> dict[str, Array]:
        """Spikes so far by layer, (B,) each."""
        return {name: state.counts[:, i] for i, name in enumerate(self.layers)}

    def _check(self, x: Array, state: StreamState) -> None:
        """Refuse what would be read or written outside of its array: the loop itself does not look."""
        sizes = self._plan.sizes
        wanted = sizes["s"], sizes["p"], len(self.layers), sizes["t"]
        given = state.values.shape[1], state.sums.shape[1], state.counts.shape[1], len(state.room)
        if given != wanted:
            raise ValueError("Stream: this state is of another network; make one by initial_state.")
        vocab = self._plan.vocab
        if vocab is not None and not ((x >= 0) & (x < vocab)).all():
            raise ValueError(f"Stream: tokens from {x.min():g} to {x.max():g}, this model has 0 to {vocab - 1}.")

    def _through(self, x: Array, state: StreamState) -> Array:
        self._check(x, state)
        out = np.empty((*x.shape[:2], self.d_output), np.float32)
        if not self._run(x, out, self._weights, self._integers, state.values, state.sums, state.counts, state.room):
            raise ValueError("Stream: a state became NaN or infinite; look at the input, and reset the state.")
        state.steps += x.shape[1]
        return out
