"""A trained network over a stream: answers while it runs, in constant memory."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from spikingssm.datasets.interface import Interface
from spikingssm.datasets.prepared import Prepared
from spikingssm.datasets.targets import LabelTargets, NumberTargets
from spikingssm.models.base import answers_of, patch_of
from spikingssm.streaming.stream import Stream
from spikingssm.tasks import Task, answer_of, skip_of

__all__ = ["Answer", "Heard", "Listener", "listen", "listener_of", "steps_of"]

Array = np.ndarray[Any, Any]
STEPS = 100
"""Steps between two answers where no rate is known."""
LOGITS = 2**20
"""Numbers that a network may answer with before they are summed up: memory does not grow with its classes."""


class Answer(NamedTuple):
    """What a network says.

    Args:
        value: the name of a class, the names of a set of labels, or the numbers in the units of the data.
        probabilities: of each class or label, (C,); None for numbers.
        logits: (C,) float32.
    """

    value: str | list[str] | list[float]
    probabilities: Array | None
    logits: Array


class Heard(NamedTuple):
    """What a network says of a stream so far.

    Args:
        step: steps of the stream so far, at the rate that the network reads.
        seconds: so far, or None where no rate is known.
        window: how often the network has begun anew.
        answer: of this window so far, as `predict` answers for a whole sequence; None within the steps that the task
            leaves out. Where each step has an answer of its own, that of this step.
        now: of this step, where ``answer`` is the mean over the steps.
        spikes: since the `Heard` before, by layer.
        total: since the stream began, by layer.
    """

    step: int
    seconds: float | None
    window: int
    answer: Answer | None
    now: Answer | None
    spikes: dict[str, int]
    total: dict[str, int]


class Listener:
    """Runs a stream through a network, block by block; what it says does not depend on how blocks are cut.

    Args:
        network: of the stream.
        stream: the same, compiled.
        task: what the logits mean.
        interface: names and units.
        prepared: raw blocks -> steps.
        every: steps between two answers; None is about a second, or `STEPS`, or with ``reset`` its windows.
        reset: steps of a window, after which the network begins anew; None is never.

    Attributes:
        steps: of the stream so far.
        frames: steps of the network so far, of ``patch`` steps of the stream each.
        total: spikes since the stream began, by layer.
        neurons: how many each layer has.
        rate: steps of the stream a second, or None.
        windows: whether it begins anew.
        averages: whether the answer is the mean over the steps.
    """

    def __init__(
        self,
        network: nn.Module,
        stream: Stream,
        task: Task,
        interface: Interface,
        prepared: Prepared,
        every: int | None = None,
        reset: int | None = None,
    ) -> None:
        self._stream, self._interface, self._prepared = stream, interface, prepared
        self.neurons, self.rate, self.windows = stream.layers, prepared.rate, reset is not None
        self._patch, self._skip = patch_of(network), skip_of(task)
        usual = STEPS if prepared.rate is None else max(1, round(prepared.rate))
        self._every, self._reset = every or reset or usual, reset
        each = torch.zeros(1, self._skip + 1, interface.d_output)
        self.averages = answers_of(network) == "step" and answer_of(task, each, None).ndim == 2
        stream.run(np.zeros((1, stream.d_input), np.float32), stream.initial_state())  # compiled now, not in the stream
        self._state = stream.initial_state()
        self.steps = self.frames = self._window = 0
        self.total = dict.fromkeys(stream.layers, 0)
        self._told = dict(self.total)
        self._begin()

    def hear(self, block: Any) -> Iterator[Heard]:
        """Run a raw block, see `Prepared`; an answer whenever one is due.

        Raises:
            ValueError: what `Prepared` refuses; the state is then that before the block. Or a state that became NaN or
                infinite.
        """
        yield from self._run(self._prepared(block))

    def end(self) -> Iterator[Heard]:
        """The end of the stream: what was held back, and the last answer."""
        yield from self._run(self._prepared.end())
        yield from self._close()

    def _begin(self) -> None:
        self._held = np.zeros((0, self._interface.d_input if self._interface.vocab is None else 1), np.float32)
        self._start, self._done, self._told_at = self.steps, 0, 0
        self._sum: Array = np.zeros(self._interface.d_output)
        self._last: Array | None = None
        self._fresh = False
        self._state.reset()
        self._before = dict(self.total)

    def _run(self, x: Array) -> Iterator[Heard]:
        """Steps, window by window."""
        while len(x):
            room = len(x) if self._reset is None else self._start + self._reset - self.steps
            part, x = x[:room], x[room:]
            yield from self._through(part)
            if self._reset is not None and self.steps == self._start + self._reset:
                yield from self._close()
                self._window += 1
                self._begin()

    def _through(self, part: Array) -> Iterator[Heard]:
        """Steps of one window: whole frames are run, up to each answer that is due; the rest is held."""
        ready, arrived = np.concatenate([self._held, part]), self.steps + len(part)
        whole = len(ready) // self._patch * self._patch
        frames, self._held = ready[:whole].reshape(-1, self._stream.d_input), ready[whole:].copy()
        most = max(1, LOGITS // self._stream.d_output)
        while len(frames):
            due = -(-(self._told_at + self._every) // self._patch)  # an answer comes behind a whole frame
            room = min(due - self._done, most)
            piece, frames = frames[:room], frames[room:]
            self._add(piece)
            if self._done == due:
                self.steps = self._start + self._done * self._patch
                self._told_at = self._done * self._patch // self._every * self._every
                yield self._heard()
        self.steps = arrived

    def _close(self) -> Iterator[Heard]:
        """The end of a window: its last frame is filled with zeros, as in training."""
        if len(self._held):
            frame = np.zeros((1, self._stream.d_input), np.float32)
            frame.reshape(-1)[: self._held.size] = self._held.reshape(-1)
            self._held = self._held[:0]
            self._add(frame)
        if self._fresh:
            yield self._heard()

    def _add(self, frames: Array) -> None:
        logits = self._stream.run(frames, self._state)
        if self.averages:
            counted = logits[max(0, self._skip - self._done) :]
            self._sum = np.add.accumulate(np.concatenate([self._sum[None], counted]), 0)[-1]  # one by one, in order
        self._done += len(frames)
        self.frames += len(frames)
        self._last, self._fresh = logits[-1].copy(), True
        counts = self._stream.spikes(self._state)
        self.total = {name: self._before[name] + int(counts[name][0]) for name in self.total}

    def _heard(self) -> Heard:
        self._fresh = False
        assert self._last is not None
        last = _answered(self._last, self._interface)
        answer: Answer | None = last
        if self.averages:
            count = self._done - self._skip
            answer = _answered((self._sum / count).astype(np.float32), self._interface) if count > 0 else None
        seconds = None if self.rate is None else self.steps / self.rate
        fired = {name: count - self._told[name] for name, count in self.total.items()}
        self._told = dict(self.total)
        now = last if self.averages else None
        return Heard(self.steps, seconds, self._window, answer, now, fired, dict(self.total))


def listener_of(
    model: Any, rate: float | None = None, every: float | None = None, reset: float | None = None, loud: bool = False
) -> Listener:
    """The listener of a `TrainedModel`, at rest.

    Args:
        model: the trained model.
        rate: see `Prepared`, as is ``loud``.
        every: seconds between two answers, or steps where no rate is known.
        reset: seconds or steps of a window.
        loud: whether samples beyond [-1, 1] are cut.

    Raises:
        NotImplementedError: a network that has no compiled step.
        ValueError: data that cannot be read in blocks, or numbers out of range.
    """
    prepared = Prepared(model.interface, rate, loud)
    steps = [steps_of(name, value, prepared.rate) for name, value in (("every", every), ("reset", reset))]
    try:
        stream = model.compile_step()
    except NotImplementedError as error:
        error.add_note("`predict` runs this network over whole sequences.")
        raise
    return Listener(model.network, stream, model.task, model.interface, prepared, *steps)


def listen(listener: Listener, blocks: Iterable[Any]) -> Iterator[Heard]:
    """What a listener says of all blocks, and of their end."""
    for block in blocks:
        yield from listener.hear(block)
    yield from listener.end()


def steps_of(name: str, value: float | None, rate: float | None) -> int | None:
    """A length in seconds as steps, or, where no rate is known, one in steps.

    Raises:
        ValueError: less than a step, or a part of one where no rate is known.
    """
    if value is None:
        return None
    unit = "steps" if rate is None else "seconds"
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be above 0 {unit}, got {value:g}.")
    if rate is None and value != int(value):
        raise ValueError(f"{name} must be whole steps for a stream of no known rate, got {value:g}.")
    steps = round(value * (rate or 1))
    if steps < 1:
        raise ValueError(f"{name} of {value:g} seconds is less than a step at {rate:g} Hz.")
    return steps


def _answered(logits: Array, interface: Interface) -> Answer:
    """The same as `TrainedModel.predict` says of one sequence."""
    wide = torch.from_numpy(logits.copy())
    if isinstance(interface.targets, NumberTargets):
        numbers: list[float] = interface.targets.own(wide).tolist()
        return Answer(numbers, None, wide.numpy())
    if isinstance(interface.targets, LabelTargets):
        shares = wide.sigmoid().numpy()
        return Answer([interface.class_name(int(k)) for k in np.flatnonzero(shares > 0.5)], shares, wide.numpy())
    return Answer(interface.class_name(int(wide.argmax())), wide.softmax(-1).numpy(), wide.numpy())
