"""A network as one step: constants, states and calls of loops, and the source that does them one after the other."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from sdn.dynamics.base import Dynamics
from spikingssm.streaming.loops import LOOPS

__all__ = ["Call", "Part", "Plan"]

HEAD = '''"""A network, step by step. Generated; do not edit."""

from __future__ import annotations

import math

import numpy as np
from numpy import float32 as F
from numpy import sqrt

from sdn.ops.common.cpu import jit
from sdn.ops.common.functions_cpu import exp, exp_of_negative, inline, maximum, minimum, sigmoid, sign, tanh

TINY = F(1.1754943508222875e-38)
'''
LINE = 16
"""Numbers in a cache line: every array begins at one."""


@dataclass(frozen=True)
class Part:
    """A piece of one of the arrays of a plan, as loops take it: the array and where the piece begins, ``w, 64``."""

    array: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.array}, {self.start}"


@dataclass(frozen=True)
class Call:
    """A loop, or the step of a neuron, by its name, and what it is called with."""

    word: str
    arguments: tuple[Any, ...]
    layer: int | None = None
    """Which count of ``n`` it adds to: it then returns how many neurons fired."""

    def __str__(self) -> str:
        text = f"{self.word}({', '.join(map(str, self.arguments))})"
        return text if self.layer is None else f"n[{self.layer}] += {text}"


@dataclass
class Plan:
    """What a compiled step is made of.

    Arrays: ``x`` what a step reads, ``out`` what it answers, ``w`` constants, ``q`` those of 8 bits, ``s`` states,
    ``p`` sums in float64, ``n`` counts of spikes by layer, ``t`` room for what a step computes.
    """

    d_input: int
    d_output: int
    vocab: int | None = None
    """Where a step reads a token, how many there are."""
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys("wqspt", 0))
    constants: dict[Part, np.ndarray[Any, Any]] = field(default_factory=dict)
    """In float32, or whole numbers of 8 bits, each in its own shape."""
    states: dict[str, Part] = field(default_factory=dict)
    """In ``s`` and, for sums, in ``p``."""
    layers: dict[str, int] = field(default_factory=dict)
    """Neurons of each layer that spikes, in the order of ``n``."""
    spikes: dict[str, Part] = field(default_factory=dict)
    """Where those of each layer are, 0 and 1, after a step."""
    calls: list[Call] = field(default_factory=list)
    neurons: dict[str, Any] = field(default_factory=dict)
    """The steps of neurons by the names of their functions: `sdn.ops.common.single_cpu.Single`."""

    @property
    def x(self) -> Part:
        """What a step reads."""
        return Part("x", 0, self.d_input)

    @property
    def out(self) -> Part:
        """What it answers."""
        return Part("out", 0, self.d_output)

    def constant(self, values: Any) -> Part:
        """Numbers that do not change, of any shape, in the order of their last axis; int8 ones stay so."""
        found = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        small = found.dtype == np.int8
        part = self._part("q" if small else "w", found.size)
        self.constants[part] = found if small else found.astype(np.float32)
        return part

    def state(self, name: str, size: int) -> Part:
        """Numbers that one step leaves for the next; 0 at rest."""
        self.states[name] = part = self._part("s", size)
        return part

    def sums(self, name: str, size: int) -> Part:
        """The same in float64."""
        self.states[name] = part = self._part("p", size)
        return part

    def room(self, size: int) -> Part:
        """Numbers of this step alone."""
        return self._part("t", size)

    def call(self, loop: Callable[..., Any], *arguments: Any) -> None:
        """Do this now."""
        self.calls.append(Call(loop.__name__, arguments))

    def spiking(self, layer: str, spikes: Part, loop: Callable[..., Any] | str, *arguments: Any) -> None:
        """Do this now: a loop, or a neuron by its name, that writes spikes and returns how many neurons fired."""
        word = loop if isinstance(loop, str) else loop.__name__
        self.calls.append(Call(word, arguments, len(self.layers)))
        self.layers[layer], self.spikes[layer] = spikes.size, spikes

    def neuron(self, layer: str, dynamics: Dynamics, current: Part, like: Tensor) -> Part:
        """One step of the neurons of a layer; their spikes."""
        from sdn.ops.common.single_cpu import single_step  # which brings numba in

        found = single_step(dynamics, like)
        self.neurons[found.name] = found
        state = self.state(layer, found.first.numel())
        if bool(found.first.any()):
            raise NotImplementedError(f"{type(dynamics).__name__} is not 0 at rest, so it has no compiled step.")
        spikes, channels = self.room(like.shape[-1]), like.shape[-1]
        rows, numbers = self.constant(found.rows), self.constant(found.numbers)
        self.spiking(layer, spikes, found.name, current, channels, rows, numbers, state, spikes)
        return spikes

    def weights(self) -> np.ndarray[Any, Any]:
        """All constants one after the other, as ``w`` has them."""
        return self._joined("w", np.float32)

    def integers(self) -> np.ndarray[Any, Any]:
        """The same of ``q``, int8."""
        return self._joined("q", np.int8)

    def loops(self) -> list[str]:
        """The loops that are called."""
        called = {call.word for call in self.calls}
        return [word for word in LOOPS if word in called]

    def source(self) -> str:
        """The text for numba: the loops that are called, the neurons, a step, and steps one after the other."""
        texts = [inspect.getsource(LOOPS[word]) for word in self.loops()]
        texts += [found.text for found in self.neurons.values()]
        body = "".join(f"    {call}\n" for call in self.calls)
        texts.append(f"def step(x, out, w, q, s, p, n, t):\n{body}")
        inlined = [f"@inline\n{text}" for text in texts]
        return "\n\n".join([HEAD, *inlined, inspect.getsource(run).replace("def ", "@jit\ndef ", 1)])

    def _joined(self, array: str, dtype: Any) -> np.ndarray[Any, Any]:
        joined = np.zeros(self.sizes[array], dtype)
        for part, values in self.constants.items():
            if part.array == array:
                joined[part.start : part.start + part.size] = values.ravel()
        return joined

    def _part(self, array: str, size: int) -> Part:
        start = self.sizes[array]
        self.sizes[array] = start + -(-size // LINE) * LINE
        return Part(array, start, size)


def run(x, out, w, q, s, p, n, t):  # type: ignore[no-untyped-def]
    """All steps of all streams, x (B, L, C) and out (B, L, O), a row of s, p, n for each; whether all is finite."""
    bad = 0
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            step(x[b, i], out[b, i], w, q, s[b], p[b], n[b], t)  # type: ignore[name-defined]  # noqa: F821
        for j in range(s.shape[1]):
            bad += 0 if s[b, j] - s[b, j] == 0 else 1
        for j in range(out.shape[2]):
            bad += 0 if out[b, -1, j] - out[b, -1, j] == 0 else 1
    return bad == 0
