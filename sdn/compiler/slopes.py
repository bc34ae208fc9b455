"""A spike gradient as a graph: its slope over the distance to the threshold."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sdn.checks.arguments import ArgumentError, init_fields
from sdn.compiler.graph import Builder, Node, dependencies, leaves, ordered, rewritten
from sdn.compiler.neuron import evaluate
from sdn.compiler.tape import Refused, Tape
from sdn.gradients import SpikeGradient

__all__ = ["Slope", "numbers_of", "trace_slope"]


@dataclass(frozen=True, eq=False)
class Slope:
    """The slope of a spike gradient over the leaves ``distance`` and its numbers."""

    name: str
    builder: Builder
    numbers: dict[str, Node]
    """Leaf and expression, over the fields of the spike gradient."""
    slope: Node


def trace_slope(gradient: SpikeGradient) -> Slope:
    """Record the slope of a spike gradient.

    The fields of those of `sdn` are numbers of the kernel, so that another width is no other kernel. In one of your own
    all numbers are part of it.

    Raises:
        Refused: an operation that is not elementwise, or a branch on data; with its line.
    """
    kind = type(gradient)
    if not kind.__module__.startswith("sdn."):
        return _trace(gradient, ())
    options = {n: v for n in init_fields(gradient) if isinstance(v := getattr(gradient, n), bool)}
    return _ours(kind, tuple(options.items()))


def numbers_of(slope: Slope, gradient: SpikeGradient) -> list[float]:
    """The numbers that a kernel takes for a spike gradient."""
    values = {name: getattr(gradient, name) for name in {leaf.name for leaf in leaves(slope.numbers.values())}}
    return [float(value) for value in evaluate([*slope.numbers.values()], values)]


@functools.cache
def _ours(kind: Any, options: tuple[tuple[str, bool], ...]) -> Slope:
    gradient = kind(**dict(options))
    return _trace(gradient, tuple(name for name in init_fields(gradient) if name not in dict(options)))


def _trace(gradient: Any, fields: tuple[str, ...]) -> Slope:
    kind = type(gradient)
    builder = Builder()
    tape = Tape(builder, kind.__name__, dtype=None)
    with torch.no_grad(), torch.device("cpu"):
        values = {n: torch.tensor(float(getattr(gradient, n)), dtype=torch.float64) for n in fields}
        if fields:
            symbolic = object.__new__(kind)
            symbolic.__dict__.update(gradient.__dict__ | values)
            gradient = symbolic
        like = torch.full((1, 2), 0.5, dtype=torch.float64)
        with tape:
            for name, value in values.items():
                tape.given(value, builder.leaf(name))
            out = gradient.slope(tape.given(like.clone(), builder.leaf("distance")))
        if not isinstance(out, torch.Tensor):
            raise ArgumentError(f"{kind.__name__}.slope must return a tensor, got {type(out).__name__}.")
        if out.shape != like.shape and out.numel() != 1:
            raise Refused(f"{kind.__name__}.slope makes shape {tuple(out.shape)} of {tuple(like.shape)}")
        root = tape.real(tape.node(out))
    if tape.constants:
        raise Refused(f"{kind.__name__} uses a tensor of several numbers")
    return _split(kind.__name__, builder, root, frozenset(fields))


def _split(name: str, builder: Builder, root: Node, fields: frozenset[str]) -> Slope:
    """Take out what depends on fields alone."""
    root = _Factored(builder, root, fields).root
    depends = dependencies([root])
    if depends[id(root)] and depends[id(root)] <= fields:  # the same slope everywhere
        return Slope(name, builder, {"n0": root}, builder.leaf("n0"))
    numbers: dict[str, Node] = {}
    known: dict[int, Node] = {}
    for node in ordered([root]):
        if depends[id(node)] <= fields:
            continue
        for arg in node.args:
            if depends[id(arg)] and depends[id(arg)] <= fields and id(arg) not in known:
                known[id(arg)] = builder.leaf(f"n{len(numbers)}")
                numbers[f"n{len(numbers)}"] = arg
    return Slope(name, builder, numbers, rewritten(builder, [root], known)[0])


class _Part(NamedTuple):
    """A product: what is known before the loop, such as ``-1 / (2 width^2)``, times what is not; None is 1."""

    scale: Node | None
    rest: Node | None


class _Factored:
    """An expression anew, with all products of numbers carried out before the loop. Rounding is another one then.

    A quotient by a number becomes a product, and a factor of a sum goes into its terms where they have factors too.
    """

    def __init__(self, builder: Builder, root: Node, fields: frozenset[str]) -> None:
        self.builder, self.fields = builder, fields
        self.depends = dependencies([root])
        self.parts: dict[int, _Part] = {}
        self.sums: dict[int, tuple[str, _Part, _Part]] = {}
        for node in ordered([root]):
            self.parts[id(node)] = self._part(node)
        self.root = self._whole(self.parts[id(root)])

    def _part(self, node: Node) -> _Part:
        if self.depends[id(node)] <= self.fields:
            return _Part(node, None)
        args = [self.parts[id(arg)] for arg in node.args]
        if node.op == "mul":
            return self._product(*args)
        if node.op == "neg":
            return self._product(_Part(self.builder.constant(-1.0), None), *args)
        if node.op == "div" and args[1].rest is None:
            return self._product(args[0], _Part(self.builder.make("reciprocal", self._whole(args[1])), None))
        if not args:
            return _Part(None, node)
        op = "exp_of_negative" if node.op == "exp" and self._sign(args[0]) < 0 else node.op
        made = self.builder.make(op, *map(self._whole, args), kind=node.kind)
        if op in ("add", "sub"):
            self.sums[id(made)] = op, args[0], args[1]
        return _Part(None, made)

    def _product(self, one: _Part, other: _Part) -> _Part:
        scale, rest = self._times(one.scale, other.scale), self._times(one.rest, other.rest)
        if scale is not None and rest is not None and id(rest) in self.sums:
            op, *terms = self.sums[id(rest)]
            if all(term.scale is not None for term in terms):
                scaled = [self._whole(_Part(self._times(scale, term.scale), term.rest)) for term in terms]
                return _Part(None, self.builder.make(op, *scaled))
        return _Part(scale, rest)

    def _times(self, a: Node | None, b: Node | None) -> Node | None:
        return a if b is None else b if a is None else self.builder.make("mul", a, b)

    def _whole(self, part: _Part) -> Node:
        whole = self._times(part.rest, part.scale)
        return self.builder.constant(1.0) if whole is None else whole

    def _sign(self, part: _Part) -> int:
        """-1 where a product is never positive, 1 where it is never negative, 0 where nothing is known."""
        return (1 if part.scale is None else _sign(part.scale)) * (1 if part.rest is None else _sign(part.rest))


def _sign(node: Node) -> int:
    if node.is_constant:
        return 1 if node.value >= 0 else -1
    if node.op == "mul":
        return 1 if node.args[0] is node.args[1] else _sign(node.args[0]) * _sign(node.args[1])
    if node.op in ("neg", "reciprocal"):
        return _sign(node.args[0]) * (-1 if node.op == "neg" else 1)
    return 1 if node.op in ("abs", "exp", "sqrt") else 0
