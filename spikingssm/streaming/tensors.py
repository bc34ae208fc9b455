"""A plan as an ordinary module: the step of a network in plain real operators of torch, with an explicit state.

It is what is written to files that other programs run: no complex numbers, no operator of our own, and every state a
named tensor. It is also the quickest step on other devices and under a gradient, and the readable statement that the
compiled step is tested against. Its code is written out from the plan, line by line.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdn.compiler.programs import program
from sdn.compiler.sources import module_of
from sdn.compiler.writing import Writer
from spikingssm.streaming.plan import Part, Plan

__all__ = ["TensorStep", "neuron_lines"]

HEAD = '''"""A network, one step of B rows in tensors. Generated; do not edit."""

import torch
from torch import addcmul, addmm, cat, sigmoid, stack
from torch.nn.functional import embedding, layer_norm

from sdn.compiler.arithmetic import *
'''


class TensorStep(nn.Module):
    """One step of B streams: ``step(x, *states) -> (logits, *states, *spikes)``.

    Args:
        plan: of the network, by ``model.plan()``.

    ``x`` is (B, d_input) float32, or (B, 1) int64 tokens. ``states`` are (B, n) in the order of ``state_names``,
    float32 but the sums of means, which are float64. ``spikes`` are (B, neurons) of each layer, 0 or 1, in the order of
    ``spike_names``. The weights are those of the moment at which it was made; they are buffers.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.state_names, self.spike_names = [*plan.states], [*plan.spikes]
        text = _Text(plan)
        self.constants = [*text.constants]
        for name, value in text.constants.items():
            self.register_buffer(name, value)
        self.source = text.source()
        self._step: Callable[..., tuple[Tensor, ...]] = module_of("tensors", self.source).step

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return self._step([self._buffers[name] for name in self.constants], x, *states)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_step": None}  # a function of a file that is written anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._step = module_of("tensors", self.source).step

    def inputs(self, batch: int = 1) -> Tensor:
        """A step of zeros as the module takes it."""
        kind = torch.float32 if self.plan.vocab is None else torch.int64
        return torch.zeros(batch, self.plan.d_input, dtype=kind)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Rest, for so many streams."""
        kinds = {"s": torch.float32, "p": torch.float64}
        device = next(self.buffers()).device
        parts = self.plan.states.values()
        return tuple(torch.zeros(batch, part.size, dtype=kinds[part.array], device=device) for part in parts)


def neuron_lines(key: str) -> tuple[list[str], list[str]]:
    """One step of a neuron as statements of Python: what they read, and the lines up to ``spike`` and the new states.

    Args:
        key: of its program.

    Returns:
        names: states, rows and numbers in this order, each with a ``_`` behind it, so that none is a word of Python.
        lines: the last one returns the spike and the states.
    """
    step = program(key).step
    names = {name: f"{name}_" for name in (*step.states, *step.rows, *step.numbers)}
    writer = Writer("python", {**names, "current": "current", "spike": "spike"})
    (distance,) = writer.write([step.distance], step.after)
    sign = ">=" if step.at_threshold else ">"
    lines = [*writer.lines, f"spike = real({distance} {sign} 0, current)"]
    writer.lines.clear()
    after = writer.write(step.after)
    return [*names.values()], [*lines, *writer.lines, f"return spike, {', '.join(after)}"]


class _Text:
    """The lines of a step: each call of the plan in operators of torch, each result under a name of its own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.constants: dict[str, Tensor] = {}
        self.lines: list[str] = []
        self._names = {plan.x: "x", **{part: f"s{i}" for i, part in enumerate(plan.states.values())}}
        self._count = 0
        spikes = []
        for call in plan.calls:
            LOOPS.get(call.word, _neuron(call.word))(self, *call.arguments)
            if call.layer is not None:  # before a skip adds to them
                spikes.append(self[[*plan.spikes.values()][call.layer]])
        states = [self[part] for part in plan.states.values()]
        self.lines.append(f"return {', '.join([self[plan.out], *states, *spikes])},")

    def source(self) -> str:
        """The file."""
        texts = [_neuron_text(name, found.key) for name, found in self.plan.neurons.items()]
        states = ", ".join(f"s{i}" for i in range(len(self.plan.states)))
        body = [f"{', '.join(self.constants)}, = w", *self.lines]
        lines = "".join(f"    {line}\n" for line in body)
        return "\n\n".join([HEAD, *texts, f"def step(w, x, {states}):\n{lines}"])

    def __getitem__(self, part: Part) -> str:
        """The name of what a part holds now."""
        if part not in self._names:
            self._names[part] = self.constant(part)
        return self._names[part]

    def __setitem__(self, part: Part, text: str) -> None:
        """Let a part hold the value of an expression."""
        self._names[part] = self.value(text)

    def alias(self, part: Part, other: Part) -> None:
        """Let a part hold what another holds."""
        self._names[part] = self[other]

    def value(self, text: str) -> str:
        """A new name for the value of an expression."""
        self._count += 1
        self.lines.append(f"v{self._count} = {text}")
        return f"v{self._count}"

    def values(self, text: str, count: int) -> list[str]:
        """New names for what an expression gives several of."""
        names = [f"v{self._count + 1 + i}" for i in range(count)]
        self._count += count
        self.lines.append(f"{', '.join(names)}, = {text}")
        return names

    def constant(self, part: Part, place: int | None = None, axis: int = 0) -> str:
        """The name of a constant, or of one slice of it along an axis."""
        value = torch.tensor(self.plan.constants[part])
        name = f"{part.array}{part.start}" if place is None else f"{part.array}{part.start}_{place}"
        value = value if place is None else value.select(axis, place).contiguous()
        self.constants.setdefault(name, value.clone())
        return name

    def slices(self, part: Part, axis: int = 0) -> list[str]:
        """The names of all slices of a constant along an axis."""
        return [self.constant(part, place, axis) for place in range(self.plan.constants[part].shape[axis])]


