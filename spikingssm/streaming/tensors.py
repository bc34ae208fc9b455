"""A plan as an ordinary module: the step of a network in plain real operators of torch, with an explicit state.

It is what is written to files that other programs run: no complex numbers, no operator of our own, and every state a
named tensor. It is also the slow, readable statement that the compiled step is tested against.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdn.compiler.programs import program
from sdn.compiler.sources import module_of
from sdn.compiler.writing import Writer
from spikingssm.streaming.plan import Call, Part, Plan

__all__ = ["TensorStep", "neuron_lines"]

Values = dict[Part, Tensor]


class TensorStep(nn.Module):
    """One step of B streams: ``step(x, *states) -> (logits, *states, *spikes)``.

    Args:
        plan: of the network, by ``model.step_plan()``.

    ``x`` is (B, d_input) float32, or (B, 1) int64 tokens. ``states`` are (B, n) in the order of ``state_names``,
    float32 but the sums of means, which are float64. ``spikes`` are (B, neurons) of each layer, 0 or 1, in the order of
    ``spike_names``.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.state_names, self.spike_names = [*plan.states], [*plan.spikes]
        self._at: dict[Part, str] = {}
        for number, (part, values) in enumerate(plan.constants.items()):
            self._at[part] = f"w{number}"
            self.register_buffer(f"w{number}", torch.tensor(values))
        self._neurons = {name: _neuron(found.key) for name, found in plan.neurons.items()}

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        plan = self.plan
        values: Values = {part: getattr(self, name) for part, name in self._at.items()}
        values |= dict(zip(plan.states.values(), states, strict=True))
        values[plan.x] = x
        spikes = []
        for call in plan.calls:
            self._do(call, values)
            if call.layer is not None:  # before a skip adds to them
                spikes.append(values[plan.spikes[self.spike_names[call.layer]]])
        return values[plan.out], *(values[part] for part in plan.states.values()), *spikes

    def inputs(self, batch: int = 1) -> Tensor:
        """A step of zeros as the module takes it."""
        kind = torch.float32 if self.plan.vocab is None else torch.int64
        return torch.zeros(batch, self.plan.d_input, dtype=kind)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Rest, for so many streams."""
        kinds = {"s": torch.float32, "p": torch.float64}
        return tuple(torch.zeros(batch, part.size, dtype=kinds[part.array]) for part in self.plan.states.values())

    def _do(self, call: Call, values: Values) -> None:
        if call.word in LOOPS:
            LOOPS[call.word](values, *call.arguments)
            return
        current, width, rows, numbers, state, spikes = call.arguments
        given = [*values[state].reshape(-1, state.size // width, width).unbind(1), *values[rows].unbind(0)]
        plain = self.plan.constants[numbers].tolist()
        fired, *after = self._neurons[call.word](values[current], *given, *plain)
        values[spikes], values[state] = fired, torch.cat(after, 1)


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


def _neuron(key: str) -> Callable[..., Any]:
    """The step of a neuron: current, states (B, W), rows (W,) and numbers -> spikes, states."""
    names, lines = neuron_lines(key)
    kind = program(key).step.name
    body = "".join(f"    {line}\n" for line in lines)
    text = (
        f'"""{kind}, one step. Generated; do not edit."""\n\nfrom sdn.compiler.arithmetic import *\n\n\n'
        f"def step({', '.join(['current', *names])}):\n{body}"
    )
    made: Callable[..., Any] = module_of(f"{kind.lower()}-tensors", text).step
    return made


# ---- the loops of `spikingssm.streaming.loops`, on tensors of B rows
def _copied(v: Values, x: Part, y: Part, count: int) -> None:
    v[y] = v[x]


def _added(v: Values, x: Part, y: Part, count: int) -> None:
    v[y] = v[y] + v[x]


def _scaled(v: Values, x: Part, factor: Part, offset: Part, y: Part, count: int) -> None:
    v[y] = v[factor] * v[x] + v[offset]


def _mapped(v: Values, x: Part, weight: Part, y: Part, inputs: int, outputs: int) -> None:
    v[y] = v[y] + v[x] @ v[weight]


def _mapped_int8(v: Values, x: Part, q: Part, scale: Part, t: Part, y: Part, inputs: int, outputs: int) -> None:
    v[y] = v[y] + (v[x] @ v[q].to(v[x].dtype)) * v[scale]


def _embedded(v: Values, x: Part, table: Part, y: Part, count: int) -> None:
    v[y] = nn.functional.embedding(v[x].long().squeeze(1), v[table])


def _modes(v: Values, u: Part, w: Part, through: Part, s: Part, y: Part, count: int, n: int) -> None:
    a_re, a_im, b_re, b_im, c_re, c_im = v[w].unbind(1)  # (modes, n) each
    re, im = v[s].reshape(-1, count, 2, n).unbind(2)
    drive = v[u].unsqueeze(1)
    real = a_re * re - a_im * im + b_re * drive
    imaginary = a_re * im + a_im * re + b_im * drive
    v[s] = torch.stack([real, imaginary], 2).flatten(1)
    v[y] = v[through] * v[u] + (c_re * real - c_im * imaginary).sum(1)


def _gated(v: Values, x: Part, y: Part, count: int) -> None:
    v[y] = v[y] + v[x][:, :count] * torch.sigmoid(v[x][:, count:])


def _normed(v: Values, x: Part, factor: Part, offset: Part, eps: float, y: Part, t: Part, n: int) -> None:
    v[y] = nn.functional.layer_norm(v[x], (n,), v[factor], v[offset], eps)


def _resonated(v: Values, u: Part, w: Part, turn: Part, s: Part, y: Part, n: int, size: int, kind: int) -> None:
    factor_re, factor_im, gain_re, gain_im, threshold, keep, add = v[w].unbind(0)
    re, im, raised = v[s].reshape(-1, 3, n).unbind(1)
    drive_re, drive_im = v[u][:, :n], v[u][:, n:]
    re, im = (
        (factor_re * re - factor_im * im) + (gain_re * drive_re - gain_im * drive_im),
        (factor_re * im + factor_im * re) + (gain_re * drive_im + gain_im * drive_re),
    )
    real, imaginary = re, im
    if size:
        turn_re, turn_im = v[turn].unbind(0)  # (column, row)
        a, b = (part.reshape(-1, n // size, size) for part in (re, im))
        real = (a @ turn_re - b @ turn_im).flatten(1)
        imaginary = (b @ turn_re + a @ turn_im).flatten(1)
    potential = (real.square() + imaginary.square()).sqrt() if kind == 1 else real
    spikes = (potential - threshold - raised > 0).to(re.dtype)
    v[s] = torch.cat([re, im, keep * raised + add * spikes], 1)
    v[y] = spikes


def _integrated(v: Values, x: Part, keep: Part, gain: Part, s: Part, count: int) -> None:
    v[s] = v[keep] * v[s] + v[gain] * v[x]


def _averaged(v: Values, x: Part, p: Part, y: Part, count: int) -> None:
    steps, sums = v[p][:, :1] + 1, v[p][:, 1:] + v[x].to(v[p].dtype)
    v[p] = torch.cat([steps, sums], 1)
    v[y] = (sums / steps).to(v[x].dtype)


LOOPS: dict[str, Callable[..., None]] = {
    "copied": _copied, "added": _added, "scaled": _scaled, "mapped": _mapped, "mapped_int8": _mapped_int8,
    "embedded": _embedded, "modes": _modes, "gated": _gated, "normed": _normed, "resonated": _resonated,
    "integrated": _integrated, "averaged": _averaged,
}  # fmt: skip
