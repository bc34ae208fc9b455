"""Neurons drawn at random, of 3 to 30 operations over 1 to 4 states, and a plain run of what is generated of them."""

import math
from collections import namedtuple
from dataclasses import dataclass
from typing import ClassVar

import hypothesis.strategies as st
import numpy as np
import torch

from sdn import Dynamics
from sdn.compiler.programs import program_of
from sdn.dynamics.base import Value
from sdn.ops.common.generated_cpu import pull_text, slope_text, step_text
from sdn.ops.neuron.sequence import operands

EXACT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "div": lambda a, b: a / (1.5 + b * b),
    "abs": torch.abs,
    "square": lambda a: a**2,
    "where": lambda a, b, c: torch.where(a > b, c, b),
    "clamp": lambda a: torch.clamp(a, -0.7, 0.9),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "positive": lambda a: (a > 0.1).to(a.dtype),
    "scaled": lambda a: 0.5 * a - 0.25,
    "reciprocal": lambda a: 1 / (a * a + 1.1),
}
SMOOTH = {
    "sqrt": lambda a: torch.sqrt(a.abs() + 0.3),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": lambda a: torch.exp(torch.clamp(a, max=1.0)),
    "sin": torch.sin,
    "log": lambda a: torch.log(a.abs() + 0.5),
}
OPERATIONS = {**EXACT, **SMOOTH}
STATES = {n: namedtuple(f"Drawn{n}", [*"abcd"[:n]]) for n in range(1, 5)}


def value(tree, leaves):
    """What a drawn tree stands for: a leaf by name, a number, or an operation on trees."""
    if isinstance(tree, str):
        return leaves[tree]
    if isinstance(tree, float):
        return torch.full_like(leaves["current"], tree)
    return OPERATIONS[tree[0]](*(value(arg, leaves) for arg in tree[1:]))


class Drawn(Dynamics):
    """Its trees say what it does; the state stays within -1 and 1."""

    def leaves(self, state, **more):
        fields = dict(zip(state._fields, state, strict=True))
        like = state[0]
        rows = {name: torch.as_tensor(getattr(self, name), dtype=like.dtype).expand_as(like) for name in ("tau", "mix")}
        return {"current": torch.zeros_like(like), **fields, **rows, **more}

    def past(self, state):
        return value(self.mem, self.leaves(state))

    def advance(self, state, current, spike):
        leaves = self.leaves(state, current=current, spike=spike)
        found = [value(tree, leaves) for tree in self.after]
        return type(state)(*(one / (1 + one.abs()) for one in found))


def _kind(states):
    @dataclass(frozen=True, eq=False)
    class Kind(Drawn):
        tau: Value = 0.4
        mix: Value = -0.3
        threshold: Value = 0.5
        mem: tuple = "a"
        after: tuple = ()

        State = STATES[states]
        transforms: ClassVar[dict[str, str]] = {"tau": "none", "mix": "none", "threshold": "none"}

    Kind.__name__ = Kind.__qualname__ = f"Drawn{states}"
    return Kind


KINDS = {n: _kind(n) for n in STATES}


@st.composite
def drawn_neurons(draw, operations=tuple(OPERATIONS)):
    """A neuron, and whether all its operations are rounded as torch rounds them."""
    states = draw(st.integers(1, 4))
    names = [*"abcd"[:states], "tau", "mix"]
    budget = draw(st.integers(3, 30))
    shares = [max(1, budget // (states + 1))] * (states + 1)

    def tree(size, leaves):
        if size <= 0:
            return draw(st.one_of(st.sampled_from(leaves), st.sampled_from([0.5, -0.2, 1.25])))
        name = draw(st.sampled_from(operations))
        count = OPERATIONS[name].__code__.co_argcount if hasattr(OPERATIONS[name], "__code__") else ARITY[name]
        return (name, *(tree((size - 1) // count, leaves) for _ in range(count)))

    mem = ("add", draw(st.sampled_from(names[:states])), tree(shares[0], names))
    after = []
    for share in shares[1:]:
        first = draw(st.sampled_from([*names[:states], "current"]))
        after.append(("sub", ("add", tree(share, [*names, "current"]), first), ("mul", "spike", "tau")))
    after[0] = ("add", after[0], "current")
    kind = KINDS[states]
    neuron = kind(draw(st.floats(0.1, 0.9)), draw(st.floats(-0.9, 0.9)), 1e9, mem, tuple(after))
    x = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))), dtype=torch.float64)
    return neuron, x


ARITY = {"abs": 1, "maximum": 2, "minimum": 2, "tanh": 1, "sigmoid": 1, "sin": 1}


def with_sensible_threshold(neuron, x, simulate):
    """The neuron with a threshold that it passes in about a third of the steps."""
    quiet = simulate(neuron, x)
    return neuron.replace(threshold=(quiet.mem + x).quantile(0.65).item() + 1e-3)


def run_plain(dynamics, x, gradient, through, weights):
    """Spikes, mem, and the gradients of the currents and of the fields, by the generated text, run by Python itself."""
    found = program_of(dynamics)
    whole = torch.ones(x.shape[2], dtype=x.dtype)
    learned = {name: (getattr(dynamics, name) * whole).requires_grad_() for name in dynamics.transforms}
    dynamics = dynamics.replace(**learned)
    state = dynamics.initial_state(len(x), x.shape[2], dtype=x.dtype)
    kernel, first, (gradient, shape) = operands(dynamics, x, state, gradient)
    space = _namespace()
    for text in (step_text(found, record=True), slope_text(gradient), pull_text(found, through)):
        exec(text, space)
    step, pull = space["step"], space["pull"]
    (batch, length, channels), fields, rows = x.shape, first.shape[1], len(kernel.fixed)
    values, fixed, start = x.detach().numpy(), kernel.fixed.detach().numpy(), first.numpy()
    kind = values.dtype.type
    space["F"] = kind
    spikes, mems, gx = np.zeros(x.shape, kind), np.zeros(x.shape, kind), np.zeros(x.shape, kind)
    sums = np.zeros((batch, rows, channels))
    for b in range(batch):
        for c in range(channels):
            states, constant = [start[b, :, c].copy()], fixed[:, c].copy()
            for t in range(length):
                after = np.empty(fields, kind)
                spikes[b, t, c] = step(
                    kernel.numbers, values[b, t, c], states[-1], after, constant, mems[b, t, c:], 0, 1
                )
                states.append(after)
            block = np.concatenate([np.zeros(fields, kind), constant, np.zeros(rows, kind)])
            for t in reversed(range(length)):
                gs = weights[b, t, c].item()
                gx[b, t, c] = pull(kernel.numbers, shape, values[b, t, c], states[t], block, gs, None, 0, 1)
            sums[b, :, c] = block[fields + rows :]
    total = torch.from_numpy(sums.sum(0)).to(x)
    of_fields = torch.autograd.grad(kernel.fixed, [*learned.values()], total, allow_unused=True)
    return spikes, mems, gx, dict(zip(learned, of_fields, strict=True))


def _namespace():
    return {
        "inline": lambda function: function, "TINY": 0.0, "np": np, "math": math,
        "exp": np.exp, "exp_of_negative": np.exp, "tanh": np.tanh, "sign": np.sign, "minimum": np.minimum,
        "maximum": np.maximum, "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    }  # fmt: skip
