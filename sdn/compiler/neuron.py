"""A neuron as graphs: its step, what of it depends on parameters alone, and its derivative."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, init_fields
from sdn.compiler import arithmetic
from sdn.compiler.graph import Builder, Node, carries, dependencies, ordered, rewritten, text_of
from sdn.compiler.operations import OPERATIONS
from sdn.compiler.tape import Refused, Tape
from sdn.dynamics.base import Dynamics
from sdn.dynamics.fields import numeric_fields

__all__ = ["WATCH", "Derivative", "Step", "channels_of", "derive", "evaluate", "is_general", "jacobian", "trace"]

WATCH = "watch"
"""A state of the program's own: 0, or NaN once a step had a number that its neuron's state does not remember."""


RESERVED = re.compile(r"current|spike|slope|membrane|watch|after_\w+|[a-z]{1,2}\d+|constant\d+|g_\w+|g[a-z]")
"""Names of leaves that are no state and no field, and of what generated code computes."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a neuron as a graph over the leaves ``current``, ``spike``, its states, rows and numbers."""

    name: str
    builder: Builder
    fields: dict[str, str]
    """Leaf and field of the dynamics that rows and numbers are computed from."""
    states: tuple[str, ...]
    """Leaves of the states, in order; `WATCH` last where there is one."""
    rows: dict[str, Node]
    """Leaf and expression, over fields and constants, of what the loop reads per channel."""
    numbers: dict[str, Node]
    """The same of what is one number for all channels."""
    constants: dict[str, Tensor]
    """Tensors (H,) of the neuron's code that are no field."""
    mem: Node
    distance: Node
    after: tuple[Node, ...]
    """The states after the step."""
    at_threshold: bool

    @property
    def text(self) -> str:
        """All of it but the constants, as `text_of`."""
        return text_of(self.mem, self.distance, *self.after, *self.rows.values(), *self.numbers.values())

    @cached_property
    def rounded(self) -> list[str]:
        """Operations in the loop that torch rounds otherwise; without any, spikes equal those of `sdn.simulate`."""
        used = {node.op for node in ordered([self.distance, self.mem, *self.after])}
        return sorted(op for op in used if op in OPERATIONS and not OPERATIONS[op].exact)


@dataclass(frozen=True, eq=False)
class Derivative:
    """What goes back through one step, over its leaves, ``after_i`` for the gradients of the states after it."""

    reset: Node
    """What reaches the spike through the states after the step."""
    current: Node
    """Gradient of the current, over ``slope``: the gradient of the distance, and ``membrane``: that of mem."""
    states: tuple[Node, ...]
    rows: tuple[Node, ...]


def trace(
    dynamics: Dynamics, channels: int, dtype: torch.dtype = torch.float64, batch: int = 1, fill: float = 0.0
) -> Step:
    """Record one step of a neuron, on states and a current of (batch, channels) that are all of one number.

    Raises:
        Refused: an operation that is not elementwise, a branch on data, a state of another shape; with its line.
        ArgumentError: `past` or `advance` returns another kind of thing.
    """
    kind = type(dynamics)
    builder = Builder()
    tape = Tape(builder, kind.__name__, dtype=dtype)
    states: list[str] = []
    for name in kind.State._fields:
        states.append(_own(name, states))
    with torch.no_grad(), torch.device("cpu"):
        like = torch.full((batch, channels), fill, dtype=dtype)
        fields, numbers = _symbols(dynamics, channels, like.dtype)
        leaf_of: dict[str, Node] = {}
        for name in (*fields, *numbers):
            leaf_of[name] = builder.leaf(_own(name, [*states, *(leaf.name for leaf in leaf_of.values())]))
        with tape:
            for name, value in (*fields.items(), *numbers.items()):
                tape.given(value, leaf_of[name])
            neuron = _with(dynamics, fields, numbers, tape)
            state = kind.State(*(tape.given(like.clone(), builder.leaf(name)) for name in states))
            current = tape.given(like.clone(), builder.leaf("current"))
            spike = tape.given(like.clone(), builder.leaf("spike"))
            mem = _tensor(kind, "past", neuron.past(state), like)
            distance = neuron.distance(mem, current)
            after = neuron.advance(state, current, spike)
            if not isinstance(after, kind.State):
                wanted, found = kind.State.__name__, type(after).__name__
                raise ArgumentError(f"{kind.__name__}.advance must return the next {wanted}, got {found}.")
        after = [_tensor(kind, f"advance, {name}", x, like) for name, x in zip(states, after, strict=True)]
        roots = [tape.real(tape.node(x)) for x in (mem, distance, *after)]
    per_channel, single = ({leaf_of[name].name: name for name in group} for group in (fields, numbers))
    return _split(kind, builder, states, roots, per_channel, single, tape.constants)