def _neuron_text(name: str, key: str) -> str:
    names, lines = neuron_lines(key)
    body = "".join(f"    {line}\n" for line in lines)
    return f"def {name}({', '.join(['current', *names])}):\n{body}"


def _neuron(name: str) -> Callable[..., None]:
    """The call of a neuron's step."""

    def call(t: _Text, current: Part, width: int, rows: Part, numbers: Part, state: Part, spikes: Part) -> None:
        count = state.size // width
        fields = [t[state]] if count == 1 else t.values(f"{t[state]}.reshape(-1, {count}, {width}).unbind(1)", count)
        plain = [repr(float(number)) for number in t.plan.constants[numbers].tolist()]
        given = ", ".join([t[current], *fields, *t.slices(rows), *plain])
        fired, *after = t.values(f"{name}({given})", 1 + count)
        t[spikes] = fired
        t[state] = after[0] if count == 1 else f"cat([{', '.join(after)}], 1)"

    return call


# ---- the loops of `spikingssm.streaming.loops`, on tensors of B rows
def _copied(t: _Text, x: Part, y: Part, count: int) -> None:
    t.alias(y, x)


def _added(t: _Text, x: Part, y: Part, count: int) -> None:
    t[y] = f"{t[y]} + {t[x]}"


def _scaled(t: _Text, x: Part, factor: Part, offset: Part, y: Part, count: int) -> None:
    t[y] = f"addcmul({t[offset]}, {t[factor]}, {t[x]})"


def _mapped(t: _Text, x: Part, weight: Part, y: Part, inputs: int, outputs: int) -> None:
    t[y] = f"addmm({t[y]}, {t[x]}, {t[weight]})"


def _mapped_int8(t: _Text, x: Part, q: Part, scale: Part, room: Part, y: Part, inputs: int, outputs: int) -> None:
    t[y] = f"addcmul({t[y]}, {t[x]} @ {t[q]}.to({t[x]}.dtype), {t[scale]})"


def _embedded(t: _Text, x: Part, table: Part, y: Part, count: int) -> None:
    t[y] = f"embedding({t[x]}.long().squeeze(1), {t[table]})"


