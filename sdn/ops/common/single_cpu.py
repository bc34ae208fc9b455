"""One step of all channels of a neuron as the text of one function, for programs that run step by step."""

from typing import NamedTuple

import torch
from torch import Tensor

from sdn.compiler.programs import Program, program
from sdn.compiler.sources import digest_of
from sdn.compiler.writing import Writer
from sdn.dynamics.base import Dynamics, at_start
from sdn.ops.common.generated_cpu import TAKEN, WORDS, fires_text, written
from sdn.ops.neuron.sequence import operands

__all__ = ["Single", "single_step"]


class Single(NamedTuple):
    """A neuron as a function ``name(current, C, W, rows, R, numbers, N, state, S, spikes, Y)``: how many have fired.

    ``current, C`` and so on are an array and where the neuron's part of it begins; W is the number of channels.

    Args:
        name: of the function, one for each text.
        key: of the neuron's program.
        text: of the function; ``state`` (S W,) changes in place, ``spikes`` (W,) are written.
        rows: (P, W) what it reads per channel.
        numbers: what is one number for all channels.
        first: (S, W), the state at rest.
    """

    name: str
    key: str
    text: str
    rows: Tensor
    numbers: list[float]
    first: Tensor


def single_step(dynamics: Dynamics, like: Tensor) -> Single:
    """The step of a neuron as it stands, with its parameters.

    Args:
        dynamics: the neuron; tensor fields are (H,).
        like: (1, 1, H), with the precision.

    Raises:
        Refused: a step that cannot be compiled.
    """
    with torch.no_grad():
        ready, state = at_start(dynamics, like, None)
        kernel, first, _ = operands(ready, like, state, ready.default_spike)
    text = _text(program(kernel.program))
    name = f"neuron_{digest_of(text)}"
    return Single(
        name, kernel.program, f"def {name}{text}", kernel.fixed.expand(-1, like.shape[-1]), kernel.numbers, first[0]
    )


def _text(found: Program) -> str:
    step = found.step
    taken = {*TAKEN.split(), *WORDS, "C", "R", "N", "S", "Y", "current", "rows", "state", "spikes", "fired"}
    names = {name: f"{name}_own" if name in taken else name for name in (*step.states, *step.rows)}
    loads = [f"{names[name]} = state[S + {i} * W + j]" for i, name in enumerate(step.states)]
    loads += [f"{names[name]} = rows[R + {i} * W + j]" for i, name in enumerate(step.rows)]
    names |= {name: f"numbers[N + {i}]" for i, name in enumerate(step.numbers)}
    writer = Writer("numba", {**names, "current": "x", "spike": "spike"})
    (distance,) = writer.write([step.distance], step.after)
    early = [*writer.lines]
    writer.lines.clear()
    after = writer.write(step.after)
    body = [
        "x = current[C + j]", *loads, *early, *fires_text(found, distance), *writer.lines,
        *written("state", [*zip(step.states, after, strict=True)], "S + {} * W + j"),
        "spikes[Y + j] = spike", "fired += 1 if fires else 0",
    ]  # fmt: skip
    lines = "".join(f"        {line}\n" for line in body)
    arguments = "current, C, W, rows, R, numbers, N, state, S, spikes, Y"
    return f"({arguments}):\n    fired = 0\n    for j in range(W):\n{lines}    return fired\n"