def is_general(dynamics: Dynamics, step: Step, channels: int, dtype: torch.dtype) -> bool:
    """Whether a step recorded on so many channels is the same on others and in another precision.

    Raises:
        Refused: it is another one for another batch or for other numbers.
    """
    other = trace(dynamics, channels, dtype, batch=67, fill=0.3)
    if step.text != other.text or not _are_equal(step.constants, other.constants):
        raise Refused(f"{step.name} reads the size of the batch, or numbers of a tensor by another way than torch's,")
    if step.constants:
        return False
    wide = torch.float32 if dtype == torch.float64 else torch.float64
    try:
        sizes = (1, dtype), (channels + 1021, wide)
        return all(step.text == trace(dynamics, size, kind).text for size, kind in sizes)
    except RuntimeError:  # a constant of so many channels, or what is right in one precision only
        return False


def _are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _split(
    kind: type[Dynamics],
    builder: Builder,
    states: list[str],
    roots: list[Node],
    fields: dict[str, str],
    numbers: dict[str, str],
    constants: dict[str, Tensor],
) -> Step:
    """Take out of a step what depends on parameters alone."""
    outside = frozenset({*fields, *numbers, *constants})
    depends = dependencies(roots)

    def is_outer(node: Node) -> bool:
        return bool(depends[id(node)]) and depends[id(node)] <= outside

    frontier: dict[int, Node] = {}
    for node in ordered(roots):
        inner = [arg for arg in node.args if is_outer(arg)] if not is_outer(node) else []
        for arg in inner:
            taken = arg.args[0] if arg.op == "neg" and is_outer(arg.args[0]) else arg
            frontier[id(taken)] = taken
    for root in roots:
        if is_outer(root):
            frontier[id(root)] = root
    rows: dict[str, Node] = {}
    single: dict[str, Node] = {}
    known: dict[int, Node] = {}
    for node in frontier.values():
        group, letter = (single, "c") if depends[id(node)] <= frozenset(numbers) else (rows, "p")
        name = node.name if node.op == "leaf" else f"{letter}{len(group)}"
        leaf = builder.leaf(name)
        group[name] = builder.make("real", node) if node.kind == "bool" else node
        zero = builder.constant(0.0)
        known[id(node)] = builder.make("ne", leaf, zero, kind="bool") if node.kind == "bool" else leaf
    mem, distance, *after = rewritten(builder, roots, known)
    if not _remembers(states, after):
        states = [*states, WATCH]
        after.append(_watch(builder, distance, after))
    return Step(
        kind.__name__, builder, {**fields, **numbers}, tuple(states), rows, single, constants, mem, distance,
        tuple(after), kind.fires_at_threshold,
    )  # fmt: skip


def _remembers(states: Sequence[str], after: Sequence[Node]) -> bool:
    """Whether NaN and infinity, in the current or in a state, are in some state ever after."""
    kept = frozenset().union(*(carries(node) for node in after))
    return {"current", *states} <= kept


def _watch(builder: Builder, distance: Node, after: Sequence[Node]) -> Node:
    """The watch after a step: a number minus itself is 0, or NaN."""
    node = builder.leaf(WATCH)
    for number in (distance, *after):
        node = builder.make("add", node, builder.make("sub", number, number))
    return node


def channels_of(dynamics: Dynamics) -> int:
    """The number of channels, where its fields or the constants of its class say it."""
    values = [getattr(dynamics, name) for name in init_fields(dynamics)]
    values += [value for kind in type(dynamics).__mro__ for value in vars(kind).values()]
    sizes = [len(value) for value in values if isinstance(value, Tensor) and value.ndim == 1 and len(value) > 1]
    return sizes[0] if sizes else 2