def _modes(t: _Text, u: Part, w: Part, through: Part, s: Part, y: Part, count: int, n: int) -> None:
    a_re, a_im, b_re, b_im, c_re, c_im = t.slices(w, 1)  # (modes, n) each
    re, im = t.values(f"{t[s]}.reshape(-1, {count}, 2, {n}).unbind(2)", 2)
    drive = t.value(f"{t[u]}.unsqueeze(1)")
    real = t.value(f"addcmul(addcmul({a_re} * {re}, {a_im}, {im}, value=-1), {b_re}, {drive})")
    imaginary = t.value(f"addcmul(addcmul({a_re} * {im}, {a_im}, {re}), {b_im}, {drive})")
    t[s] = f"stack([{real}, {imaginary}], 2).flatten(1)"
    read = t.value(f"addcmul({c_re} * {real}, {c_im}, {imaginary}, value=-1).sum(1)")
    t[y] = f"addcmul({read}, {t[through]}, {t[u]})"


def _gated(t: _Text, x: Part, y: Part, count: int) -> None:
    t[y] = f"addcmul({t[y]}, {t[x]}[:, :{count}], sigmoid({t[x]}[:, {count}:]))"


def _normed(t: _Text, x: Part, factor: Part, offset: Part, eps: float, y: Part, room: Part, n: int) -> None:
    t[y] = f"layer_norm({t[x]}, ({n},), {t[factor]}, {t[offset]}, {eps!r})"


def _resonated(t: _Text, u: Part, w: Part, turn: Part, s: Part, y: Part, n: int, size: int, kind: int) -> None:
    factor_re, factor_im, gain_re, gain_im, threshold, keep, add = t.slices(w)
    re, im, raised = t.values(f"{t[s]}.reshape(-1, 3, {n}).unbind(1)", 3)
    drive_re, drive_im = t.values(f"{t[u]}.reshape(-1, 2, {n}).unbind(1)", 2)
    # products and sums as the compiled step rounds them
    real = f"({factor_re} * {re} - {factor_im} * {im}) + ({gain_re} * {drive_re} - {gain_im} * {drive_im})"
    imaginary = f"({factor_re} * {im} + {factor_im} * {re}) + ({gain_re} * {drive_im} + {gain_im} * {drive_re})"
    real, imaginary = t.value(real), t.value(imaginary)
    seen: Sequence[str] = (real, imaginary)
    if size:
        turn_re, turn_im = t.slices(turn)  # (column, row)
        a, b = (t.value(f"{part}.reshape(-1, {n // size}, {size})") for part in (real, imaginary))
        seen = [
            t.value(f"({a} @ {turn_re} - {b} @ {turn_im}).flatten(1)"),
            t.value(f"({b} @ {turn_re} + {a} @ {turn_im}).flatten(1)"),
        ]
    potential = f"({seen[0]}.square() + {seen[1]}.square()).sqrt()" if kind == 1 else seen[0]
    t[y] = f"({potential} - {threshold} - {raised} > 0).to({real}.dtype)"
    t[s] = f"cat([{real}, {imaginary}, {keep} * {raised} + {add} * {t[y]}], 1)"


def _integrated(t: _Text, x: Part, keep: Part, gain: Part, s: Part, count: int) -> None:
    t[s] = f"{t[keep]} * {t[s]} + {t[gain]} * {t[x]}"


def _averaged(t: _Text, x: Part, p: Part, y: Part, count: int) -> None:
    steps, sums = t.value(f"{t[p]}[:, :1] + 1"), t.value(f"{t[p]}[:, 1:] + {t[x]}.to({t[p]}.dtype)")
    t[p] = f"cat([{steps}, {sums}], 1)"
    t[y] = f"({sums} / {steps}).to({t[x]}.dtype)"


LOOPS: dict[str, Callable[..., None]] = {
    "copied": _copied, "added": _added, "scaled": _scaled, "mapped": _mapped, "mapped_int8": _mapped_int8,
    "embedded": _embedded, "modes": _modes, "gated": _gated, "normed": _normed, "resonated": _resonated,
    "integrated": _integrated, "averaged": _averaged,
}  # fmt: skip