def _symbols(dynamics: Dynamics, channels: int, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors that stand for the fields per channel, and for those that are one number; with values in range."""
    kind: Any = type(dynamics)
    fields: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    for name in init_fields(dynamics):
        value = getattr(dynamics, name)
        if name in kind.numbers:
            if _is_ours(kind):
                numbers[name] = torch.tensor(float(value), dtype=torch.float64)
        elif name in numeric_fields(kind) and isinstance(value, (int, float, Tensor)) and not isinstance(value, bool):
            plain = torch.tensor(0.5 if isinstance(value, Tensor) else float(value))
            if isinstance(value, Tensor) and not value.is_meta:
                plain = value.detach().cpu()
            fields[name] = plain.to(dtype).reshape(-1)[torch.arange(channels) % plain.numel()]
    return fields, numbers


def _with(dynamics: Dynamics, fields: dict[str, Tensor], numbers: dict[str, Tensor], tape: Tape) -> Dynamics:
    """The neuron with these tensors for its fields, and what it derives of them when it is made."""
    if _is_ours(type(dynamics)):
        return dynamics.with_known({**fields, **numbers})
    with contextlib.suppress(Refused):
        return dynamics.replace(**fields)
    with tape.silent():
        neuron = dynamics.replace(**fields)
    derived = [k for k, v in vars(neuron).items() if isinstance(v, Tensor) and k not in fields]
    if derived:
        raise Refused(f"{type(dynamics).__name__} computes {derived[0]} in __post_init__ and checks it there")
    return neuron


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("sdn.")


def _own(name: str, taken: Sequence[str]) -> str:
    """A name for a leaf that nothing else has, neither here nor in generated code."""
    while name in taken or RESERVED.fullmatch(name):
        name = f"own_{name}"
    return name


def _tensor(kind: type[Dynamics], who: str, value: Any, like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{kind.__name__}.{who} must return a tensor, got {type(value).__name__}.")
    if value.shape != like.shape and value.numel() != 1 and value.shape != like.shape[1:]:
        raise Refused(f"{kind.__name__}.{who} has another shape than the state: {tuple(value.shape)}")
    return value


_DOUBLE = torch.zeros((), dtype=torch.float64)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": arithmetic.divide,
    "detach": lambda a: a.detach() if isinstance(a, Tensor) else a,
    "neg": lambda a: -a, "reciprocal": lambda a: 1 / a, "abs": abs,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "and": lambda a, b: a & b, "or": lambda a, b: a | b,
    "not": arithmetic.not_, "round": arithmetic.round_even, "power": arithmetic.power,
    "where": lambda condition, a, b: arithmetic.where(condition, a, b, _DOUBLE),
    "minimum": arithmetic.minimum, "maximum": arithmetic.maximum,
    "exp_of_negative": arithmetic.exp,
    "real": lambda a: a.to(torch.float64) if isinstance(a, Tensor) else float(a),
}  # fmt: skip


def evaluate(roots: Sequence[Node], values: dict[str, Any]) -> list[Any]:
    """The numbers of some nodes, carried out by torch, from those of their leaves by name."""
    found: dict[int, Any] = {}
    for node in ordered(roots):
        if node.op == "leaf":
            found[id(node)] = values[node.name]
        elif node.is_constant:
            found[id(node)] = node.value
        else:
            function = FUNCTIONS.get(node.op) or getattr(arithmetic, node.op)
            found[id(node)] = function(*(found[id(arg)] for arg in node.args))
    return [found[id(root)] for root in roots]


def derive(step: Step, record: bool = False) -> Derivative:
    """The backward pass of a step: autograd runs it once, and what it does is recorded.

    Args:
        step: the neuron.
        record: whether a gradient also reaches `mem`, under the name ``membrane``.
    """
    builder, tape = step.builder, Tape(step.builder, step.name, backward=True)
    own = [name for name in step.states if name != WATCH]
    given = ["current", *own, *step.rows]
    with torch.enable_grad(), torch.device("cpu"):
        values: dict[str, Tensor] = {name: _like(True) for name in [*given, "spike"]}
        values[WATCH] = _like(False)
        values |= {name: torch.tensor(0.5, dtype=torch.float64) for name in step.numbers}
        back = {name: _like(False) for name in ("slope", "membrane", *(f"after_{name}" for name in own))}
        with tape:
            for name, value in (*values.items(), *back.items()):
                tape.given(value, builder.leaf(name))
            mem, distance, *after = evaluate([step.mem, step.distance, *step.after[: len(own)]], values)
            states = list(zip(after, (back[f"after_{name}"] for name in own), strict=True))
            through = _gradients(tape, states, [values["spike"]])
            outputs = [(distance, back["slope"]), *states, *([(mem, back["membrane"])] if record else [])]
            found = _gradients(tape, outputs, [values[name] for name in given])
    count = 1 + len(own)
    return Derivative(through[0], found[0], tuple(found[1:count]), tuple(found[count:]))


def jacobian(step: Step) -> list[list[Node]]:
    """Derivative of each state after the step by each state before it, the spike held fixed: (S, S) nodes."""
    builder, tape = step.builder, Tape(step.builder, step.name, backward=True)
    own = [name for name in step.states if name != WATCH]
    with torch.enable_grad(), torch.device("cpu"):
        values: dict[str, Tensor] = {name: _like(True) for name in own}
        values |= {name: _like(False) for name in ("current", "spike", *step.rows)}
        values |= {name: torch.tensor(0.5, dtype=torch.float64) for name in step.numbers}
        one = _like(False)
        with tape:
            for name, value in values.items():
                tape.given(value, builder.leaf(name))
            tape.given(one, builder.constant(1.0))
            after = evaluate(step.after[: len(own)], values)
            return [_gradients(tape, [(out, one)], [values[name] for name in own]) for out in after]


def _like(learned: bool) -> Tensor:
    return torch.full((1, 2), 0.5, dtype=torch.float64, requires_grad=learned)


def _gradients(tape: Tape, outputs: Sequence[tuple[Any, Tensor]], inputs: Sequence[Tensor]) -> list[Node]:
    """Nodes of the gradients of inputs, 0 where an output does not depend on them."""
    used = [(out, grad) for out, grad in outputs if isinstance(out, Tensor) and out.requires_grad]
    if not used:
        return [tape.builder.constant(0.0) for _ in inputs]
    grads = [grad.expand(out.shape) if out.shape != grad.shape else grad for out, grad in used]
    found = torch.autograd.grad([out for out, _ in used], inputs, grads, retain_graph=True, allow_unused=True)
    return [tape.builder.constant(0.0) if one is None else tape.node(one) for one in found]
